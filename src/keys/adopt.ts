/**
 * Adoption: registers an object that is in the token already, without changing it. What it permits decides what it can be: its key spec, one
 * KMS usage, weaknesses that an operator must accept. The object proves itself in one use before its key exists.
 *
 * An object of hsmgate's own label, forgotten by a catalog, gets its key id back, so that its ciphertexts open again. Adoptions run one
 * after another, so that no object is registered twice.
 */
import { createHash, randomBytes } from 'node:crypto'
import type { Deadline } from '../call.ts'
import type { Catalog, KeyEntry } from '../catalog/catalog.ts'
import { GatewayError } from '../error.ts'
import type { AdoptableObject, Hsm, HsmKey, KeySpec, KeyUsage, Purpose } from '../hsm/port.ts'
import { choosePurpose, chooseUsage, readOwnLabel } from './adoptable.ts'
import { createKeyId } from './identifiers.ts'
import type { AdoptKeyRequest, KeyService, Locale } from './keys.ts'
import { findKnownObject } from './known-objects.ts'
import { backingKeyWorks } from './self-test.ts'
import { weaknessesOf } from './weakness.ts'

/** Member `adoption` of an adopted key's `extra`. */
export interface AdoptionRecord {
  readonly objectClass: string
  readonly label: string
  /** What the object permits. */
  readonly usages: readonly string[]
  readonly weaknesses: readonly string[]
  /** Generated in this token, and never extractable: false for what was brought in. */
  readonly bornHere: boolean
}

export interface AdoptionParts {
  readonly catalog: Catalog
  readonly hsm: Hsm
  readonly defaultGroup: string
  readonly now: () => number
}

export function createAdoption(parts: AdoptionParts): Pick<KeyService, 'adopt'> {
  let last: Promise<unknown> = Promise.resolve()
  return {
    adopt(request, locale, deadline) {
      const turn = last.then(() => adoptKey(parts, request, locale, deadline))
      last = turn.catch(() => {})
      return turn
    },
  }
}

async function adoptKey(
  parts: AdoptionParts,
  request: AdoptKeyRequest,
  locale: Locale,
  deadline: Deadline,
): Promise<KeyEntry> {
  const { catalog, hsm } = parts
  const { label, objectId, objectClass } = request
  const group = request.group ?? parts.defaultGroup
  if (!hsm.groups().some(({ name }) => name === group)) throw invalid(`There is no group ${group}.`)
  const object = await hsm.adopt({ group, ...given({ label, objectId, objectClass }) }, deadline)
  const spec = requireSpec(object)
  const own = readOwnLabel(object.label)
  const purpose = choosePurpose(request.purpose, own)
  const usage = chooseUsage(object, spec, purpose, request.usage, own !== undefined)
  requireProven(hsm, group, spec, usage)
  const weaknesses = weaknessesOf(object)
  if (weaknesses.length > 0 && !request.allowWeak) {
    throw invalid(
      `The object is ${weaknesses.join(' and ')}; a key that can be trusted is not. --allow-weak registers it nevertheless, marked.`,
    )
  }
  await refuseKnown(catalog, group, object)

  const construction = constructionOf(object, spec, purpose)
  const publicKey = requirePublicKey(object, spec)
  const key: HsmKey = {
    group,
    purpose,
    spec,
    construction,
    objectId: object.objectId,
    ...(object.needsLabel ? { label: object.label } : {}),
  }
  await proveUse(hsm, key, usage, object, publicKey, deadline)
  const { account, region } = locale
  const name = { account, region, keyId: own?.keyId ?? createKeyId(false) }
  const materialId =
    publicKey.length > 0
      ? createHash('sha256').update(publicKey).update(name.keyId).digest()
      : await secretIdOf(hsm, key, object, name.keyId, deadline)
  const adoption: AdoptionRecord = {
    objectClass: object.objectClass,
    label: object.label,
    usages: object.usages,
    weaknesses,
    bornHere: object.local && object.neverExtractable,
  }
  const number = own?.number ?? 1
  const now = parts.now()
  return catalog.insertKey({
    key: {
      ...name,
      spec,
      usage,
      origin: 'AWS_KMS',
      purpose,
      group,
      custody: 'token',
      state: 'Enabled',
      description: request.description,
      multiRegion: name.keyId.startsWith('mrk-'),
      createdAt: now,
      deletionAt: null,
      currentMaterial: number,
      adopted: true,
      extra: { adoption },
    },
    material: {
      number,
      state: 'Current',
      objectId: Buffer.from(object.objectId),
      label: key.label ?? null,
      construction,
      materialId,
      publicKey,
      wrapped: Buffer.alloc(0),
      createdAt: now,
    },
    policy: request.policy,
    tags: {},
  })
}

/** A secret that neither encrypts nor decrypts can't tell itself from others; its name must do. */
async function secretIdOf(
  hsm: Hsm,
  key: HsmKey,
  { objectId, label, usages }: AdoptableObject,
  keyId: string,
  deadline: Deadline,
): Promise<Buffer> {
  const isMute = key.construction === 'direct' && !usages.includes('encrypt') && !usages.includes('decrypt')
  if (!isMute) return hsm.mac(key, 'MATERIAL_ID', Buffer.from(keyId), deadline)
  return createHash('sha256').update(objectId).update(label).update(keyId).digest()
}

function requireSpec({ spec, objectClass }: AdoptableObject): KeySpec {
  if (spec !== undefined) return spec
  throw invalid(`The object is a ${objectClass} key of a type or size that no key spec has.`)
}

function requireProven(hsm: Hsm, group: string, spec: KeySpec, usage: KeyUsage): void {
  if (hsm.capabilities(group).specs[spec]?.includes(usage)) return
  const text = `The token is not proven to serve ${spec} keys for ${usage}; hsmgate doctor says why.`
  throw new GatewayError('Unsupported', { text })
}

function requirePublicKey({ publicKey, objectClass }: AdoptableObject, spec: KeySpec): Buffer {
  if (objectClass === 'secret') return Buffer.alloc(0)
  if (publicKey !== null && publicKey.length > 0) return Buffer.from(publicKey)
  throw invalid(
    `No public key is found for this ${spec} private key: put the public key or the certificate into the token, with the same CKA_ID.`,
  )
}

function constructionOf({ usages }: AdoptableObject, spec: KeySpec, purpose: Purpose): HsmKey['construction'] {
  if (spec !== 'SYMMETRIC_DEFAULT') return 'none'
  if (purpose === 'xks') return 'direct'
  return usages.includes('encrypt') || usages.includes('decrypt') ? 'direct' : 'derived'
}

/** Also shows that the public key found is the one that belongs to the private key. @throws GatewayError */
async function proveUse(
  hsm: Hsm,
  key: HsmKey,
  usage: KeyUsage,
  { usages }: AdoptableObject,
  publicKey: Uint8Array,
  deadline: Deadline,
): Promise<void> {
  const isWorking =
    key.construction === 'direct'
      ? await sealWorks(hsm, key, usages, deadline)
      : await backingKeyWorks(hsm, key, usage, publicKey, deadline)
  if (isWorking) return
  const suspicion = publicKey.length > 0 ? '; the public key with it may belong to another' : ''
  throw invalid(`The object failed its first use: the result does not verify${suspicion}.`)
}

const proofContext = Buffer.from('hsmgate proof')

/** As far as its usages go: what an object that only decrypts makes of a ciphertext can't be known beforehand. */
async function sealWorks(hsm: Hsm, key: HsmKey, usages: readonly string[], deadline: Deadline): Promise<boolean> {
  if (!usages.includes('encrypt')) return true
  const algorithm = key.purpose === 'xks' ? 'AES_GCM' : 'SEAL'
  const data = randomBytes(16)
  const sealed = await hsm.encrypt(key, algorithm, { context: proofContext, data: Buffer.from(data) }, deadline)
  if (!usages.includes('decrypt')) return sealed.length > data.length
  return data.equals(await hsm.decrypt(key, algorithm, { context: proofContext, data: sealed }, deadline))
}

async function refuseKnown(catalog: Catalog, group: string, object: AdoptableObject): Promise<void> {
  const known = await findKnownObject(catalog, group, object)
  if (known === undefined) return
  throw new GatewayError('AlreadyExists', { text: `The object is behind key ${known.keyId} already.` })
}

function given<T extends object>(members: T): { [K in keyof T]: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(members).filter(([, value]) => value !== undefined)) as never
}

function invalid(text: string): GatewayError {
  return new GatewayError('ValidationFailed', { text })
}
