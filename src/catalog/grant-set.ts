/**
 * All grants of one key as a value: ordered by grant id, with the digest that the key names under its seal. Pure.
 *
 * A key may have 50,000 grants, so they carry no seals of their own: each row is digested, the digests of all rows are digested in the
 * order of their ids, and the result is one of the parts that the sealed row of the key names. So nobody can add, change or drop a
 * grant, or put back a revoked one, without the key of the seal; and a new grant costs one seal, that of the key.
 */
import { createHash } from 'node:crypto'
import type { GrantRecord, NewGrant } from './catalog.ts'
import { deepFreeze } from './key-rows.ts'
import { encodeRow } from './row-encoding.ts'
import { type GrantRow, grantColumns } from './tables.ts'

export interface GrantSet {
  /** Null for the empty set. */
  readonly digest: string | null
  /** By ascending id; frozen. */
  readonly grants: readonly GrantRecord[]
  /** 32 bytes a grant, in the same order. */
  readonly rowDigests: Buffer
}

const digestBytes = 32

export const noGrants: GrantSet = Object.freeze({
  digest: null,
  grants: Object.freeze([]),
  rowDigests: Buffer.alloc(0),
})

export function digestGrantRow(row: GrantRow): Buffer {
  const values = grantColumns.map((column) => row[column as keyof GrantRow])
  return createHash('sha256').update(encodeRow('grant', values)).digest()
}

/** `grants` by ascending id, `rowDigests` in the same order. */
export function createGrantSet(grants: readonly GrantRecord[], rowDigests: Buffer): GrantSet {
  if (grants.length === 0) return noGrants
  const digest = createHash('sha256').update('hsmgate grants 1').update(rowDigests).digest('base64')
  return Object.freeze({ digest, grants: Object.freeze(grants), rowDigests })
}

export function addGrant(set: GrantSet, grant: GrantRecord, rowDigest: Buffer): GrantSet {
  const at = positionOf(set.grants, grant.grantId)
  const before = set.rowDigests.subarray(0, at * digestBytes)
  const after = set.rowDigests.subarray(at * digestBytes)
  return createGrantSet(set.grants.toSpliced(at, 0, grant), Buffer.concat([before, rowDigest, after]))
}

/** The set without the grant; the same set when it does not hold it. */
export function removeGrant(set: GrantSet, grantId: string): GrantSet {
  const at = positionOf(set.grants, grantId)
  if (set.grants[at]?.grantId !== grantId) return set
  const before = set.rowDigests.subarray(0, at * digestBytes)
  const after = set.rowDigests.subarray((at + 1) * digestBytes)
  return createGrantSet(set.grants.toSpliced(at, 1), Buffer.concat([before, after]))
}

export function findById(grants: readonly GrantRecord[], grantId: string): GrantRecord | undefined {
  const grant = grants[positionOf(grants, grantId)]
  return grant?.grantId === grantId ? grant : undefined
}

/** Where a grant id stands, or would stand, in a list by ascending id. */
function positionOf(grants: readonly GrantRecord[], grantId: string): number {
  let low = 0
  let high = grants.length
  while (low < high) {
    const middle = (low + high) >>> 1
    if ((grants[middle] as GrantRecord).grantId < grantId) low = middle + 1
    else high = middle
  }
  return low
}

export function toGrantRow(grant: NewGrant, revision: number): GrantRow {
  return {
    account: grant.account,
    region: grant.region,
    key_id: grant.keyId,
    grant_id: grant.grantId,
    name: grant.name === '' ? null : grant.name,
    grantee: grant.granteePrincipal ?? (grant.granteeServicePrincipal as string),
    retiring: grant.retiringPrincipal ?? grant.retiringServicePrincipal ?? null,
    issuing_account: grant.issuingAccount,
    operations: JSON.stringify(grant.operations),
    constraints: grant.constraints === undefined ? null : JSON.stringify(grant.constraints),
    created_at: grant.createdAt,
    revision,
  }
}

/** Principals are ARNs, services are not: that tells them apart. */
export function toGrantRecord(row: GrantRow, partition: string): GrantRecord {
  const isPrincipal = (name: string) => name.startsWith('arn:')
  return deepFreeze({
    account: row.account,
    region: row.region,
    keyId: row.key_id,
    grantId: row.grant_id,
    keyArn: `arn:${partition}:kms:${row.region}:${row.account}:key/${row.key_id}`,
    name: row.name ?? '',
    ...(isPrincipal(row.grantee) ? { granteePrincipal: row.grantee } : { granteeServicePrincipal: row.grantee }),
    ...(row.retiring === null
      ? {}
      : isPrincipal(row.retiring)
        ? { retiringPrincipal: row.retiring }
        : { retiringServicePrincipal: row.retiring }),
    issuingAccount: row.issuing_account,
    operations: JSON.parse(row.operations) as readonly string[],
    ...(row.constraints === null
      ? {}
      : { constraints: JSON.parse(row.constraints) as NonNullable<GrantRecord['constraints']> }),
    createdAt: row.created_at,
  })
}
