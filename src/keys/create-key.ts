/**
 * Crash-safe creation of backing keys: row `Creating` with the object id, generate in the module, read back and test, row `Enabled`.
 *
 * A crash in between is settled at start, and settlement never destroys: an object that exists and passes its test becomes a key,
 * a row without an object goes away, and anything else is left to the operator. A catalog restored from a copy may hold a
 * `Creating` row of a key that was acknowledged since; destroying by row state alone would wipe it.
 */
import { createHash, randomUUID } from 'node:crypto'
import type { Deadline } from '../call.ts'
import type { Catalog, KeyEntry, KeyName, KeyState, MaterialRecord, NewKey } from '../catalog/catalog.ts'
import { GatewayError, isCode } from '../error.ts'
import type { GenerateIntent, Hsm, HsmKey, ObjectSummary } from '../hsm/port.ts'
import { specs } from './algorithms.ts'
import { hsmKeyOf } from './backing-key.ts'
import type { CreateKeyRequest } from './keys.ts'
import { testBackingKey } from './self-test.ts'

/** What creation uses; `now` is wall time in epoch milliseconds. */
export interface CreationParts {
  readonly catalog: Catalog
  readonly hsm: Hsm
  readonly now: () => number
  /** Told of a new object before its row is finished: the catalog's own HMAC key must seal that very row. */
  readonly onGenerated?: (key: HsmKey) => void
}

export interface KeyPlan extends Omit<CreateKeyRequest, 'group'> {
  readonly name: KeyName
  readonly group: string
  readonly extra?: KeyEntry['key']['extra']
  /** For keys with a fixed end: they are `PendingDeletion` from the start (epoch milliseconds). */
  readonly deletionAt?: number
}

export function newObjectId(): Buffer {
  return Buffer.from(randomUUID().replaceAll('-', ''), 'hex')
}

/** @throws GatewayError of the HSM layer; the half-made key is undone as far as that is certain. */
export async function createBackedKey(parts: CreationParts, plan: KeyPlan, deadline: Deadline): Promise<KeyEntry> {
  const now = parts.now()
  const entry = await parts.catalog.beginKey({
    ...describeKey(plan, now, 'Creating'),
    material: {
      number: 1,
      state: 'Creating',
      objectId: newObjectId(),
      label: null,
      construction: 'none',
      materialId: Buffer.alloc(0),
      publicKey: Buffer.alloc(0),
      wrapped: Buffer.alloc(0),
      createdAt: now,
    },
  })
  const material = entry.materials[0] as MaterialRecord
  try {
    const generated = await parts.hsm.generate(intentOf(entry, material), deadline)
    return await finish(parts, entry, material, generated.key, Buffer.from(generated.publicKey ?? []), deadline)
  } catch (cause) {
    await undo(parts, entry, material, deadline, cause)
    throw cause
  }
}

/** A key without material, which is to be imported. */
export function createEmptyKey(
  { catalog, now }: Pick<CreationParts, 'catalog' | 'now'>,
  plan: KeyPlan,
): Promise<KeyEntry> {
  return catalog.insertKey({ ...describeKey(plan, now(), 'PendingImport'), material: null })
}

export function describeKey(plan: KeyPlan, createdAt: number, state: KeyState): Omit<NewKey, 'material'> {
  const { spec, usage, purpose, origin, description, multiRegion, group } = plan
  return {
    key: {
      ...plan.name,
      spec,
      usage,
      origin,
      purpose,
      group,
      custody: 'token',
      state,
      description,
      multiRegion,
      createdAt,
      deletionAt: plan.deletionAt ?? null,
      currentMaterial: 0,
      adopted: false,
      extra: plan.extra ?? {},
    },
    policy: plan.policy === '' ? null : plan.policy,
    tags: plan.tags,
  }
}

export function intentOf(entry: KeyEntry, material: MaterialRecord): GenerateIntent {
  const { group, spec, usage, purpose, keyId } = entry.key
  return {
    group,
    spec,
    usage,
    purpose,
    objectId: material.objectId,
    keyId,
    number: material.number,
    residence: 'token',
  }
}

async function finish(
  parts: CreationParts,
  entry: KeyEntry,
  material: MaterialRecord,
  key: HsmKey,
  publicKey: Buffer,
  deadline: Deadline,
): Promise<KeyEntry> {
  parts.onGenerated?.(key)
  const examined = await examine(parts, entry, key, publicKey, deadline)
  const state = entry.key.deletionAt === null ? 'Enabled' : 'PendingDeletion'
  return parts.catalog.finishMaterial(entry.key, material.number, { ...examined, state })
}

/** What the catalog records about a new object. */
export interface Examined {
  readonly materialId: Buffer
  readonly publicKey: Buffer
  readonly construction: HsmKey['construction']
}

/** Reads a new object back, uses it once and computes its id. @throws GatewayError `HsmFailure` when it is not what it should be. */
export async function examine(
  { hsm }: Pick<CreationParts, 'hsm'>,
  entry: KeyEntry,
  key: HsmKey,
  publicKey: Buffer,
  deadline: Deadline,
): Promise<Examined> {
  const { keyId, usage } = entry.key
  requireSound(await hsm.attributes(key, deadline), keyId)
  await testBackingKey(hsm, key, usage, publicKey, deadline)
  return {
    materialId: await materialIdOf(hsm, key, keyId, publicKey, deadline),
    publicKey,
    construction: key.construction,
  }
}

/** Deterministic per key id and material: a function of the public key, or computed by the module under the secret. */
export async function materialIdOf(
  hsm: Hsm,
  key: HsmKey,
  keyId: string,
  publicKey: Uint8Array,
  deadline: Deadline,
): Promise<Buffer> {
  return isPair(key.spec)
    ? createHash('sha256').update(publicKey).update(keyId).digest()
    : hsm.mac(key, 'MATERIAL_ID', Buffer.from(keyId), deadline)
}

export function isPair(spec: KeyEntry['key']['spec']): boolean {
  const { family } = specs[spec]
  return family !== 'aes' && family !== 'hmac'
}

/** The module must have honoured the template: a key that could leave it is worse than none. */
function requireSound(object: ObjectSummary | null, keyId: string): void {
  const problems =
    object === null
      ? ['the object is not there']
      : [
          object.sensitive ? '' : 'CKA_SENSITIVE is false',
          object.extractable ? 'CKA_EXTRACTABLE is true' : '',
          object.isPrivate ? '' : 'CKA_PRIVATE is false',
        ].filter((text) => text !== '')
  if (problems.length > 0) {
    throw new GatewayError('HsmFailure', undefined, {
      detail: `new key ${keyId} read back wrong: ${problems.join(', ')}`,
    })
  }
}

/** Takes back what this very call made. When the module can't be asked, the row stays `Creating` and the next start settles it. */
async function undo(
  parts: CreationParts,
  entry: KeyEntry,
  material: MaterialRecord,
  deadline: Deadline,
  cause: unknown,
): Promise<void> {
  const current = await parts.catalog.findKey(entry.key).catch(() => undefined)
  if (current !== undefined && current.key.state !== 'Creating') return
  try {
    if (!isCode(cause, 'Unsupported')) await parts.hsm.destroy(hsmKeyOf(entry, material), deadline)
    await parts.catalog.abandonMaterial(entry.key, material.number)
  } catch {
    // Left for settlement; the first failure is the one to report.
  }
}

export interface Settlement {
  readonly keyId: string
  readonly outcome: 'completed' | 'abandoned' | 'left'
  readonly reason?: string
}

/** One unfinished material; also for the catalog's own HMAC key, before the catalog can verify rows. */
export async function settleBackingKey(
  parts: CreationParts,
  entry: KeyEntry | undefined,
  material: MaterialRecord,
  deadline: Deadline,
): Promise<Omit<Settlement, 'keyId'>> {
  const { catalog, hsm } = parts
  if (entry === undefined) return { outcome: 'left', reason: 'the material has no key row' }
  const named = hsmKeyOf(entry, material)
  const object = await hsm.attributes(named, deadline)
  if (object === null) {
    await catalog.abandonMaterial(entry.key, material.number)
    return { outcome: 'abandoned' }
  }
  const publicKey = Buffer.from(object.publicKey ?? [])
  if (isPair(entry.key.spec) && publicKey.length === 0) {
    return { outcome: 'left', reason: 'the pair exists but its public key cannot be read' }
  }
  await finish(parts, entry, material, { ...named, construction: constructionOf(entry, object) }, publicKey, deadline)
  return { outcome: 'completed' }
}

/** As the object's own usages tell it. */
export function constructionOf(entry: KeyEntry, object: ObjectSummary): HsmKey['construction'] {
  if (entry.key.spec !== 'SYMMETRIC_DEFAULT') return 'none'
  return object.usages.includes('derive') ? 'derived' : 'direct'
}
