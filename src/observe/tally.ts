/**
 * Counters, gauges and histograms for the path of every call. prom-client sorts and joins the labels of every increment, half a microsecond each
 * time; here the series is found by its label values alone, and rendering waits until somebody asks. Series are never dropped, so label
 * values must be few. Synchronous.
 */
import type { Metric, Registry } from 'prom-client'

export interface Tally {
  /** One more; label values in the order of their names. */
  count(first: string, second: string, third?: string): void
}

export interface Level {
  set(value: number, first: string, second: string): void
}

export interface Distribution {
  /** `value` in the unit of the metric's name. */
  observe(value: number, first: string, second: string): void
}

interface Series {
  readonly labels: Readonly<Record<string, string>>
  count: number
  sum: number
  /** Observations up to each bound, not cumulated; the last of them beyond all bounds. */
  readonly buckets: Float64Array
}

interface Description {
  readonly name: string
  readonly help: string
  readonly labelNames: readonly string[]
}

export function createTally(registry: Registry, description: Description): Tally {
  const series = createSeries(description.labelNames, 0)
  register(registry, 'counter', description, () => series.all().map(({ labels, count: value }) => ({ labels, value })))
  return {
    count(first, second, third = '') {
      series.find(first, second, third).count++
    },
  }
}

export function createLevel(registry: Registry, description: Description): Level {
  const series = createSeries(description.labelNames, 0)
  register(registry, 'gauge', description, () => series.all().map(({ labels, sum: value }) => ({ labels, value })))
  return {
    set(value, first, second) {
      series.find(first, second, '').sum = value
    },
  }
}

/** `bounds` ascend; an observation belongs to the first bound that is not below it. */
export function createDistribution(
  registry: Registry,
  description: Description,
  bounds: readonly number[],
): Distribution {
  const series = createSeries(description.labelNames, bounds.length + 1)
  const { name } = description
  register(registry, 'histogram', description, () =>
    series.all().flatMap(({ labels, count, sum, buckets }) => {
      let below = 0
      const rows = bounds.map((le, i) => {
        below += buckets[i] as number
        return { labels: { le, ...labels }, value: below, metricName: `${name}_bucket` }
      })
      return [
        ...rows,
        { labels: { le: '+Inf', ...labels }, value: count, metricName: `${name}_bucket` },
        { labels, value: sum, metricName: `${name}_sum` },
        { labels, value: count, metricName: `${name}_count` },
      ]
    }),
  )
  return {
    observe(value, first, second) {
      const found = series.find(first, second, '')
      let at = 0
      while (at < bounds.length && value > (bounds[at] as number)) at++
      found.buckets[at]!++
      found.count++
      found.sum += value
    },
  }
}

function createSeries(labelNames: readonly string[], buckets: number) {
  const byFirst = new Map<string, Map<string, Map<string, Series>>>()
  const list: Series[] = []

  function add(values: readonly string[]): Series {
    const labels = Object.fromEntries(labelNames.map((name, i) => [name, values[i] as string]))
    const series = { labels, count: 0, sum: 0, buckets: new Float64Array(buckets) }
    list.push(series)
    const [first, second, third] = values as [string, string, string]
    const bySecond = byFirst.get(first) ?? new Map<string, Map<string, Series>>()
    byFirst.set(first, bySecond)
    const byThird = bySecond.get(second) ?? new Map<string, Series>()
    bySecond.set(second, byThird)
    byThird.set(third, series)
    return series
  }

  return {
    find: (first: string, second: string, third: string): Series =>
      byFirst.get(first)?.get(second)?.get(third) ?? add([first, second, third]),
    all: (): readonly Series[] => list,
  }
}

/** A registry asks its metrics for `get` and `reset` alone; prom-client exports no type of just that. */
function register(
  registry: Registry,
  type: string,
  { name, help }: Description,
  values: () => readonly object[],
): void {
  const metric = {
    name,
    help,
    type,
    reset() {},
    get: async () => ({ name, help, type, aggregator: 'sum', values: values() }),
  }
  registry.registerMetric(metric as unknown as Metric)
}
