/**
 * One round over the keys whose date has come: overdue rotations, material that expired, removals and additions that were cut off, events that the
 * journal does not have yet. Runs under a lease, so that one gateway of many does it; a key that fails is tried again in the next round.
 *
 * Nothing is destroyed and nothing rotates while something stands against trusting the clock or the catalog.
 */
import { type Deadline, deadlineIn } from '../call.ts'
import type { KeyEntry, KeyName } from '../catalog/catalog.ts'
import { isCode } from '../error.ts'
import type { CreationParts } from './create-key.ts'
import { lifeOf, lifeOfMaterial, nextLookAt, type Report, toRevision } from './key-life.ts'
import type { KeyTurns } from './key-turns.ts'
import type { DestructionGate, DueEvents } from './keys.ts'
import { finishRemovals, removeMaterial } from './remove-material.ts'
import { followsPrimary, hasReplicas } from './replica.ts'
import { rotateAutomatically } from './rotation.ts'
import { settleAddedMaterial } from './settlement.ts'

const leaseMs = 60_000
const keyTimeoutMs = 60_000
/** Keys looked at between two questions for the lease. */
const batch = 100

export interface DueKeysParts extends CreationParts {
  readonly gate: Pick<DestructionGate, 'check'>
  readonly turns: KeyTurns
  readonly events: DueEvents
}

export async function runDueKeys(parts: DueKeysParts): Promise<void> {
  const { catalog, gate, events } = parts
  const seen = new Set<string>()
  for (;;) {
    if ((await catalog.takeLease('key-life', leaseMs)) === undefined) return
    const { now, pauses } = await gate.check()
    const due = await catalog.dueKeys(now, batch + seen.size)
    const fresh = due.filter((name) => !seen.has(nameOf(name)))
    if (fresh.length === 0) return
    for (const name of fresh) {
      seen.add(nameOf(name))
      try {
        await parts.turns(name, () => lookAt(parts, name, now, pauses.length > 0))
      } catch (cause) {
        events.failed(name, cause)
      }
    }
  }
}

function nameOf({ account, region, keyId }: KeyName): string {
  return `${account}/${region}/${keyId}`
}

async function lookAt(parts: DueKeysParts, name: KeyName, now: number, isPaused: boolean): Promise<void> {
  const { catalog } = parts
  const deadline = deadlineIn(keyTimeoutMs)
  const find = () => catalog.findKey(name)
  let entry = await find()
  if (entry === undefined) return
  if (!isPaused) {
    await finishRemovals(parts, entry, deadline)
    for (const material of entry.materials) await settleOverdue(parts, entry, material, now, deadline)
    await expire(parts, (await find()) ?? entry, now, deadline)
    entry = (await find()) ?? entry
    const { rotation } = lifeOf(entry)
    const isDue = rotation !== undefined && rotation.nextAt <= now && !followsPrimary(entry)
    if (isDue && entry.key.state === 'Enabled') {
      await rotateAutomatically({ ...parts, now: () => now }, entry, keyTimeoutMs).catch((cause) => {
        if (!isCode(cause, 'Conflict')) throw cause
      })
    }
  }
  entry = (await find()) ?? entry
  if (!followsPrimary(entry)) await report(parts, entry)
  await catalog.reviseKey(name, (found) => ({ dueAt: nextLookAt(found) }))
}

async function settleOverdue(
  parts: DueKeysParts,
  entry: KeyEntry,
  material: KeyEntry['materials'][number],
  now: number,
  deadline: Deadline,
): Promise<void> {
  if (material.state !== 'Creating' || entry.key.state === 'Creating') return
  const next = nextLookAt({ ...entry, materials: [material] })
  if (next !== null && next <= now) await settleAddedMaterial(parts, entry, material, deadline)
}

async function expire(parts: DueKeysParts, entry: KeyEntry, now: number, deadline: Deadline): Promise<void> {
  for (const material of entry.materials) {
    const expiresAt = lifeOfMaterial(entry, material).imported?.expiresAt
    if (material.state === 'Missing' || material.state === 'Creating') continue
    if (typeof expiresAt !== 'number' || expiresAt > now) continue
    const isSymmetric = entry.key.spec === 'SYMMETRIC_DEFAULT'
    const event: Report = {
      event: 'DeleteExpiredKeyMaterial',
      ...(isSymmetric ? { materialId: material.materialId.toString('hex') } : {}),
    }
    await removeMaterial(parts, entry, material, deadline, { at: now, report: event })
  }
}

/** First told, then forgotten: a crash in between tells twice, never not at all. */
async function report({ catalog, events }: DueKeysParts, entry: KeyEntry): Promise<void> {
  const { reports = [] } = lifeOf(entry)
  for (const each of reports) {
    await events.happened(entry, each.event, detailsOf(entry, each))
    // The replicas have the new material since the same write.
    if (each.event === 'RotateKey' && hasReplicas(entry)) {
      await events.happened(entry, 'SynchronizeMultiRegionKey', { keyId: entry.key.keyId })
    }
  }
  if (reports.length === 0) return
  await catalog.reviseKey(entry.key, (found) => {
    const { reports: latest = [], ...life } = lifeOf(found)
    const left = latest.slice(reports.length)
    return toRevision(found, { life: left.length === 0 ? life : { ...life, reports: left } })
  })
}

/** CloudTrail's serviceEventDetails (AWS KMS Developer Guide, "RotateKey", "DeleteExpiredKeyMaterial"). */
function detailsOf({ key }: KeyEntry, report: Report): Readonly<Record<string, unknown>> {
  if (report.event === 'DeleteExpiredKeyMaterial') {
    return { keyId: key.keyId, ...(report.materialId === undefined ? {} : { keyMaterialId: report.materialId }) }
  }
  return {
    rotationType: report.type,
    keyOrigin: key.origin,
    previousKeyMaterialId: report.previous,
    currentKeyMaterialId: report.current,
    keyId: key.keyId,
  }
}
