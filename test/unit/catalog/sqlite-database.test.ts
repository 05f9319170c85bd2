import { chmodSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { Worker } from 'node:worker_threads'
import Sqlite from 'better-sqlite3'
import { sql } from 'kysely'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { ConstraintError, type Database } from '../../../src/catalog/database.ts'
import { openSqliteDatabase } from '../../../src/catalog/sqlite-database.ts'
import { toEngineError } from '../../../src/catalog/sqlite-faults.ts'
import type { ThreadData } from '../../../src/catalog/sqlite-messages.ts'
import { GatewayError } from '../../../src/error.ts'
import { temporaryFolder } from '../../support/catalog.ts'

let folder: ReturnType<typeof temporaryFolder>
let file: string
let database: Database
const threads: { readonly role: string; readonly worker: Worker }[] = []

const startThread = (workerData: ThreadData) => {
  const worker = new Worker(new URL('../../../src/catalog/sqlite-thread.ts', import.meta.url), { workerData })
  threads.push({ role: workerData.role, worker })
  return worker
}

beforeEach(async () => {
  folder = temporaryFolder()
  file = path.join(folder.path, 'catalog.sqlite')
  threads.length = 0
  database = await openSqliteDatabase(file, startThread)
  await write(sql`create table t (id integer primary key, v any) strict`)
})

afterEach(async () => {
  await database[Symbol.asyncDispose]()
  folder[Symbol.dispose]()
})

const compile = <Row>(query: ReturnType<typeof sql<Row>>) => query.compile(database.sql)
const write = (...queries: ReturnType<typeof sql>[]) =>
  database.write(queries.map((query) => ({ query: compile(query) })))
const count = async () => {
  const [[row]] = await database.read([compile(sql<{ n: number }>`select count(*) as n from t`)])
  return row!.n
}

describe('the SQLite database', () => {
  it('keeps its files to the gateway alone, even when they were not', async () => {
    for (const suffix of ['', '-wal', '-shm']) expect(statSync(file + suffix).mode & 0o777).toBe(0o600)
    chmodSync(file, 0o644)
    await using again = await openSqliteDatabase(file)
    expect(again).toBeDefined()
    expect(statSync(file).mode & 0o777).toBe(0o600)
  })

  it('gives every value back as it was', async () => {
    const slice = Buffer.from('xxPARTxx').subarray(2, 6)
    const values = [
      null,
      0,
      -1,
      Number.MAX_SAFE_INTEGER,
      'é\0"\u{1f511}',
      slice,
      Buffer.alloc(0),
      Buffer.alloc(70_000, 7),
    ]
    await write(...values.map((value, id) => sql`insert into t values (${id}, ${value})`))
    const [rows] = await database.read([compile(sql<{ v: unknown }>`select v from t order by id`)])
    expect(rows.map(({ v }) => v)).toEqual(values)
    expect(Buffer.isBuffer(rows[5]!.v)).toBe(true)
    await write(sql`update t set v = ${2n ** 40n} where id = 0`)
    const [[big]] = await database.read([compile(sql<{ v: unknown }>`select v from t where id = 0`)])
    expect(big!.v).toBe(2 ** 40)
  })

  it('refuses a value that SQLite has no type for', async () => {
    await expect(write(sql`insert into t values (1, ${true})`)).rejects.toThrow(TypeError)
  })

  it('undoes the whole batch when one statement fails', async () => {
    const insert = sql`insert into t values (1, null)`
    const failed = write(insert, insert)
    await expect(failed).rejects.toThrow(ConstraintError)
    await expect(failed).rejects.toMatchObject({ kind: 'unique' })
    expect(await count()).toBe(0)
  })

  it('undoes the whole batch when a statement touches another number of rows than expected', async () => {
    const outcome = await database.write([
      { query: compile(sql`insert into t values (1, null)`), expectRows: 1 },
      { query: compile(sql`update t set v = 1 where id = 2`), expectRows: 1 },
    ])
    expect(outcome).toEqual({ committed: false, missed: 1 })
    expect(await count()).toBe(0)
  })

  it('answers reads while a write waits for its transaction', async () => {
    await write(sql`insert into t values (1, null)`)
    const other = new Sqlite(file)
    other.exec('begin immediate')
    let isWritten = false
    const written = write(sql`insert into t values (2, null)`).then(() => {
      isWritten = true
    })
    try {
      for (let round = 0; round < 20; round++) expect(await count()).toBe(1)
      expect(isWritten).toBe(false)
    } finally {
      other.exec('commit')
      other.close()
    }
    await written
    expect(await count()).toBe(2)
  })

  it('reads all queries of a batch from one snapshot', async () => {
    const total = sql<{ n: number }>`select count(*) as n from t`
    const reads: Promise<boolean>[] = []
    for (let id = 0; id < 30; id++) {
      const written = write(sql`insert into t values (${id}, null)`)
      reads.push(database.read([compile(total), compile(total)]).then(([[a], [b]]) => a!.n === b!.n))
      await written
    }
    expect(await Promise.all(reads)).not.toContain(false)
  })

  it.each(['reader', 'writer'])(
    'fails the calls of a %s thread that dies, and goes on with a new one',
    async (role) => {
      await write(sql`insert into t values (1, null)`)
      // long enough to be under way when its thread ends
      const long = sql`with recursive c(n) as (select 1 union all select n + 1 from c where n < 3000000) select max(n) from c`
      const call = role === 'reader' ? database.read([compile(long)]) : write(sql`update t set v = (${long})`)
      const { worker } = threads.find((thread) => thread.role === role)!
      const lost = expect(call).rejects.toMatchObject({ code: 'CatalogUnavailable' })
      await Promise.all([worker.terminate(), lost])
      expect(await count()).toBe(1)
      await write(sql`insert into t values (2, null)`)
      expect(await count()).toBe(2)
      expect(threads.filter((thread) => thread.role === role)).toHaveLength(2)
    },
  )

  it('moves the log into the database when it closes', async () => {
    await write(sql`insert into t values (1, 'findme')`)
    await database[Symbol.asyncDispose]()
    expect(readFileSync(file).includes('findme')).toBe(true)
    await expect(count()).rejects.toMatchObject({ code: 'CatalogUnavailable' })
  })

  it('says that the folder is missing', async () => {
    const opening = openSqliteDatabase(path.join(folder.path, 'no', 'catalog.sqlite'))
    await expect(opening).rejects.toMatchObject({
      code: 'CatalogUnavailable',
      detail: expect.stringContaining('folder does not exist'),
    })
  })

  it('says that the file is no database, and does not touch it', async () => {
    const other = path.join(folder.path, 'letter.txt')
    writeFileSync(other, 'dear colleague\n'.repeat(300))
    await expect(openSqliteDatabase(other)).rejects.toMatchObject({
      code: 'CatalogUnavailable',
      detail: expect.stringContaining('SQLITE_NOTADB'),
    })
    expect(readFileSync(other, 'utf8')).toBe('dear colleague\n'.repeat(300))
  })
})

describe('a fault of SQLite', () => {
  /** The code that SQLite itself gives. */
  const faultOf = (provoke: (connection: Sqlite) => void, options = {}) => {
    const connection = new Sqlite(file, options)
    try {
      provoke(connection)
    } catch (error) {
      const { code, message } = error as Error & { readonly code: string }
      return toEngineError(file, { code, message })
    } finally {
      connection.close()
    }
    throw new Error('nothing failed')
  }

  it.each([
    [
      'a full disk',
      'the disk is full',
      (connection: Sqlite) => {
        connection.pragma('max_page_count = 1')
        connection.prepare('insert into t values (1, zeroblob(1000000))').run([])
      },
      {},
    ],
    [
      'a file that cannot be written',
      'owner and mode',
      (connection: Sqlite) => connection.exec('delete from t'),
      { readonly: true },
    ],
  ])('%s is CatalogUnavailable with its remedy', (_, remedy, provoke, options) => {
    const error = faultOf(provoke, options)
    expect(error).toBeInstanceOf(GatewayError)
    expect(error).toMatchObject({ code: 'CatalogUnavailable', detail: expect.stringContaining(remedy) })
    expect(error.cause).toBeInstanceOf(Error)
  })

  it('a damaged page is CatalogUnavailable with its remedy', async () => {
    await write(...Array.from({ length: 50 }, (_, id) => sql`insert into t values (${id}, ${'x'.repeat(500)})`))
    await database[Symbol.asyncDispose]()
    const bytes = readFileSync(file)
    bytes.fill(0xa5, 4096)
    writeFileSync(file, bytes)
    database = await openSqliteDatabase(file)
    await expect(count()).rejects.toMatchObject({
      code: 'CatalogUnavailable',
      detail: expect.stringMatching(/damaged.*backup.*SQLITE_CORRUPT/),
    })
  })

  it('in our own SQL stays what it is', async () => {
    const failed = write(sql`insert into nowhere values (1)`)
    await expect(failed).rejects.not.toBeInstanceOf(GatewayError)
    await expect(failed).rejects.toThrow(/no such table/)
  })
})
