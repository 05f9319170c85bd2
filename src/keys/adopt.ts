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
import { specs } from './algorithms.ts'
import { createKeyId, isKeyId } from './identifiers.ts'
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

  const construction = constructionOf(object, spec)
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
      : await hsm.mac(key, 'MATERIAL_ID', Buffer.from(name.keyId), deadline)
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

function requireSpec({ spec, objectClass }: AdoptableObject): KeySpec {
  if (spec !== undefined) return spec
  throw invalid(`The object is a ${objectClass} key of a type or size that no key spec has.`)
}

interface OwnLabel {
  readonly purpose: Purpose
  readonly keyId: string
  readonly number: number
}

/** `hsmgate:<key id>:<n>`, or with `-<purpose>`; workers refuse labels that only look like it. @throws GatewayError */
function readOwnLabel(label: string): OwnLabel | undefined {
  if (!label.startsWith('hsmgate')) return undefined
  const [, purpose = 'kms', keyId = '', number = ''] =
    /^hsmgate(?:-(tls|xks|system))?:([^:]+):(\d{1,6})$/.exec(label) ?? []
  if (purpose === 'system') throw invalid('The object is a key of the gateway itself, which no operator registers.')
  if (!isKeyId(keyId))
    throw invalid(`The label ${JSON.stringify(label)} looks like one of hsmgate's own and is none: change it first.`)
  return { purpose: purpose as Purpose, keyId, number: Number(number) }
}

function choosePurpose(asked: AdoptKeyRequest['purpose'], own: OwnLabel | undefined): Purpose {
  if (own !== undefined && asked !== undefined && asked !== own.purpose) {
    throw invalid(`The object is of purpose ${own.purpose}, as its label says, and serves no other.`)
  }
  return asked ?? own?.purpose ?? 'kms'
}

/** What an object may be used for, as the KMS API names it. */
function possibleUsages(
  { usages }: AdoptableObject,
  spec: KeySpec,
  purpose: Purpose,
  isOwn: boolean,
): readonly KeyUsage[] {
  const has = (usage: string): boolean => usages.includes(usage)
  // a key that unwraps keys must not decrypt what was wrapped to it; the KMS door opens its own AES ciphertexts alone
  const unwraps = has('unwrap') && !(spec === 'SYMMETRIC_DEFAULT' && purpose === 'kms')
  const decrypts = has('decrypt') && !unwraps
  switch (specs[spec].family) {
    case 'aes':
      return (has('encrypt') && !unwraps) || decrypts || (isOwn && has('derive')) ? ['ENCRYPT_DECRYPT'] : []
    case 'rsa':
      return [...(has('sign') ? (['SIGN_VERIFY'] as const) : []), ...(decrypts ? (['ENCRYPT_DECRYPT'] as const) : [])]
    case 'ec':
      return [
        ...(has('sign') ? (['SIGN_VERIFY'] as const) : []),
        ...(has('derive') ? (['KEY_AGREEMENT'] as const) : []),
      ]
    case 'ed25519':
      return has('sign') ? ['SIGN_VERIFY'] : []
    case 'hmac':
      return has('sign') ? ['GENERATE_VERIFY_MAC'] : []
    default:
      return []
  }
}

const usagesOfPurpose: Readonly<Partial<Record<Purpose, readonly KeyUsage[]>>> = {
  tls: ['SIGN_VERIFY'],
  xks: ['ENCRYPT_DECRYPT'],
}

function chooseUsage(
  object: AdoptableObject,
  spec: KeySpec,
  purpose: Purpose,
  asked: KeyUsage | undefined,
  isOwn: boolean,
): KeyUsage {
  const offered = Object.keys(specs[spec].usages) as KeyUsage[]
  const allowed = usagesOfPurpose[purpose] ?? offered
  if (purpose === 'xks' && spec !== 'SYMMETRIC_DEFAULT') throw invalid('A key of purpose xks is an AES-256 key.')
  const possible = possibleUsages(object, spec, purpose, isOwn).filter(
    (usage) => offered.includes(usage) && allowed.includes(usage),
  )
  const permits = object.usages.length === 0 ? 'nothing' : object.usages.join(', ')
  const oracle = object.usages.includes('unwrap') ? ' A key that unwraps keys must not decrypt anything else.' : ''
  if (asked !== undefined && !possible.includes(asked)) {
    throw invalid(
      `The object permits ${permits}: that is not enough for a ${spec} key with usage ${asked} and purpose ${purpose}.${oracle}`,
    )
  }
  const [only] = possible
  if (only === undefined)
    throw invalid(`The object permits ${permits}: no ${spec} key of purpose ${purpose} can do with that.${oracle}`)
  if (asked === undefined && possible.length > 1) {
    throw invalid(`The object can serve for ${possible.join(' or ')}, and a key has one usage: name it with --usage.`)
  }
  return asked ?? only
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

function constructionOf({ usages }: AdoptableObject, spec: KeySpec): HsmKey['construction'] {
  if (spec !== 'SYMMETRIC_DEFAULT') return 'none'
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

/** As far as its usages go: what an object that only decrypts makes of a ciphertext can't be known beforehand. */
async function sealWorks(hsm: Hsm, key: HsmKey, usages: readonly string[], deadline: Deadline): Promise<boolean> {
  if (!usages.includes('encrypt')) return true
  const algorithm = key.purpose === 'xks' ? 'AES_GCM' : 'SEAL'
  const data = randomBytes(16)
  const sealed = await hsm.encrypt(key, algorithm, { data: Buffer.from(data) }, deadline)
  if (!usages.includes('decrypt')) return sealed.length > data.length
  return data.equals(await hsm.decrypt(key, algorithm, { data: sealed }, deadline))
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
