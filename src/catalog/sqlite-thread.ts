/**
 * Owns one SQLite connection, on a thread of its own: better-sqlite3 is synchronous, and an fsync on a slow disk must not hold up
 * the gateway's event loop.
 *
 * Two threads run this file. The writer commits with synchronous = FULL, so an answered write is on disk; the reader works on its own
 * snapshots of the write-ahead log and waits for nobody (https://www.sqlite.org/wal.html). A batch is one transaction and runs
 * without a pause, so no transaction is ever left open.
 */
import { parentPort, workerData } from 'node:worker_threads'
import Sqlite from 'better-sqlite3'
import type { SqliteFailure, ThreadAnswer, ThreadData, ThreadRequest } from './sqlite-messages.ts'

const maxPreparedStatements = 256

const { file, role, busyTimeoutMs } = workerData as ThreadData
const port = parentPort!
let connection: Sqlite | undefined
const prepared = new Map<string, Sqlite.Statement>()

port.on('message', (request: ThreadRequest) => {
  let answer: ThreadAnswer
  try {
    answer = run(request)
  } catch (error) {
    answer = { id: request.id, failure: toFailure(error) }
  }
  port.postMessage(answer)
  if (request.kind === 'close') port.close()
})

function openConnection(): Sqlite {
  const opened = new Sqlite(file, { timeout: busyTimeoutMs, fileMustExist: true })
  const mode = role === 'writer' ? opened.pragma('journal_mode = WAL', { simple: true }) : 'wal'
  if (mode !== 'wal') throw Object.assign(new Error(`journal mode is ${mode}`), { code: 'SQLITE_CANTOPEN_NOWAL' })
  opened.pragma('synchronous = FULL')
  opened.pragma('foreign_keys = ON')
  opened.pragma('trusted_schema = OFF')
  // what was deleted (a sealed secret, a policy) does not stay behind in free pages
  opened.pragma('secure_delete = ON')
  if (role === 'reader') opened.pragma('query_only = ON')
  return opened
}

function run({ id, kind, statements }: ThreadRequest): ThreadAnswer {
  if (kind === 'close') {
    prepared.clear()
    if (role === 'writer') connection?.pragma('wal_checkpoint(TRUNCATE)')
    connection?.close()
    return { id, rows: [] }
  }
  connection ??= openConnection()
  const database = connection
  database.exec(kind === 'write' ? 'BEGIN IMMEDIATE' : 'BEGIN')
  try {
    const rows: Record<string, Sqlite.Value>[][] = []
    for (const [index, { sql, parameters, expectRows }] of statements.entries()) {
      const statement = prepare(database, sql)
      if (statement.reader) {
        rows.push(statement.all(parameters))
        continue
      }
      const { changes } = statement.run(parameters)
      if (expectRows !== undefined && changes !== expectRows) {
        database.exec('ROLLBACK')
        return { id, missed: index }
      }
    }
    database.exec('COMMIT')
    return { id, rows }
  } catch (error) {
    // SQLite itself rolls back on some errors (full disk, I/O)
    if (database.inTransaction) database.exec('ROLLBACK')
    throw error
  }
}

function prepare(database: Sqlite, sql: string): Sqlite.Statement {
  const known = prepared.get(sql)
  if (known) return known
  if (prepared.size >= maxPreparedStatements) prepared.clear()
  const statement = database.prepare(sql)
  prepared.set(sql, statement)
  return statement
}

function toFailure(error: unknown): SqliteFailure {
  if (!(error instanceof Error)) return { code: 'UNKNOWN', message: String(error) }
  return { code: 'code' in error ? String(error.code) : error.name, message: error.message }
}
