/**
 * Materials that join a key which exists: by rotation and by import. As at creation the row comes first, then the object, then its test, and one
 * write makes it what the row said it would become. A crash in between is settled forward by the same last write.
 */
import type { Deadline } from '../call.ts'
import type { KeyEntry, MaterialRecord } from '../catalog/catalog.ts'
import { GatewayError } from '../error.ts'
import type { GeneratedKey, GenerateIntent } from '../hsm/port.ts'
import { hsmKeyOf } from './backing-key.ts'
import { type CreationParts, type Examined, examine, intentOf, newObjectId } from './create-key.ts'
import {
  type Becoming,
  type KeyLife,
  type LifeChange,
  lifeOf,
  lifeOfMaterial,
  type MaterialLife,
  permanentMaterials,
  toRevision,
  withMaterialLife,
} from './key-life.ts'

const dayMs = 24 * 60 * 60 * 1000

export interface Addition {
  /** Sees the key as the write finds it. @throws GatewayError to refuse */
  readonly review: (entry: KeyEntry) => void
  readonly becoming: Becoming
  readonly imported?: MaterialLife['imported']
  readonly make: (intent: GenerateIntent, deadline: Deadline) => Promise<GeneratedKey>
  /** What an import will be, known before: not every module shows the public key of what it unwrapped. */
  readonly expected?: Pick<Examined, 'materialId' | 'publicKey'>
}

/** @throws GatewayError; the half-made material is undone as far as that is certain. */
export async function addMaterial(
  parts: CreationParts,
  entry: KeyEntry,
  addition: Addition,
  deadline: Deadline,
): Promise<KeyEntry> {
  const { catalog } = parts
  const { becoming, imported } = addition
  const objectId = newObjectId()
  const begun = await catalog.reviseKey(entry.key, (found) => {
    addition.review(found)
    const number = 1 + Math.max(0, ...found.materials.map((row) => row.number))
    const begunAt = parts.now()
    const life: MaterialLife = { becoming, begunAt, ...(imported === undefined ? {} : { imported }) }
    return toRevision(found, {
      add: {
        number,
        state: 'Creating',
        objectId,
        label: null,
        construction: 'none',
        materialId: addition.expected?.materialId ?? Buffer.alloc(0),
        publicKey: addition.expected?.publicKey ?? Buffer.alloc(0),
        wrapped: Buffer.alloc(0),
        createdAt: begunAt,
      },
      life: { ...lifeOf(found), materials: withMaterialLife(lifeOf(found).materials, number, life) },
    })
  })
  const material = begun.materials.find((row) => row.objectId.equals(objectId)) as MaterialRecord
  try {
    const made = await addition.make(intentOf(begun, material), deadline)
    const publicKey = addition.expected?.publicKey ?? Buffer.from(made.publicKey ?? [])
    const examined = await examine(parts, begun, made.key, publicKey, deadline)
    if (addition.expected?.materialId.equals(examined.materialId) === false)
      throw new GatewayError('KeyMaterialIncorrect')
    return await finishAdded(parts, begun, material, examined)
  } catch (cause) {
    await undo(parts, begun, material, deadline).catch(() => {
      // Left for settlement; the first failure is the one to report.
    })
    throw cause
  }
}

/** Only while its row says that nobody relies on it: the last write may have succeeded although its answer was lost. */
async function undo(
  parts: CreationParts,
  entry: KeyEntry,
  material: MaterialRecord,
  deadline: Deadline,
): Promise<void> {
  const now = await parts.catalog.findKey(entry.key)
  const row = now?.materials.find(({ objectId }) => objectId.equals(material.objectId))
  if (row?.state !== 'Creating') return
  await parts.hsm.destroy(hsmKeyOf(entry, material), deadline)
  await forgetAdded(parts, entry, material)
}

/** Makes a tested material what its row says. */
export function finishAdded(
  parts: CreationParts,
  entry: KeyEntry,
  { number }: MaterialRecord,
  examined: Examined,
): Promise<KeyEntry> {
  const now = parts.now()
  return parts.catalog.reviseKey(entry.key, (found) => {
    const material = found.materials.find((row) => row.number === number)
    const { becoming } = lifeOfMaterial(found, { number })
    if (material?.state !== 'Creating' || becoming === undefined) {
      throw new GatewayError('KeyUnavailable', undefined, { detail: 'a new material was settled by somebody else' })
    }
    const change =
      becoming.kind === 'rotation'
        ? rotated(found, material, becoming.type, examined, now)
        : imported(found, material, becoming, examined)
    return toRevision(found, change)
  })
}

/** Takes the row of a material away whose object is gone or never was. */
export function forgetAdded(
  { catalog }: Pick<CreationParts, 'catalog'>,
  entry: KeyEntry,
  { number }: MaterialRecord,
): Promise<KeyEntry> {
  return catalog.reviseKey(entry.key, (found) => {
    if (found.materials.find((row) => row.number === number)?.state !== 'Creating') return undefined
    const life = lifeOf(found)
    return toRevision(found, {
      remove: number,
      life: { ...life, materials: withMaterialLife(life.materials, number, undefined) },
    })
  })
}

function rotated(
  entry: KeyEntry,
  material: MaterialRecord,
  type: 'AUTOMATIC' | 'ON_DEMAND',
  examined: Examined,
  now: number,
): LifeChange {
  return makeCurrent(entry, material.number, examined.materialId.toString('hex'), type, now, examined)
}

/** The rotation itself: another material encrypts from now on, the old one decrypts for ever. */
export function makeCurrent(
  entry: KeyEntry,
  number: number,
  materialId: string,
  type: 'AUTOMATIC' | 'ON_DEMAND',
  now: number,
  examined?: Examined,
): LifeChange {
  const life = lifeOf(entry)
  const previous = entry.materials.find((row) => row.number === entry.key.currentMaterial)
  const { becoming: _, begunAt: __, ...kept } = life.materials?.[number] ?? {}
  const rotation =
    life.rotation === undefined || type === 'ON_DEMAND'
      ? life.rotation
      : { ...life.rotation, nextAt: now + life.rotation.periodDays * dayMs }
  return {
    key: { currentMaterial: number },
    materials: {
      [number]: { ...examined, state: 'Current' },
      ...(previous?.state === 'Current' ? { [previous.number]: { state: 'NonCurrent' } } : {}),
    },
    life: {
      ...life,
      ...(rotation === undefined ? {} : { rotation }),
      ...(type === 'ON_DEMAND' ? { onDemandRotations: (life.onDemandRotations ?? 0) + 1 } : {}),
      materials: withMaterialLife(life.materials, number, { ...kept, rotation: { type, at: now } }),
      reports: [
        ...(life.reports ?? []),
        { event: 'RotateKey', type, previous: previous?.materialId.toString('hex') ?? '', current: materialId },
      ],
    },
  }
}

function imported(
  entry: KeyEntry,
  material: MaterialRecord,
  { role, replaces }: Becoming & { kind: 'import' },
  examined: Examined,
): LifeChange {
  const life = lifeOf(entry)
  const { becoming: _, begunAt: __, ...arrived } = lifeOfMaterial(entry, material)
  const state = role === 'Current' || entry.key.currentMaterial !== 0 ? enabledAfter(entry, replaces) : undefined
  if (replaces !== undefined) {
    const before = life.materials?.[replaces] ?? {}
    const without = withMaterialLife(life.materials, material.number, undefined)
    return {
      ...(state === undefined ? {} : { key: { state } }),
      materials: { [replaces]: { ...examined, objectId: material.objectId, state: role } },
      remove: material.number,
      life: { ...life, materials: withMaterialLife(without, replaces, { ...before, ...arrived }) },
    }
  }
  return {
    key: {
      ...(role === 'Current' ? { currentMaterial: material.number } : {}),
      ...(state === undefined ? {} : { state }),
    },
    materials: { [material.number]: { ...examined, state: role } },
    life: { ...life, materials: withMaterialLife(life.materials, material.number, arrived) } satisfies KeyLife,
  }
}

/** `Enabled` when no permanent material is missing any more but the one that is back. */
function enabledAfter(entry: KeyEntry, replaced: number | undefined): 'Enabled' | undefined {
  if (entry.key.state !== 'PendingImport') return undefined
  const isMissing = permanentMaterials(entry).some(({ number, state }) => state === 'Missing' && number !== replaced)
  return isMissing ? undefined : 'Enabled'
}
