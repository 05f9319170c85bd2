/**
 * Keys, mechanisms and input shapes that killed two workers: refused for a minute, so that a poison message can't go on killing. Entries end
 * by themselves; their number is bounded by the number of dead workers.
 */
export interface Quarantine {
  readonly size: number
  add(shape: string, nowMs: number): void
  holds(shape: string, nowMs: number): boolean
}

export const quarantineMs = 60_000

export function createQuarantine(): Quarantine {
  const untilMs = new Map<string, number>()
  return {
    get size() {
      return untilMs.size
    },
    add(shape, nowMs) {
      untilMs.set(shape, nowMs + quarantineMs)
    },
    holds(shape, nowMs) {
      for (const [held, until] of untilMs) if (until <= nowMs) untilMs.delete(held)
      return untilMs.has(shape)
    },
  }
}
