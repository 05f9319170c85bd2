/**
 * Where the tests of the catalog keep it: a file, or a database of a server, which every test finds empty. The same tests run on both; what they
 * do behind the gateway's back goes through `run` and `all`, with `?` for parameters and without foreign keys.
 */
import path from 'node:path'
import Sqlite from 'better-sqlite3'
import { expect } from 'vitest'
import type { CatalogOptions } from '../../src/catalog/open.ts'
import { temporaryFolder } from './catalog.ts'
import type { PostgresServer } from './postgres.ts'

export interface CatalogStore extends AsyncDisposable {
  readonly options: CatalogOptions
  /** One statement that changes at least one row, or makes a table. */
  run(statement: string, ...parameters: readonly Sqlite.Value[]): Promise<void>
  all(statement: string, ...parameters: readonly Sqlite.Value[]): Promise<Record<string, Sqlite.Value>[]>
  one(statement: string, ...parameters: readonly Sqlite.Value[]): Promise<Record<string, Sqlite.Value>>
}

let server: PostgresServer | undefined

/** From here on stores are databases of this server. */
export function useServer(next: PostgresServer): void {
  server = next
}

/** Whether no other gateway can be at work on a store: it is a file. */
export function isAlone(): boolean {
  return server === undefined
}

export async function openStore(): Promise<CatalogStore> {
  return server === undefined ? openFile() : await openServed(server)
}

function openFile(): CatalogStore {
  const folder = temporaryFolder()
  const file = path.join(folder.path, 'catalog.sqlite')
  const connected = <Result>(work: (connection: Sqlite) => Result): Result => {
    const connection = new Sqlite(file)
    try {
      connection.pragma('foreign_keys = off')
      return work(connection)
    } finally {
      connection.close()
    }
  }
  return {
    options: { kind: 'sqlite', file },
    async run(statement, ...parameters) {
      const changes = connected((connection) => connection.prepare(statement).run(parameters).changes)
      if (!statement.startsWith('create')) expect(changes).toBeGreaterThan(0)
    },
    all: async (statement, ...parameters) => connected((connection) => connection.prepare(statement).all(parameters)),
    one: async (statement, ...parameters) =>
      onlyRow(connected((connection) => connection.prepare(statement).all(parameters))),
    async [Symbol.asyncDispose]() {
      folder[Symbol.dispose]()
    },
  }
}

const database = 'catalog'

async function openServed(postgres: PostgresServer): Promise<CatalogStore> {
  await empty(postgres)
  const all: CatalogStore['all'] = async (statement, ...parameters) =>
    (await postgres.query(database, statement, parameters)).rows as Record<string, Sqlite.Value>[]
  return {
    options: { kind: 'postgresql', postgresql: postgres.address(database), pollMs: 20 },
    async run(statement, ...parameters) {
      // SQLite's way to write bytes
      const portable = statement.replaceAll(/x'([0-9a-f]*)'/gi, "'\\x$1'::bytea")
      const { changes } = await postgres.query(database, portable, parameters)
      if (!statement.startsWith('create')) expect(changes).toBeGreaterThan(0)
    },
    all,
    one: async (statement, ...parameters) => onlyRow(await all(statement, ...parameters)),
    async [Symbol.asyncDispose]() {},
  }
}

/** Tables stay from one test to the next: to make them takes longer than most tests. */
async function empty(postgres: PostgresServer): Promise<void> {
  const { rows } = await postgres.query('postgres', 'select 1 from pg_database where datname = ?', [database])
  if (rows.length === 0) return await postgres.createDatabase(database)
  const tables = (await postgres.query(database, "select tablename from pg_tables where schemaname = 'public'")).rows
  for (const { tablename } of tables) {
    if (tablename === 'older') await postgres.query(database, 'drop table older')
    else if (tablename === 'counter') await postgres.query(database, 'update counter set value = 0')
    else if (tablename !== 'migration') await postgres.query(database, `delete from "${tablename}"`)
  }
}

function onlyRow(rows: Record<string, Sqlite.Value>[]): Record<string, Sqlite.Value> {
  expect(rows).toHaveLength(1)
  return rows[0] as Record<string, Sqlite.Value>
}
