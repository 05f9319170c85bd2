/**
 * Compares a token with the catalog: objects that no row names, keys whose object is gone, objects that are weak. They are reported and
 * never touched, whatever their label says: an empty, restored or rolled-back catalog must not wipe an HSM.
 */
import { type Deadline, deadlineIn } from '../call.ts'
import type { Catalog, KnownObject } from '../catalog/catalog.ts'
import type { Hsm, ObjectSummary } from '../hsm/port.ts'
import type { Reconciliation, UnknownObject } from './keys.ts'
import { knownObjects, nameOf, namesOf } from './known-objects.ts'
import { weaknessesOf } from './weakness.ts'

const enumerationMs = 60_000

interface ReconcileParts {
  readonly catalog: Catalog
  readonly hsm: Hsm
}

export async function findUnknownObjects(parts: ReconcileParts, group: string): Promise<readonly UnknownObject[]> {
  return (await reconcileGroup(parts, group, deadlineIn(enumerationMs))).unknown
}

export async function reconcileGroup(
  { catalog, hsm }: ReconcileParts,
  group: string,
  deadline: Deadline,
): Promise<Reconciliation> {
  // Rows from before the enumeration may be missing their object, rows from after it name what it found: so each
  // question has the reading that answers it without a false alarm over keys that come and go meanwhile.
  const before = await readNames(catalog, group)
  const objects = await hsm.enumerate(group, deadline)
  const after = await readNames(catalog, group)
  const isKnown = (object: ObjectSummary): boolean => namesOf(group, object).some((name) => after.has(name))

  const present = new Set(
    objects.filter(({ objectClass }) => objectClass !== 'public').flatMap((object) => namesOf(group, object)),
  )
  const missing = [...before].filter(([name]) => after.has(name) && !present.has(name))
  return {
    unknown: objects
      .filter((object) => !isKnown(object))
      .map((object) => ({
        ...reported(group, object),
        spec: object.spec ?? null,
        ours: /^hsmgate(-[a-z]+)?:/.test(object.label),
      })),
    missing: missing.map(([, { account, region, keyId, state, objectId }]) => ({
      account,
      region,
      keyId,
      group,
      objectId: objectId.toString('hex'),
      state,
    })),
    weak: objects
      .map((object) => ({ ...reported(group, object), weaknesses: weaknessesOf(object), isKnown: isKnown(object) }))
      .filter(({ weaknesses }) => weaknesses.length > 0),
  }
}

function reported(group: string, { objectId, label, objectClass }: ObjectSummary) {
  return { group, objectId: Buffer.from(objectId).toString('hex'), label, objectClass }
}

async function readNames(catalog: Catalog, group: string): Promise<ReadonlyMap<string, KnownObject>> {
  const names = new Map<string, KnownObject>()
  for await (const known of knownObjects(catalog)) if (known.group === group) names.set(nameOf(known), known)
  return names
}
