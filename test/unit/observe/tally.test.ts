import { Histogram, Registry } from 'prom-client'
import { describe, expect, it } from 'vitest'
import { createDistribution, createLevel, createTally } from '../../../src/observe/tally.ts'

describe('metrics of every call', () => {
  it('counts by label values', async () => {
    const registry = new Registry()
    const calls = createTally(registry, {
      name: 'calls_total',
      help: 'Calls.',
      labelNames: ['door', 'operation', 'code'],
    })
    calls.count('kms', 'Sign', 'ok')
    calls.count('kms', 'Sign', 'ok')
    calls.count('kms', 'Sign', 'HsmBusy')
    expect(await registry.metrics()).toBe(
      [
        '# HELP calls_total Calls.',
        '# TYPE calls_total counter',
        'calls_total{door="kms",operation="Sign",code="ok"} 2',
        'calls_total{door="kms",operation="Sign",code="HsmBusy"} 1\n',
      ].join('\n'),
    )
  })

  it('shows the last value of a level', async () => {
    const registry = new Registry()
    const depth = createLevel(registry, { name: 'depth', help: 'Depth.', labelNames: ['group', 'lane'] })
    depth.set(3, 'default', 'hot')
    depth.set(1, 'default', 'hot')
    expect(await registry.metrics()).toContain('# TYPE depth gauge\ndepth{group="default",lane="hot"} 1\n')
  })

  it("distributes observations as prom-client's histogram does, bounds included", async () => {
    const description = { name: 'seconds', help: 'Time.', labelNames: ['door', 'operation'] }
    const bounds = [0.001, 0.01, 0.1]
    const ours = new Registry()
    const theirs = new Registry()
    const distribution = createDistribution(ours, description, bounds)
    const histogram = new Histogram({ ...description, buckets: bounds, registers: [theirs] })
    for (const value of [0, 0.001, 0.0011, 0.05, 0.1, 7]) {
      distribution.observe(value, 'kms', 'Sign')
      histogram.observe({ door: 'kms', operation: 'Sign' }, value)
    }
    distribution.observe(0.5, 'kms', 'Encrypt')
    histogram.observe({ door: 'kms', operation: 'Encrypt' }, 0.5)
    expect(await ours.metrics()).toBe(await theirs.metrics())
  })
})
