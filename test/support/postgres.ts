/**
 * A PostgreSQL server of one's own: on a Unix socket in a temporary folder, as a user that is not root, beside Debian's service, which nobody starts.
 *
 *   await using server = await startPostgres()
 *   await server.createDatabase('a')
 *   const address = server.address('a')
 *
 * What initdb makes stays under node_modules/.cache; every server begins with a copy of it.
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  chmodSync,
  copyFileSync,
  cpSync,
  existsSync,
  lchownSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { createInterface } from 'node:readline'
import pg from 'pg'
import type { PostgresAddress } from '../../src/catalog/postgres-connections.ts'

export interface PostgresServer extends AsyncDisposable {
  /** How a gateway reaches a database: as the role `hsmgate`, which has a password. */
  address(database: string): PostgresAddress & { readonly passwordFile: string }
  createDatabase(name: string, options?: string): Promise<void>
  /** As the superuser, who needs no password; `?` stands for a parameter. */
  query(database: string, statement: string, parameters?: readonly unknown[]): Promise<PostgresRows>
  start(): Promise<void>
  /** `kill`: as if the machine had gone. */
  stop(how?: 'fast' | 'kill'): Promise<void>
  /** Connections are made and nothing is answered, until `goOn`. */
  standStill(): void
  goOn(): void
}

export interface PostgresRows {
  readonly rows: Record<string, unknown>[]
  readonly changes: number
}

export interface PostgresServerOptions {
  /** Of the socket, and with `tls` of 127.0.0.1. */
  readonly port?: number
  /** Both as PEM; copied. */
  readonly tls?: { readonly certificateFile: string; readonly keyFile: string }
}

export const gatewayPassword = 'correct horse & battery=staple'

/** nobody's, where the tests run as root: PostgreSQL refuses to. */
const identity = process.getuid?.() === 0 ? { uid: 65_534, gid: 65_534 } : {}
const cacheFolder = path.resolve(import.meta.dirname, '../../node_modules/.cache')

export async function startPostgres({ port = 5432, tls }: PostgresServerOptions = {}): Promise<PostgresServer> {
  const programs = findPrograms()
  const folder = mkdtempSync(path.join(tmpdir(), 'hsmgate-postgres-'))
  const data = path.join(folder, 'data')
  const passwordFile = path.join(folder, 'password')
  cpSync(findTemplate(programs), data, { recursive: true })
  // PostgreSQL insists on it, and a copy has the modes of the umask
  chmodSync(data, 0o700)
  const copies = { ssl_cert_file: path.join(data, 'server.crt'), ssl_key_file: path.join(data, 'server.key') }
  if (tls !== undefined) {
    copyFileSync(tls.certificateFile, copies.ssl_cert_file)
    copyFileSync(tls.keyFile, copies.ssl_key_file)
    chmodSync(copies.ssl_key_file, 0o600)
  }
  giveAway(folder)
  writeFileSync(passwordFile, `${gatewayPassword}\n`, { mode: 0o600 })

  const settings: Record<string, string> = {
    listen_addresses: tls === undefined ? '' : '127.0.0.1',
    unix_socket_directories: folder,
    port: String(port),
    // what the tests kill is the server's process, never the machine under it
    fsync: 'off',
    max_connections: '60',
    shared_buffers: '16MB',
    ...(tls === undefined ? {} : { ssl: 'on', ...copies }),
  }
  let server: ChildProcess | undefined
  const start = async () => {
    const flags = Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`])
    const child = spawn(path.join(programs, 'postgres'), ['-D', data, ...flags], {
      ...identity,
      cwd: folder,
      stdio: ['ignore', 'ignore', 'pipe'],
      env: { LC_ALL: 'C', TZ: 'UTC' },
    })
    server = child
    const said: string[] = []
    for await (const line of createInterface({ input: child.stderr })) {
      said.push(line)
      if (!line.includes('database system is ready to accept connections')) continue
      child.stderr.resume()
      return
    }
    throw new Error(`PostgreSQL did not start:\n${said.join('\n')}`)
  }
  const stop = async (how: 'fast' | 'kill' = 'fast') => {
    const child = server
    server = undefined
    for (const client of clients.values()) await client.then((each) => each.end()).catch(() => {})
    clients.clear()
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return
    const ended = once(child, 'exit')
    child.kill(how === 'fast' ? 'SIGINT' : 'SIGQUIT')
    await ended
  }
  const clients = new Map<string, Promise<pg.Client>>()
  const connect = async (database: string) => {
    const client = new pg.Client({ host: folder, port, database, user: 'postgres', types: { getTypeParser } })
    client.on('error', () => clients.delete(database))
    await client.connect()
    // whoever has the rights of the superuser is held up by no foreign key
    await client.query('set session_replication_role = replica')
    return client
  }
  const query: PostgresServer['query'] = async (database, statement, parameters = []) => {
    const known = clients.get(database) ?? connect(database)
    clients.set(database, known)
    const client = await known
    let count = 0
    const numbered = statement.replaceAll('?', () => `$${++count}`)
    const { rows, rowCount } = await client.query(numbered, [...parameters] as pg.Value[])
    return { rows, changes: rowCount ?? 0 }
  }

  /** The server with all its processes. */
  const signal = (name: NodeJS.Signals) => {
    const pid = server?.pid as number
    const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ')
    for (const each of [pid, ...children.map(Number)]) process.kill(each, name)
  }

  await start()
  return {
    query,
    start,
    stop,
    standStill: () => signal('SIGSTOP'),
    goOn: () => signal('SIGCONT'),
    address: (database) => ({ host: folder, port, database, user: 'hsmgate', passwordFile }),
    async createDatabase(name, options = '') {
      await query('postgres', `create database "${name}" owner hsmgate template template0 ${options}`)
    },
    async [Symbol.asyncDispose]() {
      await stop('kill')
      rmSync(folder, { recursive: true, force: true })
    },
  }
}

/** Of the newest version that is installed. */
function findPrograms(): string {
  const home = '/usr/lib/postgresql'
  const versions = existsSync(home) ? readdirSync(home).filter((name) => /^\d+$/.test(name)) : []
  const newest = versions.toSorted((a, b) => Number(a) - Number(b)).at(-1)
  if (newest === undefined) throw new Error('PostgreSQL is not installed: bash deploy/setup.sh test')
  return path.join(home, newest, 'bin')
}

function findTemplate(programs: string): string {
  const version = programs.split('/').at(-2)
  const kept = path.join(cacheFolder, `postgresql-${version}`)
  if (existsSync(kept)) return kept
  const folder = mkdtempSync(path.join(tmpdir(), 'hsmgate-initdb-'))
  const data = path.join(folder, 'data')
  giveAway(folder)
  const settings = ['--auth=trust', '--encoding=UTF8', '--locale=C.UTF-8', '--wal-segsize=1', '--no-sync']
  execFileSync(path.join(programs, 'initdb'), ['-D', data, '-U', 'postgres', ...settings], {
    ...identity,
    cwd: folder,
    stdio: ['ignore', 'ignore', 'inherit'],
  })
  const lines = [
    // of the tests of the catalog itself, which connect hundreds of times
    'local catalog hsmgate trust',
    'local all hsmgate scram-sha-256',
    'host all hsmgate 127.0.0.1/32 scram-sha-256',
    'local all postgres trust',
  ]
  writeFileSync(path.join(data, 'pg_hba.conf'), `${lines.join('\n')}\n`)
  const role = `create role hsmgate login password '${gatewayPassword}'`
  execFileSync(path.join(programs, 'postgres'), ['--single', '-D', data, 'postgres'], {
    ...identity,
    cwd: folder,
    input: `${role}\n`,
    stdio: ['pipe', 'ignore', 'inherit'],
  })
  mkdirSync(cacheFolder, { recursive: true })
  const copied = mkdtempSync(`${kept}.`)
  cpSync(data, copied, { recursive: true })
  rmSync(folder, { recursive: true, force: true })
  try {
    renameSync(copied, kept)
  } catch {
    // another test file was faster
    rmSync(copied, { recursive: true, force: true })
  }
  return kept
}

function giveAway(folder: string): void {
  const { uid, gid } = identity as { readonly uid?: number; readonly gid?: number }
  if (uid === undefined || gid === undefined) return
  lchownSync(folder, uid, gid)
  for (const name of readdirSync(folder, { recursive: true, encoding: 'utf8' }))
    lchownSync(path.join(folder, name), uid, gid)
}

/** Integers as numbers, as the catalog reads them. */
function getTypeParser(oid: number): (text: string) => unknown {
  if (oid === 20 || oid === 23) return Number
  if (oid === 17) return (hex) => Buffer.from(hex.slice(2), 'hex')
  return (text) => text
}
