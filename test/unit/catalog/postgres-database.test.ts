/** What a PostgreSQL server adds: its types, its constraints, its outages, and what an operator reads when something is wrong with it. */
import { execFileSync } from 'node:child_process'
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { sql } from 'kysely'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { ConstraintError, type Database } from '../../../src/catalog/database.ts'
import { migrate } from '../../../src/catalog/migrate.ts'
import { openCatalog, type PostgresCatalog } from '../../../src/catalog/open.ts'
import { openPostgresDatabase } from '../../../src/catalog/postgres-database.ts'
import { enabledKey, newKey, softwareSeal } from '../../support/catalog.ts'
import { type PostgresServer, startPostgres } from '../../support/postgres.ts'

let folder: string
let server: PostgresServer
let database: Database
let port: number

beforeAll(async () => {
  folder = mkdtempSync(path.join(tmpdir(), 'hsmgate-catalog-'))
  chmodSync(folder, 0o755)
  execFileSync(
    'openssl',
    [
      ...['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '1'],
      ...['-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost'],
      ...['-keyout', path.join(folder, 'key.pem'), '-out', path.join(folder, 'ca.pem')],
    ],
    { stdio: 'ignore' },
  )
  port = await freePort()
  server = await startPostgres({
    port,
    tls: { certificateFile: path.join(folder, 'ca.pem'), keyFile: path.join(folder, 'key.pem') },
  })
  await server.createDatabase('a')
  database = await openPostgresDatabase({ ...server.address('a'), readers: 2 })
  await write(sql`create table t (id bigint primary key, n bigint, s text collate "C", b bytea)`)
}, 60_000)

afterAll(async () => {
  await database?.[Symbol.asyncDispose]()
  await server?.[Symbol.asyncDispose]()
  rmSync(folder, { recursive: true, force: true })
})

const compile = <Row>(query: ReturnType<typeof sql<Row>>) => query.compile(database.sql)
const write = (...queries: ReturnType<typeof sql>[]) =>
  database.write(queries.map((query) => ({ query: compile(query) })))
const count = async () => {
  const [[row]] = await database.read([compile(sql<{ n: number }>`select count(*) as n from t`)])
  return row!.n
}

async function freePort(): Promise<number> {
  const listener = createServer()
  await new Promise<void>((resolve) => listener.listen(0, '127.0.0.1', resolve))
  const { port: found } = listener.address() as { port: number }
  await new Promise((resolve) => listener.close(resolve))
  return found
}

describe('the PostgreSQL database', () => {
  it('gives every value back as it was', async () => {
    await write(sql`delete from t`)
    const texts = ['', 'é"\\\'\u{1f511}', 'x'.repeat(70_000)]
    for (const [id, text] of texts.entries()) await write(sql`insert into t (id, s) values (${id}, ${text})`)
    const numbers = [0, -1, Number.MAX_SAFE_INTEGER, null]
    for (const [id, n] of numbers.entries()) await write(sql`insert into t (id, n) values (${10 + id}, ${n})`)
    const slices = [Buffer.from('xxPARTxx').subarray(2, 6), Buffer.alloc(0), new Uint8Array([0, 255])]
    for (const [id, b] of slices.entries()) await write(sql`insert into t (id, b) values (${20 + id}, ${b})`)
    const [rows] = await database.read([compile(sql<Record<string, unknown>>`select * from t order by id`)])
    expect(rows.slice(0, 3).map(({ s }) => s)).toEqual(texts)
    expect(rows.slice(3, 7).map(({ n }) => n)).toEqual(numbers)
    expect(rows.slice(7).map(({ b }) => b)).toEqual(slices.map((slice) => Buffer.from(slice)))
  })

  it('refuses text that it could not give back', async () => {
    await expect(write(sql`insert into t (id, s) values (99, ${'a\0b'})`)).rejects.toMatchObject({
      code: 'ValidationFailed',
    })
  })

  it('writes all of a batch or nothing, and says which statement missed', async () => {
    await write(sql`delete from t`)
    const insert = { query: compile(sql`insert into t (id) values (1)`), expectRows: 1 }
    const missing = { query: compile(sql`update t set n = 1 where id = 7`), expectRows: 1 }
    expect(await database.write([insert, missing, insert])).toEqual({ committed: false, missed: 1 })
    expect(await count()).toBe(0)
    await expect(write(sql`insert into t (id) values (2)`, sql`insert into t (id) values (2)`)).rejects.toMatchObject({
      kind: 'unique',
    })
    expect(await count()).toBe(0)
    expect(await database.write([insert])).toEqual({ committed: true })
  })

  it('tells violations of constraints from failures, and its own wrong SQL from both', async () => {
    await write(sql`create table u (id bigint references t (id))`)
    const orphan = await write(sql`insert into u values (12345)`).catch((error) => error)
    expect(orphan).toBeInstanceOf(ConstraintError)
    expect(orphan.kind).toBe('foreign-key')
    await expect(write(sql`selec 1`)).rejects.toMatchObject({ code: '42601' })
    expect(await count()).toBe(1)
  })

  it('reads one snapshot, however much is written between two queries', async () => {
    const had = await count()
    const slow = compile(sql<{ n: number }>`select count(*) as n from t, pg_sleep(0.2)`)
    const counted = compile(sql<{ n: number }>`select count(*) as n from t`)
    const reading = database.read([slow, counted])
    await write(sql`insert into t (id) select generate_series(1000, 1100)`)
    const [[before], [after]] = await reading
    expect(after).toEqual(before)
    expect(await count()).toBe(had + 101)
  })

  it('does not make readers wait for a writer', async () => {
    const ended: string[] = []
    const writing = write(sql`delete from t`, sql`select pg_sleep(0.5)`).then(() => ended.push('write'))
    await count()
    expect(ended).toEqual([])
    await writing
  })

  it('orders text by bytes, whatever the collation of the database', async () => {
    const names = ['B', 'a', 'ä', '_', '-', 'A']
    await write(sql`delete from t`)
    for (const [id, name] of names.entries()) await write(sql`insert into t (id, s) values (${id}, ${name})`)
    const [rows] = await database.read([compile(sql<{ s: string }>`select s from t order by s`)])
    expect(rows.map(({ s }) => s)).toEqual(names.toSorted())
  })
})

describe('migration on PostgreSQL', () => {
  it('is done once when gateways begin it together', async () => {
    await server.createDatabase('m')
    await using one = await openPostgresDatabase({ ...server.address('m'), readers: 1 })
    await using two = await openPostgresDatabase({ ...server.address('m'), readers: 1 })
    await Promise.all([migrate(one, 1), migrate(two, 1), migrate(one, 1)])
    const [rows] = await one.read([one.sql.selectFrom('counter').select('name').orderBy('name').compile()])
    expect(rows).toEqual([{ name: 'revision' }, { name: 'trimmed' }])
    const { rows: texts } = await server.query(
      'm',
      `select table_name, column_name from information_schema.columns
       where table_schema = 'public' and data_type = 'text' and collation_name is distinct from 'C'`,
    )
    expect(texts).toEqual([])
  })

  it('refuses a catalog of a newer version', async () => {
    await server.createDatabase('newer')
    await using one = await openPostgresDatabase({ ...server.address('newer'), readers: 1 })
    await migrate(one, 1)
    await server.query('newer', "insert into migration values ('2099-12-31-from-the-future', 1)")
    const opening = openCatalog({ kind: 'postgresql', postgresql: server.address('newer') })
    await expect(opening).rejects.toMatchObject({
      code: 'CatalogUnavailable',
      detail: expect.stringMatching(/newer hsmgate.*from-the-future/),
    })
  })
})

describe('a server that is not as it must be', () => {
  const failure = async (changes: Partial<PostgresCatalog['postgresql']>) => {
    const opening = openPostgresDatabase({ ...server.address('a'), ...changes, readers: 1 })
    const error = await opening.then(
      () => ({ code: 'none', detail: 'none' }),
      (cause: unknown) => cause as { readonly code: string; readonly detail: string },
    )
    expect(error.code).toBe('CatalogUnavailable')
    return error.detail
  }
  const wrong = () => {
    const file = path.join(folder, 'wrong')
    writeFileSync(file, 'not the password\n')
    return file
  }

  it('is named with its remedy: away, unknown, another password, no password, no database, no such role', async () => {
    expect(await failure({ host: folder })).toMatch(/no server has its socket there: start it/)
    expect(await failure({ host: '127.0.0.1', port: await freePort() })).toMatch(/no server answers there: start it/)
    expect(await failure({ passwordFile: wrong() })).toMatch(/refuses the password: correct the file/)
    const { passwordFile: _, ...bare } = server.address('a')
    const unnamed = openPostgresDatabase({ ...bare, readers: 1 })
    await expect(unnamed).rejects.toMatchObject({ detail: expect.stringMatching(/asks for a password: name a file/) })
    expect(await failure({ passwordFile: path.join(folder, 'none') })).toMatch(
      /the file of the password cannot be read/,
    )
    expect(await failure({ database: 'nowhere' })).toMatch(/no such database: create it/)
    expect(await failure({ user: 'nobody' })).toMatch(/does not let this user in/)
  })

  it('never has its password in the message', async () => {
    expect(await failure({ passwordFile: wrong() })).not.toContain('not the password')
  })

  it('is refused when its encoding is not UTF-8', async () => {
    await server.createDatabase('latin', "encoding 'SQL_ASCII' lc_collate 'C' lc_ctype 'C'")
    expect(await failure({ database: 'latin' })).toMatch(/not in UTF-8/)
  })

  it('is spoken to over TLS when the configuration says so, and its name and authority are verified', async () => {
    const near = { host: 'localhost', port }
    const caFile = path.join(folder, 'ca.pem')
    await using trusted = await openPostgresDatabase({ ...server.address('a'), ...near, tls: { caFile }, readers: 1 })
    const query = sql<{ ssl: boolean }>`select ssl::int as ssl from pg_stat_ssl where pid = pg_backend_pid()`
    expect(await trusted.read([query.compile(trusted.sql)])).toEqual([[{ ssl: 1 }]])
    expect(await failure({ ...near, tls: {} })).toMatch(/certificate is not trusted/)
    expect(await failure({ ...near, host: '127.0.0.1', tls: { caFile } })).toMatch(/certificate is for another name/)
    expect(await failure({ ...near, tls: { caFile: path.join(folder, 'none') } })).toMatch(/cannot be read/)
  })
})

describe('a catalog whose server goes away', () => {
  it('is refused within the lease, reported once, and used again when the server is back', async () => {
    await server.createDatabase('away')
    const reported: string[] = []
    const restored: number[] = []
    await using catalog = await openCatalog({
      kind: 'postgresql',
      postgresql: server.address('away'),
      pollMs: 20,
      report: (error) => reported.push(String(error.detail)),
      restored: (awayMs) => restored.push(awayMs),
    })
    catalog.useSeal(softwareSeal())
    const { key } = await enabledKey(catalog)
    expect((await catalog.findKey(key))!.key.state).toBe('Enabled')
    const heard: string[] = []
    catalog.onChange(({ table }) => heard.push(table))
    await server.stop('kill')
    await expect.poll(() => catalog.isCurrent(), { timeout: 5_000, interval: 10 }).toBe(false)
    expect(catalog.peekKey(key)).toBeUndefined()
    const unavailable = { code: 'CatalogUnavailable' }
    await expect(catalog.findKey(key)).rejects.toMatchObject(unavailable)
    await expect(catalog.beginKey(newKey())).rejects.toMatchObject(unavailable)
    await expect(catalog.whenCurrent()).rejects.toMatchObject(unavailable)
    await server.start()
    await expect.poll(() => catalog.isCurrent(), { timeout: 5_000, interval: 10 }).toBe(true)
    expect((await catalog.updateKey(key, { state: 'Disabled' })).key.state).toBe('Disabled')
    // whoever keeps something in memory reads it again
    expect(heard).toEqual(['*', 'key'])
    expect(restored).toHaveLength(1)
    expect(reported).toHaveLength(1)
    expect(reported[0]).toMatch(/start it|network/)
  })

  it('is refused within the lease when the server answers nothing, without waiting for it', async () => {
    await server.createDatabase('still')
    await using catalog = await openCatalog({ kind: 'postgresql', postgresql: server.address('still'), pollMs: 20 })
    catalog.useSeal(softwareSeal())
    const { key } = await enabledKey(catalog)
    server.standStill()
    try {
      await expect.poll(() => catalog.isCurrent(), { timeout: 5_000, interval: 10 }).toBe(false)
      expect(catalog.peekKey(key)).toBeUndefined()
      const calls = Array.from({ length: 20 }, () => catalog.findKey(key))
      const codes = (await Promise.allSettled(calls)).map((outcome) => (outcome as PromiseRejectedResult).reason.code)
      expect(new Set(codes)).toEqual(new Set(['CatalogUnavailable']))
    } finally {
      server.goOn()
    }
    await expect.poll(() => catalog.isCurrent(), { timeout: 10_000, interval: 10 }).toBe(true)
    expect((await catalog.updateKey(key, { state: 'Disabled' })).key.state).toBe('Disabled')
  })

  it('is emptied when the server comes back with less than it had', async () => {
    await server.createDatabase('older')
    const reported: string[] = []
    await using catalog = await openCatalog({
      kind: 'postgresql',
      postgresql: server.address('older'),
      pollMs: 20,
      report: (error) => reported.push(String(error.detail)),
    })
    catalog.useSeal(softwareSeal())
    const { key } = await enabledKey(catalog)
    await expect
      .poll(async () => (await server.query('older', 'select seen_revision from instance')).rows)
      .toEqual([{ seen_revision: 2 }])
    const heard: string[] = []
    catalog.onChange(({ table }) => heard.push(table))
    await server.query('older', "update counter set value = 1 where name = 'revision'")
    await expect.poll(() => heard).toEqual(['*'])
    expect(reported).toEqual([expect.stringContaining('went back from revision 2 to 1')])
    expect(catalog.peekKey(key)).toBeUndefined()
  })
})
