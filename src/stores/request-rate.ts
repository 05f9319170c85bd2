/** A token bucket that holds one second's worth of requests. Pure state; monotonic milliseconds. */
export interface RequestRate {
  /** Whether one more request may go now. */
  take(nowMs: number): boolean
}

export function createRequestRate(perSecond: number): RequestRate {
  let left = perSecond
  let readAtMs = Number.NEGATIVE_INFINITY
  return {
    take(nowMs) {
      left = Math.min(perSecond, left + (Math.max(0, nowMs - readAtMs) / 1000) * perSecond)
      readAtMs = nowMs
      if (left < 1) return false
      left--
      return true
    },
  }
}
