import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { Catalog } from '../../../src/catalog/catalog.ts'
import { type CatalogOptions, openCatalog } from '../../../src/catalog/open.ts'
import { account, enabledKey, nameOf, newKey, region, softwareSeal } from '../../support/catalog.ts'
import { type CatalogStore, isAlone, openStore } from '../../support/catalog-store.ts'

let store: CatalogStore
const opened: Catalog[] = []
const open = async (options: Pick<CatalogOptions, 'now' | 'pollMs'> = {}) => {
  const catalog = await openCatalog({ ...store.options, ...options })
  catalog.useSeal(softwareSeal())
  opened.push(catalog)
  return catalog
}

beforeEach(async () => {
  store = await openStore()
})

afterEach(async () => {
  for (const catalog of opened.splice(0)) await catalog[Symbol.asyncDispose]()
  await store[Symbol.asyncDispose]()
})

describe('writes', () => {
  it('of a hundred callers get one revision each, in one order', async () => {
    const catalog = await open()
    const { key } = await enabledKey(catalog)
    const before = await catalog.revision()
    const entries = await Promise.all(
      Array.from({ length: 100 }, (_, number) => catalog.updateKey(key, { description: String(number) })),
    )
    const revisions = entries.map((entry) => entry.key.revision)
    expect(revisions).toEqual(Array.from({ length: 100 }, (_, number) => before + 1 + number))
    expect((await catalog.findKey(key))!.key.description).toBe('99')
    expect(
      await store.all('select count(*) as n, count(distinct revision) as r from change where revision > 2'),
    ).toEqual([{ n: 100, r: 100 }])
  })

  it('of two gateways never lose each other’s part', async () => {
    const [a, b] = [await open({ pollMs: 20 }), await open({ pollMs: 20 })]
    const { key } = await enabledKey(a)
    const tags = Array.from({ length: 20 }, (_, number) => `tag${number}`)
    await Promise.all(tags.map((tag, number) => (number % 2 ? a : b).setTags(key, { [tag]: '' }, [])))
    expect(Object.keys((await a.findKey(key))!.tags).toSorted()).toEqual(tags.toSorted())
    expect(await b.findKey(key)).toEqual(await a.findKey(key))
  })

  it('that fail take no revision and do not stop the next', async () => {
    const catalog = await open()
    const { key } = await enabledKey(catalog)
    const before = await catalog.revision()
    const outcomes = await Promise.allSettled([
      catalog.beginKey(newKey({ keyId: key.keyId })),
      catalog.updateAlias(account, region, 'alias/no', key.keyId, 1),
      catalog.updateKey(key, { description: 'after' }),
    ])
    expect(outcomes.map(({ status }) => status)).toEqual(['rejected', 'rejected', 'fulfilled'])
    expect(await catalog.revision()).toBe(before + 1)
  })

  it('beyond a thousand waiting ones are refused, not kept', async () => {
    const catalog = await open()
    const outcomes = await Promise.allSettled(
      Array.from({ length: 1_001 }, () => catalog.deleteAlias(account, region, 'alias/none')),
    )
    const refused = outcomes.filter((outcome) => outcome.status === 'rejected')
    expect(refused).toMatchObject([{ reason: { code: 'Throttled' } }])
    expect(await catalog.deleteAlias(account, region, 'alias/none')).toBe(false)
  })

  it('are told to listeners once they are durable and seen by readers', async () => {
    const catalog = await open()
    const heard: unknown[] = []
    catalog.onChange((change) => heard.push([change, catalog.peekKey(nameOf(key))?.key.state]))
    const key = newKey()
    const name = `${account}/${region}/${key.key.keyId}`
    await catalog.beginKey(key)
    expect(heard).toEqual([
      [{ table: 'key', name, revision: 1, own: true }, 'Creating'],
      [{ table: 'material', name: `${name}/1`, revision: 1, own: true }, 'Creating'],
      [{ table: 'policy', name: `${name}/default`, revision: 1, own: true }, 'Creating'],
    ])
  })
})

describe('two gateways on one catalog', () => {
  it('see each other’s changes before those are acknowledged', async () => {
    const [a, b] = [await open({ pollMs: 20 }), await open({ pollMs: 20 })]
    const { key } = await enabledKey(a)
    for (const state of ['Disabled', 'Enabled', 'Disabled'] as const) {
      const before = await b.findKey(key)
      expect(b.peekKey(key)).toBe(before)
      await a.updateKey(key, { state })
      expect((await b.findKey(key))!.key.state).toBe(state)
    }
  })

  it('hear of each other’s changes of every kind', async () => {
    const [a, b] = [await open({ pollMs: 20 }), await open({ pollMs: 20 })]
    const heard: string[] = []
    b.onChange(({ table, name }) => heard.push(`${table} ${name}`))
    const principal = { account, kind: 'user' as const, name: 'anna', principalId: 'AIDA1', enabled: true }
    await a.createPrincipal({ ...principal, createdAt: 1, tags: {}, trustPolicy: null })
    expect((await b.findPrincipal(account, 'user', 'anna'))!.enabled).toBe(true)
    await a.setPrincipalEnabled(account, 'user', 'anna', false)
    expect((await b.findPrincipal(account, 'user', 'anna'))!.enabled).toBe(false)
    expect(heard).toEqual([`principal ${account}/user/anna`, `principal ${account}/user/anna`])
  })

  it('wait for one that stopped reading only as long as it may use what it has, and then no more', async () => {
    const a = await open({ pollMs: 20 })
    const { key } = await enabledKey(a)
    // a gateway that was killed: its row stays behind
    await store.run("insert into instance select 'dead', host, pid, 0, seen_at, 5, 0, 0 from instance limit 1")
    const started = performance.now()
    await a.updateKey(key, { state: 'Disabled' })
    expect(performance.now() - started).toBeGreaterThanOrEqual(1_000)
    const again = performance.now()
    for (let count = 0; count < 10; count++) await a.updateKey(key, { state: 'Enabled' })
    // ten more waits would be ten seconds
    expect(performance.now() - again).toBeLessThan(5_000)
  })

  it('leave no row behind when they close', async () => {
    const a = await open({ pollMs: 20 })
    expect(await store.all('select pid from instance')).toEqual([{ pid: process.pid }])
    await a[Symbol.asyncDispose]()
    opened.pop()
    expect(await store.all('select count(*) as n from instance')).toEqual([{ n: 0 }])
  })
})

describe('a lease', () => {
  it('has one holder, and a higher number with every change of holder', async () => {
    let at = 1_000
    const now = () => at
    const [a, b] = [await open({ now, pollMs: 100 }), await open({ now, pollMs: 100 })]
    expect(await a.takeLease('deletion', 500)).toBe(1)
    expect(await b.takeLease('deletion', 500)).toBeUndefined()
    at = 1_400
    expect(await a.takeLease('deletion', 500)).toBe(1)
    at = 1_899
    expect(await b.takeLease('deletion', 500)).toBeUndefined()
    at = 1_900
    expect(await b.takeLease('deletion', 500)).toBe(2)
    expect(await a.takeLease('deletion', 500)).toBeUndefined()
    at = 3_000
    expect(await b.takeLease('deletion', 500)).toBe(2)
    at = 4_000
    expect(await a.takeLease('deletion', 500)).toBe(3)
    expect(await b.takeLease('settlement', 500)).toBe(1)
  })

  it('goes to one of many who want it at once', async () => {
    const shared = { pollMs: 100 }
    const catalogs = [await open(shared), await open(shared), await open(shared)]
    const numbers = await Promise.all(catalogs.map((catalog) => catalog.takeLease('deletion', 60_000)))
    expect(numbers.filter((number) => number !== undefined)).toEqual([1])
  })

  it.runIf(isAlone())(
    'passes at once to the next gateway on a catalog that no other one shares, wherever the clock of the last one stood',
    async () => {
      let at = 5_000_000
      const now = () => at
      const before = await open({ now })
      expect(await before.takeLease('deletion', 500)).toBe(1)
      at = 1_000
      const next = await open({ now })
      expect(await next.takeLease('deletion', 500)).toBe(2)
      expect(await next.takeLease('deletion', 500)).toBe(2)
    },
  )

  it('is renewed however often its holder asks', async () => {
    const catalog = await open()
    const numbers = await Promise.all(Array.from({ length: 5 }, () => catalog.takeLease('deletion', 60_000)))
    expect(numbers).toEqual([1, 1, 1, 1, 1])
  })

  it.runIf(isAlone())(
    'is taken before its end when the heartbeat of its holder stands still, and not while it beats',
    async () => {
      const a = await open({ pollMs: 20 })
      const b = await open({ pollMs: 20 })
      expect(await a.takeLease('deletion', 600_000)).toBe(1)
      expect(await b.takeLease('deletion', 600_000)).toBeUndefined()
      // a gateway that was killed: lease and row stay behind
      await store.run("insert into instance select 'dead', host, pid, 0, seen_at, 5, 0, 0 from instance limit 1")
      await store.run("update lease set holder = 'dead'")
      expect(await b.takeLease('deletion', 600_000)).toBe(2)
      expect(await a.takeLease('deletion', 600_000)).toBeUndefined()
    },
  )

  it('is free when its holder lets go of it, or has closed', async () => {
    const [a, b, c] = [await open({ pollMs: 20 }), await open({ pollMs: 20 }), await open({ pollMs: 20 })]
    expect(await a.takeLease('start', 600_000)).toBe(1)
    await a.releaseLease({ name: 'start', fence: 1 })
    expect(await b.takeLease('start', 600_000)).toBe(2)
    await a.releaseLease({ name: 'start', fence: 1 })
    expect(await c.takeLease('start', 600_000)).toBeUndefined()
    opened.splice(opened.indexOf(b), 1)
    await b[Symbol.asyncDispose]()
    expect(await c.takeLease('start', 600_000)).toBe(3)
  })

  it('guards a write: whoever lost it meanwhile changes nothing', async () => {
    const [a, b] = [await open({ pollMs: 20 }), await open({ pollMs: 20 })]
    const { key } = await enabledKey(a)
    const fence = (await a.takeLease('deletion', 600_000)) as number
    const destroy = () => a.updateMaterial(key, 1, { state: 'Destroying' }, undefined, { name: 'deletion', fence })
    await a.releaseLease({ name: 'deletion', fence })
    expect(await b.takeLease('deletion', 600_000)).toBe(2)
    await expect(destroy()).rejects.toMatchObject({ code: 'CatalogUnavailable' })
    expect((await b.findKey(key))!.materials).toMatchObject([{ state: 'Current' }])
    await b.releaseLease({ name: 'deletion', fence: 2 })
    expect(await a.takeLease('deletion', 600_000)).toBe(3)
    await expect(destroy()).rejects.toMatchObject({ code: 'CatalogUnavailable' })
  })
})

describe('materials that were begun and not finished', () => {
  it('are left to the gateway that makes them, as long as it runs', async () => {
    const [a, b] = [await open({ pollMs: 20 }), await open({ pollMs: 20 })]
    const begun = newKey()
    await a.beginKey(begun)
    expect(await b.unsettledMaterials()).toEqual([])
    expect(await a.unsettledMaterials()).toMatchObject([nameOf(begun)])
    opened.splice(opened.indexOf(a), 1)
    await a[Symbol.asyncDispose]()
    expect(await b.unsettledMaterials()).toMatchObject([nameOf(begun)])
  })
})
