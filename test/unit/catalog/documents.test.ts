import { describe, expect, it } from 'vitest'
import { openCatalog } from '../../../src/catalog/open.ts'
import { softwareSeal } from '../../support/catalog.ts'
import { openStore } from '../../support/catalog-store.ts'

async function openBench() {
  await using stack = new AsyncDisposableStack()
  const store = stack.use(await openStore())
  const reported: unknown[] = []
  const catalog = stack.use(await openCatalog({ ...store.options, report: (error) => reported.push(error) }))
  catalog.useSeal(softwareSeal())
  const owned = stack.move()
  return { catalog, store, reported, [Symbol.asyncDispose]: () => owned.disposeAsync() }
}

describe('a document', () => {
  it('is made, changed and deleted as a review of what is there says', async () => {
    await using bench = await openBench()
    const { catalog } = bench
    const seen: (string | undefined)[] = []
    const change = (next: string | null | undefined) =>
      catalog.changeDocument('store', 'one', (found) => {
        seen.push(found)
        return next
      })
    expect(await catalog.findDocument('store', 'one')).toBeUndefined()
    expect(await change('{"a":1}')).toBe('{"a":1}')
    expect(await change(undefined)).toBe('{"a":1}')
    expect(await change('{"a":2}')).toBe('{"a":2}')
    expect(await catalog.findDocument('store', 'one')).toBe('{"a":2}')
    expect(await change(null)).toBeUndefined()
    expect(await change(null)).toBeUndefined()
    expect(seen).toEqual([undefined, '{"a":1}', '{"a":1}', '{"a":2}', undefined])
  })

  it('is of one collection, and listed by name', async () => {
    await using bench = await openBench()
    const { catalog } = bench
    for (const [collection, name] of [
      ['store', 'b'],
      ['store', 'a'],
      ['key', 'a'],
    ] as const) {
      await catalog.changeDocument(collection, name, () => `${collection} ${name}`)
    }
    expect(await catalog.listDocuments('store')).toEqual([
      { name: 'a', body: 'store a' },
      { name: 'b', body: 'store b' },
    ])
    expect(await catalog.listDocuments('none')).toEqual([])
  })

  it('is told of when it changes, and not when nothing does', async () => {
    await using bench = await openBench()
    const { catalog } = bench
    const told: string[] = []
    catalog.onChange(({ table, name }) => told.push(`${table} ${name}`))
    await catalog.changeDocument('store', 'one', () => 'x')
    await catalog.changeDocument('store', 'one', () => undefined)
    await catalog.changeDocument('store', 'two', () => null)
    expect(told).toEqual(['document store/one'])
  })

  it('refuses what its review refuses', async () => {
    await using bench = await openBench()
    const { catalog } = bench
    const refused = catalog.changeDocument('store', 'one', () => {
      throw new TypeError('no')
    })
    await expect(refused).rejects.toThrow('no')
    expect(await catalog.findDocument('store', 'one')).toBeUndefined()
  })

  it('that was changed in the file is never used: body, name or collection', async () => {
    for (const statement of [
      `update document set body = 'y' where name = 'one'`,
      `update document set name = 'other' where name = 'one'`,
      `update document set collection = 'other' where name = 'one'`,
    ]) {
      await using bench = await openBench()
      const { catalog, store, reported } = bench
      await catalog.changeDocument('store', 'one', () => 'x')
      await catalog.changeDocument('store', 'two', () => 'x')
      await store.run(statement)
      const [collection, name] = statement.includes('set name')
        ? ['store', 'other']
        : statement.includes('set collection')
          ? ['other', 'one']
          : ['store', 'one']
      await expect(catalog.findDocument(collection as string, name as string)).rejects.toMatchObject({
        code: 'IntegrityFailed',
      })
      expect((await catalog.listDocuments(collection as string)).map((document) => document.name)).not.toContain(name)
      expect(reported.length).toBeGreaterThan(0)
      expect(await catalog.findDocument('store', 'two')).toBe('x')
    }
  })
})
