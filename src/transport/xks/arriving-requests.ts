/**
 * Requests whose bodies are still on their way. A body is in memory before its signature can be checked, so strangers hold only so much of it,
 * and none for long: who begins makes the slowest of the others give way. Node keeps time for HTTP/1.1; for streams of HTTP/2 this does.
 */

export interface ArrivingRequests {
  /**
   * `end` is called at most once: when the body takes too long, if `isTimed`, or when others need its room.
   * @returns to be called when the body is there, or nobody waits for it any more; more than once does no harm.
   */
  begin(bodyBytes: number, isTimed: boolean, end: () => void): () => void
}

interface Arrival {
  readonly bytes: number
  readonly end: () => void
  timer: NodeJS.Timeout | undefined
}

/** What a request takes besides its body. */
const overheadBytes = 4096

export function createArrivingRequests(maxBytes: number, timeoutMs: number): ArrivingRequests {
  /** The oldest one first. */
  const arrivals = new Set<Arrival>()
  let bytes = 0

  function forget(arrival: Arrival): boolean {
    if (!arrivals.delete(arrival)) return false
    bytes -= arrival.bytes
    clearTimeout(arrival.timer)
    return true
  }

  function give(arrival: Arrival): void {
    if (forget(arrival)) arrival.end()
  }

  return {
    begin(bodyBytes, isTimed, end) {
      const arrival: Arrival = { bytes: bodyBytes + overheadBytes, end, timer: undefined }
      if (isTimed) arrival.timer = setTimeout(give, timeoutMs, arrival)
      arrivals.add(arrival)
      bytes += arrival.bytes
      for (const oldest of arrivals) {
        if (bytes <= maxBytes || oldest === arrival) break
        give(oldest)
      }
      return () => void forget(arrival)
    },
  }
}
