import path from 'node:path'
import { sql } from 'kysely'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { Database } from '../../../src/catalog/database.ts'
import { migrate } from '../../../src/catalog/migrate.ts'
import type { Migration } from '../../../src/catalog/migrations/migration.ts'
import { openSqliteDatabase } from '../../../src/catalog/sqlite-database.ts'
import { temporaryFolder } from '../../support/catalog.ts'

let folder: ReturnType<typeof temporaryFolder>
let file: string
let database: Database

beforeEach(async () => {
  folder = temporaryFolder()
  file = path.join(folder.path, 'catalog.sqlite')
  database = await openSqliteDatabase(file)
})

afterEach(async () => {
  await database[Symbol.asyncDispose]()
  folder[Symbol.dispose]()
})

const first: Migration = {
  name: '2026-01-01-first',
  statements: (db) => [sql`create table a (x integer)`.compile(db.sql), sql`insert into a values (1)`.compile(db.sql)],
}
const broken: Migration = {
  name: '2026-01-02-broken',
  statements: (db) => [
    sql`create table b (x integer)`.compile(db.sql),
    sql`insert into nowhere values (1)`.compile(db.sql),
  ],
}
const tables = async () => {
  const query = sql<{ name: string }>`select name from sqlite_schema where type = 'table' order by name`
  const [rows] = await database.read([query.compile(database.sql)])
  return rows.map(({ name }) => name)
}

describe('migration', () => {
  it('runs each step once', async () => {
    await migrate(database, 1, [first])
    await migrate(database, 2, [first])
    expect(await tables()).toEqual(['a', 'migration'])
  })

  it('leaves nothing of a step that failed, and keeps those before it', async () => {
    await expect(migrate(database, 1, [first, broken])).rejects.toThrow(/no such table/)
    expect(await tables()).toEqual(['a', 'migration'])
  })

  it('does not take a step whose rows collide for one that another gateway ran', async () => {
    const colliding: Migration = {
      name: '2026-01-02-colliding',
      statements: (db) => [
        sql`create table c (x integer primary key)`.compile(db.sql),
        sql`insert into c values (1), (1)`.compile(db.sql),
      ],
    }
    await expect(migrate(database, 1, [first, colliding])).rejects.toThrow('unique constraint')
    expect(await tables()).toEqual(['a', 'migration'])
  })

  it('is done once when two gateways begin it together', async () => {
    await using other = await openSqliteDatabase(file)
    await Promise.all([migrate(database, 1), migrate(other, 1), migrate(database, 1)])
    const counters = database.sql.selectFrom('counter').select('name').orderBy('name').compile()
    const [rows] = await database.read([counters])
    expect(rows).toEqual([{ name: 'revision' }, { name: 'trimmed' }])
  })

  it('refuses a catalog of a newer version, and names what it does not know', async () => {
    const newer = { ...first, name: '2099-12-31-from-the-future' }
    await migrate(database, 1, [newer])
    await expect(migrate(database, 2)).rejects.toMatchObject({
      code: 'CatalogUnavailable',
      detail: expect.stringMatching(/newer hsmgate.*2099-12-31-from-the-future/),
    })
    expect(await tables()).toEqual(['a', 'migration'])
  })

  it('gives every table a primary key, and those of keys and identities begin it with account and Region', async () => {
    await migrate(database, 1)
    const query = sql<{ table: string; name: string; pk: number }>`
      select m.name as "table", c.name, c.pk from sqlite_schema m, pragma_table_info(m.name) c
      where m.type = 'table' and c.pk > 0 order by m.name, c.pk`
    const [rows] = await database.read([query.compile(database.sql)])
    const keys = Map.groupBy(rows, ({ table }) => table)
    expect([...keys.keys()]).toEqual(await tables())
    for (const [table, columns] of keys) {
      if (['change', 'counter', 'instance', 'lease', 'migration'].includes(table)) continue
      expect(
        columns.slice(0, 2).map(({ name }) => name),
        table,
      ).toEqual(['account', 'region'])
    }
  })
})
