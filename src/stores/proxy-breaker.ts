/**
 * Spares callers the wait for a proxy that has not answered several times running: for 250 ms, doubling to one second, calls fail at once with what the
 * last one failed of; then one goes through as a trial. Pure state.
 */
import type { ProxyFailure } from './proxy-failures.ts'

export interface ProxyBreaker {
  /** The failure that a call has without being tried; undefined: it may go. */
  refusal(nowMs: number): ProxyFailure | undefined
  /** The proxy answered, whatever it said. */
  answered(): void
  failed(failure: ProxyFailure, nowMs: number): void
}

const failuresToOpen = 5
const firstPauseMs = 250
const longestPauseMs = 1000

export function createProxyBreaker(): ProxyBreaker {
  let failures = 0
  let pauseMs = 0
  let closedUntilMs = 0
  let last: ProxyFailure | undefined
  return {
    refusal(nowMs) {
      if (pauseMs === 0 || last === undefined) return undefined
      if (nowMs < closedUntilMs) return last
      // The trial: until it is over, the others fail on.
      closedUntilMs = nowMs + longestPauseMs
      return undefined
    },
    answered() {
      failures = 0
      pauseMs = 0
    },
    failed(failure, nowMs) {
      last = failure
      if (++failures < failuresToOpen) return
      pauseMs = pauseMs === 0 ? firstPauseMs : Math.min(pauseMs * 2, longestPauseMs)
      closedUntilMs = nowMs + pauseMs
    },
  }
}
