/**
 * How multi-Region keys end (AWS KMS Developer Guide, "Deleting multi-Region keys"): a replica at any time; a primary only after its last
 * replica is gone, and its waiting period begins then. Pure: what a write is to do with the keys as it finds them.
 */
import type { KeyEntry, RelatedRegions, RelatedRevision } from '../catalog/catalog.ts'

const dayMs = 24 * 60 * 60 * 1000

export function planDeletion(
  entries: readonly KeyEntry[],
  { key }: KeyEntry,
  windowDays: number,
  now: number,
): RelatedRevision {
  const { primary } = key.related as RelatedRegions
  if (key.region !== primary || entries.length === 1) {
    return { keys: { [key.region]: { state: 'PendingDeletion', deletionAt: now + windowDays * dayMs } } }
  }
  return {
    keys: { [key.region]: { state: 'PendingReplicaDeletion', deletionAt: null } },
    related: { ...rolesOf(key.related), pendingWindowDays: windowDays },
  }
}

/** The key goes; a primary that waits for its last replica begins to wait for its own end. */
export function planRemoval(entries: readonly KeyEntry[], { key }: KeyEntry, now: number): RelatedRevision {
  const others = entries.filter((entry) => entry.key.region !== key.region)
  const [last] = others
  if (last === undefined || others.length > 1 || last.key.state !== 'PendingReplicaDeletion') {
    return { remove: key.region }
  }
  const { pendingWindowDays = 30, ...roles } = rolesOf(last.key.related)
  const deletionAt = now + pendingWindowDays * dayMs
  return {
    remove: key.region,
    keys: { [last.key.region]: { state: 'PendingDeletion', deletionAt } },
    related: roles,
  }
}

/** What related keys hold in common, without the Regions, which follow from who is there. */
export function rolesOf(related: RelatedRegions | undefined): Omit<RelatedRegions, 'regions'> {
  const { regions: _, ...roles } = related as RelatedRegions
  return roles
}
