/**
 * Changes of one key, and of the replicas that follow it: where the key is the primary of multi-Region keys, its materials and what is
 * known of them (`extra`) are theirs, and one transaction changes them all. A blob sealed in one Region can be opened in every other from the moment it exists.
 */
import type { HeldLease, KeyEntry, KeyName } from './catalog.ts'
import { type KeyRows, toMaterialRecord, toMaterialRow } from './key-rows.ts'
import { draftKeyChange, isUnsealedSystemKey, loadKeyRows, verifyKeyRows } from './key-store.ts'
import type { Ports } from './ports.ts'
import { decodeExtra } from './related-regions.ts'
import { integrityFailed } from './row-seal.ts'
import type { MaterialRow } from './tables.ts'
import type { Draft } from './write-queue.ts'

/** Inserts or changes one key. */
export async function changeKey(
  ports: Ports,
  name: KeyName,
  change: (old: KeyRows | undefined, revision: number) => KeyRows,
  lease?: HeldLease,
): Promise<KeyEntry> {
  return await ports.queue.write(async (revision) => {
    const old = await loadKeyRows(ports, name)
    if (old && !isUnsealedSystemKey(old)) await verifyKeyRows(ports, old)
    const draft = await draftFollowedChange(ports, name, old, change(old, revision), revision)
    return lease === undefined ? draft : { ...draft, statements: [ports.guard(lease), ...draft.statements] }
  })
}

/** As `draftKeyChange`, with the replicas that follow. */
export async function draftFollowedChange(
  ports: Ports,
  name: KeyName,
  old: KeyRows | undefined,
  next: KeyRows,
  revision: number,
): Promise<Draft<KeyEntry>> {
  const own = await draftKeyChange(ports, name, old, next, revision)
  const isSame =
    old?.materials === next.materials &&
    old.key.current_material === next.key.current_material &&
    old.key.extra === next.key.extra
  if (old === undefined || isSame || !hasReplicas(next)) return own
  const drafts = [own]
  let position = next.materials.length
  for (const replica of await loadRelatedRows(ports, old)) {
    if (replica.key.region === name.region) continue
    const followed = followPrimary(next, replica, revision, position)
    if (followed === replica) continue
    position += followed.materials.length
    drafts.push(await draftKeyChange(ports, { ...name, region: replica.key.region }, replica, followed, revision))
  }
  return joinDrafts(drafts, own.result)
}

export function joinDrafts<Result>(drafts: readonly Draft<unknown>[], result: Result): Draft<Result> {
  return {
    statements: drafts.flatMap(({ statements }) => statements),
    changes: drafts.flatMap(({ changes }) => changes),
    result,
    keep: (revision) => {
      for (const { keep } of drafts) keep?.(revision)
    },
  }
}

/**
 * The verified rows of all keys that `rows`, verified, names as related, its own among them, by ascending Region.
 * @throws GatewayError `IntegrityFailed` when one is missing, or tells it otherwise.
 */
export async function loadRelatedRows(ports: Ports, rows: KeyRows): Promise<readonly KeyRows[]> {
  const { account, region, key_id: keyId } = rows.key
  const { related } = decodeExtra(rows.key)
  if (related === undefined) return [rows]
  return await Promise.all(
    related.regions.map(async (other) => {
      if (other === region) return rows
      const found = await loadKeyRows(ports, { account, region: other, keyId })
      if (!found) throw integrityFailed('key', rows.key, new Error(`there is no related key in ${other}`))
      await verifyKeyRows(ports, found)
      if (JSON.stringify(decodeExtra(found.key).related) !== JSON.stringify(related)) {
        throw integrityFailed('key', found.key, new Error(`it is related otherwise than the key in ${region}`))
      }
      return found
    }),
  )
}

/** The replica with the primary's materials; the same value when it has them, or is being destroyed already. */
export function followPrimary(primary: KeyRows, replica: KeyRows, revision: number, position = 0): KeyRows {
  if (replica.materials.some(({ state }) => state === 'Destroying' || state === 'Destroyed')) return replica
  const { account, region, key_id: keyId } = replica.key
  let next = position
  const materials = primary.materials.filter(isSettled).map((row) => {
    const before = replica.materials.find(({ number }) => number === row.number)
    if (before === undefined) {
      return toMaterialRow({ account, region, keyId }, toMaterialRecord(row), revision, next++)
    }
    return isSameMaterial(before, row) ? before : { ...row, account, region, key_id: keyId, ordinal: before.ordinal }
  })
  const { current_material, extra } = primary.key
  const isSame =
    replica.key.current_material === current_material &&
    replica.key.extra === extra &&
    materials.length === replica.materials.length &&
    materials.every((row) => replica.materials.includes(row))
  return isSame ? replica : { ...replica, key: { ...replica.key, current_material, extra }, materials }
}

function hasReplicas({ key }: KeyRows): boolean {
  const { related } = decodeExtra(key)
  // imported material is imported into each of them
  return (
    related !== undefined && related.primary === key.region && related.regions.length > 1 && key.origin !== 'EXTERNAL'
  )
}

function isSettled({ state }: MaterialRow): boolean {
  return state === 'Current' || state === 'NonCurrent'
}

function isSameMaterial(a: MaterialRow, b: MaterialRow): boolean {
  return (
    a.state === b.state &&
    a.label === b.label &&
    a.construction === b.construction &&
    (['object_id', 'material_id', 'public_key', 'wrapped'] as const).every(
      (column) => !Buffer.compare(a[column], b[column]),
    )
  )
}
