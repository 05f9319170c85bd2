/** What the configuration says about one token, and what stands in the way of using it before any process is started. Reads files' metadata only. */
import { statSync } from 'node:fs'
import { isAbsolute } from 'node:path'
import type { PinFileIdentity, WorkerConfiguration } from './frames.ts'
import { findPinFile, type PinLatch, type PinOwner } from './pin-latch.ts'

export interface TokenConfig {
  readonly name: string
  /** Path of the PKCS#11 module. */
  readonly module: string
  /** Library parameters given to C_Initialize, for modules that want them (NSS). */
  readonly initArgs?: string
  /** Exactly one of label and serial names the token. */
  readonly label?: string
  readonly serial?: string
  /** File that holds the PIN and may be readable by the worker's user alone. */
  readonly pinFile: string
  /** Where the PIN comes from when no file holds it; `pinFile` is empty then. */
  readonly pin?: PinSource
  /** CloudHSM-style user name, put before the PIN as `user:PIN`. */
  readonly cryptoUser?: string
  /** Vendor quirks: softhsm, cloudhsm, luna, nshield, utimaco, yubihsm2, generic. */
  readonly profile: string
  /** The whole environment of the worker processes, e.g. SOFTHSM2_CONF. */
  readonly env?: Readonly<Record<string, string>>
  /** Number of `serve` workers. */
  readonly workers: number
  /** PKCS#11 sessions per `serve` worker. */
  readonly sessions: number
}

export interface PinSource {
  /** Names the PIN to the latch: another one for every new PIN, and no function of it. */
  readonly identity: PinFileIdentity
  /** A buffer of the caller's own, who wipes it. */
  load(): Promise<Buffer>
}

/** The PIN that would be presented now; undefined when its file can't be examined. */
export function pinIdentityOf({ pin, pinFile }: TokenConfig): PinFileIdentity | undefined {
  return pin === undefined ? findPinFile(pinFile) : pin.identity
}

export function pinOwnerOf({ serial, label, cryptoUser: user }: TokenConfig): PinOwner {
  return { serial, label, user }
}

export function workerConfigurationOf(
  token: TokenConfig,
  role: 'serve' | 'manage',
  latch: PinLatch,
): WorkerConfiguration {
  return {
    role,
    token: token.name,
    module: token.module,
    initArgs: token.initArgs,
    label: token.label,
    serial: token.serial,
    pinFile: token.pinFile,
    givenPin: token.pin?.identity,
    cryptoUser: token.cryptoUser,
    profile: token.profile,
    sessions: role === 'manage' ? 1 : token.sessions,
    refusedPin: latch.refusedOf(pinOwnerOf(token)),
  }
}

/** Why no worker of this token can start now, with the remedy; `undefined` when nothing is known to stand in the way. */
export function findObstacle(token: TokenConfig, latch: PinLatch): string | undefined {
  const at = `tokens.${token.name}`
  if (isAbsolute(token.module)) {
    const missing = findFileFault(token.module)
    if (missing !== undefined)
      return `the PKCS#11 module ${token.module} ${missing}: install it or correct ${at}.module`
  }
  const missing = token.pin === undefined ? findFileFault(token.pinFile) : undefined
  if (missing !== undefined) return `the PIN file ${token.pinFile} ${missing}: create it or correct ${at}.pinFile`
  return isPinRefused(token, latch) ? pinRefusedText(token) : undefined
}

/** Whether the PIN file as it is now was refused. */
export function isPinRefused(token: TokenConfig, latch: PinLatch): boolean {
  const pin = pinIdentityOf(token)
  return pin !== undefined && latch.isRefused(pinOwnerOf(token), pin)
}

export function pinRefusedText(token: TokenConfig): string {
  if (token.pin !== undefined) {
    return 'the token refused the password of its custom key store; it is not tried again: give the right one with UpdateCustomKeyStore'
  }
  return (
    `the token refused the PIN in ${token.pinFile}, or its module died of it; it is not tried again, since tokens lock after a few wrong PINs: ` +
    `correct the file, or run hsmgate token retry-login ${token.name}`
  )
}

function findFileFault(path: string): string | undefined {
  try {
    return statSync(path).isFile() ? undefined : 'is not a file'
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    return code === 'ENOENT' || code === 'ENOTDIR' ? 'does not exist' : `cannot be examined (${code})`
  }
}
