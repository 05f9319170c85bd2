/**
 * A bounded pool of connections to PostgreSQL, each checked when it is made: a primary, in UTF-8, new enough, and whose commits are on disk when
 * they are answered.
 *
 * The file of the password is read for each connection, so that a new password is used without a restart. Nothing comes from the environment
 * (PGPASSWORD, PGOPTIONS, ~/.pgpass). A server process that waits for a gateway which stands still gives its locks back by itself.
 */
import { readFileSync } from 'node:fs'
import pg from 'pg'
import { GatewayError } from '../error.ts'

export interface PostgresAddress {
  /** A name, an address, or the folder of the server's Unix socket. */
  readonly host: string
  readonly port: number
  readonly database: string
  readonly user: string
  readonly passwordFile?: string
  /** Certificate and name of the server are always verified. */
  readonly tls?: {
    /** The authorities to trust instead of those of the system. */
    readonly caFile?: string
    readonly certificateFile?: string
    readonly keyFile?: string
  }
}

export interface PoolSize {
  readonly max: number
  /** A query without an answer for so long ends its connection; the server gives it up a little earlier. */
  readonly queryTimeoutMs: number
}

export interface Connections extends AsyncDisposable {
  /** Lends a connection; one whose work failed otherwise than by the server's own word is not used again. */
  use<Result>(work: (client: pg.PoolClient) => Promise<Result>): Promise<Result>
}

const connectTimeoutMs = 2_000
const idleInTransactionMs = 2_000
const keptIdleMs = 60_000
const maxWaiting = 10_000
const oldestVersion = 130_000

/** Connects to nothing yet. @throws GatewayError `Throttled` from `use`; errors of the server and of pg come as they are. */
export function openConnections(address: PostgresAddress, { max, queryTimeoutMs }: PoolSize): Connections {
  const { host, port, database, user } = address
  const pool = new pg.Pool({
    host,
    port,
    database,
    user,
    password: () => readPassword(address),
    ssl: address.tls === undefined ? false : tlsOptions(address.tls),
    application_name: 'hsmgate',
    options: sessionOptions(queryTimeoutMs),
    max,
    idleTimeoutMillis: keptIdleMs,
    allowExitOnIdle: true,
    connectionTimeoutMillis: Math.min(connectTimeoutMs, queryTimeoutMs),
    query_timeout: queryTimeoutMs,
    keepAlive: true,
    pipeline: true,
    types: { getTypeParser: (oid) => parsers.get(oid) ?? asText },
    onConnect: admitServer,
  })
  // an idle connection that breaks is simply made again
  pool.on('error', () => {})
  return {
    async use(work) {
      if (pool.waitingCount >= maxWaiting) {
        throw new GatewayError('Throttled', undefined, {
          detail: 'too many calls wait for a connection of the catalog',
        })
      }
      const client = await pool.connect()
      try {
        const result = await work(client)
        client.release()
        return result
      } catch (error) {
        client.release(!(error instanceof RolledBack))
        throw error instanceof RolledBack ? error.cause : error
      }
    },
    async [Symbol.asyncDispose]() {
      await pool.end()
    },
  }
}

/** Thrown by work whose transaction the server ended in good order: the connection is as new. */
export class RolledBack extends Error {}

async function admitServer(client: pg.PoolClient): Promise<void> {
  // while it is lent nobody else listens, and an error without a listener ends the process
  client.on('error', () => {})
  const { rows } = await client.query(
    `select pg_is_in_recovery()::int as standby, current_setting('server_encoding') as encoding,
            current_setting('server_version_num')::int as version, current_setting('synchronous_commit') as commits`,
  )
  const { standby, encoding, version, commits } = rows[0]!
  if (standby !== 0) throw refusal('HSMGATE_STANDBY', 'it is in recovery')
  if (encoding !== 'UTF8') throw refusal('HSMGATE_ENCODING', `its encoding is ${encoding}`)
  if (Number(version) < oldestVersion) throw refusal('HSMGATE_OLD', `its version is ${version}`)
  // an administrator may ask for more (remote_apply), not for less
  if (commits === 'off' || commits === 'local') await client.query('set synchronous_commit = on')
}

function sessionOptions(queryTimeoutMs: number): string {
  const settings = {
    statement_timeout: Math.ceil(queryTimeoutMs * 0.8),
    idle_in_transaction_session_timeout: idleInTransactionMs,
    // a gateway whose machine vanished is noticed by the server's kernel
    tcp_keepalives_idle: 10,
    tcp_keepalives_interval: 5,
    tcp_keepalives_count: 3,
    bytea_output: 'hex',
  }
  return Object.entries(settings)
    .map(([name, value]) => `-c ${name}=${value}`)
    .join(' ')
}

function readPassword({ passwordFile }: PostgresAddress): string {
  if (passwordFile === undefined) throw refusal('HSMGATE_NO_PASSWORD', 'there is no file of a password')
  try {
    return readFileSync(passwordFile, 'utf8').replace(/\r?\n$/, '')
  } catch (cause) {
    throw refusal('HSMGATE_PASSWORD', 'the file of the password cannot be read', cause)
  }
}

function tlsOptions({ caFile, certificateFile, keyFile }: NonNullable<PostgresAddress['tls']>) {
  return {
    minVersion: 'TLSv1.2',
    rejectUnauthorized: true,
    ...(caFile === undefined ? {} : { ca: readTlsFile(caFile) }),
    ...(certificateFile === undefined ? {} : { cert: readTlsFile(certificateFile) }),
    ...(keyFile === undefined ? {} : { key: readTlsFile(keyFile) }),
  }
}

function readTlsFile(file: string): string {
  try {
    return readFileSync(file, 'utf8')
  } catch (cause) {
    throw refusal('HSMGATE_TLS', 'a file cannot be read', cause)
  }
}

function refusal(code: string, text: string, cause?: unknown): Error {
  return Object.assign(new Error(text, { cause }), { code })
}

/** Rows hold integers, text and bytes alone; by type of pg_type.dat. */
const parsers = new Map<number, (value: string) => unknown>([
  [17, (hex: string) => Buffer.from(hex.slice(2), 'hex')],
  [20, asInteger],
  [21, asInteger],
  [23, asInteger],
])

/** One that no row of ours can hold stays what it is, and fails with the row's seal. */
function asInteger(text: string): number | bigint {
  const value = Number(text)
  return Number.isSafeInteger(value) ? value : BigInt(text)
}

function asText(text: string): string {
  return text
}
