/**
 * Crash-safe creation of backing keys: row `Creating` with the object id, generate in the module, read back and test, row `Enabled`.
 *
 * A crash in between is settled at start, and settlement never destroys: an object that exists and passes its test becomes a key,
 * a row without an object goes away, and anything else is left to the operator. A catalog restored from a copy may hold a
 * `Creating` row of a key that was acknowledged since; destroying by row state alone would wipe it.
 */
import { createHash, randomUUID } from 'node:crypto'
import type { Deadline } from '../call.ts'
import type { Catalog, KeyEntry, KeyName, MaterialRecord } from '../catalog/catalog.ts'
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
}

export function newObjectId(): Buffer {
  return Buffer.from(randomUUID().replaceAll('-', ''), 'hex')
}

/** @throws GatewayError of the HSM layer; the half-made key is undone as far as that is certain. */
export async function createBackedKey(parts: CreationParts, plan: KeyPlan, deadline: Deadline): Promise<KeyEntry> {
  const { catalog } = parts
  const { spec, usage, purpose, origin, description, multiRegion, group } = plan
  const now = parts.now()
  const entry = await catalog.beginKey({
    key: {
      ...plan.name,
      spec,
      usage,
      origin,
      purpose,
      group,
      custody: 'token',
      state: 'Creating',
      description,
      multiRegion,
      createdAt: now,
      deletionAt: null,
      currentMaterial: 0,
      adopted: false,
      extra: {},
    },
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
    policy: plan.policy === '' ? null : plan.policy,
    tags: plan.tags,
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

function intentOf(entry: KeyEntry, material: MaterialRecord): GenerateIntent {
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
  const { catalog, hsm } = parts
  const { keyId, usage, spec } = entry.key
  parts.onGenerated?.(key)
  requireSound(await hsm.attributes(key, deadline), keyId)
  await testBackingKey(hsm, key, usage, publicKey, deadline)
  const materialId = isPair(spec)
    ? createHash('sha256').update(publicKey).update(keyId).digest()
    : await hsm.mac(key, 'MATERIAL_ID', Buffer.from(keyId), deadline)
  return catalog.finishMaterial(entry.key, material.number, {
    materialId,
    publicKey,
    construction: key.construction,
    state: 'Enabled',
  })
}

function isPair(spec: KeyEntry['key']['spec']): boolean {
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

/** Settles what a crash left behind. Runs at start, before the doors open, under the settlement lease. */
export async function settleBackingKeys(
  parts: CreationParts,
  deadline: () => Deadline,
): Promise<readonly Settlement[]> {
  const settled: Settlement[] = []
  for (const material of await parts.catalog.unsettledMaterials()) {
    // Unfinished destruction is taken up by the next round of deletions, on trusted time.
    if (material.state !== 'Creating') continue
    const { keyId } = material
    try {
      settled.push({
        keyId,
        ...(await settleBackingKey(parts, await parts.catalog.findKey(material), material, deadline())),
      })
    } catch (cause) {
      settled.push({ keyId, outcome: 'left', reason: cause instanceof Error ? cause.message : String(cause) })
    }
  }
  return settled
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
  const construction =
    entry.key.spec !== 'SYMMETRIC_DEFAULT' ? 'none' : object.usages.includes('derive') ? 'derived' : 'direct'
  await finish(parts, entry, material, { ...named, construction }, publicKey, deadline)
  return { outcome: 'completed' }
}
