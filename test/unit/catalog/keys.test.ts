import { randomBytes } from 'node:crypto'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { Catalog, KeyName, NewKey, RowSeal } from '../../../src/catalog/catalog.ts'
import { openCatalog } from '../../../src/catalog/open.ts'
import { GatewayError } from '../../../src/error.ts'
import { account, enabledKey, nameOf, newKey, region, softwareSeal } from '../../support/catalog.ts'
import { type CatalogStore, openStore } from '../../support/catalog-store.ts'

let store: CatalogStore
let catalog: Catalog
const reported: GatewayError[] = []

const open = async (seal: RowSeal | undefined = softwareSeal()) => {
  const opened = await openCatalog({ ...store.options, report: (error) => reported.push(error) })
  if (seal) opened.useSeal(seal)
  return opened
}
const reopen = async (seal?: RowSeal) => {
  await catalog[Symbol.asyncDispose]()
  catalog = await open(seal)
}
const finished = () => ({
  materialId: randomBytes(32),
  publicKey: randomBytes(91),
  construction: 'none' as const,
  state: 'Enabled' as const,
})

beforeEach(async () => {
  store = await openStore()
  reported.length = 0
  catalog = await open()
})

afterEach(async () => {
  await catalog[Symbol.asyncDispose]()
  await store[Symbol.asyncDispose]()
})

describe('a key', () => {
  it('comes back after a restart exactly as it was written', async () => {
    const key = newKey(
      { description: '', multiRegion: true, deletionAt: 5, extra: { rotation: { days: 365 }, list: [1, 'a', null] } },
      { tags: { Ünï: 'çøde', __proto__x: '', constructor: 'c' } },
    )
    await catalog.beginKey(key)
    const done = finished()
    const entry = await catalog.finishMaterial(nameOf(key), 1, done)
    expect(entry).toEqual({
      key: {
        ...key.key,
        state: 'Enabled',
        currentMaterial: 1,
        related: { primary: region, regions: [region] },
        revision: 2,
      },
      grants: null,
      materials: [
        {
          ...nameOf(key),
          ...key.material,
          state: 'Current',
          materialId: done.materialId,
          publicKey: done.publicKey,
          revision: 2,
        },
      ],
      policy: { document: key.policy, revision: 1 },
      tags: key.tags,
    })
    await reopen()
    expect(await catalog.findKey(nameOf(key))).toEqual(entry)
  })

  it('is frozen, in depth', async () => {
    const entry = await enabledKey(catalog, newKey({ extra: { a: { b: [] } } }, { tags: { a: '1' } }))
    await reopen()
    const loaded = await catalog.findKey(nameOf(entry))
    for (const part of [entry, loaded!]) {
      const { key, materials, policy, tags } = part
      for (const value of [part, key, key.extra, key.extra.a, materials, materials[0], policy, tags]) {
        expect(Object.isFrozen(value)).toBe(true)
      }
    }
  })

  it('is served from memory once it was read or written', async () => {
    const { key } = await enabledKey(catalog)
    expect(catalog.peekKey(key)).toBe(await catalog.findKey(key))
    await reopen()
    expect(catalog.peekKey(key)).toBeUndefined()
    const loaded = await catalog.findKey(key)
    expect(catalog.peekKey(key)).toBe(loaded)
  })

  it('is another in each account and Region', async () => {
    const { key } = await enabledKey(catalog)
    await enabledKey(catalog, newKey({ keyId: key.keyId, region: 'eu-west-1', description: 'other' }))
    expect((await catalog.findKey({ ...key, region: 'eu-west-1' }))!.key.description).toBe('other')
    expect((await catalog.findKey(key))!.key.description).toBe('für Prüfungen')
    expect(await catalog.findKey({ ...key, account: '999999999999' })).toBeUndefined()
  })

  it('exists once', async () => {
    const { key } = await enabledKey(catalog)
    await expect(catalog.beginKey(newKey({ keyId: key.keyId }))).rejects.toMatchObject({ code: 'AlreadyExists' })
  })

  it('changes what it is told to and nothing else', async () => {
    const before = await enabledKey(catalog)
    const after = await catalog.updateKey(before.key, { state: 'PendingDeletion', deletionAt: 7, extra: { why: 'x' } })
    expect(after.key).toEqual({
      ...before.key,
      state: 'PendingDeletion',
      deletionAt: 7,
      extra: { why: 'x' },
      revision: 3,
    })
    expect(after.materials).toEqual(before.materials)
    expect((await catalog.updateKey(before.key, { deletionAt: null })).key.deletionAt).toBeNull()
    await reopen()
    expect((await catalog.findKey(before.key))!.key).toMatchObject({
      state: 'PendingDeletion',
      deletionAt: null,
      revision: 4,
    })
  })

  it('has its tags and its policy replaced', async () => {
    const { key } = await enabledKey(catalog, newKey({}, { tags: { a: '1', b: '2' } }))
    const tagged = await catalog.setTags(key, { b: '3', c: '4' }, ['a', 'unknown'])
    expect(tagged.tags).toEqual({ b: '3', c: '4' })
    const entry = await catalog.putKeyPolicy(key, '{"Statement":[]}')
    expect(entry.policy).toEqual({ document: '{"Statement":[]}', revision: 4 })
    expect(entry.key).toEqual({ ...key, revision: 4 })
    await reopen()
    expect(await catalog.findKey(key)).toEqual(entry)
  })

  it('takes new materials, of which one is current', async () => {
    const { key } = await enabledKey(catalog)
    const { number: _, ...material } = newKey().material
    const begun = await catalog.beginMaterial(key, { ...material, number: 2 })
    expect(begun.key.currentMaterial).toBe(1)
    expect(begun.materials.map(({ state }) => state)).toEqual(['Current', 'Creating'])
    const rotated = await catalog.finishMaterial(key, 2, finished())
    expect(rotated.key.currentMaterial).toBe(2)
    expect(rotated.materials.map(({ state }) => state)).toEqual(['NonCurrent', 'Current'])
    const destroyed = await catalog.updateMaterial(key, 1, { state: 'Destroyed' })
    expect(destroyed.materials.map(({ state }) => state)).toEqual(['Destroyed', 'Current'])
    await reopen()
    expect(await catalog.findKey(key)).toEqual(destroyed)
  })

  it('is gone with its aliases when it is removed', async () => {
    const { key } = await enabledKey(catalog, newKey({}, { tags: { a: '1' } }))
    const alias = { account, region, name: 'alias/app', keyId: key.keyId, createdAt: 1, updatedAt: 1 }
    await catalog.createAlias(alias)
    expect(await catalog.findAlias(account, region, 'alias/app')).toEqual(alias)
    await catalog.removeKey(key)
    expect(await catalog.findKey(key)).toBeUndefined()
    expect(await catalog.findAlias(account, region, 'alias/app')).toBeUndefined()
    await expect(catalog.updateKey(key, { state: 'Enabled' })).rejects.toMatchObject({
      code: 'KeyNotFound',
      params: { text: `Key 'arn:aws:kms:${region}:${account}:key/${key.keyId}' does not exist` },
    })
  })

  it('refuses text that no engine would give back', async () => {
    const failed = catalog.beginKey(newKey({ description: 'half a \ud83d' }))
    await expect(failed).rejects.toThrow(TypeError)
  })
})

describe('key lists', () => {
  it('come in pages of stable order, without keys that were never acknowledged', async () => {
    const ids = ['d', 'a', 'c', 'b']
    for (const keyId of ids) await enabledKey(catalog, newKey({ keyId }))
    await catalog.beginKey(newKey({ keyId: 'bb' }))
    expect(await catalog.listKeys(account, region, undefined, 3)).toEqual(['a', 'b', 'c'])
    expect(await catalog.listKeys(account, region, 'c', 3)).toEqual(['d'])
    expect(await catalog.listKeys(account, 'eu-west-1', undefined, 3)).toEqual([])
  })

  it('name every object that is ours, in pages', async () => {
    const keys: NewKey[] = [newKey(), newKey(), newKey()]
    for (const key of keys) await catalog.beginKey(key)
    const first = await catalog.objectIds(undefined, 2)
    const second = await catalog.objectIds(first.at(-1)!.row, 2)
    const found = [...first, ...second].map(({ objectId }) => objectId)
    expect(found).toEqual(keys.map(({ material }) => material.objectId))
    expect(await catalog.objectIds(second.at(-1)!.row, 2)).toEqual([])
  })

  it('name the keys whose time has come', async () => {
    const due = await enabledKey(catalog)
    const later = await enabledKey(catalog)
    const cancelled = await enabledKey(catalog)
    await catalog.updateKey(due.key, { state: 'PendingDeletion', deletionAt: 100 })
    await catalog.updateKey(later.key, { state: 'PendingDeletion', deletionAt: 101 })
    await catalog.updateKey(cancelled.key, { state: 'Disabled', deletionAt: 1 })
    expect(await catalog.dueDeletions(100)).toEqual([nameOf(due)])
  })
})

describe('settlement', () => {
  it('finds what was begun and not finished, and abandons it with its key', async () => {
    const key = newKey()
    await enabledKey(catalog)
    await catalog.beginKey(key)
    await reopen()
    const [unsettled, ...more] = await catalog.unsettledMaterials()
    expect(more).toEqual([])
    expect(unsettled).toMatchObject({ ...nameOf(key), state: 'Creating', objectId: key.material.objectId })
    await catalog.abandonMaterial(nameOf(key), 1)
    expect(await catalog.findKey(nameOf(key))).toBeUndefined()
    expect(await catalog.unsettledMaterials()).toEqual([])
  })

  it('abandons a later material and keeps the key', async () => {
    const { key } = await enabledKey(catalog)
    await catalog.beginMaterial(key, { ...newKey().material, number: 2 })
    await catalog.abandonMaterial(key, 2)
    expect((await catalog.findKey(key))!.materials.map(({ number }) => number)).toEqual([1])
  })

  it('never abandons what was acknowledged', async () => {
    const { key } = await enabledKey(catalog)
    await expect(catalog.abandonMaterial(key, 1)).rejects.toThrow(TypeError)
    expect(await catalog.findKey(key)).toBeDefined()
  })
})

describe('a row changed behind the gateway’s back', () => {
  const attacks: readonly (readonly [string, string])[] = [
    ['a disabled key enabled again', "update key set state = 'Enabled' where key_id = ?"],
    ['a purpose widened', "update key set purpose = 'tls' where key_id = ?"],
    [
      'a key pointed at another object',
      "update material set object_id = x'00112233445566778899aabbccddeeff' where key_id = ?",
    ],
    ['a public key exchanged', "update material set public_key = x'00' where key_id = ?"],
    ['a policy widened', `update policy set document = '{"Statement":[{"Effect":"Allow"}]}' where key_id = ?`],
    ['a revision turned back', 'update policy set revision = 0 where key_id = ?'],
    ['a seal cut short', 'update key set hmac = substr(hmac, 1, 16) where key_id = ?'],
    ['a seal removed', "update key set hmac = x'' where key_id = ?"],
    ['a current material deleted', 'delete from material where key_id = ?'],
    ['a policy deleted', 'delete from policy where key_id = ?'],
    ['a tag changed', "update tag set tag_value = 'b' where key_id = ?"],
    ['a tag moved to another name', "update tag set tag_key = 'other' where key_id = ?"],
    ['a tag deleted', 'delete from tag where key_id = ?'],
    ['a number that is none', 'update key set created_at = 9007199254740993 where key_id = ?'],
  ]

  it.each(attacks)('is refused: %s', async (_, statement) => {
    const { key } = await enabledKey(catalog, newKey({}, { tags: { team: 'a' } }))
    const disabled = await catalog.updateKey(key, { state: 'Disabled' })
    const untouched = await enabledKey(catalog)
    await store.run(statement, key.keyId)
    await reopen()
    const found = catalog.findKey(disabled.key)
    await expect(found).rejects.toMatchObject({
      code: 'IntegrityFailed',
      detail: expect.stringContaining(`${account}/${region}/${key.keyId}`),
    })
    expect(catalog.peekKey(disabled.key)).toBeUndefined()
    expect(await catalog.findKey(untouched.key)).toEqual(untouched)
  })

  it('is not sealed again by the next write', async () => {
    const { key } = await enabledKey(catalog)
    await store.run("update key set state = 'PendingImport' where key_id = ?", key.keyId)
    await expect(catalog.updateKey(key, { description: 'new' })).rejects.toMatchObject({ code: 'IntegrityFailed' })
    await expect(catalog.setTags(key, { a: '1' }, [])).rejects.toMatchObject({ code: 'IntegrityFailed' })
  })

  it('cannot be the valid row of another key', async () => {
    const [a, b] = [await enabledKey(catalog), await enabledKey(catalog)]
    await store.run(
      `update material set (object_id, material_id, public_key, ordinal, revision, hmac) =
         (select object_id, material_id, public_key, -ordinal, revision, hmac from material where key_id = ?)
       where key_id = ?`,
      a.key.keyId,
      b.key.keyId,
    )
    await reopen()
    await expect(catalog.findKey(b.key)).rejects.toMatchObject({ code: 'IntegrityFailed' })
    expect(await catalog.findKey(a.key)).toEqual(a)
  })

  it.each(['policy', 'material', 'key'])('cannot be an older row of table %s, whose seal is right', async (table) => {
    const { key } = await enabledKey(catalog)
    await store.run(`create table older as select * from "${table}"`)
    await catalog.putKeyPolicy(key, '{"Statement":[{"Effect":"Deny"}]}')
    await catalog.updateMaterial(key, 1, { state: 'NonCurrent' })
    await store.run(`delete from "${table}"`)
    await store.run(`insert into "${table}" select * from older`)
    await reopen()
    await expect(catalog.findKey(key)).rejects.toMatchObject({ code: 'IntegrityFailed' })
  })

  it('makes settlement destroy nothing: it is left out and reported', async () => {
    const [victim, honest] = [await enabledKey(catalog), newKey()]
    await catalog.beginKey(honest)
    await store.run("update material set state = 'Creating' where key_id = ?", victim.key.keyId)
    await reopen()
    expect(await catalog.unsettledMaterials()).toMatchObject([nameOf(honest)])
    expect(reported).toMatchObject([{ code: 'IntegrityFailed', detail: expect.stringContaining(victim.key.keyId) }])
  })

  it('makes no deletion due', async () => {
    const { key } = await enabledKey(catalog)
    await store.run("update key set state = 'PendingDeletion', deletion_at = 1 where key_id = ?", key.keyId)
    expect(await catalog.dueDeletions(Number.MAX_SAFE_INTEGER)).toEqual([])
    expect(reported).toMatchObject([{ code: 'IntegrityFailed' }])
  })

  it('is told from a seal that the module could not compute', async () => {
    const { key } = await enabledKey(catalog)
    await reopen({
      compute: async () => {
        throw new GatewayError('HsmBusy')
      },
    })
    await expect(catalog.findKey(key)).rejects.toMatchObject({ code: 'HsmBusy' })
    catalog.useSeal(softwareSeal())
    expect(await catalog.findKey(key)).toBeDefined()
  })

  it('is told from a seal made with another key', async () => {
    const { key } = await enabledKey(catalog)
    await reopen(softwareSeal('another token'))
    await expect(catalog.findKey(key)).rejects.toMatchObject({ code: 'IntegrityFailed' })
  })
})

describe('before the seal is there', () => {
  const system: KeyName = { account: 'system', region: 'system', keyId: 'catalog-hmac' }
  const systemKey = () => newKey({ ...system, purpose: 'system' }, { policy: null })

  beforeEach(async () => {
    await catalog[Symbol.asyncDispose]()
    catalog = await openCatalog(store.options)
  })

  it('nothing of an account is read or written', async () => {
    const key = newKey()
    await expect(catalog.beginKey(key)).rejects.toMatchObject({ code: 'CatalogUnavailable' })
    expect(await catalog.findKey(nameOf(key))).toBeUndefined()
    await expect(catalog.insertKey(newKey({ ...system, state: 'Enabled' }))).rejects.toMatchObject({
      code: 'CatalogUnavailable',
    })
    await expect(catalog.findUnverified(nameOf(key))).rejects.toThrow(TypeError)
  })

  it('the key of the seal can be begun, and is sealed by itself when it is finished', async () => {
    const key = systemKey()
    await catalog.beginKey(key)
    expect(catalog.peekKey(system)).toBeUndefined()
    expect(await catalog.findUnverified(system)).toMatchObject({ key: { state: 'Creating' } })
    catalog.useSeal(softwareSeal())
    await expect(catalog.findKey(system)).rejects.toMatchObject({ code: 'IntegrityFailed' })
    expect(await catalog.unsettledMaterials()).toEqual([])
    await catalog.finishMaterial(system, 1, finished())
    await reopen()
    const found = await catalog.findUnverified(system)
    await catalog.verifyEntry(found!)
    expect(await catalog.findKey(system)).toEqual(found)
  })

  it('the key of the seal that was begun and lost can be abandoned', async () => {
    await catalog.beginKey(systemKey())
    await catalog.abandonMaterial(system, 1)
    expect(await catalog.findUnverified(system)).toBeUndefined()
  })

  it('nothing unverified can name an object that settlement destroys', async () => {
    await catalog.beginKey(systemKey())
    await store.run("update material set state = 'Destroying' where account = 'system'")
    await expect(catalog.findUnverified(system)).rejects.toMatchObject({ code: 'IntegrityFailed' })
    catalog.useSeal(softwareSeal())
    expect(await catalog.unsettledMaterials()).toEqual([])
  })

  it('an entry that was changed is not verified', async () => {
    catalog.useSeal(softwareSeal())
    await enabledKey(catalog, systemKey())
    await store.run("update material set object_id = ? where account = 'system'", Buffer.of(0))
    const found = await catalog.findUnverified(system)
    await expect(catalog.verifyEntry(found!)).rejects.toMatchObject({ code: 'IntegrityFailed' })
  })
})
