import { randomBytes } from 'node:crypto'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { Catalog, KeyEntry, KeyName, NewReplica } from '../../../src/catalog/catalog.ts'
import { openCatalog } from '../../../src/catalog/open.ts'
import { isCode } from '../../../src/error.ts'
import { account, enabledKey, nameOf, newKey, region, softwareSeal } from '../../support/catalog.ts'
import { type CatalogStore, openStore } from '../../support/catalog-store.ts'

let store: CatalogStore
let catalog: Catalog

const west = 'us-west-2'
const europe = 'eu-west-1'

const open = async () => {
  const opened = await openCatalog(store.options)
  opened.useSeal(softwareSeal())
  return opened
}
const reopen = async () => {
  await catalog[Symbol.asyncDispose]()
  catalog = await open()
}
const multiRegionKey = (changes: Parameters<typeof newKey>[0] = {}) =>
  newKey({ keyId: `mrk-${randomBytes(16).toString('hex')}`, multiRegion: true, ...changes }, { tags: { a: 'b' } })
const replica = (where: string): NewReplica => ({
  region: where,
  description: 'a replica',
  policy: '{"Version":"2012-10-17","Statement":[],"Id":"replica"}',
  tags: { c: 'd' },
  createdAt: 1_790_000_000_001,
})
const replicate = (name: KeyName, where: string) => catalog.changeRelatedKeys(name, () => ({ add: replica(where) }))
const inRegion = (entries: readonly KeyEntry[], where: string) =>
  entries.find(({ key }) => key.region === where) as KeyEntry
const at = (name: KeyName, where: string): KeyName => ({ ...name, region: where })

beforeEach(async () => {
  store = await openStore()
  catalog = await open()
})

afterEach(async () => {
  await catalog[Symbol.asyncDispose]()
  await store[Symbol.asyncDispose]()
})

describe('a replica', () => {
  it('shares id, spec and materials with the primary, and has a policy, tags and description of its own', async () => {
    const primary = await enabledKey(catalog, multiRegionKey())
    const name = nameOf(primary)
    await replicate(name, west)
    await reopen()
    const related = { primary: region, regions: [region, west] }
    expect((await catalog.findKey(name))?.key).toMatchObject({ state: 'Enabled', related })
    const entry = (await catalog.findKey(at(name, west))) as KeyEntry
    expect(entry).toMatchObject({
      key: {
        ...at(name, west),
        spec: primary.key.spec,
        usage: primary.key.usage,
        group: primary.key.group,
        multiRegion: true,
        state: 'Creating',
        description: 'a replica',
        currentMaterial: 1,
        related,
      },
      policy: { document: replica(west).policy },
      tags: { c: 'd' },
    })
    expect(entry.materials).toEqual([{ ...primary.materials[0], region: west, revision: entry.key.revision }])
    expect((await catalog.findRelatedKeys(name)).map(({ key }) => key.region)).toEqual([region, west])
    expect(await catalog.unfinishedRelatedKeys()).toEqual([at(name, west)])
    expect(await catalog.unsettledMaterials()).toEqual([])
  })

  it('is refused where there is one, and then nothing has changed', async () => {
    const name = nameOf(await enabledKey(catalog, multiRegionKey()))
    await replicate(name, west)
    const revision = await catalog.revision()
    await expect(replicate(name, west)).rejects.toSatisfy((error) => isCode(error, 'AlreadyExists'))
    await expect(replicate(name, region)).rejects.toSatisfy((error) => isCode(error, 'AlreadyExists'))
    expect(await catalog.revision()).toBe(revision)
  })

  it('has no material of a primary whose material is imported', async () => {
    const name = nameOf(await enabledKey(catalog, multiRegionKey({ origin: 'EXTERNAL' })))
    expect(inRegion(await replicate(name, west), west)).toMatchObject({ key: { currentMaterial: 0 }, materials: [] })
  })

  it('gets every material of a rotation in the write that makes it current, in every Region', async () => {
    const name = nameOf(await enabledKey(catalog, multiRegionKey()))
    await replicate(name, west)
    await replicate(name, europe)
    const { material } = newKey()
    await catalog.beginMaterial(name, { ...material, number: 2 })
    expect((await catalog.findKey(at(name, west)))?.materials).toHaveLength(1)
    const materialId = randomBytes(32)
    const revised = await catalog.reviseKey(name, () => ({
      key: { currentMaterial: 2, extra: { life: { turned: 1 } } },
      materials: { 1: { state: 'NonCurrent' }, 2: { state: 'Current', materialId } },
    }))
    await reopen()
    for (const other of [west, europe]) {
      const entry = (await catalog.findKey(at(name, other))) as KeyEntry
      expect(entry.key).toMatchObject({
        revision: revised.key.revision,
        currentMaterial: 2,
        extra: { life: { turned: 1 } },
        description: 'a replica',
      })
      expect(entry.materials).toMatchObject([{ state: 'NonCurrent' }, { state: 'Current', materialId }])
      expect(entry.materials.map(({ objectId }) => objectId)).toEqual(revised.materials.map(({ objectId }) => objectId))
    }
    // Each row once, however many were written together.
    const rows = await catalog.objectIds(undefined, 100)
    expect(new Set(rows.map(({ row }) => row)).size).toBe(6)
    expect((await catalog.objectIds(rows[2]?.row, 100)).map(({ row }) => row)).toEqual(
      rows.slice(3).map(({ row }) => row),
    )
  })

  it('leaves the others their materials when it changes alone', async () => {
    const name = nameOf(await enabledKey(catalog, multiRegionKey()))
    await replicate(name, west)
    const before = (await catalog.findKey(name))?.key.revision
    await catalog.updateMaterial(at(name, west), 1, { state: 'Destroying' })
    await catalog.updateKey(at(name, west), { state: 'Disabled', description: 'changed' })
    expect((await catalog.findKey(name))?.key.revision).toBe(before)
    await catalog.reviseKey(name, () => ({ key: { extra: { x: 1 } } }))
    expect((await catalog.findKey(at(name, west)))?.materials).toMatchObject([{ state: 'Destroying' }])
  })
})

describe('related keys', () => {
  it('change roles and states in one write', async () => {
    const name = nameOf(await enabledKey(catalog, multiRegionKey()))
    await replicate(name, west)
    const changed = await catalog.changeRelatedKeys(at(name, west), (entries) => {
      expect(entries.map(({ key }) => key.region)).toEqual([region, west])
      return {
        keys: { [region]: { state: 'Enabled' }, [west]: { state: 'Enabled' } },
        related: { primary: west },
      }
    })
    expect(changed.map(({ key }) => key.related)).toEqual(Array(2).fill({ primary: west, regions: [region, west] }))
    expect(new Set(changed.map(({ key }) => key.revision)).size).toBe(1)
    // Whatever was planned for the primary is looked at again, for both.
    const due = await catalog.dueKeys(0, 10)
    expect(new Set(due.map((key) => key.region))).toEqual(new Set([region, west]))
  })

  it('forget one that is removed, and keep the object as long as any names it', async () => {
    const primary = await enabledKey(catalog, multiRegionKey())
    const name = nameOf(primary)
    const [material] = primary.materials
    expect(await catalog.isObjectShared(material!)).toBe(false)
    await replicate(name, west)
    expect(await catalog.isObjectShared(material!)).toBe(true)
    await catalog.changeRelatedKeys(at(name, west), () => ({ remove: west }))
    expect(await catalog.findKey(at(name, west))).toBeUndefined()
    expect(await catalog.isObjectShared(material!)).toBe(false)
    expect((await catalog.findKey(name))?.key.related).toEqual({ primary: region, regions: [region] })
    await replicate(name, west)
    expect(await catalog.findRelatedKeys(name)).toHaveLength(2)
  })

  it('stay related when somebody replaces the open part of a row', async () => {
    const name = nameOf(await enabledKey(catalog, multiRegionKey()))
    await replicate(name, west)
    const { key } = await catalog.updateKey(name, { extra: { related: { primary: 'nowhere', regions: [] }, mine: 1 } })
    expect(key).toMatchObject({ extra: { mine: 1 }, related: { primary: region, regions: [region, west] } })
  })

  it('are damaged together when one was taken out of the file', async () => {
    const name = nameOf(await enabledKey(catalog, multiRegionKey()))
    await replicate(name, west)
    await catalog[Symbol.asyncDispose]()
    await store.run('delete from "key" where account = ? and region = ?', account, west)
    catalog = await open()
    const failed = (error: unknown) => isCode(error, 'IntegrityFailed')
    await expect(catalog.findRelatedKeys(name)).rejects.toSatisfy(failed)
    await expect(replicate(name, europe)).rejects.toSatisfy(failed)
  })

  it('are refused for a key of one Region', async () => {
    const name = nameOf(await enabledKey(catalog))
    await expect(replicate(name, west)).rejects.toThrow(TypeError)
    expect(await catalog.findRelatedKeys(name)).toHaveLength(1)
    expect(await catalog.findRelatedKeys(at(name, west))).toEqual([])
  })
})
