/**
 * Makes checkpoints: after a number of records, after some minutes, on demand and at the end. One at a time; records go on
 * arriving while one is signed, so it is about a record a little before its own.
 */
import type { Checkpoint, CheckpointSigner, JournalEvents } from './audit.ts'
import type { Link } from './chain.ts'
import { encodeStatement, maxCheckpointLag } from './checkpoint.ts'

export interface CheckpointCycleParts {
  readonly instance: string
  readonly everyRecords: number
  readonly everyMinutes: number
  readonly now: () => number
  readonly events: Partial<JournalEvents>
  /** The last record of the chain. */
  readonly end: () => Link
  /** Appends the checkpoint as a record. */
  readonly append: (checkpoint: Checkpoint, at: number) => Promise<void>
}

export interface CheckpointCycle extends Disposable {
  useSigner(signer: CheckpointSigner): void
  /** To be called when the chain has grown. */
  noticeGrowth(): void
  /** Undefined without a signer or without records. */
  make(): Promise<Checkpoint | undefined>
}

export function createCheckpointCycle(parts: CheckpointCycleParts): CheckpointCycle {
  const { instance, everyRecords, now, events, end, append } = parts
  let signer: CheckpointSigner | undefined
  let underWay: Promise<Checkpoint | undefined> | undefined
  let last: { readonly checkpoint: Checkpoint; readonly recordedAs: number } | undefined
  let nextAt = end().sequence + everyRecords
  const timer = setInterval(start, parts.everyMinutes * 60_000).unref()

  function start(): void {
    nextAt = end().sequence + everyRecords
    // The failure was told to the observer; the next round tries again.
    make().catch(() => {})
  }

  function make(): Promise<Checkpoint | undefined> {
    underWay ??= signAndAppend().finally(() => {
      underWay = undefined
    })
    return underWay
  }

  async function signAndAppend(): Promise<Checkpoint | undefined> {
    const { sequence, hash } = end()
    if (!signer || sequence === 0) return undefined
    if (last?.recordedAs === sequence) return last.checkpoint
    try {
      const at = now()
      const catalogRevision = await signer.catalogRevision()
      const statement = { instance, sequence, hash, catalogRevision, signedAt: new Date(at).toISOString() }
      const { keyId, algorithm, signature, publicKey } = await signer.sign(encodeStatement(statement))
      if (end().sequence - sequence > maxCheckpointLag) throw new Error('signing took too long')
      const checkpoint: Checkpoint = {
        ...statement,
        keyId,
        algorithm,
        signature: Buffer.from(signature).toString('base64'),
        publicKey: Buffer.from(publicKey).toString('base64'),
      }
      await append(checkpoint, at)
      last = { checkpoint, recordedAs: end().sequence }
      events.checkpointSigned?.(checkpoint)
      return checkpoint
    } catch (cause) {
      events.checkpointFailed?.(cause)
      throw cause
    }
  }

  return {
    useSigner(given) {
      signer = given
    },
    noticeGrowth() {
      if (end().sequence >= nextAt) start()
    },
    make,
    [Symbol.dispose]: () => clearInterval(timer),
  }
}
