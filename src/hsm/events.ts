/**
 * What the HSM layer tells whoever observes it: one plain function per event. Called synchronously, some of them on the hot path,
 * so an implementation counts and returns; it never throws, waits or calls back.
 */
import type { ErrorCode } from '../error.ts'

export interface WorkerName {
  readonly id: string
  readonly token: string
  readonly role: 'serve' | 'manage'
  readonly pid: number | undefined
}

export type Lane = 'hot' | 'admin' | 'manage'

/** Why a call was sent once more. */
export type RetryReason = 'worker-died' | 'no-answer' | 'failure' | 'throttled'

export interface HsmEvents {
  workerStarted(worker: WorkerName): void
  workerReady(worker: WorkerName, startMs: number, objects: number): void
  /** `expected`: it was drained or the gateway ends. */
  workerDied(worker: WorkerName, reason: string, expected: boolean): void
  /** A replacement was ordered; the old worker, if it lives, serves until the new one is warm. */
  workerReplaced(worker: Omit<WorkerName, 'pid'>, reason: string): void
  /** One line of a worker's standard error. */
  workerLog(worker: WorkerName, line: string): void
  /** The token refused the PIN and the refusal was latched. */
  pinRefused(token: string, name: string): void
  /** Why a token can't serve, with the remedy; `undefined` when it can again. */
  tokenTrouble(token: string, trouble: string | undefined): void
  capabilitiesKnown(token: string, cached: boolean, elapsedMs: number): void
  /** `outcome`: `ok` or the error's code. Queue time is until the first send, HSM time inside the module (0 when unknown). */
  callFinished(group: string, operation: string, outcome: 'ok' | ErrorCode, queueMs: number, hsmMs: number): void
  /** Depth of a lane's queue after it changed. */
  callQueued(group: string, lane: Lane, depth: number): void
  callRetried(group: string, operation: string, reason: RetryReason): void
  /** A CK_RV other than CKR_OK came back; `name` as `CKR_DEVICE_ERROR`, `call` the PKCS#11 function, `action` the letter of the CKR table. */
  ckr(token: string, name: string, call: string, action: string): void
  /** Two workers died of the same key, mechanism and input shape. */
  quarantined(group: string, operation: string, forMs: number): void
  breaker(token: string, state: 'open' | 'closed', openMs: number): void
}

const nothing = (): void => {}

export const silentEvents: HsmEvents = Object.freeze({
  workerStarted: nothing,
  workerReady: nothing,
  workerDied: nothing,
  workerReplaced: nothing,
  workerLog: nothing,
  pinRefused: nothing,
  tokenTrouble: nothing,
  capabilitiesKnown: nothing,
  callFinished: nothing,
  callQueued: nothing,
  callRetried: nothing,
  ckr: nothing,
  quarantined: nothing,
  breaker: nothing,
})
