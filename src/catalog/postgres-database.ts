/**
 * The catalog's database on a PostgreSQL server, shared by many gateways.
 *
 * A batch goes over in one piece and its answers come in its order, so that reading takes one round trip and a transaction two, and the
 * server never waits for the gateway to think. Reading is REPEATABLE READ: one snapshot. Writing is READ COMMITTED, and rests on its first statement:
 * whoever moves the revision counter holds its row until the end, and who waited for it finds it moved and changes nothing (write-queue.ts).
 *
 * Readers never wait for writers. An outage fails the calls under way (`CatalogUnavailable`; whether a write among them took place is
 * then unknown), and later ones until the server is back; nothing is tried twice but a transaction that the server itself rolled back.
 */
import {
  type CompiledQuery,
  DummyDriver,
  Kysely,
  PostgresAdapter,
  PostgresIntrospector,
  PostgresQueryCompiler,
  sql,
} from 'kysely'
import type pg from 'pg'
import { GatewayError } from '../error.ts'
import { catalogUnavailable, type Database, type Statement, type WriteOutcome } from './database.ts'
import { openConnections, type PostgresAddress, RolledBack } from './postgres-connections.ts'
import { isTransient, toPostgresError } from './postgres-faults.ts'
import type { Tables } from './tables.ts'

export interface PostgresOptions extends PostgresAddress {
  /** Connections for reading; writing has one of its own. */
  readonly readers: number
  readonly queryTimeoutMs?: number
}

const defaultQueryTimeoutMs = 5_000
const maxAttempts = 5

/** @throws GatewayError `CatalogUnavailable` when the server can't be reached or is not as it must be. */
export async function openPostgresDatabase(options: PostgresOptions): Promise<Database> {
  const { queryTimeoutMs = defaultQueryTimeoutMs } = options
  const place = `${options.database} on ${options.host}`
  const open = (max: number) => {
    try {
      return openConnections(options, { max, queryTimeoutMs })
    } catch (error) {
      throw toPostgresError(place, error)
    }
  }
  const readers = open(options.readers)
  const writer = open(1)
  let isClosed = false

  const attempt = async <Result>(work: () => Promise<Result>): Promise<Result> => {
    if (isClosed) throw catalogUnavailable('the catalog is closed')
    for (let count = 1; ; count++) {
      try {
        return await work()
      } catch (error) {
        if (error instanceof GatewayError) throw error
        if (!isTransient(error) || count >= maxAttempts) throw toPostgresError(place, error)
      }
    }
  }
  const close = async () => {
    isClosed = true
    await Promise.all([readers[Symbol.asyncDispose](), writer[Symbol.asyncDispose]()])
  }

  try {
    await attempt(() => readers.use(async () => {}))
  } catch (error) {
    await close()
    throw error
  }
  return {
    sql: new Kysely<Tables>({
      dialect: {
        createAdapter: () => new PostgresAdapter(),
        createDriver: () => new DummyDriver(),
        createIntrospector: (db) => new PostgresIntrospector(db),
        createQueryCompiler: () => new PostgresQueryCompiler(),
      },
    }),
    columnTypes: {
      integer: sql`bigint`,
      // by bytes, as SQLite does, whatever the database's collation: lists are in the order of their ids
      text: sql`text collate "C"`,
      bytes: sql`bytea`,
      tableEnd: sql``,
    },
    async read(queries) {
      const prepared = queries.map(toStatement)
      return (await attempt(() => readers.use((client) => readAll(client, prepared)))) as never
    },
    async write(statements) {
      const prepared = statements.map((statement) => ({ ...toStatement(statement.query), ...expectation(statement) }))
      return await attempt(() => writer.use((client) => writeAll(client, prepared)))
    },
    async [Symbol.asyncDispose]() {
      if (!isClosed) await close()
    },
  }
}

interface Prepared {
  readonly sql: string
  readonly values: readonly pg.Value[]
  readonly expectRows?: number
}

async function readAll(client: pg.PoolClient, queries: readonly Prepared[]) {
  const [only] = queries
  if (only !== undefined && queries.length === 1) {
    const answer = client.query(only.sql, only.values)
    return [(await answer.catch(async (error: unknown) => Promise.reject(await rollBack(client, error)))).rows]
  }
  const answers = await Promise.allSettled([
    client.query('begin isolation level repeatable read read only'),
    ...queries.map(({ sql: text, values }) => client.query(text, values)),
    client.query('commit'),
  ])
  const failed = answers.find((answer) => answer.status === 'rejected')
  if (failed) throw await rollBack(client, failed.reason)
  return answers.slice(1, -1).map((answer) => (answer as PromiseFulfilledResult<pg.Answer>).value.rows)
}

async function writeAll(client: pg.PoolClient, statements: readonly Prepared[]): Promise<WriteOutcome> {
  const answers = await Promise.allSettled([
    client.query('begin isolation level read committed'),
    ...statements.map(({ sql: text, values }) => client.query(text, values)),
  ])
  const [begun, ...done] = answers
  if (begun?.status === 'rejected') throw begun.reason
  // in their order, as if each had waited for the one before: what follows a miss was prepared from rows that are no more
  for (const [index, answer] of done.entries()) {
    const { expectRows } = statements[index]!
    if (answer.status === 'rejected') throw await rollBack(client, answer.reason)
    if (expectRows !== undefined && answer.value.rowCount !== expectRows) {
      await client.query('rollback')
      return { committed: false, missed: index }
    }
  }
  const { command } = await client.query('commit')
  if (command !== 'COMMIT') throw new RolledBack('', { cause: new Error('the server did not commit') })
  return { committed: true }
}

/** What to throw: whether the connection can be used again shows when it is asked to roll back. */
async function rollBack(client: pg.PoolClient, cause: unknown): Promise<unknown> {
  return await client.query('rollback').then(
    () => new RolledBack('', { cause }),
    () => cause,
  )
}

function expectation({ expectRows }: Statement): Pick<Prepared, 'expectRows'> {
  return expectRows === undefined ? {} : { expectRows }
}

function toStatement({ sql: text, parameters }: CompiledQuery<unknown>): Prepared {
  return { sql: text, values: parameters.map(toParameter) }
}

function toParameter(value: unknown): pg.Value {
  if (typeof value === 'string') {
    // PostgreSQL documentation, section 8.3: the character with code zero cannot be stored
    if (!value.includes('\0')) return value
    throw new GatewayError('ValidationFailed', { text: 'Text must not contain the character with code 0.' })
  }
  if (value === null || typeof value === 'number' || typeof value === 'bigint') return value
  if (value instanceof Uint8Array) return value
  throw new TypeError(`the catalog cannot hold a ${typeof value}`)
}
