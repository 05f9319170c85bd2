/** One worker's place in a token: who works there, who comes next, and how patient the supervisor is with it. Owned by the supervisor. */
import type { WorkerProcess } from './worker-process.ts'

export interface Place {
  readonly role: 'serve' | 'manage'
  readonly id: string
  current: WorkerProcess | undefined
  next: WorkerProcess | undefined
  starting: Promise<void> | undefined
  timer: NodeJS.Timeout | undefined
  /** Something changed while `next` was starting: start once more afterwards. */
  stale: boolean
  failedStarts: number
  /** Failed starts in a row that the worker could not explain: after two the operator must act, lest a wrong PIN hide behind them. */
  unexplained: number
  /** Ends in a row of a worker that had just become ready. */
  earlyEnds: number
  readyAtMs: number
  trouble: string | undefined
}

/** A worker that lived this long was no failure of its start. */
const stableMs = 10_000
const maxUnexplained = 2

export function createPlace(role: 'serve' | 'manage', id: string): Place {
  return {
    role,
    id,
    current: undefined,
    next: undefined,
    starting: undefined,
    timer: undefined,
    stale: false,
    failedStarts: 0,
    unexplained: 0,
    earlyEnds: 0,
    readyAtMs: 0,
    trouble: undefined,
  }
}

/** Failed starts wait 250 ms, doubling to 30 s; the first replacement of a worker waits not at all, nor do all of stable ones. */
export function backOffMs({ failedStarts, earlyEnds }: Place): number {
  const failures = failedStarts > 0 ? failedStarts : Math.max(0, earlyEnds - 1)
  return failures === 0 ? 0 : Math.min(30_000, 250 * 2 ** (failures - 1))
}

export function mayStart(place: Place): boolean {
  return place.unexplained < maxUnexplained
}

export function countEnd(place: Place): void {
  place.earlyEnds = performance.now() - place.readyAtMs < stableMs ? place.earlyEnds + 1 : 0
}

/** Starts from scratch: an operator or a changed file says that things are different now. */
export function forgive(place: Place): void {
  clearTimeout(place.timer)
  place.timer = undefined
  place.failedStarts = 0
  place.unexplained = 0
  place.earlyEnds = 0
}

export function markReady(place: Place, worker: WorkerProcess): void {
  place.current = worker
  place.readyAtMs = performance.now()
  place.failedStarts = 0
  place.unexplained = 0
  place.trouble = undefined
}
