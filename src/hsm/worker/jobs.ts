/**
 * The worker's way to the module: one promise per pool job. Ids index a table of waiting jobs and are used again; completions come in
 * batches and resolve in order. Nothing here blocks, and any number of jobs may wait; sessions and threads belong to the addon.
 */
import type { OperationName } from '../frames.ts'
import { type Completions, type JobOp, jobOp, type NativePool } from './addon.ts'
import { CKA } from './cryptoki.ts'
import { refusal, rvFailure } from './failure.ts'
import { decodeAttributes, encodeAttributeTypes } from './pack.ts'
import type { Profile } from './profiles.ts'
import { judge, type RvEntry } from './rv.ts'

/** One request under way: what it may still spend, and what the module has spent on it. */
export interface Call {
  readonly operation: OperationName
  /** On the clock of `performance.now()`. */
  readonly endsAtMs: number
  hsmMicros: number
  /** What the module answered to the call's signature before the call came here: a plan of the pipe failed with it. */
  early: EarlyResult | undefined
}

/** Counts for this handle alone: by the time the call asks, another request that met a stale one may have found the object again. */
export interface EarlyResult {
  readonly key: bigint
  readonly result: JobResult
}

export function openCall(operation: OperationName, budgetMs: number): Call {
  return { operation, endsAtMs: performance.now() + budgetMs, hsmMicros: 0, early: undefined }
}

export interface JobResult {
  /** CK_RV. */
  readonly rv: number
  readonly output: Buffer | null
  readonly handle: bigint
  readonly handle2: bigint
}

interface Waiting {
  readonly call: Call
  readonly resolve: (result: JobResult) => void
  readonly reject: (error: Error) => void
}

/** The C_ function behind a job, for failures. */
const functionOf: Readonly<Record<JobOp, string>> = {
  [jobOp.sign]: 'C_Sign',
  [jobOp.verify]: 'C_Verify',
  [jobOp.encrypt]: 'C_Encrypt',
  [jobOp.decrypt]: 'C_Decrypt',
  [jobOp.encryptVerify]: 'C_Encrypt',
  [jobOp.random]: 'C_GenerateRandom',
  [jobOp.find]: 'C_FindObjects',
  [jobOp.getAttributes]: 'C_GetAttributeValue',
  [jobOp.derive]: 'C_DeriveKey',
  [jobOp.deriveValue]: 'C_DeriveKey',
  [jobOp.generateKey]: 'C_GenerateKey',
  [jobOp.generateKeyPair]: 'C_GenerateKeyPair',
  [jobOp.wrap]: 'C_WrapKey',
  [jobOp.unwrap]: 'C_UnwrapKey',
  [jobOp.createObject]: 'C_CreateObject',
  [jobOp.destroy]: 'C_DestroyObject',
  [jobOp.oaepDecrypt]: 'C_Decrypt',
  [jobOp.setAttributes]: 'C_SetAttributeValue',
  [jobOp.decapsulate]: 'C_DecapsulateKey',
}

export interface JobInput {
  readonly mechanism?: number
  readonly key?: bigint
  readonly key2?: bigint
  readonly params?: Uint8Array | null
  readonly input?: Uint8Array | null
  readonly aux?: Uint8Array | null
  readonly outMax?: number
}

export class Jobs {
  readonly profile: Profile
  #pool: NativePool | undefined
  readonly #waiting: (Waiting | undefined)[] = []
  readonly #free: number[] = []

  constructor(profile: Profile) {
    this.profile = profile
  }

  /** The pool is opened with `onCompletions` of this object, hence the two steps. */
  attach(pool: NativePool): void {
    this.#pool = pool
  }

  readonly onCompletions = (batch: Completions): void => {
    const { ids, rvs, outputs, handles, handles2, hsmMicros } = batch
    for (let i = 0; i < ids.length; i++) {
      const id = ids[i] as number
      const waiting = this.#waiting[id]
      if (waiting === undefined) continue
      this.#waiting[id] = undefined
      this.#free.push(id)
      const rv = rvs[i] as number
      if (rv === lateRv) {
        waiting.reject(late())
        continue
      }
      waiting.call.hsmMicros += hsmMicros[i] as number
      waiting.resolve({
        rv,
        output: outputs[i] ?? null,
        handle: handles[i] as bigint,
        handle2: handles2[i] as bigint,
      })
    }
  }

  /**
   * Queues one job; the result carries whatever CK_RV the module gave.
   * @throws CallFailure `DeadlineExceeded` when the call has no time left now or when its turn comes: nothing is sent to the module then.
   */
  run(
    call: Call,
    op: JobOp,
    mechanism: number,
    key: bigint,
    key2: bigint,
    params: Uint8Array | null,
    input: Uint8Array | null,
    aux: Uint8Array | null,
    outMax: number,
  ): Promise<JobResult> {
    if (this.#pool === undefined) throw new TypeError('no pool')
    const { early } = call
    if (early !== undefined && op === jobOp.sign) {
      call.early = undefined
      if (early.key === key) return Promise.resolve(early.result)
    }
    const budgetMs = Math.ceil(call.endsAtMs - performance.now())
    if (budgetMs <= 0) throw late()
    const { promise, resolve, reject } = Promise.withResolvers<JobResult>()
    const id = this.#free.pop() ?? this.#waiting.length
    this.#waiting[id] = { call, resolve, reject }
    try {
      this.#pool.submit(id, op, mechanism, key, key2, params, input, aux, outMax, budgetMs)
    } catch (error) {
      this.#waiting[id] = undefined
      this.#free.push(id)
      throw error
    }
    return promise
  }

  /** The same with named inputs and CKR_OK or a failure, where a few hundred nanoseconds don't matter. @throws CallFailure */
  async need(call: Call, op: JobOp, job: JobInput): Promise<JobResult> {
    const result = await this.attempt(call, op, job)
    if (result.rv !== 0) throw this.failure(call, op, result.rv)
    return result
  }

  attempt(call: Call, op: JobOp, job: JobInput): Promise<JobResult> {
    const { mechanism = 0, key = 0n, key2 = 0n, params = null, input = null, aux = null, outMax = 0 } = job
    return this.run(call, op, mechanism, key, key2, params, input, aux, outMax)
  }

  failure(call: Call, op: JobOp, rv: number): Error {
    return rvFailure(rv, functionOf[op], call.operation, this.profile)
  }

  judge(call: Call, op: JobOp, rv: number): RvEntry {
    return judge(rv, { call: functionOf[op], operation: call.operation, profile: this.profile })
  }

  /** Destroys a session object whose owner is gone; nobody waits for it, and an object that is gone already is fine. */
  discard(handle: bigint): void {
    this.destroySession(openCall('destroy', discardBudgetMs), handle).catch(() => {})
  }

  /**
   * C_DestroyObject of a session object, after a look at CKA_TOKEN: session objects die with their session, and a module that uses handles
   * again could have given this one to a token object. `undefined`: the handle names no session object (any more).
   */
  async destroySession(call: Call, handle: bigint): Promise<number | undefined> {
    const { output } = await this.attempt(call, jobOp.getAttributes, { key: handle, aux: tokenAttribute, outMax: 64 })
    if (output === null || decodeAttributes(output).get(CKA.token)?.[0] !== 0) return undefined
    return (await this.attempt(call, jobOp.destroy, { key: handle })).rv
  }

  depth(): { queued: number; busy: number; sessions: number } {
    return this.#pool?.depth() ?? { queued: 0, busy: 0, sessions: 0 }
  }

  async close(): Promise<void> {
    const pool = this.#pool
    this.#pool = undefined
    await pool?.close()
  }
}

/** Of a job that no session took in time. */
const lateRv = -1
const late = (): Error => refusal('DeadlineExceeded', 'budget spent before the module', '-')
const discardBudgetMs = 60_000
const tokenAttribute = encodeAttributeTypes([CKA.token])
