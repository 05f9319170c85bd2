import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { Catalog, CustomKeyStoreRecord } from '../../../src/catalog/catalog.ts'
import { openCatalog } from '../../../src/catalog/open.ts'
import { account, newKey, region, softwareSeal } from '../../support/catalog.ts'
import { type CatalogStore, openStore } from '../../support/catalog-store.ts'

let place: CatalogStore
let catalog: Catalog
let reported: string[]

const store: Omit<CustomKeyStoreRecord, 'revision'> = {
  account,
  region,
  storeId: 'cks-0123456789abcdef0',
  name: 'mine',
  type: 'AWS_CLOUDHSM',
  state: 'DISCONNECTED',
  errorCode: null,
  settings: { clusterId: 'cluster-2345abcdefg' },
  sealedSecret: Buffer.from('sealed'),
  secretVersion: 1,
  createdAt: 1_790_000_000_000,
}

beforeEach(async () => {
  place = await openStore()
  reported = []
  catalog = await openCatalog({ ...place.options, report: (error) => reported.push(error.message) })
  catalog.useSeal(softwareSeal())
})

afterEach(async () => {
  await catalog[Symbol.asyncDispose]()
  await place[Symbol.asyncDispose]()
})

describe('custom key stores in the catalog', () => {
  it('come back as they were written, and go', async () => {
    const made = await catalog.createCustomKeyStore(store, () => {})
    expect(made).toMatchObject({ ...store, revision: expect.any(Number) })
    expect(await catalog.listCustomKeyStores()).toEqual([made])

    const changed = await catalog.changeCustomKeyStore(store, () => ({ state: 'FAILED', errorCode: 'INTERNAL_ERROR' }))
    expect(changed).toEqual({ ...made, state: 'FAILED', errorCode: 'INTERNAL_ERROR', revision: made.revision + 1 })
    expect(await catalog.changeCustomKeyStore(store, () => undefined)).toEqual(changed)
    expect(await catalog.changeCustomKeyStore(store, () => 'remove')).toBeUndefined()
    expect(await catalog.listCustomKeyStores()).toEqual([])
  })

  it('are written only when the review of what is there agrees', async () => {
    await catalog.createCustomKeyStore(store, () => {})
    const refuse = (existing: readonly CustomKeyStoreRecord[]) => {
      if (existing.some(({ name }) => name === store.name)) throw new RangeError('in use')
    }
    const second = { ...store, storeId: 'cks-0123456789abcdef1' }
    await expect(catalog.createCustomKeyStore(second, refuse)).rejects.toThrow('in use')
    await expect(
      catalog.changeCustomKeyStore(second, (found, others) => {
        expect(found).toBeUndefined()
        refuse(others)
        return undefined
      }),
    ).rejects.toThrow('in use')
    expect(await catalog.listCustomKeyStores()).toHaveLength(1)
  })

  it('that were changed behind the back of the gateway are reported, left out and never changed', async () => {
    await catalog.createCustomKeyStore(store, () => {})
    await place.run("update custom_key_store set state = 'CONNECTED'")
    expect(await catalog.listCustomKeyStores()).toEqual([])
    expect(reported).toEqual([expect.stringContaining('custom_key_store')])
    const change = catalog.changeCustomKeyStore(store, () => 'remove')
    await expect(change).rejects.toMatchObject({ code: 'IntegrityFailed' })
  })

  it('list the keys that live in them', async () => {
    const extra = { customKeyStore: { id: store.storeId } }
    const inside = await catalog.beginKey(newKey({ origin: 'AWS_CLOUDHSM', extra }))
    await catalog.beginKey(newKey())
    const listed = await catalog.listKeysInCustomStores(account, region)
    expect(listed).toEqual([{ account, region, keyId: inside.key.keyId, state: 'Creating', extra }])
    expect(await catalog.listKeysInCustomStores(account, 'eu-west-1')).toEqual([])
  })
})
