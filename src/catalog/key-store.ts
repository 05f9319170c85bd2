/**
 * Reads and writes the rows of one key as a unit: loaded from one snapshot, verified together, changed in one transaction.
 *
 * A change is a pure function from the old rows to the new ones. Rows that it replaces get the new revision and a new seal; rows
 * that it hands back as they were stay untouched.
 */
import { GatewayError } from '../error.ts'
import type { KeyEntry, KeyName } from './catalog.ts'
import { type KeyRows, policyName, toEntry } from './key-rows.ts'
import type { Ports } from './ports.ts'
import { diffRows, joinDiffs, type RowDiff } from './row-diff.ts'
import { digestsOfParts, partsOfKey } from './row-parts.ts'
import { integrityFailed, sealRow, verifyRow } from './row-seal.ts'
import type { SealedTable, SealedTables } from './tables.ts'
import type { Draft } from './write-queue.ts'

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
  return key && { key, materials, policy: policy ?? null, tags, ...digestsOfParts(key.parts) }
}

/** From the cache when it is warm. @throws GatewayError `IntegrityFailed` */
export async function findKeyEntry(ports: Ports, name: KeyName): Promise<KeyEntry | undefined> {
  if (!ports.isCurrent()) await ports.whenCurrent()
  return await ports.caches.keys.find(nameOfKey(name), async () => {
    const rows = await loadKeyRows(ports, name)
    if (!rows) return undefined
    await verifyKeyRows(ports, rows)
    return toEntry(rows)
  })
}

/** @throws GatewayError `IntegrityFailed` */
export async function verifyKeyRows(ports: Ports, rows: KeyRows): Promise<void> {
  const { key, materials, policy } = rows
  const seal = ports.seal()
  await Promise.all([
    verifyRow(seal, 'key', key),
    ...materials.map((material) => verifyRow(seal, 'material', material)),
    policy && verifyRow(seal, 'policy', policy),
  ])
  if (key.parts !== partsOfKey(rows)) throw integrityFailed('key', key, new Error('its parts are not those it names'))
}

/** Only while the key of the seal itself is being made can there be rows without one, and nobody relies on those yet. */
export function isUnsealedSystemKey({ key, materials, policy }: KeyRows): boolean {
  const rows = [key, ...materials]
  return (
    key.account === 'system' &&
    policy === null &&
    rows.every(({ state, hmac }) => state === 'Creating' && hmac.length === 0)
  )
}

/** What a write from `old`, which must have been verified, to `next` takes; the result is the new entry. */
export async function draftKeyChange(
  ports: Ports,
  name: KeyName,
  old: KeyRows | undefined,
  next: KeyRows,
  revision: number,
): Promise<Draft<KeyEntry>> {
  const rows = await sealChanges(ports, old, next, revision)
  const entry = toEntry(rows)
  return {
    ...diffKeyRows(ports, old, rows),
    result: entry,
    keep: (at) => {
      if (!isUnsealedSystemKey(rows) && ports.isNewest(at)) ports.caches.keys.put(nameOfKey(name), entry)
    },
  }
}

export function keyNotFound({ partition }: Ports, { account, region, keyId }: KeyName): GatewayError {
  const arn = `arn:${partition}:kms:${region}:${account}:key/${keyId}`
  return new GatewayError('KeyNotFound', { text: `Key '${arn}' does not exist` })
}

async function sealChanges(ports: Ports, old: KeyRows | undefined, rows: KeyRows, revision: number): Promise<KeyRows> {
  const stamp = <Row extends { readonly revision: number }>(row: Row, isOld: boolean) =>
    isOld ? row : { ...row, revision }
  const policy = rows.policy && stamp(rows.policy, rows.policy === old?.policy)
  const materials = rows.materials.map((row) => stamp(row, old?.materials.includes(row) ?? false))
  const tags = rows.tags.map((row) => stamp(row, old?.tags.includes(row) ?? false))
  const { grants, tlsBindings } = rows
  const parts = partsOfKey({ policy, materials, tags, grants, tlsBindings })
  const isSame = rows.key === old?.key && rows.key.parts === parts
  const key = isSame ? rows.key : { ...rows.key, parts, revision }

  const sealIfNew = async <T extends SealedTable>(
    table: T,
    row: SealedTables[T],
    before: SealedTables[T] | undefined,
  ) => (row === before ? row : await sealRow(ports.seal(), table, row))
  const stamped = { key, materials, policy, tags, grants, tlsBindings }
  if (!ports.hasSeal() && isUnsealedSystemKey(stamped)) return stamped
  const sealed = await Promise.all([
    sealIfNew('key', key, old?.key),
    Promise.all(
      materials.map((row) =>
        sealIfNew(
          'material',
          row,
          old?.materials.find((before) => before === row),
        ),
      ),
    ),
    policy && sealIfNew('policy', policy, old?.policy ?? undefined),
  ])
  return { key: sealed[0], materials: sealed[1], policy: sealed[2], tags, grants, tlsBindings }
}

function diffKeyRows({ database: { sql: db } }: Ports, old: KeyRows | undefined, rows: KeyRows): RowDiff {
  return joinDiffs(
    diffRows(db, 'key', old ? [old.key] : [], [rows.key]),
    diffRows(db, 'material', old?.materials ?? [], rows.materials),
    diffRows(db, 'policy', old?.policy ? [old.policy] : [], rows.policy ? [rows.policy] : []),
    diffRows(db, 'tag', old?.tags ?? [], rows.tags),
  )
}
