import { randomBytes } from 'node:crypto'
import path from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { Catalog, KeyEntry, KeyName } from '../../../src/catalog/catalog.ts'
import { openCatalog } from '../../../src/catalog/open.ts'
import { isCode } from '../../../src/error.ts'
import { requireUsable } from '../../../src/keys/key-state.ts'
import type { RelatedEvents } from '../../../src/keys/keys.ts'
import { createLifeCycle } from '../../../src/keys/life-cycle.ts'
import { createMultiRegion } from '../../../src/keys/multi-region.ts'
import { enabledKey, nameOf, newKey, region, softwareSeal, temporaryFolder } from '../../support/catalog.ts'

const west = 'us-west-2'
const europe = 'eu-west-1'
const partition = 'aws'
const now = () => 1_790_000_000_000

let folder: ReturnType<typeof temporaryFolder>
let catalog: Catalog
const told: string[] = []
/** What the journal does with an event. */
let journal: () => Promise<void>

const events: RelatedEvents = {
  async replicaCreated({ key }) {
    await journal()
    told.push(`created ${key.region}`)
  },
  async primaryChanged({ key }) {
    await journal()
    told.push(`primary ${key.region}`)
  },
}

const createKeys = () => createMultiRegion({ catalog, partition, now, requireRoom: async () => {}, events })

beforeEach(async () => {
  folder = temporaryFolder()
  catalog = await openCatalog({ kind: 'sqlite', file: path.join(folder.path, 'catalog.sqlite') })
  catalog.useSeal(softwareSeal())
  told.length = 0
  journal = async () => {
    throw new Error('the journal is full')
  }
})

afterEach(async () => {
  await catalog[Symbol.asyncDispose]()
  folder[Symbol.dispose]()
})

const primaryKey = (changes: Parameters<typeof newKey>[0] = {}) =>
  enabledKey(catalog, newKey({ keyId: `mrk-${randomBytes(16).toString('hex')}`, multiRegion: true, ...changes }))
const replicaIn = (where: string) => ({ region: where, description: '', policy: '{}', tags: {} })
const find = async (name: KeyName, where: string) => (await catalog.findKey({ ...name, region: where })) as KeyEntry
const statesOf = async (name: KeyName, ...regions: string[]) =>
  Promise.all(regions.map(async (where) => (await find(name, where)).key.state))

describe('a replica that is being made', () => {
  it('cannot be used before the journal has its creation, whatever fails, and can after the next round', async () => {
    const primary = await primaryKey()
    const name = nameOf(primary)
    const replica = await createKeys().replicate(primary, replicaIn(west))
    expect(replica.key.state).toBe('Creating')
    const arn = `arn:aws:kms:${west}:${name.account}:key/${name.keyId}`
    expect(() => requireUsable(arn, replica, now)).toThrow(
      expect.objectContaining({ params: { keyArn: arn, condition: 'creating' } }),
    )
    // A gateway that starts after this one crashed.
    const next = createKeys()
    await expect(next.settleRelatedKeys()).rejects.toThrow('the journal is full')
    expect(await statesOf(name, region, west)).toEqual(['Enabled', 'Creating'])
    journal = async () => {}
    await next.settleRelatedKeys()
    expect(await statesOf(name, region, west)).toEqual(['Enabled', 'Enabled'])
    expect(told).toEqual([`created ${west}`])
    await next.settleRelatedKeys()
    expect(told).toHaveLength(1)
  })

  it('waits for its own import where material is imported', async () => {
    const primary = await primaryKey({ origin: 'EXTERNAL' })
    const keys = createKeys()
    await keys.replicate(primary, replicaIn(west))
    journal = async () => {}
    await keys.settleRelatedKeys()
    expect(await statesOf(primary.key, west)).toEqual(['PendingImport'])
  })

  it('stays what it is when its deletion was scheduled meanwhile', async () => {
    const primary = await primaryKey()
    const keys = createKeys()
    const replica = await keys.replicate(primary, replicaIn(west))
    await createLifeCycle({ catalog, partition, now }).scheduleDeletion(replica, 7)
    journal = async () => {}
    await keys.settleRelatedKeys()
    expect(await statesOf(primary.key, west)).toEqual(['PendingDeletion'])
  })

  it('is not begun when the account has as many keys as it may', async () => {
    const primary = await primaryKey()
    const full = createMultiRegion({
      catalog,
      partition,
      now,
      requireRoom: async () => Promise.reject(new Error('full')),
    })
    await expect(full.replicate(primary, replicaIn(west))).rejects.toThrow('full')
    expect(await full.relatedKeys(primary)).toHaveLength(1)
  })
})

describe('a change of roles', () => {
  const begin = async (disabled: readonly string[] = []) => {
    const primary = await primaryKey()
    const name = nameOf(primary)
    const keys = createKeys()
    for (const where of [west, europe]) {
      await keys.replicate(primary, replicaIn(where))
      await catalog.updateKey({ ...name, region: where }, { state: disabled.includes(where) ? 'Disabled' : 'Enabled' })
    }
    await keys.updatePrimaryRegion(primary, west)
    return { keys, name }
  }
  const primaries = async (name: KeyName) =>
    Promise.all([region, west, europe].map(async (where) => (await find(name, where)).key.related?.primary))

  it('shows both keys as updating, usable, until the journal has it; then all of them tell it', async () => {
    const { keys, name } = await begin()
    expect(await statesOf(name, region, west, europe)).toEqual(['Updating', 'Updating', 'Enabled'])
    expect(await primaries(name)).toEqual([region, region, region])
    requireUsable('', await find(name, region), now)
    await keys.updatePrimaryRegion(await find(name, region), west)
    const elsewhere = keys.updatePrimaryRegion(await find(name, region), europe)
    await expect(elsewhere).rejects.toSatisfy((error) => isCode(error, 'KeyStateInvalid'))
    journal = async () => {}
    await createKeys().settleRelatedKeys()
    expect(await statesOf(name, region, west, europe)).toEqual(['Enabled', 'Enabled', 'Enabled'])
    expect(await primaries(name)).toEqual([west, west, west])
    expect(told).toEqual([`primary ${west}`])
  })

  it('never makes a disabled key usable, and cannot lose the key that becomes the primary one', async () => {
    const { keys, name } = await begin([west])
    expect(await statesOf(name, region, west)).toEqual(['Updating', 'Disabled'])
    const scheduled = createLifeCycle({ catalog, partition, now }).scheduleDeletion(await find(name, west), 7)
    await expect(scheduled).rejects.toMatchObject({ params: { condition: 'updating' } })
    journal = async () => {}
    await keys.settleRelatedKeys()
    expect(await statesOf(name, region, west)).toEqual(['Enabled', 'Disabled'])
    expect(await primaries(name)).toEqual([west, west, west])
  })

  it('waits for a rotation that is under way', async () => {
    const primary = await primaryKey()
    const name = nameOf(primary)
    const keys = createKeys()
    await keys.replicate(primary, replicaIn(west))
    await catalog.updateKey({ ...name, region: west }, { state: 'Enabled' })
    await catalog.beginMaterial(name, { ...newKey().material, number: 2 })
    const update = keys.updatePrimaryRegion(await find(name, region), west)
    await expect(update).rejects.toMatchObject({ params: { condition: 'updating' } })
  })
})
