/** Limits how many log lines of one kind are written in a second, and says how many were left out: a flood of refused calls must not become a flood of writes. */

export interface LineLimit {
  /** Undefined: leave this line out. Else the number of lines of this kind left out since the last one written. */
  take(kind: string): number | undefined
}

interface Bucket {
  second: number
  taken: number
  leftOut: number
}

/** A stranger may choose part of a kind, so the number of kinds is bounded too. */
const maxKinds = 1000

export function createLineLimit(linesPerSecond: number, nowMs: () => number = () => performance.now()): LineLimit {
  const buckets = new Map<string, Bucket>()
  return {
    take(kind) {
      const second = Math.floor(nowMs() / 1000)
      let bucket = buckets.get(kind)
      if (!bucket) {
        if (buckets.size >= maxKinds) buckets.clear()
        bucket = { second, taken: 0, leftOut: 0 }
        buckets.set(kind, bucket)
      }
      if (bucket.second !== second) {
        bucket.second = second
        bucket.taken = 0
      }
      if (bucket.taken >= linesPerSecond) {
        bucket.leftOut += 1
        return undefined
      }
      bucket.taken += 1
      const { leftOut } = bucket
      bucket.leftOut = 0
      return leftOut
    },
  }
}
