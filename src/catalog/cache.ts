/**
 * A bounded least-recently-used cache with single-flight loads. Absence is never cached. Entries of very different size are bounded
 * by their weight; one that is heavier than all that is allowed stays alone.
 *
 * A load that began before a change may carry what stood there before it. So `drop` and `put` also turn away the loads under way:
 * those who wait for them get their answer (it was true when they asked), later callers load again, and it is not kept.
 */
export interface Cache<Value> {
  readonly size: number
  peek(name: string): Value | undefined
  find(name: string, load: () => Promise<Value | undefined>): Promise<Value | undefined>
  put(name: string, value: Value): void
  drop(name: string): void
  dropWhere(isStale: (value: Value) => boolean): void
  clear(): void
}

export function createCache<Value extends object>(
  capacity: number,
  weigh: (value: Value) => number = () => 1,
): Cache<Value> {
  /** In the order of use, the oldest first. */
  const entries = new Map<string, Value>()
  const flights = new Map<string, Promise<Value | undefined>>()

  let weight = 0

  const remove = (name: string) => {
    const value = entries.get(name)
    if (value === undefined) return
    entries.delete(name)
    weight -= weigh(value)
  }
  const keep = (name: string, value: Value) => {
    remove(name)
    entries.set(name, value)
    weight += weigh(value)
    while (weight > capacity && entries.size > 1) remove(entries.keys().next().value!)
  }
  const peek = (name: string) => {
    const value = entries.get(name)
    if (value !== undefined) {
      entries.delete(name)
      entries.set(name, value)
    }
    return value
  }
  const fly = async (name: string, load: () => Promise<Value | undefined>) => {
    // the flight enters the table before its load begins
    const flight = Promise.resolve().then(load)
    flights.set(name, flight)
    try {
      const value = await flight
      if (value !== undefined && flights.get(name) === flight) keep(name, value)
      return value
    } finally {
      if (flights.get(name) === flight) flights.delete(name)
    }
  }

  return {
    get size() {
      return entries.size
    },
    peek,
    async find(name, load) {
      return peek(name) ?? (await (flights.get(name) ?? fly(name, load)))
    },
    put(name, value) {
      flights.delete(name)
      keep(name, value)
    },
    drop(name) {
      flights.delete(name)
      remove(name)
    },
    dropWhere(isStale) {
      flights.clear()
      for (const [name, value] of entries) if (isStale(value)) remove(name)
    },
    clear() {
      flights.clear()
      entries.clear()
      weight = 0
    },
  }
}
