/**
 * Takes imported material out of its key: the row says first that it is missing and that its object is to go, then the object goes, then the row
 * says so. A crash in between is taken up by the next round. Whoever imported it can import it again.
 */
import type { Deadline } from '../call.ts'
import type { KeyEntry, MaterialRecord } from '../catalog/catalog.ts'
import { hsmKeyOf } from './backing-key.ts'
import type { CreationParts } from './create-key.ts'
import { lifeOf, type Report, toRevision, withMaterialLife } from './key-life.ts'

type Parts = Pick<CreationParts, 'catalog' | 'hsm'>

export async function removeMaterial(
  parts: Parts,
  entry: KeyEntry,
  { number }: MaterialRecord,
  deadline: Deadline,
  expiry?: { readonly at: number; readonly report: Report },
): Promise<void> {
  const begun = await parts.catalog.reviseKey(entry.key, (found) => {
    const material = found.materials.find((row) => row.number === number)
    if (material === undefined || material.state === 'Missing' || material.state === 'Creating') return undefined
    const life = lifeOf(found)
    const { imported: { expiresAt, ...imported } = {}, ...kept } = life.materials?.[number] ?? {}
    // Imported again with a later date meanwhile.
    if (expiry !== undefined && (typeof expiresAt !== 'number' || expiresAt > expiry.at)) return undefined
    const isPending = material.state === 'Pending'
    const next = { ...kept, imported, objectLeft: isPending ? 'discard' : 'destroy' } as const
    // A key without all its material can do nothing; one that waits for its deletion goes on waiting.
    const isStopped = !isPending && (found.key.state === 'Enabled' || found.key.state === 'Disabled')
    return toRevision(found, {
      ...(isStopped ? { key: { state: 'PendingImport' } } : {}),
      materials: { [number]: { state: 'Missing' } },
      life: {
        ...life,
        materials: withMaterialLife(life.materials, number, next),
        ...(expiry === undefined ? {} : { reports: [...(life.reports ?? []), expiry.report] }),
      },
    })
  })
  const material = begun.materials.find((row) => row.number === number)
  if (material !== undefined) await finishRemoval(parts, begun, material, deadline)
}

async function finishRemoval(
  { catalog, hsm }: Parts,
  entry: KeyEntry,
  material: MaterialRecord,
  deadline: Deadline,
): Promise<void> {
  const { number, objectId } = material
  if (lifeOf(entry).materials?.[number]?.objectLeft === undefined) return
  await hsm.destroy(hsmKeyOf(entry, material), deadline)
  await catalog.reviseKey(entry.key, (found) => {
    const row = found.materials.find((each) => each.number === number)
    const life = lifeOf(found)
    const { objectLeft, ...kept } = life.materials?.[number] ?? {}
    if (row === undefined || objectLeft === undefined || !row.objectId.equals(objectId)) return undefined
    const isDiscarded = objectLeft === 'discard'
    return toRevision(found, {
      ...(isDiscarded ? { remove: number } : {}),
      life: { ...life, materials: withMaterialLife(life.materials, number, isDiscarded ? undefined : kept) },
    })
  })
}

/** Every removal that was cut off. */
export async function finishRemovals(parts: Parts, entry: KeyEntry, deadline: Deadline): Promise<KeyEntry> {
  const left = entry.materials.filter(({ number }) => lifeOf(entry).materials?.[number]?.objectLeft !== undefined)
  for (const material of left) await finishRemoval(parts, entry, material, deadline)
  return left.length === 0 ? entry : ((await parts.catalog.findKey(entry.key)) ?? entry)
}
