/** A rate limit that holds one second's worth, so that a burst after a pause is served. Synchronous. */

export interface TokenBucket {
  /** False when nothing is left. */
  take(): boolean
}

/** `nowMs`: monotonic milliseconds. */
export function createTokenBucket(perSecond: number, nowMs: () => number = () => performance.now()): TokenBucket {
  const capacity = Math.max(1, perSecond)
  let tokens = capacity
  let readAtMs = nowMs()
  return {
    take() {
      const now = nowMs()
      tokens = Math.min(capacity, tokens + ((now - readAtMs) / 1000) * perSecond)
      readAtMs = now
      if (tokens < 1) return false
      tokens--
      return true
    },
  }
}
