/** What a token holds, seen from outside the gateway by pkcs11-tool, and what a catalog says that it holds. */
import { readFile } from 'node:fs/promises'
import type { Catalog } from '../../src/catalog/catalog.ts'
import { openCatalog } from '../../src/catalog/open.ts'
import { runOk } from './command.ts'
import type { TestToken } from './softhsm.ts'

/** CKA_IDs in hex, each once. `token.module` must be the module itself. */
export async function listObjectIds(token: TestToken): Promise<readonly string[]> {
  const pin = await readFile(token.pinFile, 'utf8')
  const words = ['--module', token.module, '--token-label', token.label, '--login', '--pin', 'env:TEST_PIN']
  const env = { ...token.env, TEST_PIN: pin, PATH: '/usr/bin:/bin' }
  const text = (await runOk('/usr/bin/pkcs11-tool', [...words, '--list-objects'], { env })).toString()
  return [...new Set([...text.matchAll(/^\s+ID:\s+([0-9a-f]+)$/gm)].map(([, id]) => id!))].sort()
}

export interface CatalogView {
  /** CKA_IDs of all materials in hex. */
  readonly objectIds: readonly string[]
  /** `<table> <state>` of every row that a crash may have left half done. */
  readonly unfinished: readonly string[]
}

/** Reads a catalog that no gateway has open. */
export async function readCatalog(file: string): Promise<CatalogView> {
  await using catalog = await openCatalog({ kind: 'sqlite', file })
  return { objectIds: await allObjectIds(catalog), unfinished: await unfinishedRows(file) }
}

async function allObjectIds(catalog: Catalog): Promise<readonly string[]> {
  const rows = await catalog.objectIds(undefined, 1000)
  return rows.map(({ objectId }) => objectId.toString('hex')).sort()
}

/** Straight from the file: what is damaged or unsealed must be seen, too. */
async function unfinishedRows(file: string): Promise<readonly string[]> {
  const { DatabaseSync } = await import('node:sqlite')
  const database = new DatabaseSync(file, { readOnly: true })
  try {
    const query = `SELECT 'key ' || state AS row FROM key WHERE state = 'Creating'
      UNION ALL SELECT 'material ' || state FROM material WHERE state IN ('Creating', 'Destroying', 'Destroyed')`
    return database
      .prepare(query)
      .all()
      .map(({ row }) => String(row))
  } finally {
    database.close()
  }
}
