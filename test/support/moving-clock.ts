/** A machine whose time a test moves: `passes` is time that really went by, `jumps` a wall clock that is wrong. */
import { type ClockSource, machineClock } from '../../src/keys/trusted-clock.ts'

export interface MovingClock extends ClockSource {
  passes(ms: number): void
  /** Negative: set back. */
  jumps(ms: number): void
}

export const dayMs = 24 * 60 * 60 * 1000

export function createMovingClock(): MovingClock {
  const { wallMs, uptimeMs, boot } = machineClock
  let passedMs = 0
  let wrongMs = 0
  return {
    wallMs: () => wallMs() + passedMs + wrongMs,
    uptimeMs: () => uptimeMs() + passedMs,
    boot,
    passes(ms) {
      passedMs += ms
    },
    jumps(ms) {
      wrongMs += ms
    },
  }
}
