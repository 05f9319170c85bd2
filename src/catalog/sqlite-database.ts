/**
 * The catalog's database in a SQLite file: a writer and a reader thread, each with one connection.
 *
 * A thread that dies fails the calls it held (`CatalogUnavailable`; whether a write among them was committed is then unknown) and is
 * replaced at the next call. Threads hold the process open only while a call is under way. Ending the process without closing is safe:
 * what was answered is in the write-ahead log, on disk.
 */
import { closeSync, fchmodSync, fsyncSync, openSync } from 'node:fs'
import path from 'node:path'
import { Worker } from 'node:worker_threads'
import {
  type CompiledQuery,
  DummyDriver,
  Kysely,
  SqliteAdapter,
  SqliteIntrospector,
  SqliteQueryCompiler,
  sql,
} from 'kysely'
import { GatewayError } from '../error.ts'
import { catalogUnavailable, type Database, type WriteOutcome } from './database.ts'
import { toEngineError } from './sqlite-faults.ts'
import type { SqliteValue, ThreadAnswer, ThreadData, ThreadRequest } from './sqlite-messages.ts'
import type { Tables } from './tables.ts'

const busyTimeoutMs = 5_000
const maxWaiting = 10_000

export type StartThread = (data: ThreadData) => Worker

const startThread: StartThread = (workerData) =>
  new Worker(new URL('./sqlite-thread.ts', import.meta.url), { workerData, name: `catalog-${workerData.role}` })

/** @throws GatewayError `CatalogUnavailable` when the file can't be created or opened. */
export async function openSqliteDatabase(file: string, start: StartThread = startThread): Promise<Database> {
  createFile(file)
  const writer = openThread({ file, role: 'writer', busyTimeoutMs }, start)
  const reader = openThread({ file, role: 'reader', busyTimeoutMs }, start)
  try {
    // the writer switches a new file to its write-ahead log, so it goes first
    await writer.call('read', [])
    await reader.call('read', [])
  } catch (error) {
    await Promise.all([writer.end(), reader.end()])
    throw error
  }
  return {
    sql: new Kysely<Tables>({
      dialect: {
        createAdapter: () => new SqliteAdapter(),
        createDriver: () => new DummyDriver(),
        createIntrospector: (db) => new SqliteIntrospector(db),
        createQueryCompiler: () => new SqliteQueryCompiler(),
      },
    }),
    columnTypes: {
      integer: sql`integer`,
      text: sql`text`,
      bytes: sql`blob`,
      // without it a column takes values of any type (https://www.sqlite.org/stricttables.html)
      tableEnd: sql`strict`,
    },
    async read(queries) {
      const answer = await reader.call('read', queries.map(toStatement))
      if (!('rows' in answer)) throw new TypeError('a query has no expectations')
      return answer.rows.map((rows) => rows.map(withBuffers)) as never
    },
    async write(statements): Promise<WriteOutcome> {
      const answer = await writer.call(
        'write',
        statements.map(({ query, expectRows }) => ({ ...toStatement(query), expectRows })),
      )
      return 'missed' in answer ? { committed: false, missed: answer.missed } : { committed: true }
    },
    async [Symbol.asyncDispose]() {
      // the writer's last checkpoint empties the log only when nobody reads it
      try {
        await reader.close()
      } finally {
        await writer.close()
      }
    },
  }
}

/** Mode 0600 from the first byte on; SQLite gives the files beside it the same mode. */
function createFile(file: string): void {
  try {
    const descriptor = openSync(file, 'a', 0o600)
    try {
      fchmodSync(descriptor, 0o600)
      fsyncSync(descriptor)
    } finally {
      closeSync(descriptor)
    }
    const folder = openSync(path.dirname(file), 'r')
    try {
      fsyncSync(folder)
    } finally {
      closeSync(folder)
    }
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException
    throw toEngineError(file, { code: code ?? 'UNKNOWN', message })
  }
}

interface Thread {
  call(kind: 'read' | 'write', statements: ThreadRequest['statements']): Promise<Answered>
  close(): Promise<void>
  /** Without a checkpoint. */
  end(): Promise<void>
}

interface RunningThread {
  readonly worker: Worker
  readonly waiting: Map<number, Waiting>
}

type Answered = Exclude<ThreadAnswer, { readonly failure: unknown }>

interface Waiting {
  readonly resolve: (answer: Answered) => void
  readonly reject: (error: Error) => void
}

function openThread(data: ThreadData, start: StartThread): Thread {
  let running: RunningThread | undefined
  let closed = false
  let lastId = 0

  const send = async (kind: ThreadRequest['kind'], statements: ThreadRequest['statements']) => {
    running ??= begin()
    const { worker, waiting } = running
    if (waiting.size >= maxWaiting) {
      throw new GatewayError('Throttled', undefined, {
        detail: `too many calls wait for the catalog's ${data.role} thread`,
      })
    }
    return await new Promise<Answered>((resolve, reject) => {
      const id = ++lastId
      waiting.set(id, { resolve, reject })
      worker.ref()
      worker.postMessage({ id, kind, statements } satisfies ThreadRequest)
    })
  }

  const begin = () => {
    const worker = start(data)
    const waiting = new Map<number, Waiting>()
    const mine: RunningThread = { worker, waiting }
    const lose = (error: Error) => {
      if (running === mine) running = undefined
      for (const { reject } of waiting.values()) reject(error)
      waiting.clear()
    }
    worker.on('message', (answer: ThreadAnswer) => {
      const call = waiting.get(answer.id)
      waiting.delete(answer.id)
      if (waiting.size === 0) worker.unref()
      if ('failure' in answer) call?.reject(toEngineError(data.file, answer.failure))
      else call?.resolve(answer)
    })
    worker.on('error', (error) =>
      lose(catalogUnavailable(`the catalog's ${data.role} thread failed: ${messageOf(error)}`, error)),
    )
    worker.on('exit', () => lose(catalogUnavailable(`the catalog's ${data.role} thread ended`)))
    worker.unref()
    return mine
  }

  // both threads load their code at the same time; each opens its connection at its first call
  running = begin()
  return {
    async call(kind, statements) {
      if (closed) throw catalogUnavailable('the catalog is closed')
      return await send(kind, statements)
    },
    async close() {
      if (closed) return
      closed = true
      if (!running) return
      const { worker } = running
      const ended = new Promise((resolve) => worker.once('exit', resolve))
      try {
        await send('close', [])
        worker.ref()
        await ended
      } finally {
        await worker.terminate()
      }
    },
    async end() {
      closed = true
      await running?.worker.terminate()
    },
  }
}

function toStatement({ sql: text, parameters }: CompiledQuery<unknown>) {
  return { sql: text, parameters: parameters.map(toParameter) }
}

/** A view is cloned with everything its buffer holds, so a part of a larger buffer is copied out first. */
function toParameter(value: unknown): SqliteValue {
  if (value instanceof Uint8Array) return value.byteLength === value.buffer.byteLength ? value : new Uint8Array(value)
  if (value === null || typeof value === 'string' || typeof value === 'number' || typeof value === 'bigint')
    return value
  throw new TypeError(`SQLite cannot hold a ${typeof value}`)
}

function withBuffers(row: Record<string, SqliteValue>): Record<string, SqliteValue> {
  for (const [name, value] of Object.entries(row)) {
    if (value instanceof Uint8Array) row[name] = Buffer.from(value.buffer, value.byteOffset, value.byteLength)
  }
  return row
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
