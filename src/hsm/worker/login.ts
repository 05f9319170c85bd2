/**
 * Start of a worker: module, token, PIN, pool. The token is found by label or serial, never by slot number. The PIN is read into a
 * buffer from the worker's own file, given to the module once, and wiped; a PIN that was refused before is not tried again.
 */
import { closeSync, fstatSync, openSync, readSync } from 'node:fs'
import type { ExamineRequest } from '../examination.ts'
import { loginBegins, type PinFileIdentity, type WorkerConfiguration } from '../frames.ts'
import type { Addon, MechanismDescription, NativeModule, NativePool, Pkcs11Error, SlotDescription } from './addon.ts'
import { CallFailure, refusal } from './failure.ts'
import type { Jobs } from './jobs.ts'
import { log } from './log.ts'
import { judge, rvName } from './rv.ts'

const pinBytesMax = 1024

/** @throws CallFailure `KeyUnavailable` when the file can't be read or holds no PIN. */
export function readPin(path: string): { pin: Buffer; identity: PinFileIdentity } {
  let descriptor: number
  try {
    descriptor = openSync(path, 'r')
  } catch (error) {
    throw refusal('KeyUnavailable', `PIN file cannot be opened: ${(error as NodeJS.ErrnoException).code}`, 'O')
  }
  const raw = Buffer.alloc(pinBytesMax + 1)
  try {
    const { ino, ctimeNs, size } = fstatSync(descriptor, { bigint: true })
    const identity = { inode: `${ino}`, changeTimeNs: `${ctimeNs}`, bytes: Number(size) }
    const read = readSync(descriptor, raw, 0, raw.length, 0)
    let end = read
    while (end > 0 && (raw[end - 1] === 0x0a || raw[end - 1] === 0x0d)) end--
    if (end === 0) throw refusal('KeyUnavailable', 'PIN file is empty', 'O')
    if (read > pinBytesMax) throw refusal('KeyUnavailable', 'PIN file is too long', 'O')
    return { pin: Buffer.from(raw.subarray(0, end)), identity }
  } catch (error) {
    if (error instanceof CallFailure) throw error
    throw refusal('KeyUnavailable', `PIN file cannot be read: ${(error as NodeJS.ErrnoException).code}`, 'O')
  } finally {
    raw.fill(0)
    closeSync(descriptor)
  }
}

function isSameFile(a: PinFileIdentity, b: PinFileIdentity): boolean {
  return a.inode === b.inode && a.changeTimeNs === b.changeTimeNs && a.bytes === b.bytes
}

/** @throws CallFailure `KeyUnavailable` when no token, or more than one, has the name. */
export function findSlot(module: NativeModule, { label, serial }: ExamineRequest): SlotDescription {
  const slots = module.slots().filter((slot) => {
    if (!slot.tokenPresent) return false
    return serial === undefined ? slot.label === label : slot.serial === serial
  })
  const name = serial === undefined ? `label ${label}` : `serial ${serial}`
  const [slot] = slots
  if (slot === undefined) throw refusal('KeyUnavailable', `no token with ${name}`, 'D')
  if (slots.length > 1) throw refusal('KeyUnavailable', `${slots.length} tokens with ${name}; name one by serial`, 'O')
  return slot
}

export interface OpenToken {
  readonly module: NativeModule
  readonly pool: NativePool
  readonly slot: SlotDescription
  readonly mechanisms: readonly MechanismDescription[]
  readonly sessions: number
  readonly pin: PinFileIdentity
}

/** @throws CallFailure whose `rv` and `call` say what the module refused; a refused PIN has `call` `C_Login`. */
export async function openToken(
  addon: Addon,
  configuration: WorkerConfiguration,
  jobs: Jobs,
  givenPin?: Buffer,
): Promise<OpenToken> {
  const module = openModule(addon, configuration, jobs)
  try {
    const slot = asked(jobs, 'C_GetTokenInfo', () => findSlot(module, configuration))
    const mechanisms = asked(jobs, 'C_GetMechanismList', () => module.mechanisms(slot.slot))
    const sessions = configuration.role === 'manage' ? 1 : configuration.sessions || jobs.profile.sessions
    const { pin: secret, identity } = pinOf(configuration, givenPin)
    let pin = secret
    try {
      if (configuration.refusedPin !== undefined && isSameFile(configuration.refusedPin, identity)) {
        throw refusal('KeyUnavailable', 'this PIN file was refused before; it is not tried again', 'O')
      }
      if (configuration.cryptoUser !== undefined) {
        pin = Buffer.concat([Buffer.from(`${configuration.cryptoUser}:`), secret])
      }
      log('info', loginBegins)
      const pool = await module.openPool({ slot: slot.slot, sessions, pin, onCompletions: jobs.onCompletions })
      jobs.attach(pool)
      return { module, pool, slot, mechanisms, sessions, pin: identity }
    } finally {
      secret.fill(0)
      pin.fill(0)
    }
  } catch (error) {
    finalizeQuietly(module)
    throw startFailure(error, jobs, 'C_OpenSession')
  }
}

function pinOf(
  { pinFile, givenPin: identity }: WorkerConfiguration,
  pin: Buffer | undefined,
): { pin: Buffer; identity: PinFileIdentity } {
  return pin === undefined || identity === undefined ? readPin(pinFile) : { pin, identity }
}

/** The process ends anyway; a refused PIN must not hide behind a module that can't be finalised yet. */
function finalizeQuietly(module: NativeModule): void {
  try {
    module.finalize()
  } catch {}
}

/** @throws CallFailure */
export function openModule(addon: Addon, { module: path, initArgs }: ExamineRequest, jobs: Jobs): NativeModule {
  try {
    return addon.openModule(path, initArgs)
  } catch (error) {
    if (isPkcs11Error(error)) throw startFailure(error, jobs, 'C_Initialize')
    throw refusal(
      'KeyUnavailable',
      `module cannot be loaded: ${error instanceof Error ? error.message : 'unknown'}`,
      'O',
    )
  }
}

/** One synchronous question to the module. @throws CallFailure */
export function asked<T>(jobs: Jobs, call: string, ask: () => T): T {
  try {
    return ask()
  } catch (error) {
    throw startFailure(error, jobs, call)
  }
}

function startFailure(error: unknown, jobs: Jobs, call: string): unknown {
  if (!isPkcs11Error(error)) return error
  const failed = error.call || call
  const { action, code } = judge(error.rv, { call: failed, operation: 'configure', profile: jobs.profile })
  return new CallFailure({ code, action, rv: error.rv, call: failed, detail: `${failed}: ${rvName(error.rv)}` })
}

export function isPkcs11Error(error: unknown): error is Pkcs11Error {
  return error instanceof Error && typeof (error as Partial<Pkcs11Error>).rv === 'number'
}
