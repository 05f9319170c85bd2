/**
 * Reads and writes the rows of one key as a unit: loaded from one snapshot, verified together, changed in one transaction.
 *
 * A change is a pure function from the old rows to the new ones. Rows that it replaces get the new revision and a new seal; rows
 * that it hands back as they were stay untouched.
 */
import { GatewayError } from '../error.ts'
import type { KeyEntry, KeyName } from './catalog.ts'
import { diffKeyRows } from './key-diff.ts'
import { type KeyRows, policyName, toEntry } from './key-rows.ts'
import type { Ports } from './ports.ts'
import { integrityFailed, sealRow, verifyRow } from './row-seal.ts'
import type { SealedTable, SealedTables } from './tables.ts'

export function nameOfKey({ account, region, keyId }: KeyName): string {
  return `${account}/${region}/${keyId}`
}

/** Unverified. */
export async function loadKeyRows({ database }: Ports, name: KeyName): Promise<KeyRows | undefined> {
  const db = database.sql
  const { account, region, keyId } = name
  const [[key], materials, [policy], tags] = await database.read([
    db
      .selectFrom('key')
      .selectAll()
      .where('account', '=', account)
      .where('region', '=', region)
      .where('key_id', '=', keyId)
      .compile(),
    db
      .selectFrom('material')
      .selectAll()
      .where('account', '=', account)
      .where('region', '=', region)
      .where('key_id', '=', keyId)
      .orderBy('number')
      .compile(),
    db
      .selectFrom('policy')
      .selectAll()
      .where('account', '=', account)
      .where('region', '=', region)
      .where('key_id', '=', keyId)
      .where('name', '=', policyName)
      .compile(),
    db
      .selectFrom('tag')
      .selectAll()
      .where('account', '=', account)
      .where('region', '=', region)
      .where('key_id', '=', keyId)
      .orderBy('tag_key')
      .compile(),
  ])
  return key && { key, materials, policy: policy ?? null, tags }
}

/** @throws GatewayError `IntegrityFailed` */
export async function verifyKeyRows(ports: Ports, { key, materials, policy }: KeyRows): Promise<void> {
  const seal = ports.seal()
  await Promise.all([
    verifyRow(seal, 'key', key),
    ...materials.map((material) => verifyRow(seal, 'material', material)),
    policy && verifyRow(seal, 'policy', policy),
  ])
  const current = key.current_material
  if (current !== 0 && !materials.some(({ number }) => number === current)) {
    throw integrityFailed('key', key, new Error(`its material ${current} is missing`))
  }
}

/** Only while the key of the seal itself is being made can there be rows without one, and nobody relies on those yet. */
export function isUnsealedSystemKey({ key, materials }: KeyRows): boolean {
  const rows = [key, ...materials]
  return key.account === 'system' && rows.every(({ state, hmac }) => state === 'Creating' && hmac.length === 0)
}

/** Inserts or changes one key. */
export async function changeKey(
  ports: Ports,
  name: KeyName,
  change: (old: KeyRows | undefined, revision: number) => KeyRows,
): Promise<KeyEntry> {
  return await ports.queue.write(async (revision) => {
    const old = await loadKeyRows(ports, name)
    if (old && !isUnsealedSystemKey(old)) await verifyKeyRows(ports, old)
    const rows = await sealChanges(ports, old, change(old, revision), revision)
    const entry = toEntry(rows)
    return {
      ...diffKeyRows(ports.database.sql, old, rows),
      result: entry,
      keep: (at) => {
        if (!isUnsealedSystemKey(rows) && ports.isNewest(at)) ports.caches.keys.put(nameOfKey(name), entry)
      },
    }
  })
}

export function keyNotFound({ partition }: Ports, { account, region, keyId }: KeyName): GatewayError {
  const arn = `arn:${partition}:kms:${region}:${account}:key/${keyId}`
  return new GatewayError('KeyNotFound', { text: `Key '${arn}' does not exist` })
}

async function sealChanges(ports: Ports, old: KeyRows | undefined, rows: KeyRows, revision: number): Promise<KeyRows> {
  const sealAs = async <T extends SealedTable>(table: T, row: SealedTables[T]): Promise<SealedTables[T]> => {
    const stamped = { ...row, revision }
    if (!ports.hasSeal() && isUnsealedSystemKey(rows)) return stamped
    return await sealRow(ports.seal(), table, stamped)
  }
  const [key, policy, materials] = await Promise.all([
    rows.key === old?.key ? rows.key : sealAs('key', rows.key),
    rows.policy === null || rows.policy === old?.policy ? rows.policy : sealAs('policy', rows.policy),
    Promise.all(rows.materials.map((row) => (old?.materials.includes(row) ? row : sealAs('material', row)))),
  ])
  const tags = rows.tags.map((row) => (old?.tags.includes(row) ? row : { ...row, revision }))
  return { key, policy, materials, tags }
}
