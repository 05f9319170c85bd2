/**
 * What the token says about its objects, read back attribute by attribute, and the end of session objects. An attribute that the module
 * does not show counts as the weaker of its values: an object is never described as safer than it proved.
 */
import type { KeySpec, ObjectSummary } from '../port.ts'
import { jobOp } from './addon.ts'
import { CKA } from './cryptoki.ts'
import { CallFailure, refusal } from './failure.ts'
import { classNumbers, type KeyClass, ulong } from './handles.ts'
import type { Call, Jobs } from './jobs.ts'
import { keyShapes, specOf } from './key-shapes.ts'
import type { KeyRef, Objects } from './objects.ts'
import { decodeAttributes, encodeAttributeTypes } from './pack.ts'
import { publicKeyOf, readPublicKey } from './public-keys.ts'

const usageNames: readonly (readonly [number, string])[] = [
  [CKA.sign, 'sign'],
  [CKA.verify, 'verify'],
  [CKA.encrypt, 'encrypt'],
  [CKA.decrypt, 'decrypt'],
  [CKA.derive, 'derive'],
  [CKA.wrap, 'wrap'],
  [CKA.unwrap, 'unwrap'],
  [CKA.encapsulate, 'encapsulate'],
  [CKA.decapsulate, 'decapsulate'],
]

const described = encodeAttributeTypes([
  CKA.class,
  CKA.keyType,
  CKA.id,
  CKA.label,
  CKA.sensitive,
  CKA.extractable,
  CKA.neverExtractable,
  CKA.local,
  CKA.private,
  CKA.modifiable,
  CKA.modulus,
  CKA.modulusBits,
  CKA.publicExponent,
  CKA.ecParams,
  CKA.ecPoint,
  CKA.publicKeyInfo,
  CKA.valueLen,
  CKA.parameterSet,
  ...usageNames.map(([type]) => type),
])
const describedBytesMax = 8192

/** `undefined` for what is no key, or vanished meanwhile. */
export async function describeObject(jobs: Jobs, call: Call, handle: bigint): Promise<ObjectSummary | undefined> {
  const job = { key: handle, aux: described, outMax: describedBytesMax }
  const { rv, output } = await jobs.attempt(call, jobOp.getAttributes, job)
  if (output === null) {
    if (rv === 0 || jobs.profile.vanished.includes(rv)) return undefined
    throw jobs.failure(call, jobOp.getAttributes, rv)
  }
  const summary = summaryOf(decodeAttributes(output))
  const shape = summary?.spec === undefined ? undefined : keyShapes[summary.spec]
  if (summary?.objectClass !== 'public' || summary.publicKey !== null || shape?.parameters === undefined) return summary
  return { ...summary, publicKey: (await readPublicKey(jobs, call, handle, shape)) ?? null }
}

export function summaryOf(attributes: ReadonlyMap<number, Buffer | null>): ObjectSummary | undefined {
  const classNumber = ulong(attributes.get(CKA.class))
  const keyType = ulong(attributes.get(CKA.keyType))
  const objectClass = (Object.keys(classNumbers) as KeyClass[]).find((name) => classNumbers[name] === classNumber)
  if (objectClass === undefined || keyType === undefined) return undefined
  const isSet = (type: number, whenUnknown: boolean): boolean => {
    const value = attributes.get(type)
    return value?.length === 1 ? value[0] === 1 : whenUnknown
  }
  const modulus = attributes.get(CKA.modulus)
  const spec = specOf({
    keyType,
    modulusBits: modulus?.length ? modulus.length * 8 : ulong(attributes.get(CKA.modulusBits)),
    ecParams: attributes.get(CKA.ecParams) ?? undefined,
    valueBytes: ulong(attributes.get(CKA.valueLen)),
    parameterSet: ulong(attributes.get(CKA.parameterSet)),
  })
  return {
    objectId: Buffer.from(attributes.get(CKA.id) ?? []),
    label: attributes.get(CKA.label)?.toString('utf8') ?? '',
    objectClass,
    ...(spec === undefined ? {} : { spec }),
    sensitive: isSet(CKA.sensitive, false),
    extractable: isSet(CKA.extractable, true),
    neverExtractable: isSet(CKA.neverExtractable, false),
    local: isSet(CKA.local, false),
    isPrivate: isSet(CKA.private, false),
    modifiable: isSet(CKA.modifiable, true),
    usages: usageNames.filter(([type]) => isSet(type, false)).map(([, name]) => name),
    publicKey: objectClass === 'secret' ? null : publicKeyIn(spec, attributes),
  }
}

function publicKeyIn(spec: KeySpec | undefined, attributes: ReadonlyMap<number, Buffer | null>): Buffer | null {
  const shape = spec === undefined ? undefined : keyShapes[spec]
  if (shape === undefined) return null
  try {
    return publicKeyOf(shape, attributes) ?? null
  } catch {
    return null // a malformed point is an object without a public key, not the end of an enumeration
  }
}

/** `null` when the token has no such object. */
export async function summarise(jobs: Jobs, objects: Objects, call: Call, key: KeyRef): Promise<ObjectSummary | null> {
  try {
    const object = await objects.find(call, key)
    const summary = await describeObject(jobs, call, object.handle)
    if (summary === undefined && key.session === 0) objects.handles.forget(key.objectId, key.label)
    return summary ?? null
  } catch (error) {
    if (error instanceof CallFailure && error.failure.code === 'KeyUnavailable' && error.failure.action === 'H')
      return null
    throw error
  }
}

export async function destroySessionObject(jobs: Jobs, objects: Objects, call: Call, key: KeyRef): Promise<number> {
  const entry = objects.session.remove(key.session)
  if (entry === undefined) return 0
  if (entry.purpose !== key.purpose) {
    throw refusal('KeyUsageInvalid', `session object of purpose ${entry.purpose} asked for as ${key.purpose}`)
  }
  const rv = await jobs.destroySession(call, entry.handle).catch((error) => {
    // its reference is gone: nobody will ask again
    jobs.discard(entry.handle)
    throw error
  })
  if (rv === undefined || jobs.profile.vanished.includes(rv)) return 0
  if (rv !== 0) throw jobs.failure(call, jobOp.destroy, rv)
  return 1
}
