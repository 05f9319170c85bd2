import path from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { Catalog } from '../../src/catalog/catalog.ts'
import { openCatalog } from '../../src/catalog/open.ts'
import { ProblemsError } from '../../src/problem.ts'
import { takeStartTurn } from '../../src/start-turn.ts'
import { temporaryFolder } from '../support/catalog.ts'

let folder: ReturnType<typeof temporaryFolder>
const opened: Catalog[] = []
const open = async (pollMs?: number) => {
  const file = path.join(folder.path, 'catalog.sqlite')
  const catalog = await openCatalog({ kind: 'sqlite', file, ...(pollMs === undefined ? {} : { pollMs }) })
  opened.push(catalog)
  return catalog
}

beforeEach(() => {
  folder = temporaryFolder()
})

afterEach(async () => {
  for (const catalog of opened.splice(0)) await catalog[Symbol.asyncDispose]()
  folder[Symbol.dispose]()
})

describe('gateways that start on one catalog', () => {
  it('do so one after another', async () => {
    const [a, b] = [await open(20), await open(20)]
    const events: string[] = []
    const first = await takeStartTurn(a)
    const second = takeStartTurn(b).then((turn) => {
      events.push('second begins')
      return turn
    })
    await expect(takeStartTurn(b, 0)).rejects.toThrow(ProblemsError)
    events.push('first ends')
    await first[Symbol.asyncDispose]()
    await (await second)[Symbol.asyncDispose]()
    expect(events).toEqual(['first ends', 'second begins'])
  })

  it('wait for nobody where no other gateway can be', async () => {
    const alone = await open()
    await using _ = await takeStartTurn(alone)
    await using __ = await takeStartTurn(alone, 0)
    expect(alone.isShared).toBe(false)
  })
})
