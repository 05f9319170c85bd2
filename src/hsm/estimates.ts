/**
 * How long calls take, as exponentially weighted means: time inside the module by kind of call, and round trips of the hot lane. They say whether
 * a queued call can still be met. Pure state.
 */
export interface Estimates {
  /** `index`: operation and key spec. */
  answered(index: number, hsmMs: number): void
  roundTrip(elapsedMs: number): void
  serviceMs(index: number): number
  /** How long the last of `queued` calls waits when `window` calls are under way all the time (Little's law). */
  waitMs(queued: number, window: number): number
}

/** Indexes below this: the wire codes of operations times 32, plus that of the spec. */
const kinds = 1024
const weight = 1 / 16

export function createEstimates(): Estimates {
  const serviceMs = new Float64Array(kinds)
  let roundTripMs = 0
  return {
    answered(index, hsmMs) {
      const known = serviceMs[index]!
      serviceMs[index] = known === 0 ? hsmMs : known + (hsmMs - known) * weight
    },
    roundTrip(elapsedMs) {
      roundTripMs = roundTripMs === 0 ? elapsedMs : roundTripMs + (elapsedMs - roundTripMs) * weight
    },
    serviceMs: (index) => serviceMs[index]!,
    waitMs: (queued, window) => (queued * roundTripMs) / Math.max(window, 1),
  }
}
