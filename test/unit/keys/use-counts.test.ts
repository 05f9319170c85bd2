import path from 'node:path'
import { describe, expect, it } from 'vitest'
import { openCatalog } from '../../../src/catalog/open.ts'
import { createUseCounts, usesMax } from '../../../src/keys/use-counts.ts'
import { enabledKey, softwareSeal, temporaryFolder } from '../../support/catalog.ts'

async function openBench(folder: string) {
  const catalog = await openCatalog({ kind: 'sqlite', file: path.join(folder, 'catalog.sqlite') })
  catalog.useSeal(softwareSeal())
  return catalog
}

async function take(uses: ReturnType<typeof createUseCounts>, entry: never, material: never, count: number) {
  for (let i = 0; i < count; i++) await uses.take(entry, material)
}

describe('the uses of a key', () => {
  it('are reserved in blocks before they happen', async () => {
    using folder = temporaryFolder()
    await using catalog = await openBench(folder.path)
    const entry = await enabledKey(catalog)
    const material = entry.materials[0]!
    await using uses = createUseCounts({ catalog, blockUses: 100 })
    expect(await uses.reserved(entry, material)).toBe(0)
    await take(uses, entry as never, material as never, 60)
    expect(await uses.reserved(entry, material)).toBe(100)
    await take(uses, entry as never, material as never, 30)
    await uses.take(entry, material)
    // the next block is fetched while a quarter of the last one is left
    await expect.poll(() => uses.reserved(entry, material)).toBe(200)
  })

  it('are given back when the gateway ends, and lost when it crashes', async () => {
    using folder = temporaryFolder()
    await using catalog = await openBench(folder.path)
    const entry = await enabledKey(catalog)
    const material = entry.materials[0]!
    {
      await using uses = createUseCounts({ catalog, blockUses: 100 })
      await take(uses, entry as never, material as never, 7)
    }
    await using after = createUseCounts({ catalog, blockUses: 100 })
    expect(await after.reserved(entry, material)).toBe(7)
    const crashed = createUseCounts({ catalog, blockUses: 100 })
    await take(crashed, entry as never, material as never, 1)
    expect(await after.reserved(entry, material)).toBe(107)
  })

  it('end at 2^32, with a warning from half of them on', async () => {
    using folder = temporaryFolder()
    await using catalog = await openBench(folder.path)
    const entry = await enabledKey(catalog)
    const material = entry.materials[0]!
    const warned: number[] = []
    const half = usesMax / 2
    const options = { catalog, blockUses: half, warn: (_key: string, reserved: number) => void warned.push(reserved) }
    const first = createUseCounts(options)
    await first.take(entry, material)
    const second = createUseCounts(options)
    await second.take(entry, material)
    expect(warned).toEqual([half, usesMax])
    const third = createUseCounts(options)
    await expect(third.take(entry, material)).rejects.toMatchObject({ code: 'KeyStateInvalid' })
  })

  it('are counted together when several calls need a block at once', async () => {
    using folder = temporaryFolder()
    await using catalog = await openBench(folder.path)
    const entry = await enabledKey(catalog)
    const material = entry.materials[0]!
    await using uses = createUseCounts({ catalog, blockUses: 10 })
    await Promise.all(Array.from({ length: 25 }, () => uses.take(entry, material)))
    expect(await uses.reserved(entry, material)).toBe(30)
  })

  it('can’t be set back by who writes the catalog’s file', async () => {
    using folder = temporaryFolder()
    await using catalog = await openBench(folder.path)
    const entry = await enabledKey(catalog)
    const material = entry.materials[0]!
    await createUseCounts({ catalog, blockUses: 10 }).take(entry, material)
    catalog.useSeal(softwareSeal('another key'))
    const uses = createUseCounts({ catalog, blockUses: 10 })
    await expect(uses.take(entry, material)).rejects.toMatchObject({ code: 'IntegrityFailed' })
  })
})
