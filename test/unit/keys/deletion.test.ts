import path from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { Catalog, KeyEntry, KeyName } from '../../../src/catalog/catalog.ts'
import { openCatalog } from '../../../src/catalog/open.ts'
import type { Hsm } from '../../../src/hsm/port.ts'
import { destroyDueKeys } from '../../../src/keys/deletion.ts'
import type { Pause } from '../../../src/keys/keys.ts'
import { createLifeCycle } from '../../../src/keys/life-cycle.ts'
import { enabledKey, softwareSeal, temporaryFolder } from '../../support/catalog.ts'

const day = 24 * 60 * 60 * 1000
const start = Date.parse('2026-01-01T00:00:00Z')
let folder: ReturnType<typeof temporaryFolder>
let catalog: Catalog
let key: KeyName
/** What happened, in order. */
let events: string[]

beforeEach(async () => {
  folder = temporaryFolder()
  catalog = await openCatalog({ kind: 'sqlite', file: path.join(folder.path, 'catalog.sqlite') })
  catalog.useSeal(softwareSeal())
  events = []
  key = (await enabledKey(catalog)).key
})

afterEach(async () => {
  await catalog[Symbol.asyncDispose]()
  folder[Symbol.dispose]()
})

const lifeCycle = () => createLifeCycle({ catalog, partition: 'aws', now: () => start })
const find = async () => (await catalog.findKey(key)) as KeyEntry
const schedule = async () => lifeCycle().scheduleDeletion(await find(), 7)

/** `destroy` stands for the module; the rest is real. */
function round(options: { day: number; pauses?: readonly Pause[]; destroy?: () => Promise<void> }): Promise<number> {
  const { pauses = [], destroy = async () => {} } = options
  const hsm = {
    async destroy() {
      await destroy()
      events.push('object destroyed')
    },
  } as unknown as Hsm
  return destroyDueKeys({
    catalog,
    hsm,
    gate: { check: async () => ({ now: start + options.day * day, pauses }) },
    deadline: () => ({ at: Number.POSITIVE_INFINITY }) as never,
    deleted: async () => void events.push('recorded'),
    failed: (_name, cause) => void events.push(`failed: ${String(cause)}`),
    paused: (found) => events.push(...found.map(({ reason }) => `paused: ${reason}`)),
  })
}

describe('a round of deletions', () => {
  it('destroys a key when its day has come, and records it', async () => {
    await schedule()
    expect(await round({ day: 6.99 })).toBe(0)
    expect(await round({ day: 7 })).toBe(1)
    expect(events).toEqual(['object destroyed', 'recorded'])
    expect(await catalog.findKey(key)).toBeUndefined()
  })

  it('destroys nothing while anything stands against it', async () => {
    await schedule()
    expect(await round({ day: 8, pauses: [{ reason: 'clock', jumpMs: day }] })).toBe(0)
    expect(events).toEqual(['paused: clock'])
    expect((await find()).key.state).toBe('PendingDeletion')
  })

  it('goes on where the module failed, in the next round', async () => {
    await schedule()
    const destroy = () => Promise.reject(new Error('the module is away'))
    expect(await round({ day: 8, destroy })).toBe(0)
    expect(events).toEqual(['failed: Error: the module is away'])
    expect(await round({ day: 8 })).toBe(1)
  })

  it('leaves a key whose deletion is cancelled between the list and the first step', async () => {
    await schedule()
    const found = catalog.findKey
    const cancelling: Catalog = {
      ...catalog,
      async findKey(name) {
        const entry = await found(name)
        if (entry?.key.state === 'PendingDeletion') await lifeCycle().cancelDeletion(entry)
        return entry
      },
    }
    const whole = catalog
    catalog = cancelling
    expect(await round({ day: 8 })).toBe(0)
    catalog = whole
    expect(events).toEqual([])
    expect((await find()).key.state).toBe('Disabled')
    expect((await find()).materials.map(({ state }) => state)).toEqual(['Current'])
  })

  it('cannot be cancelled any more once it has begun, not even by a caller who saw the key before', async () => {
    const before = await schedule()
    await round({ day: 8, destroy: () => Promise.reject(new Error('the module is away')) })
    for (const entry of [before, await find()]) {
      await expect(lifeCycle().cancelDeletion(entry)).rejects.toMatchObject({
        code: 'KeyStateInvalid',
        params: { condition: 'pending deletion' },
      })
    }
    expect((await find()).key.state).toBe('PendingDeletion')
  })
})

describe('a change of state by a caller who saw the key before its deletion was scheduled', () => {
  it('is refused', async () => {
    const before = await find()
    await schedule()
    const change = lifeCycle().setEnabled(before, false)
    await expect(change).rejects.toMatchObject({ code: 'KeyStateInvalid', params: { condition: 'pending deletion' } })
    const again = lifeCycle().scheduleDeletion(before, 30)
    await expect(again).rejects.toMatchObject({ code: 'KeyStateInvalid' })
    expect((await find()).key).toMatchObject({ state: 'PendingDeletion', deletionAt: start + 7 * day })
  })
})
