/**
 * How long a property is tried. In `npm test`: a number of runs, always the same ones. In `npm run fuzz`: as many as fit into the seconds
 * that HSMGATE_FUZZ_SECONDS gives each property, other ones every time; a failure prints seed and path that bring it back
 * (HSMGATE_FUZZ_SEED).
 */
import type { Parameters } from 'fast-check'

const seconds = Number(process.env.HSMGATE_FUZZ_SECONDS ?? 0)
const seed = process.env.HSMGATE_FUZZ_SEED

/** `runs`: about a second's worth. */
export function fuzzBounds<T>(runs: number): Parameters<T> {
  if (seconds === 0) return { numRuns: runs, seed: 20_261_121, endOnFailure: true }
  return {
    numRuns: 1_000_000_000,
    interruptAfterTimeLimit: seconds * 1000,
    markInterruptAsFailure: false,
    endOnFailure: true,
    ...(seed === undefined ? {} : { seed: Number(seed) }),
  }
}

/** For the test around it. */
export const patience = { timeout: seconds * 1000 + 60_000 }
