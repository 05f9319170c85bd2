/**
 * One token's circuit breaker: after an answer that says the token is down, no call goes there for 250 ms, then one trial; each failed trial
 * doubles the pause, to 1 s at most. Pure state; the router feeds it and asks it.
 */
export interface Breaker {
  /** Whether a call may go now; while half open only one may. */
  allows(nowMs: number): boolean
  /** Until when no call may go; 0 when closed. */
  pausedUntilMs(): number
  /** A call goes out; when the breaker is half open it is the trial. */
  sent(): void
  succeeded(): boolean
  /** Opens (again). Returns the pause, or 0 when it was open already. */
  failed(nowMs: number): number
  /** The trial's worker died: no verdict, another may try. */
  lost(): void
}

const firstPauseMs = 250
const longestPauseMs = 1000

export function createBreaker(): Breaker {
  let pauseMs = 0
  let openUntilMs = 0
  let trial = false
  return {
    allows: (nowMs) => pauseMs === 0 || (nowMs >= openUntilMs && !trial),
    pausedUntilMs: () => (pauseMs === 0 ? 0 : openUntilMs),
    sent() {
      if (pauseMs > 0) trial = true
    },
    succeeded() {
      if (pauseMs === 0) return false
      pauseMs = 0
      trial = false
      return true
    },
    failed(nowMs) {
      if (pauseMs > 0 && nowMs < openUntilMs && !trial) return 0
      pauseMs = pauseMs === 0 ? firstPauseMs : Math.min(pauseMs * 2, longestPauseMs)
      openUntilMs = nowMs + pauseMs
      trial = false
      return pauseMs
    },
    lost() {
      trial = false
    },
  }
}
