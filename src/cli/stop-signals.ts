/**
 * What an interrupt means: the first asks the gateway to finish what it does and end, a repetition within a second is the same one
 * (a terminal and npm both send it), a later one means at once.
 */

export type StopMeaning = 'drain' | 'same' | 'at once'

const sameWithinMs = 1000

/** A function of the time (monotonic milliseconds) of each interrupt. */
export function createStopRule(): (nowMs: number) => StopMeaning {
  let firstAtMs: number | undefined
  return (nowMs) => {
    if (firstAtMs === undefined) {
      firstAtMs = nowMs
      return 'drain'
    }
    return nowMs - firstAtMs <= sameWithinMs ? 'same' : 'at once'
  }
}
