/**
 * The objects that the catalog knows, as a set to look tokens' objects up in. An object is named by its group, class and CKA_ID, with its
 * CKA_LABEL where the catalog keeps one. One reading of the catalog; nothing is cached.
 */
import type { Catalog, KnownObject } from '../catalog/catalog.ts'
import type { ObjectSummary } from '../hsm/port.ts'
import { specs } from './algorithms.ts'

const pageRows = 1000

export type ObjectNames = Pick<ObjectSummary, 'objectId' | 'label' | 'objectClass'>

export async function* knownObjects(catalog: Catalog): AsyncGenerator<KnownObject> {
  for (let after: number | undefined; ; ) {
    const page = await catalog.objectIds(after, pageRows)
    yield* page.filter(({ state, custody }) => state !== 'Destroyed' && custody === 'token')
    if (page.length < pageRows) return
    after = page.at(-1)?.row
  }
}

export function classOf({ spec }: Pick<KnownObject, 'spec'>): 'private' | 'secret' {
  const { family } = specs[spec]
  return family === 'aes' || family === 'hmac' ? 'secret' : 'private'
}

/** Names under which an object may be known, the public half of a pair under its private half's. */
export function namesOf(
  group: string,
  { objectId, label, objectClass }: ObjectNames,
): readonly [bare: string, labelled: string] {
  const ofClass = objectClass === 'secret' ? 'secret' : 'private'
  const id = Buffer.from(objectId).toString('hex')
  return [JSON.stringify([group, ofClass, id]), JSON.stringify([group, ofClass, id, label])]
}

/** The one name under which the catalog knows it. */
export function nameOf(known: KnownObject): string {
  const { group, objectId, label } = known
  const [bare, labelled] = namesOf(group, { objectId, label: label ?? '', objectClass: classOf(known) })
  return label === null ? bare : labelled
}

export async function findKnownObject(
  catalog: Catalog,
  group: string,
  object: ObjectNames,
): Promise<KnownObject | undefined> {
  const names = namesOf(group, object)
  for await (const known of knownObjects(catalog)) if (names.includes(nameOf(known))) return known
  return undefined
}
