/**
 * Group commit: what is added in one tick, or while a commit is under way, is committed together, one commit at a time, in order.
 *
 * A disk that hangs must not hold callers or fill memory: whoever waited too long is refused (what he added is still committed
 * when the disk comes back), and beyond a number of items everyone is refused at once.
 */
import { GatewayError } from '../error.ts'

export interface CommitQueueOptions<T> {
  /** Rejects when none of the items was committed. */
  readonly commit: (items: readonly T[]) => Promise<void>
  readonly maxItems: number
  readonly patienceMs: number
}

export interface CommitQueue<T> extends Disposable {
  /** Resolves when the items are committed. @throws GatewayError `AuditUnavailable` */
  add(items: readonly T[]): Promise<void>
  /** Resolves when nothing is waiting. */
  idle(): Promise<void>
  /** Whether somebody was refused because the commit under way takes too long. */
  readonly isStuck: boolean
}

interface Waiting<T> {
  readonly items: readonly T[]
  readonly sinceMs: number
  readonly resolve: () => void
  readonly reject: (error: GatewayError) => void
}

export function createCommitQueue<T>(options: CommitQueueOptions<T>): CommitQueue<T> {
  const { commit, maxItems, patienceMs } = options
  let queue: Waiting<T>[] = []
  let underWay: readonly Waiting<T>[] = []
  let items = 0
  let draining: Promise<void> | undefined
  let isStuck = false
  const watch = setInterval(refuseImpatient, patienceMs / 5).unref()

  async function drain(): Promise<void> {
    while (queue.length > 0) {
      underWay = queue
      queue = []
      items = 0
      try {
        await commit(underWay.length === 1 ? (underWay[0]?.items ?? []) : underWay.flatMap((waiting) => waiting.items))
        for (const waiting of underWay) waiting.resolve()
      } catch (cause) {
        const error = unavailable('the record cannot be written', cause)
        for (const waiting of underWay) waiting.reject(error)
      }
      isStuck = false
    }
    underWay = []
    draining = undefined
  }

  function refuseImpatient(): void {
    const latestMs = performance.now() - patienceMs
    if (!underWay[0] || underWay[0].sinceMs > latestMs) return
    isStuck = true
    const error = unavailable('the disk of the journal does not answer')
    for (const waiting of [...underWay, ...queue]) if (waiting.sinceMs <= latestMs) waiting.reject(error)
  }

  return {
    add(added) {
      if (items + added.length > maxItems) return Promise.reject(unavailable('too many records wait to be written'))
      items += added.length
      return new Promise((resolve, reject) => {
        queue.push({ items: added, sinceMs: performance.now(), resolve, reject })
        draining ??= new Promise((done) => setImmediate(() => void drain().then(done)))
      })
    },
    async idle() {
      await draining
    },
    get isStuck() {
      return isStuck
    },
    [Symbol.dispose]() {
      clearInterval(watch)
    },
  }
}

export function unavailable(detail: string, cause?: unknown): GatewayError {
  return new GatewayError('AuditUnavailable', undefined, { detail, cause })
}
