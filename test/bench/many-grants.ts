/**
 * Gives one key very many grants while its gateway is stopped: through the API each of 50,000 would be a sealed write of its own. Rows are copies of a
 * grant that the API made; the key's row is sealed anew in the module, as catalog/grant-set.ts says.
 */
import { randomBytes } from 'node:crypto'
import path from 'node:path'
import Sqlite from 'better-sqlite3'
import type { Catalog, GrantRecord, RowSeal } from '../../src/catalog/catalog.ts'
import { createGrantSet, digestGrantRow } from '../../src/catalog/grant-set.ts'
import { openCatalog } from '../../src/catalog/open.ts'
import { sealRow } from '../../src/catalog/row-seal.ts'
import type { GrantRow, KeyRow } from '../../src/catalog/tables.ts'
import type { Config } from '../../src/config/config.ts'
import { loadConfig } from '../../src/config/load.ts'
import { openHsm } from '../../src/hsm/hsm.ts'
import { openCatalogSeal } from '../../src/keys/system-keys.ts'

/** `directory`: a development folder whose gateway is stopped. The key must have a grant. */
export async function multiplyGrants(directory: string, keyId: string, count: number): Promise<void> {
  const config = loadConfig([path.join(directory, 'config.json')])
  if (config.catalog.kind !== 'sqlite') throw new TypeError('it writes into a file')
  const seal = await openSeal(config)
  await using _ = seal
  const database = new Sqlite(config.catalog.file)
  try {
    const select = <Row>(table: string) =>
      database.prepare(`SELECT * FROM "${table}" WHERE key_id = ?`).all([keyId]) as Row[]
    const [key] = select<KeyRow>('key')
    const [first] = select<GrantRow>('grant')
    if (key === undefined || first === undefined) throw new Error(`${keyId} has no grant to copy`)
    const copies = Array.from({ length: count - 1 }, () => ({ ...first, grant_id: randomBytes(32).toString('hex') }))
    const rows = [first, ...copies].sort((a, b) => (a.grant_id < b.grant_id ? -1 : 1))
    // What the set holds besides digests is of no account for its digest.
    const { digest } = createGrantSet([{} as GrantRecord], Buffer.concat(rows.map(digestGrantRow)))
    const parts = JSON.stringify({ ...JSON.parse(key.parts), grants: digest })
    const { hmac } = await sealRow(seal.row, 'key', { ...key, parts })
    const columns = Object.keys(first) as (keyof GrantRow)[]
    const insert = database.prepare(
      `INSERT INTO "grant" (${columns.join(', ')}) VALUES (${columns.map(() => '?').join(', ')})`,
    )
    database.exec('BEGIN')
    for (const copy of copies) insert.run(columns.map((column) => copy[column] as Sqlite.Value))
    database.prepare('UPDATE key SET parts = ?, hmac = ? WHERE key_id = ?').run([parts, hmac, keyId])
    database.exec('COMMIT')
  } finally {
    database.close()
  }
}

/** The seal of the catalog, with workers of its own. */
async function openSeal(config: Config) {
  await using opening = new AsyncDisposableStack()
  const tokens = Object.entries(config.tokens).flatMap(([name, { pinFile, ...token }]) =>
    pinFile === undefined ? [] : [{ ...token, name, pinFile, sessions: 2 }],
  )
  const groups = Object.entries(config.groups).map(([name, { tokens: members }]) => ({ name, tokens: members }))
  const hsm = opening.use(await openHsm({ tokens, groups, stateDirectory: config.stateDirectory }))
  const catalog = opening.use(await openCatalog({ ...config.catalog, report: () => {} }))
  let row: RowSeal | undefined
  const observed: Catalog = {
    ...catalog,
    useSeal(seal) {
      row = seal
      catalog.useSeal(seal)
    },
  }
  await openCatalogSeal({ catalog: observed, hsm, now: Date.now, group: config.defaultGroup })
  const stack = opening.move()
  return { row: row as RowSeal, [Symbol.asyncDispose]: () => stack.disposeAsync() }
}
