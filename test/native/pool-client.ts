/**
 * What the addon's tests share: a SoftHSM2 token made by the addon itself, and a pool whose jobs are promises. One per process, since
 * a process loads a module once. Also used by the processes that the tests start (edges.ts), through the token's configuration file.
 */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import {
  type Completions,
  type JobOp,
  loadAddon,
  type NativeModule,
  type NativePool,
} from '../../src/hsm/worker/addon.ts'

export const modulePath = '/usr/lib/softhsm/libsofthsm2.so'
export const userPin = '87654321'

export interface Result {
  readonly rv: number
  readonly output: Buffer | null
  readonly handle: bigint
  readonly handle2: bigint
  readonly hsmMicros: number
  readonly queueMicros: number
}

export interface Work {
  readonly op: JobOp
  readonly mechanism?: number
  readonly key?: bigint
  readonly key2?: bigint
  readonly params?: Uint8Array
  readonly input?: Uint8Array
  readonly aux?: Uint8Array
  readonly outMax?: number
}

export interface PoolClient {
  readonly pool: NativePool
  run(work: Work): Promise<Result>
  /** Calls of `onCompletions` so far. */
  batches(): number
}

/** Makes a token in a folder of its own; `SOFTHSM2_CONF` of this process names it from then on. */
export function createToken(label: string): { module: NativeModule; directory: string; remove(): void } {
  const directory = mkdtempSync(path.join(os.tmpdir(), 'hsmgate-addon-'))
  mkdirSync(path.join(directory, 'tokens'))
  const configuration = path.join(directory, 'softhsm2.conf')
  writeFileSync(
    configuration,
    `directories.tokendir = ${directory}/tokens\nobjectstore.backend = file\nlog.level = ERROR\n`,
  )
  process.env.SOFTHSM2_CONF = configuration
  const module = loadAddon().openModule(modulePath)
  const free = module.slots().find((slot) => slot.label === '')!
  module.initToken(free.slot, label, Buffer.from('12345678'), Buffer.from(userPin))
  return { module, directory, remove: () => rmSync(directory, { recursive: true, force: true }) }
}

export function slotOf(module: NativeModule, label: string): bigint {
  return module.slots().find((slot) => slot.label === label)!.slot
}

export async function openClient(
  module: NativeModule,
  slot: bigint,
  sessions = 2,
  pin: string | null = userPin,
): Promise<PoolClient> {
  const waiting = new Map<number, (result: Result) => void>()
  let lastId = 0
  let batches = 0
  const onCompletions = (batch: Completions) => {
    batches++
    for (const [index, id] of batch.ids.entries()) {
      const settle = waiting.get(id)!
      waiting.delete(id)
      settle({
        rv: batch.rvs[index]!,
        output: batch.outputs[index]!,
        handle: batch.handles[index]!,
        handle2: batch.handles2[index]!,
        hsmMicros: batch.hsmMicros[index]!,
        queueMicros: batch.queueMicros[index]!,
      })
    }
  }
  const pool = await module.openPool({ slot, sessions, pin: pin === null ? null : Buffer.from(pin), onCompletions })
  const run = (work: Work) =>
    new Promise<Result>((resolve) => {
      const id = ++lastId
      const { op, mechanism = 0, key = 0n, key2 = 0n, params = null, input = null, aux = null, outMax = 0 } = work
      pool.submit(id, op, mechanism, key, key2, params, input, aux, outMax, 60_000)
      waiting.set(id, resolve)
    })
  return { pool, run, batches: () => batches }
}
