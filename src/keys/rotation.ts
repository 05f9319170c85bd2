/**
 * Rotation of symmetric keys (AWS KMS Developer Guide, "Rotate AWS KMS keys"): automatic by a period, on demand with a limit. A rotation only
 * adds: the old material decrypts for ever. The schedule and everything that happened stand in the key's row.
 */
import { type Deadline, deadlineIn } from '../call.ts'
import type { Catalog, KeyEntry, KeyState, MaterialRecord } from '../catalog/catalog.ts'
import { GatewayError } from '../error.ts'
import { addMaterial, makeCurrent } from './added-material.ts'
import type { CreationParts } from './create-key.ts'
import { renderKeyArn } from './identifiers.ts'
import {
  lifeOf,
  lifeOfMaterial,
  pendingMaterial,
  permanentMaterials,
  type RotationType,
  stateAt,
  toRevision,
} from './key-life.ts'
import { refuseStates } from './key-state.ts'
import type { KeyTurns } from './key-turns.ts'
import type { KeyRotation, MaterialDescription } from './keys.ts'
import { followsPrimary, hasReplicas, isReplica, refuseFollower, refuseReplica } from './replica.ts'
import { isInStore } from './store-place.ts'

const dayMs = 24 * 60 * 60 * 1000
/** AWS KMS Developer Guide, "Resource quotas": on-demand rotation, not adjustable. */
const onDemandLimit = 25
/** No on-demand rotation so close before an automatic one (API Reference, RotateKeyOnDemand, ConflictException). */
const quietMs = 20 * 60_000

export interface RotationParts extends CreationParts {
  readonly partition: string
  readonly turns: KeyTurns
  /** Something is due at once. */
  readonly wake: () => void
}

export function createRotation(parts: RotationParts): KeyRotation {
  const { catalog, partition, now, turns, wake } = parts
  const arnOf = (entry: KeyEntry) => renderKeyArn(partition, entry.key)

  /** A disabled key of any kind is told that it is disabled. */
  function requireSchedulable(entry: KeyEntry): void {
    if (entry.key.state === 'PendingImport') refuseOrigin(entry)
    refuse(entry, ['Disabled', 'PendingDeletion', 'PendingReplicaDeletion', 'Creating'])
    requireSymmetric(entry)
    if (entry.key.origin !== 'AWS_KMS') refuseOrigin(entry)
    refuseFollower(partition, entry)
  }

  function refuse(entry: KeyEntry, states: readonly KeyState[]): void {
    refuseStates(arnOf(entry), stateAt(entry, now), states)
  }

  function refuseOrigin(entry: KeyEntry): never {
    const text = `${arnOf(entry)} origin is ${entry.key.origin} which is not valid for this operation.`
    throw new GatewayError('Unsupported', { text })
  }

  function nothingPending(entry: KeyEntry): GatewayError {
    const text = `No available key material pending rotation for the key: ${arnOf(entry)}.`
    return new GatewayError('KeyStateInvalid', { text })
  }

  function requireSymmetric(entry: KeyEntry): void {
    if (entry.key.spec !== 'SYMMETRIC_DEFAULT') throw new GatewayError('Unsupported', {})
  }

  function requireOnDemand(entry: KeyEntry): void {
    const arn = arnOf(entry)
    refuse(entry, ['Disabled', 'PendingDeletion', 'PendingReplicaDeletion', 'PendingImport', 'Creating', 'Updating'])
    requireSymmetric(entry)
    if (entry.key.origin !== 'AWS_KMS' && entry.key.origin !== 'EXTERNAL') refuseOrigin(entry)
    refuseReplica(partition, entry)
    const { rotation, onDemandRotations = 0 } = lifeOf(entry)
    const isUnderWay = entry.materials.some(({ state }) => state === 'Creating')
    if (isUnderWay || (rotation !== undefined && rotation.nextAt - now() <= quietMs)) {
      const text = `An automatic rotation of this key is in progress or begins within the next 20 minutes: ${arn}`
      throw new GatewayError('Conflict', { text })
    }
    if (onDemandRotations >= onDemandLimit) {
      const text = `The on-demand rotations limit has been reached for the given keyId. No more on-demand rotations can be performed for this key: ${arn}`
      throw new GatewayError('LimitExceeded', { text })
    }
    if (entry.key.origin === 'EXTERNAL' && pendingMaterial(entry) === undefined) throw nothingPending(entry)
  }

  return {
    rotationStatus(entry) {
      if (entry.key.state === 'PendingImport' || isInStore(entry)) refuseOrigin(entry)
      const { rotation, materials = {} } = lifeOf(entry)
      const running = Object.values(materials).find(
        ({ becoming }) => becoming?.kind === 'rotation' && becoming.type === 'ON_DEMAND',
      )
      const startedAt = running?.begunAt
      // A key that waits for its deletion is not rotated; cancelling brings the schedule back.
      const isOn = rotation !== undefined && !entry.key.state.startsWith('Pending')
      return { ...(isOn ? { schedule: rotation } : {}), ...(startedAt === undefined ? {} : { startedAt }) }
    },

    async enableRotation(entry, periodDays) {
      requireSchedulable(entry)
      await catalog.reviseKey(entry.key, (found) => {
        requireSchedulable(found)
        const rotation = { periodDays, nextAt: now() + periodDays * dayMs }
        return toRevision(found, { life: { ...lifeOf(found), rotation } })
      })
    },

    async disableRotation(entry) {
      requireSchedulable(entry)
      await catalog.reviseKey(entry.key, (found) => {
        requireSchedulable(found)
        const { rotation, ...life } = lifeOf(found)
        return rotation === undefined ? undefined : toRevision(found, { life })
      })
    },

    async rotateOnDemand(entry, deadline) {
      requireOnDemand(entry)
      await turns(entry.key, async () => {
        if (entry.key.origin === 'EXTERNAL') await rotateToPending(parts, entry, requireOnDemand, nothingPending)
        else await rotateToNew(parts, entry, 'ON_DEMAND', requireOnDemand, deadline)
      })
      wake()
    },

    async listMaterials(entry) {
      requireSymmetric(entry)
      if (entry.key.origin !== 'AWS_KMS' && entry.key.origin !== 'EXTERNAL') refuseOrigin(entry)
      const pending = pendingMaterial(entry)
      const listed = [...permanentMaterials(entry), ...(pending === undefined ? [] : [pending])]
      const isAwaited = pending !== undefined && (await lackingReplicas(catalog, entry, pending)).length > 0
      return listed.map((material) => {
        const described = describe(entry, material)
        return isAwaited && material === pending
          ? { ...described, state: 'PENDING_MULTI_REGION_IMPORT_AND_ROTATION' as const }
          : described
      })
    },

    async resumeRotation(name) {
      const entry = await catalog.reviseKey(name, (found) =>
        lifeOf(found).rotation === undefined ? undefined : toRevision(found, { life: lifeOf(found) }),
      )
      const { rotation } = lifeOf(entry)
      if (rotation !== undefined && rotation.nextAt <= now()) wake()
    },
  }
}

/** The rotation of a round, when the date has come. */
export async function rotateAutomatically(parts: CreationParts, entry: KeyEntry, timeoutMs: number): Promise<void> {
  const review = (found: KeyEntry) => {
    const { rotation } = lifeOf(found)
    const isDue =
      found.key.state === 'Enabled' &&
      !followsPrimary(found) &&
      rotation !== undefined &&
      rotation.nextAt <= parts.now()
    if (!isDue || found.materials.some(({ state }) => state === 'Creating')) {
      throw new GatewayError('Conflict', { text: 'The rotation is not due any more.' })
    }
  }
  await rotateToNew(parts, entry, 'AUTOMATIC', review, deadlineIn(timeoutMs))
}

async function rotateToNew(
  parts: CreationParts,
  entry: KeyEntry,
  type: RotationType,
  review: (entry: KeyEntry) => void,
  deadline: Deadline,
): Promise<void> {
  const becoming = { kind: 'rotation', type } as const
  const make = (...arguments_: Parameters<CreationParts['hsm']['generate']>) => parts.hsm.generate(...arguments_)
  await addMaterial(parts, entry, { review, becoming, make }, deadline)
}

/** Replicas to which the material that waits in their primary was not imported yet. */
async function lackingReplicas(
  catalog: Pick<Catalog, 'findRelatedKeys'>,
  entry: KeyEntry,
  pending: MaterialRecord,
): Promise<readonly KeyEntry[]> {
  if (!hasOwnReplicas(entry)) return []
  const related = await catalog.findRelatedKeys(entry.key)
  return related.filter((other) => isReplica(other) && !pendingMaterial(other)?.materialId.equals(pending.materialId))
}

/** Whether the key is a primary one whose replicas have imported materials of their own. */
function hasOwnReplicas(entry: KeyEntry): boolean {
  return entry.key.origin === 'EXTERNAL' && hasReplicas(entry)
}

/**
 * Imported material that waits becomes the current one: nothing new is made. Where there are replicas it waits in all of them, and becomes
 * the current one of all in the same write: no Region encrypts with what another one could still lose.
 */
async function rotateToPending(
  { catalog, now }: CreationParts,
  entry: KeyEntry,
  review: (entry: KeyEntry) => void,
  nothingPending: (entry: KeyEntry) => GatewayError,
): Promise<void> {
  const at = now()
  if (hasOwnReplicas(entry)) {
    await catalog.changeRelatedKeys(entry.key, (entries) => {
      const primary = entries.find(({ key }) => key.region === entry.key.region) as KeyEntry
      review(primary)
      const { materialId } = pendingMaterial(primary) as MaterialRecord
      const revisions = entries.map((each) => {
        const pending = pendingMaterial(each)
        if (pending === undefined || !pending.materialId.equals(materialId)) throw nothingPending(primary)
        const change = makeCurrent(each, pending.number, materialId.toString('hex'), 'ON_DEMAND', at)
        // one rotation, and one service event of it: the primary's
        const life = each === primary ? change.life : { ...change.life, reports: lifeOf(each).reports ?? [] }
        return [each.key.region, toRevision(each, { ...change, life })] as const
      })
      return { revisions: Object.fromEntries(revisions) }
    })
    return
  }
  await catalog.reviseKey(entry.key, (found) => {
    review(found)
    const pending = pendingMaterial(found) as MaterialRecord
    return toRevision(found, makeCurrent(found, pending.number, pending.materialId.toString('hex'), 'ON_DEMAND', at))
  })
}

function describe(entry: KeyEntry, material: MaterialRecord): MaterialDescription {
  const { rotation, imported } = lifeOfMaterial(entry, material)
  const isCurrent = material.number === entry.key.currentMaterial
  const { expiresAt, description } = imported ?? {}
  return {
    number: material.number,
    materialId: material.materialId.toString('hex'),
    state: material.state === 'Pending' ? 'PENDING_ROTATION' : isCurrent ? 'CURRENT' : 'NON_CURRENT',
    ...(rotation === undefined ? {} : { rotation }),
    ...(entry.key.origin === 'EXTERNAL'
      ? { isImported: material.state !== 'Missing', description: description ?? '' }
      : {}),
    ...(expiresAt === undefined ? {} : { expiresAt }),
  }
}
