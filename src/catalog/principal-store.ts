/**
 * Reads and writes the rows of one principal as a unit: itself, its policies, its access keys. As key-store.ts does for keys.
 *
 * One damaged row makes the whole principal unusable: it may be the policy that denies.
 */
import { GatewayError } from '../error.ts'
import type { Ports, PrincipalEntry } from './ports.ts'
import { toAccessKeyRecord, toPolicyRecord, toPrincipalRecord } from './principal-rows.ts'
import { diffRows, joinDiffs } from './row-diff.ts'
import { partsOfPrincipal } from './row-parts.ts'
import { integrityFailed, sealRow, verifyRow } from './row-seal.ts'
import {
  type AccessKeyRow,
  everyRegion,
  type PrincipalPolicyRow,
  type PrincipalRow,
  type SealedTable,
  type SealedTables,
} from './tables.ts'

export interface PrincipalName {
  readonly account: string
  readonly kind: 'user' | 'role'
  readonly name: string
}

export interface PrincipalRows {
  readonly principal: PrincipalRow
  readonly policies: readonly PrincipalPolicyRow[]
  readonly accessKeys: readonly AccessKeyRow[]
}

export function nameOfPrincipal({ account, kind, name }: PrincipalName): string {
  return `${account}/${kind}/${name}`
}

export function principalNotFound({ kind, name }: PrincipalName): GatewayError {
  return new GatewayError('NotFound', { text: `The ${kind} with name ${name} cannot be found.` })
}

/** Unverified. */
export async function loadPrincipalRows(
  { database }: Ports,
  { account, kind, name }: PrincipalName,
): Promise<PrincipalRows | undefined> {
  const db = database.sql
  const region = everyRegion
  const [[principal], policies, accessKeys] = await database.read([
    db
      .selectFrom('principal')
      .selectAll()
      .where(({ and }) => and({ account, region, kind, name }))
      .compile(),
    db
      .selectFrom('principal_policy')
      .selectAll()
      .where(({ and }) => and({ account, region, kind, principal: name }))
      .orderBy('name')
      .compile(),
    db
      .selectFrom('access_key')
      .selectAll()
      .where(({ and }) => and({ account, region, kind, user: name }))
      .orderBy('access_key_id')
      .compile(),
  ])
  return principal && { principal, policies, accessKeys }
}

/** @throws GatewayError `IntegrityFailed` */
export async function verifyPrincipalRows(ports: Ports, rows: PrincipalRows): Promise<void> {
  const seal = ports.seal()
  await Promise.all([
    verifyRow(seal, 'principal', rows.principal),
    ...rows.policies.map((row) => verifyRow(seal, 'principal_policy', row)),
    ...rows.accessKeys.map((row) => verifyRow(seal, 'access_key', row)),
  ])
  if (rows.principal.parts !== partsOfPrincipal(rows)) {
    throw integrityFailed('principal', rows.principal, new Error('its parts are not those it names'))
  }
}

export async function findPrincipalEntry(ports: Ports, name: PrincipalName): Promise<PrincipalEntry | undefined> {
  if (!ports.isCurrent()) await ports.whenCurrent()
  return await ports.caches.principals.find(nameOfPrincipal(name), async () => {
    const rows = await loadPrincipalRows(ports, name)
    if (!rows) return undefined
    await verifyPrincipalRows(ports, rows)
    return toEntry(rows)
  })
}

/** Inserts or changes one principal. */
export async function changePrincipal(
  ports: Ports,
  name: PrincipalName,
  change: (old: PrincipalRows | undefined) => PrincipalRows,
): Promise<PrincipalEntry> {
  return await ports.queue.write(async (revision) => {
    const old = await loadPrincipalRows(ports, name)
    if (old) await verifyPrincipalRows(ports, old)
    const rows = await sealChanges(ports, old, change(old), revision)
    const db = ports.database.sql
    return {
      ...joinDiffs(
        diffRows(db, 'principal', old ? [old.principal] : [], [rows.principal]),
        diffRows(db, 'principal_policy', old?.policies ?? [], rows.policies),
        diffRows(db, 'access_key', old?.accessKeys ?? [], rows.accessKeys),
      ),
      result: toEntry(rows),
    }
  })
}

async function sealChanges(
  ports: Ports,
  old: PrincipalRows | undefined,
  rows: PrincipalRows,
  revision: number,
): Promise<PrincipalRows> {
  const seal = ports.seal()
  const stamp = <Row extends { readonly revision: number }>(row: Row, isOld: boolean) =>
    isOld ? row : { ...row, revision }
  const isOldPolicy = (row: PrincipalPolicyRow) => old?.policies.includes(row) ?? false
  const isOldAccessKey = (row: AccessKeyRow) => old?.accessKeys.includes(row) ?? false
  const policies = rows.policies.map((row) => stamp(row, isOldPolicy(row)))
  const accessKeys = rows.accessKeys.map((row) => stamp(row, isOldAccessKey(row)))
  const parts = partsOfPrincipal({ policies, accessKeys })
  const isSame = rows.principal === old?.principal && rows.principal.parts === parts
  const principal = isSame ? rows.principal : { ...rows.principal, parts, revision }

  const sealUnless = async <T extends SealedTable>(isOld: boolean, table: T, row: SealedTables[T]) =>
    isOld ? row : await sealRow(seal, table, row)
  const sealed = await Promise.all([
    sealUnless(isSame, 'principal', principal),
    Promise.all(policies.map((row) => sealUnless(isOldPolicy(row), 'principal_policy', row))),
    Promise.all(accessKeys.map((row) => sealUnless(isOldAccessKey(row), 'access_key', row))),
  ])
  return { principal: sealed[0], policies: sealed[1], accessKeys: sealed[2] }
}

function toEntry({ principal, policies, accessKeys }: PrincipalRows): PrincipalEntry {
  return Object.freeze({
    principal: toPrincipalRecord(principal),
    policies: Object.freeze(policies.map(toPolicyRecord)),
    accessKeys: Object.freeze(accessKeys.map(toAccessKeyRecord)),
  })
}
