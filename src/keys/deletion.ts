/**
 * Destroys keys whose waiting period is over: materials `Destroying`, objects destroyed in the module, rows removed. A crash in between
 * is settled at the next start or the next round. Runs under a lease, so that one gateway of many does it; the write after which an object is destroyed
 * takes place only while the lease is still held.
 */
import type { Deadline } from '../call.ts'
import type { Catalog, HeldLease, KeyEntry, KeyName, MaterialRecord } from '../catalog/catalog.ts'
import type { Hsm } from '../hsm/port.ts'
import { hsmKeyOf } from './backing-key.ts'
import type { DeletionEvents, DestructionGate } from './keys.ts'
import { planRemoval } from './related-deletion.ts'

const leaseName = 'deletion'
const leaseMs = 60_000
/** A round over many keys takes the lease again. */
const renewMs = 20_000

export interface DeletionParts extends DeletionEvents {
  readonly catalog: Catalog
  readonly hsm: Hsm
  readonly gate: Pick<DestructionGate, 'check'>
  readonly deadline: () => Deadline
}

/** One round: returns how many keys are gone. */
export async function destroyDueKeys(parts: DeletionParts): Promise<number> {
  const { catalog, gate } = parts
  const fence = await catalog.takeLease(leaseName, leaseMs)
  if (fence === undefined) return 0
  const { now, pauses } = await gate.check()
  parts.paused(pauses)
  if (pauses.length > 0) return 0
  let destroyed = 0
  let renewedAt = performance.now()
  for (const name of await catalog.dueDeletions(now)) {
    if (performance.now() - renewedAt > renewMs) {
      if ((await catalog.takeLease(leaseName, leaseMs)) !== fence) break
      renewedAt = performance.now()
    }
    try {
      if (await destroyKey(parts, name, now, { name: leaseName, fence })) destroyed++
    } catch (cause) {
      parts.failed(name, cause)
    }
  }
  return destroyed
}

async function destroyKey(parts: DeletionParts, name: KeyName, now: number, lease: HeldLease): Promise<boolean> {
  const { catalog, hsm } = parts
  const entry = await catalog.findKey(name)
  // Cancelled between the list and now.
  if (entry === undefined || entry.key.state !== 'PendingDeletion' || (entry.key.deletionAt ?? now + 1) > now)
    return false
  // The sealed rows tell of related keys even if somebody took one of them out of the catalog; this then fails.
  const related = await catalog.findRelatedKeys(name)
  const orphans: string[] = []
  for (const material of entry.materials) {
    if (material.state === 'Destroyed') continue
    // Cancelled at the last moment: the write itself decides who was first.
    const review = (found: KeyEntry) => {
      if (found.key.state !== 'PendingDeletion') throw new Cancelled()
    }
    const begun = await catalog
      .updateMaterial(name, material.number, { state: 'Destroying' }, review, lease)
      .catch((cause) => {
        if (cause instanceof Cancelled) return undefined
        throw cause
      })
    if (begun === undefined) return false
    // An adopted object was in the token before us and may have other users: only our registration goes. So it is with an object that
    // another key still names, as multi-Region keys do.
    const isOurs = !(entry.key.adopted && material.number === 1) && entry.key.custody === 'token'
    if (isOurs && !isNamed(related, material) && !(await catalog.isObjectShared(material))) {
      const destroyed = hsm.destroy(hsmKeyOf(entry, material), parts.deadline())
      if (entry.key.origin !== 'AWS_CLOUDHSM') await destroyed
      // As AWS does: the key goes although its store's token is away, and the object is left to who owns the token.
      else await destroyed.catch(() => orphans.push(material.objectId.toString('hex')))
    }
    await catalog.updateMaterial(name, material.number, { state: 'Destroyed' })
  }
  // Recorded while the row can still tell of it: a crash in between records it twice, never not at all.
  await parts.deleted(entry, orphans)
  if (entry.key.related === undefined) await catalog.removeKey(name)
  else await catalog.changeRelatedKeys(name, (entries) => planRemoval(entries, entry, now))
  return true
}

/** Whether a material of another of these keys is the same object. */
function isNamed(entries: readonly KeyEntry[], { region, objectId }: MaterialRecord): boolean {
  return entries.some(
    ({ key, materials }) =>
      key.region !== region && materials.some((row) => row.state !== 'Destroyed' && row.objectId.equals(objectId)),
  )
}

class Cancelled extends Error {}
