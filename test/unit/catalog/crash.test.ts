import { spawn } from 'node:child_process'
import { once } from 'node:events'
import path from 'node:path'
import { createInterface } from 'node:readline'
import Sqlite from 'better-sqlite3'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { openCatalog } from '../../../src/catalog/open.ts'
import { account, region, softwareSeal, temporaryFolder } from '../../support/catalog.ts'

const writer = path.resolve(import.meta.dirname, '../../support/catalog-writer.ts')
let folder: ReturnType<typeof temporaryFolder>
let file: string

beforeEach(() => {
  folder = temporaryFolder()
  file = path.join(folder.path, 'catalog.sqlite')
})

afterEach(() => folder[Symbol.dispose]())

async function runWriter(count: number, killAfter: number) {
  const child = spawn(process.execPath, [writer, file, String(count)], { stdio: ['ignore', 'pipe', 'inherit'] })
  const exited = once(child, 'exit')
  const acknowledged: string[] = []
  for await (const keyId of createInterface({ input: child.stdout })) {
    acknowledged.push(keyId)
    if (acknowledged.length === killAfter) child.kill('SIGKILL')
  }
  const [code, signal] = await exited
  return { acknowledged, code, signal }
}

describe('a catalog whose gateway was killed in the middle of writes', () => {
  it.each([1, 7, 20])('holds every acknowledged key, and no half of one (killed after %i)', async (killAfter) => {
    const { acknowledged, signal } = await runWriter(100_000, killAfter)
    expect(signal).toBe('SIGKILL')

    await using catalog = await openCatalog({ kind: 'sqlite', file })
    catalog.useSeal(softwareSeal())
    const listed = await catalog.listKeys(account, region, undefined, 100_000)
    expect(listed).toEqual(expect.arrayContaining(acknowledged))
    for (const keyId of listed) {
      const entry = await catalog.findKey({ account, region, keyId })
      expect(entry).toMatchObject({ key: { state: 'Enabled' }, materials: [{ state: 'Current' }], tags: { a: '1' } })
    }
    // what was under way is whole too: a key whose object was never acknowledged
    for (const { keyId } of await catalog.unsettledMaterials()) {
      expect(await catalog.findKey({ account, region, keyId })).toMatchObject({
        key: { state: 'Creating' },
        policy: { document: expect.any(String) },
        tags: { a: '1' },
      })
    }
    expect(await catalog.revision()).toBe(highestRevision())
  })
})

describe('a gateway that ends without closing its catalog', () => {
  it('is not kept alive by it, and loses nothing', async () => {
    const { acknowledged, code } = await runWriter(4, Number.POSITIVE_INFINITY)
    expect(code).toBe(0)
    await using catalog = await openCatalog({ kind: 'sqlite', file })
    expect(await catalog.listKeys(account, region, undefined, 10)).toEqual(acknowledged.toSorted())
  })
})

function highestRevision() {
  const other = new Sqlite(file, { readonly: true })
  try {
    expect(other.pragma('integrity_check', { simple: true })).toBe('ok')
    return other.prepare('select max(revision) as highest from change').all([])[0]!.highest
  } finally {
    other.close()
  }
}
