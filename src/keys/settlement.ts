/**
 * Settles what a crash left behind: unfinished materials of new keys and of keys that exist. Forward where the object exists and passes its
 * test, away where there is none, and never by destroying (see create-key.ts).
 */
import type { Deadline } from '../call.ts'
import type { KeyEntry, MaterialRecord } from '../catalog/catalog.ts'
import { finishAdded, forgetAdded } from './added-material.ts'
import { hsmKeyOf } from './backing-key.ts'
import { type CreationParts, constructionOf, examine, isPair, type Settlement, settleBackingKey } from './create-key.ts'

/** Runs at start, before the doors open, under the settlement lease; for a group of a custom key store when that is opened. */
export async function settleBackingKeys(
  parts: CreationParts,
  deadline: () => Deadline,
  isConcerned: (group: string | undefined) => boolean = () => true,
): Promise<readonly Settlement[]> {
  const settled: Settlement[] = []
  for (const material of await parts.catalog.unsettledMaterials()) {
    // Unfinished destruction is taken up by the next round of deletions, on trusted time.
    if (material.state !== 'Creating') continue
    const { keyId } = material
    try {
      const entry = await parts.catalog.findKey(material)
      if (!isConcerned(entry?.key.group)) continue
      const settle = entry === undefined || entry.key.state === 'Creating' ? settleBackingKey : settleAddedMaterial
      settled.push({ keyId, ...(await settle(parts, entry as KeyEntry, material, deadline())) })
    } catch (cause) {
      settled.push({ keyId, outcome: 'left', reason: cause instanceof Error ? cause.message : String(cause) })
    }
  }
  return settled
}

/** A material that was joining a key: what it was to become stands in the key's row. */
export async function settleAddedMaterial(
  parts: CreationParts,
  entry: KeyEntry,
  material: MaterialRecord,
  deadline: Deadline,
): Promise<Omit<Settlement, 'keyId'>> {
  const named = hsmKeyOf(entry, material)
  const object = await parts.hsm.attributes(named, deadline)
  if (object === null) {
    await forgetAdded(parts, entry, material)
    return { outcome: 'abandoned' }
  }
  // An import wrote it down beforehand, since not every module shows it.
  const publicKey = material.publicKey.length > 0 ? material.publicKey : Buffer.from(object.publicKey ?? [])
  if (isPair(entry.key.spec) && publicKey.length === 0) {
    return { outcome: 'left', reason: 'the pair exists but its public key cannot be read' }
  }
  const key = { ...named, construction: constructionOf(entry, object) }
  const examined = await examine(parts, entry, key, publicKey, deadline)
  if (material.materialId.length > 0 && !material.materialId.equals(examined.materialId)) {
    return { outcome: 'left', reason: 'the object is not the material that was to be imported' }
  }
  await finishAdded(parts, entry, material, examined)
  return { outcome: 'completed' }
}
