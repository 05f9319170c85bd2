/**
 * All TLS bindings of one key as a value: ordered by name, with the digest that the key names under its seal. Pure.
 *
 * So nobody can add, change or drop a binding, or put back a revoked one, without the key of the seal; as grant-set.ts for grants.
 */
import { createHash } from 'node:crypto'
import type { TlsBindingRecord } from './catalog.ts'
import { asBuffer } from './key-rows.ts'
import { encodeRow } from './row-encoding.ts'
import { type TlsBindingRow, tlsBindingColumns } from './tables.ts'

/** Null for the empty set. `rows` by ascending name. */
export function digestTlsBindings(rows: readonly TlsBindingRow[]): string | null {
  if (rows.length === 0) return null
  const hash = createHash('sha256').update('hsmgate tls bindings 1')
  for (const row of rows) {
    const values = tlsBindingColumns.map((column) => row[column as keyof TlsBindingRow])
    hash.update(createHash('sha256').update(encodeRow('tls_binding', values)).digest())
  }
  return hash.digest('base64')
}

/** By code units, as the digest needs it, whatever the engine's collation. */
export function sortByName(rows: readonly TlsBindingRow[]): readonly TlsBindingRow[] {
  return rows.toSorted((a, b) => (a.name < b.name ? -1 : 1))
}

export function toTlsBindingRow(binding: Omit<TlsBindingRecord, 'revision'>, revision: number): TlsBindingRow {
  return {
    account: binding.account,
    region: binding.region,
    key_id: binding.keyId,
    name: binding.name,
    token_digest: binding.tokenDigest,
    spki_digest: binding.spkiDigest,
    policies: JSON.stringify(binding.policies),
    users: JSON.stringify(binding.users),
    relays: JSON.stringify(binding.relays),
    rate_per_second: binding.ratePerSecond,
    concurrency: binding.concurrency,
    created_at: binding.createdAt,
    revision,
  }
}

export function toTlsBindingRecord(row: TlsBindingRow): TlsBindingRecord {
  return Object.freeze({
    account: row.account,
    region: row.region,
    keyId: row.key_id,
    name: row.name,
    tokenDigest: asBuffer(row.token_digest),
    spkiDigest: asBuffer(row.spki_digest),
    policies: Object.freeze(JSON.parse(row.policies)),
    users: Object.freeze(JSON.parse(row.users)),
    relays: Object.freeze(JSON.parse(row.relays)),
    ratePerSecond: row.rate_per_second,
    concurrency: row.concurrency,
    createdAt: row.created_at,
    revision: row.revision,
  })
}
