import path from 'node:path'
import { setImmediate as turn } from 'node:timers/promises'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import type { Database } from '../../../src/catalog/database.ts'
import { type Instance, openInstance } from '../../../src/catalog/instance.ts'
import { migrate } from '../../../src/catalog/migrate.ts'
import { openSqliteDatabase } from '../../../src/catalog/sqlite-database.ts'
import { createWriteQueue } from '../../../src/catalog/write-queue.ts'
import { temporaryFolder } from '../../support/catalog.ts'

/** A door that is open, or lets as many through as it is told. */
function createDoor() {
  let left = Number.POSITIVE_INFINITY
  let waiting: (() => void)[] = []
  return {
    close: () => {
      left = 0
    },
    open(count = Number.POSITIVE_INFINITY) {
      left = count
      const all = waiting
      waiting = []
      for (const knock of all) knock()
    },
    async pass(): Promise<void> {
      while (left === 0) await new Promise<void>((resolve) => waiting.push(resolve))
      left--
    },
  }
}

// heartbeats come when a test asks for them
beforeEach(() => vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] }))
afterEach(() => vi.useRealTimers())

describe('a gateway that stood still', () => {
  it('uses nothing before it has read what others wrote without waiting for it', async () => {
    using folder = temporaryFolder()
    const file = path.join(folder.path, 'catalog.sqlite')
    await using ours = await openSqliteDatabase(file)
    await using theirs = await openSqliteDatabase(file)
    await migrate(ours, 0)
    const [reading, writing] = [createDoor(), createDoor()]
    let written = Promise.withResolvers<void>()
    const pulse: Database = {
      ...theirs,
      async read(queries) {
        await reading.pass()
        return await theirs.read(queries)
      },
      async write(statements) {
        await writing.pass()
        const outcome = await theirs.write(statements)
        written.resolve()
        return outcome
      },
    }
    const told: string[] = []
    const open = (database: Database, heartbeat: Database): Promise<Instance> =>
      openInstance({
        database,
        pulse: heartbeat,
        now: () => 0,
        pollMs: 20,
        othersChanged: (changes) => told.push(...changes.map(({ name }) => name)),
        anythingChanged: () => told.push('*'),
        report: () => {},
        restored: () => {},
      })
    await using writer = await open(ours, ours)
    await using stalled = await open(theirs, pulse)
    const queue = createWriteQueue({
      database: ours,
      instance: writer.id,
      now: () => 0,
      changed: () => {},
      acknowledged: writer.acknowledged,
    })
    const change = (name: string) =>
      queue.write(async () => ({ statements: [], changes: [{ table: 'key', name }], result: undefined }))

    await change('first')
    expect(stalled.isCurrent()).toBe(false)

    // it has read, and what it writes is under way
    reading.open(1)
    writing.close()
    written = Promise.withResolvers()
    const back = stalled.whenCurrent()
    await expect.poll(() => told).toEqual(['first'])
    await change('second')
    writing.open()
    await written.promise
    await turn()
    expect({ told, isCurrent: stalled.isCurrent() }).toEqual({ told: ['first'], isCurrent: false })

    reading.open()
    await back
    expect(stalled.isCurrent()).toBe(true)
    expect(told).toEqual(['first', 'second'])
  })
})
