/**
 * When written records are put on disk: a moment after the first one that needs it, or at once, with the caller waiting. One sync
 * at a time, for everything written before it.
 *
 * After a failed sync the kernel may have dropped the pages (fsync(2)), so nothing may be written until a later one succeeds, and
 * then `healed` is told what may be missing.
 */
import type { JournalEvents } from './audit.ts'

export interface SyncScheduleParts {
  readonly sync: () => Promise<void>
  readonly events: Partial<JournalEvents>
  readonly healed: (records: number, cause: unknown) => void
  readonly delayMs: number
  readonly retryMs: number
}

export interface SyncSchedule extends AsyncDisposable {
  /** Records were written; a sync will follow. */
  plan(records: number): void
  /** Records were written; resolves when they are on disk. */
  now(records: number): Promise<void>
  readonly hasFailed: boolean
  readonly unsyncedRecords: number
}

export function createSyncSchedule(parts: SyncScheduleParts): SyncSchedule {
  const { sync, events, healed, delayMs, retryMs } = parts
  let unsyncedRecords = 0
  let unsyncedSinceMs = 0
  let failure: { readonly cause: unknown } | undefined
  let timer: NodeJS.Timeout | undefined
  let underWay: Promise<void> | undefined
  let isClosed = false

  function add(records: number): void {
    if (unsyncedRecords === 0) unsyncedSinceMs = performance.now()
    unsyncedRecords += records
  }

  function later(ms: number): void {
    if (!isClosed) timer ??= setTimeout(() => void start(), ms)
  }

  function start(): Promise<void> {
    timer = undefined
    underWay ??= run().finally(() => {
      underWay = undefined
      if (failure) later(retryMs)
      else if (unsyncedRecords > 0) later(delayMs)
    })
    return underWay
  }

  async function run(): Promise<void> {
    const records = unsyncedRecords
    const sinceMs = unsyncedSinceMs
    unsyncedRecords = 0
    try {
      await sync()
    } catch (cause) {
      unsyncedRecords += records
      unsyncedSinceMs = sinceMs
      if (!failure) events.syncFailed?.(cause)
      failure = { cause }
      return
    }
    events.synced?.(records, performance.now() - sinceMs)
    if (!failure) return
    const { cause } = failure
    failure = undefined
    healed(records, cause)
  }

  return {
    plan(records) {
      add(records)
      later(delayMs)
    },
    async now(records) {
      // A sync that is under way may have begun before these records were written.
      await underWay
      add(records)
      await start()
      if (failure) throw failure.cause
    },
    get hasFailed() {
      return failure !== undefined
    },
    get unsyncedRecords() {
      return unsyncedRecords
    },
    async [Symbol.asyncDispose]() {
      isClosed = true
      clearTimeout(timer)
      await underWay
      await start()
    },
  }
}
