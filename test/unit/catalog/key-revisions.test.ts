import { randomBytes } from 'node:crypto'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { Catalog, KeyEntry } from '../../../src/catalog/catalog.ts'
import { openCatalog } from '../../../src/catalog/open.ts'
import { enabledKey, newKey, softwareSeal } from '../../support/catalog.ts'
import { type CatalogStore, openStore } from '../../support/catalog-store.ts'

let store: CatalogStore
let catalog: Catalog
let entry: KeyEntry

beforeEach(async () => {
  store = await openStore()
  catalog = await openCatalog(store.options)
  catalog.useSeal(softwareSeal())
  entry = await enabledKey(catalog)
})

afterEach(async () => {
  await catalog[Symbol.asyncDispose]()
  await store[Symbol.asyncDispose]()
})

const added = () => ({ ...newKey().material, number: 2, state: 'Pending' as const, objectId: randomBytes(16) })

describe('a revision of a key', () => {
  it('changes the key and its materials in one write', async () => {
    const add = added()
    const revised = await catalog.reviseKey(entry.key, (found) => {
      expect(found).toEqual(entry)
      return { add, materials: { 1: { state: 'NonCurrent' } }, key: { currentMaterial: 2, extra: { a: 1 } } }
    })
    expect(revised.key).toMatchObject({ currentMaterial: 2, extra: { a: 1 }, state: 'Enabled' })
    expect(revised.materials).toMatchObject([
      { number: 1, state: 'NonCurrent', revision: revised.key.revision },
      { number: 2, state: 'Pending', objectId: add.objectId },
    ])
    expect(await catalog.findKey(entry.key)).toEqual(revised)
    const without = await catalog.reviseKey(entry.key, () => ({ remove: 1 }))
    expect(without.materials.map(({ number }) => number)).toEqual([2])
  })

  it('changes nothing when it is refused, or has nothing to change', async () => {
    const refused = catalog.reviseKey(entry.key, () => {
      throw new Error('not now')
    })
    await expect(refused).rejects.toThrow('not now')
    expect(await catalog.reviseKey(entry.key, () => undefined)).toEqual(entry)
    expect(await catalog.findKey(entry.key)).toEqual(entry)
  })

  it('sees what the revision before it left', async () => {
    const count = () =>
      catalog.reviseKey(entry.key, ({ key }) => ({ key: { extra: { count: Number(key.extra.count ?? 0) + 1 } } }))
    await Promise.all(Array.from({ length: 10 }, count))
    expect((await catalog.findKey(entry.key))?.key.extra).toEqual({ count: 10 })
  })
})

describe('due dates', () => {
  it('find keys by date, the earliest first, until they are taken back or the key goes', async () => {
    const other = await enabledKey(catalog, newKey())
    const due = async (before: number, limit = 10) => (await catalog.dueKeys(before, limit)).map(({ keyId }) => keyId)
    await catalog.reviseKey(entry.key, () => ({ dueAt: 200 }))
    await catalog.reviseKey(other.key, () => ({ dueAt: 100 }))
    expect(await due(99)).toEqual([])
    expect(await due(200)).toEqual([other.key.keyId, entry.key.keyId])
    expect(await due(200, 1)).toEqual([other.key.keyId])
    await catalog.reviseKey(other.key, () => ({ dueAt: null }))
    expect(await due(200)).toEqual([entry.key.keyId])
    await catalog.removeKey(entry.key)
    expect(await due(200)).toEqual([])
  })
})

describe('a key whose material is to be imported', () => {
  it('has none at first', async () => {
    const { key, policy, tags } = newKey({ origin: 'EXTERNAL', state: 'PendingImport' })
    const empty = await catalog.insertKey({ key, policy, tags, material: null })
    expect(empty.materials).toEqual([])
    expect(await catalog.listKeys(key.account, key.region, undefined, 10)).toContain(key.keyId)
  })
})
