/** The rows of one key ↔ its records. Pure; rows must have been verified before their records are used. */
import type { KeyChanges, KeyEntry, KeyName, KeyRecord, MaterialRecord, NewMaterial } from './catalog.ts'
import { decodeExtra, encodeExtra } from './related-regions.ts'
import type { KeyRow, MaterialRow, PolicyRow, TagRow } from './tables.ts'

export interface KeyRows {
  readonly key: KeyRow
  /** By number. */
  readonly materials: readonly MaterialRow[]
  readonly policy: PolicyRow | null
  readonly tags: readonly TagRow[]
  /** Digest of its grants, which are loaded apart; null when it has none. */
  readonly grants: string | null
  /** Digest of its TLS bindings, which are loaded apart; null when it has none. */
  readonly tlsBindings: string | null
}

/** Stands where a row is sealed only when it is written. */
export const noSeal: Uint8Array = new Uint8Array(0)

export const policyName = 'default'

export function toEntry({ key, materials, policy, tags, grants }: KeyRows): KeyEntry {
  return Object.freeze({
    key: toKeyRecord(key),
    materials: Object.freeze(materials.map(toMaterialRecord)),
    policy: policy && Object.freeze({ document: policy.document, revision: policy.revision }),
    tags: Object.freeze(Object.fromEntries(tags.map(({ tag_key, tag_value }) => [tag_key, tag_value]))),
    grants,
  })
}

function toKeyRecord(row: KeyRow): KeyRecord {
  return Object.freeze({
    account: row.account,
    region: row.region,
    keyId: row.key_id,
    spec: row.spec as KeyRecord['spec'],
    usage: row.usage as KeyRecord['usage'],
    origin: row.origin as KeyRecord['origin'],
    purpose: row.purpose as KeyRecord['purpose'],
    group: row.group,
    custody: row.custody as KeyRecord['custody'],
    state: row.state as KeyRecord['state'],
    description: row.description,
    multiRegion: row.multi_region === 1,
    createdAt: row.created_at,
    deletionAt: row.deletion_at,
    currentMaterial: row.current_material,
    adopted: row.adopted === 1,
    ...deepFreeze(decodeExtra(row)),
    revision: row.revision,
  })
}

export function toKeyRow(key: Omit<KeyRecord, 'revision'>): KeyRow {
  return {
    account: key.account,
    region: key.region,
    key_id: key.keyId,
    spec: key.spec,
    usage: key.usage,
    origin: key.origin,
    purpose: key.purpose,
    group: key.group,
    custody: key.custody,
    state: key.state,
    description: key.description,
    multi_region: Number(key.multiRegion),
    created_at: key.createdAt,
    deletion_at: key.deletionAt,
    current_material: key.currentMaterial,
    adopted: Number(key.adopted),
    extra: encodeExtra(key.extra, key.related),
    parts: '',
    revision: 0,
    hmac: noSeal,
  }
}

export function changeKeyRow(key: KeyRow, changes: KeyChanges): KeyRow {
  if (Object.keys(changes).length === 0) return key
  return {
    ...key,
    state: changes.state ?? key.state,
    description: changes.description ?? key.description,
    deletion_at: changes.deletionAt === undefined ? key.deletion_at : changes.deletionAt,
    current_material: changes.currentMaterial ?? key.current_material,
    extra: changes.extra === undefined ? key.extra : encodeExtra(changes.extra, decodeExtra(key).related),
    multi_region: changes.multiRegion === undefined ? key.multi_region : Number(changes.multiRegion),
  }
}

export function toMaterialRecord(row: MaterialRow): MaterialRecord {
  return Object.freeze({
    account: row.account,
    region: row.region,
    keyId: row.key_id,
    number: row.number,
    state: row.state as MaterialRecord['state'],
    objectId: asBuffer(row.object_id),
    label: row.label,
    construction: row.construction as MaterialRecord['construction'],
    materialId: asBuffer(row.material_id),
    publicKey: asBuffer(row.public_key),
    wrapped: asBuffer(row.wrapped),
    createdAt: row.created_at,
    revision: row.revision,
  })
}

/** A revision that inserts materials into several Regions at once still gives each an ordinal of its own. */
const ordinalsPerRevision = 4096

/** `position` is that among the materials which the revision inserts. */
export function toMaterialRow(name: KeyName, material: NewMaterial, revision: number, position = 0): MaterialRow {
  if (position >= ordinalsPerRevision) throw new TypeError('too many materials for one revision')
  return {
    account: name.account,
    region: name.region,
    key_id: name.keyId,
    number: material.number,
    state: material.state,
    object_id: material.objectId,
    label: material.label,
    construction: material.construction,
    material_id: material.materialId,
    public_key: material.publicKey,
    wrapped: material.wrapped,
    created_at: material.createdAt,
    ordinal: revision * ordinalsPerRevision + position,
    revision: 0,
    hmac: noSeal,
  }
}

export function toPolicyRow({ account, region, keyId }: KeyName, document: string): PolicyRow {
  return { account, region, key_id: keyId, name: policyName, document, revision: 0, hmac: noSeal }
}

export function toTagRows({ account, region, keyId }: KeyName, tags: Readonly<Record<string, string>>): TagRow[] {
  return Object.entries(tags).map(([tag_key, tag_value]) => ({
    account,
    region,
    key_id: keyId,
    tag_key,
    tag_value,
    revision: 0,
  }))
}

export function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}

export function deepFreeze<Value>(value: Value): Value {
  if (typeof value === 'object' && value !== null && !Object.isFrozen(value)) {
    Object.freeze(value)
    for (const member of Object.values(value)) deepFreeze(member)
  }
  return value
}
