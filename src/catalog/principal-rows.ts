/** The rows of one principal ↔ its records. Pure; rows must have been verified before their records are used. */
import type { AccessKeyRecord, PrincipalPolicyRecord, PrincipalRecord } from './catalog.ts'
import { asBuffer, deepFreeze, noSeal } from './key-rows.ts'
import { type AccessKeyRow, everyRegion, type PrincipalPolicyRow, type PrincipalRow } from './tables.ts'

export function toPrincipalRecord(row: PrincipalRow): PrincipalRecord {
  return Object.freeze({
    account: row.account,
    kind: row.kind as PrincipalRecord['kind'],
    name: row.name,
    principalId: row.principal_id,
    enabled: row.enabled === 1,
    createdAt: row.created_at,
    tags: deepFreeze(JSON.parse(row.tags)),
    trustPolicy: row.trust_policy,
    revision: row.revision,
  })
}

export function toPrincipalRow(principal: Omit<PrincipalRecord, 'revision'>): PrincipalRow {
  return {
    account: principal.account,
    region: everyRegion,
    kind: principal.kind,
    name: principal.name,
    principal_id: principal.principalId,
    enabled: Number(principal.enabled),
    created_at: principal.createdAt,
    tags: JSON.stringify(principal.tags),
    trust_policy: principal.trustPolicy,
    parts: '',
    revision: 0,
    hmac: noSeal,
  }
}

export function toPolicyRecord(row: PrincipalPolicyRow): PrincipalPolicyRecord {
  return Object.freeze({
    account: row.account,
    kind: row.kind as PrincipalRecord['kind'],
    principal: row.principal,
    name: row.name,
    document: row.document,
    revision: row.revision,
  })
}

export function toPolicyRow(policy: Omit<PrincipalPolicyRecord, 'revision'>): PrincipalPolicyRow {
  const { account, kind, principal, name, document } = policy
  return { account, region: everyRegion, kind, principal, name, document, revision: 0, hmac: noSeal }
}

export function toAccessKeyRecord(row: AccessKeyRow): AccessKeyRecord {
  return Object.freeze({
    accessKeyId: row.access_key_id,
    account: row.account,
    user: row.user,
    sealedSecret: asBuffer(row.sealed_secret),
    active: row.active === 1,
    createdAt: row.created_at,
    revision: row.revision,
  })
}

export function toAccessKeyRow(accessKey: Omit<AccessKeyRecord, 'revision'>): AccessKeyRow {
  return {
    account: accessKey.account,
    region: everyRegion,
    access_key_id: accessKey.accessKeyId,
    kind: 'user',
    user: accessKey.user,
    sealed_secret: accessKey.sealedSecret,
    active: Number(accessKey.active),
    created_at: accessKey.createdAt,
    revision: 0,
    hmac: noSeal,
  }
}
