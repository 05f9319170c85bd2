/**
 * Compares a token with the catalog: objects that no row names. They are reported and never touched, whatever their label says: an
 * empty, restored or rolled-back catalog must not wipe an HSM.
 */
import { deadlineIn } from '../call.ts'
import type { Catalog } from '../catalog/catalog.ts'
import type { Hsm } from '../hsm/port.ts'

const pageRows = 1000
const enumerationMs = 60_000

export interface UnknownObject {
  readonly group: string
  /** CKA_ID in hex. */
  readonly objectId: string
  readonly label: string
  readonly objectClass: 'private' | 'secret' | 'public'
  /** Made by hsmgate, as its label says: this catalog has forgotten it. */
  readonly ours: boolean
}

export async function findUnknownObjects(
  parts: { readonly catalog: Catalog; readonly hsm: Hsm },
  group: string,
): Promise<readonly UnknownObject[]> {
  const objects = await parts.hsm.enumerate(group, deadlineIn(enumerationMs))
  // After the enumeration, so that a key created meanwhile has its row.
  const known = await knownObjects(parts.catalog)
  return objects
    .map(({ objectId, label, objectClass }) => ({
      group,
      objectId: Buffer.from(objectId).toString('hex'),
      label,
      objectClass,
      ours: /^hsmgate(-[a-z]+)?:/.test(label),
    }))
    .filter(({ objectId, label }) => !known.has(objectId) && !known.has(`label:${label}`))
}

/** Hex ids of all materials, and labels of those that have no id to be found by. */
async function knownObjects(catalog: Catalog): Promise<ReadonlySet<string>> {
  const known = new Set<string>()
  for (let after: number | undefined; ; ) {
    const page = await catalog.objectIds(after, pageRows)
    for (const { objectId, label } of page) {
      if (objectId.length > 0) known.add(objectId.toString('hex'))
      else if (label !== null) known.add(`label:${label}`)
    }
    if (page.length < pageRows) return known
    after = page.at(-1)?.row
  }
}
