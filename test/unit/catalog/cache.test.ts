import { describe, expect, it } from 'vitest'
import { createCache } from '../../../src/catalog/cache.ts'

describe('the cache', () => {
  it('forgets what was used least recently when it is full', () => {
    const cache = createCache<object>(2)
    const [a, b, c] = [{}, {}, {}]
    cache.put('a', a)
    cache.put('b', b)
    cache.peek('a')
    cache.put('c', c)
    expect([cache.peek('a'), cache.peek('b'), cache.peek('c')]).toEqual([a, undefined, c])
    expect(cache.size).toBe(2)
  })

  it('loads once for all who ask at the same time', async () => {
    const cache = createCache<object>(10)
    let loads = 0
    const load = async () => ({ load: ++loads })
    const found = await Promise.all([1, 2, 3].map(() => cache.find('a', load)))
    expect(loads).toBe(1)
    expect(new Set(found).size).toBe(1)
    expect(await cache.find('a', load)).toBe(found[0])
  })

  it('does not remember absence', async () => {
    const cache = createCache<object>(10)
    expect(await cache.find('a', async () => undefined)).toBeUndefined()
    const value = {}
    expect(await cache.find('a', async () => value)).toBe(value)
  })

  it('does not remember a failure, and tells it to all who waited', async () => {
    const cache = createCache<object>(10)
    const failure = async () => {
      throw new Error('disk')
    }
    const both = await Promise.allSettled([cache.find('a', failure), cache.find('a', failure)])
    expect(both.map(({ status }) => status)).toEqual(['rejected', 'rejected'])
    expect(await cache.find('a', async () => ({}))).toEqual({})
  })

  it.each([
    ['drop', (cache: ReturnType<typeof createCache<object>>) => cache.drop('a')],
    ['dropWhere', (cache: ReturnType<typeof createCache<object>>) => cache.dropWhere(() => false)],
    ['clear', (cache: ReturnType<typeof createCache<object>>) => cache.clear()],
  ])('does not keep what was being loaded when %s came', async (_, change) => {
    const cache = createCache<object>(10)
    const gate = Promise.withResolvers<object>()
    const old = { version: 'old' }
    const early = cache.find('a', () => gate.promise)
    change(cache)
    const late = cache.find('a', async () => ({ version: 'new' }))
    gate.resolve(old)
    expect(await early).toBe(old)
    expect(await late).toEqual({ version: 'new' })
    expect(cache.peek('a')).toEqual({ version: 'new' })
  })

  it('prefers what was put to what was being loaded', async () => {
    const cache = createCache<object>(10)
    const gate = Promise.withResolvers<object>()
    const loading = cache.find('a', () => gate.promise)
    const written = { version: 'written' }
    cache.put('a', written)
    gate.resolve({ version: 'older' })
    await loading
    expect(cache.peek('a')).toBe(written)
  })
})
