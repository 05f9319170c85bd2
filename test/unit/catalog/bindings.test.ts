import { randomBytes } from 'node:crypto'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { Catalog, KeyName, TlsBindingRecord } from '../../../src/catalog/catalog.ts'
import { openCatalog } from '../../../src/catalog/open.ts'
import type { GatewayError } from '../../../src/error.ts'
import { account, enabledKey, nameOf, newKey, region, softwareSeal } from '../../support/catalog.ts'
import { type CatalogStore, openStore } from '../../support/catalog-store.ts'

let store: CatalogStore
let catalog: Catalog
const reported: GatewayError[] = []

const open = async () => {
  const opened = await openCatalog({ ...store.options, report: (error) => reported.push(error) })
  opened.useSeal(softwareSeal())
  return opened
}
const reopen = async () => {
  await catalog[Symbol.asyncDispose]()
  catalog = await open()
}
const newName = async (): Promise<KeyName> => {
  const key = newKey({ purpose: 'tls' })
  await enabledKey(catalog, key)
  return nameOf(key)
}
const bindingOf = (
  key: KeyName,
  changes: Partial<TlsBindingRecord> = {},
): Parameters<Catalog['createTlsBinding']>[0] => ({
  ...key,
  name: 'shop',
  tokenDigest: randomBytes(32),
  spkiDigest: randomBytes(32),
  policies: ['tls13-server', 'tls12-server-ecdhe'],
  users: [33],
  relays: [],
  ratePerSecond: null,
  concurrency: null,
  createdAt: 1_790_000_000_000,
  ...changes,
})
const damaged = expect.objectContaining({ code: 'IntegrityFailed' })

beforeEach(async () => {
  store = await openStore()
  reported.length = 0
  catalog = await open()
})

afterEach(async () => {
  await catalog[Symbol.asyncDispose]()
  await store[Symbol.asyncDispose]()
})

describe('a TLS binding', () => {
  it('comes back after a restart exactly as it was made', async () => {
    const key = await newName()
    const full = bindingOf(key, { users: 'any', relays: ['ab'.repeat(32)], ratePerSecond: 500, concurrency: 16 })
    const made = await catalog.createTlsBinding(full)
    expect(made).toMatchObject(full)
    await reopen()
    expect(await catalog.findTlsBinding(account, 'shop')).toEqual(made)
    expect(await catalog.listTlsBindings(account)).toEqual([made])
    expect(await catalog.listTlsBindings('999999999999')).toEqual([])
  })

  it('has a name of its own in its account, whatever its key', async () => {
    const keys = [await newName(), await newName()] as const
    await catalog.createTlsBinding(bindingOf(keys[0]))
    await expect(catalog.createTlsBinding(bindingOf(keys[1]))).rejects.toMatchObject({ code: 'AlreadyExists' })
    await expect(catalog.createTlsBinding(bindingOf(keys[0]))).rejects.toMatchObject({ code: 'AlreadyExists' })
  })

  it('is not made when what the key has already speaks against it', async () => {
    const key = await newName()
    const first = await catalog.createTlsBinding(bindingOf(key))
    const refuse = (existing: readonly TlsBindingRecord[]) => {
      expect(existing).toEqual([first])
      throw new RangeError('enough')
    }
    await expect(catalog.createTlsBinding(bindingOf(key, { name: 'second' }), refuse)).rejects.toThrow('enough')
    expect(await catalog.listTlsBindings(account)).toEqual([first])
  })

  it('needs a key', async () => {
    const nowhere = { account, region, keyId: 'none' }
    await expect(catalog.createTlsBinding(bindingOf(nowhere))).rejects.toMatchObject({ code: 'KeyNotFound' })
  })

  it('is gone when it is deleted, and every listener is told', async () => {
    const key = await newName()
    await catalog.createTlsBinding(bindingOf(key))
    await catalog.createTlsBinding(bindingOf(key, { name: 'blog' }))
    const told: string[] = []
    catalog.onChange(({ table, name }) => table === 'tls_binding' && told.push(name))
    expect(await catalog.deleteTlsBinding(account, 'shop')).toBe(true)
    expect(told).toEqual([`${account}/${region}/${key.keyId}/shop`])
    expect(await catalog.deleteTlsBinding(account, 'shop')).toBe(false)
    await reopen()
    expect(await catalog.findTlsBinding(account, 'shop')).toBeUndefined()
    expect((await catalog.listTlsBindings(undefined)).map(({ name }) => name)).toEqual(['blog'])
  })

  it('goes with its key, and every listener is told', async () => {
    const key = await newName()
    await catalog.createTlsBinding(bindingOf(key))
    const told: string[] = []
    catalog.onChange(({ table, name }) => table === 'tls_binding' && told.push(name))
    await catalog.removeKey(key)
    expect(told).toEqual([`${account}/${region}/${key.keyId}/*`])
    expect(await store.all('select * from tls_binding')).toEqual([])
  })

  it('stays with its key through changes of the key', async () => {
    const key = await newName()
    const made = await catalog.createTlsBinding(bindingOf(key))
    await catalog.updateKey(key, { state: 'Disabled' })
    await catalog.setTags(key, { team: 'web' }, [])
    await reopen()
    expect(await catalog.findTlsBinding(account, 'shop')).toEqual(made)
  })

  it('is listed with all others, however many keys there are', async () => {
    for (let count = 0; count < 103; count++) {
      await catalog.createTlsBinding(bindingOf(await newName(), { name: `site-${count}` }))
    }
    const names = (await catalog.listTlsBindings(undefined)).map(({ name }) => name)
    expect(new Set(names).size).toBe(103)
  })
})

describe('whoever writes to the file of the catalog', () => {
  it.each([
    ['widens a policy', `UPDATE tls_binding SET policies = '["any"]'`],
    ['adds a user', `UPDATE tls_binding SET users = '"any"'`],
    ['adds a relay', `UPDATE tls_binding SET relays = '["00"]'`],
    ['lifts a limit', 'UPDATE tls_binding SET rate_per_second = 1000000'],
    ['puts in the digest of a token of his own', `UPDATE tls_binding SET token_digest = x'00'`],
    ['takes a binding away that others stand beside', `DELETE FROM tls_binding WHERE name = 'blog'`],
  ])('and %s gets nothing', async (_what, statement) => {
    const key = await newName()
    const other = await catalog.createTlsBinding(bindingOf(await newName(), { name: 'other' }))
    await catalog.createTlsBinding(bindingOf(key))
    await catalog.createTlsBinding(bindingOf(key, { name: 'blog' }))
    const target = statement.startsWith('DELETE') ? statement : `${statement} WHERE name = 'shop'`
    await store.run(target)
    await reopen()
    await expect(catalog.findTlsBinding(account, 'shop')).rejects.toEqual(damaged)
    expect(await catalog.listTlsBindings(undefined)).toEqual([other])
    expect(reported).toEqual([damaged])
    await expect(catalog.createTlsBinding(bindingOf(key, { name: 'new' }))).rejects.toEqual(damaged)
    await expect(catalog.deleteTlsBinding(account, 'shop')).rejects.toEqual(damaged)
  })

  it('and puts back a revoked binding gets nothing', async () => {
    const key = await newName()
    await catalog.createTlsBinding(bindingOf(key))
    const [stolen = {}] = await store.all('select * from tls_binding')
    await catalog.deleteTlsBinding(account, 'shop')
    const columns = Object.keys(stolen)
    const values = columns.map(() => '?').join(', ')
    await store.run(
      `INSERT INTO tls_binding (${columns.map((c) => `"${c}"`)}) VALUES (${values})`,
      ...Object.values(stolen),
    )
    await reopen()
    await expect(catalog.findTlsBinding(account, 'shop')).rejects.toEqual(damaged)
    expect(await catalog.listTlsBindings(undefined)).toEqual([])
    expect(reported).toEqual([damaged])
  })

  it('and moves a binding to another key gets nothing', async () => {
    const keys = [await newName(), await newName()] as const
    await catalog.createTlsBinding(bindingOf(keys[0]))
    await store.run('UPDATE tls_binding SET key_id = ?', keys[1].keyId)
    await reopen()
    await expect(catalog.findTlsBinding(account, 'shop')).rejects.toEqual(damaged)
  })
})
