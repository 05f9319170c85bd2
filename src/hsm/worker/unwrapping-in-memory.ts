/**
 * Imports whose bytes this process sees, because the module has no other way to take them in: by C_CreateObject, or by C_UnwrapKey under a key
 * made for the occasion. Every buffer that held them is wiped before the answer. Used only where the operator allowed it.
 */
import { createCipheriv, createDecipheriv, createPrivateKey, createPublicKey, randomBytes } from 'node:crypto'
import { jobOp } from './addon.ts'
import { CKA, CKK } from './cryptoki.ts'
import type { Facts } from './facts.ts'
import { refusal } from './failure.ts'
import type { Call, Jobs } from './jobs.ts'
import { ed25519Params, type KeyShape } from './key-shapes.ts'
import { kwpMechanism } from './kwp.ts'
import { encodeTemplate, type Template } from './pack.ts'
import { sessionSecretTemplate } from './templates.ts'

/** Initial value of AES-KWP (RFC 5649 section 3). */
const kwpInitialValue = Buffer.from('a65959a6', 'hex')
/** PKCS#8 of an Ed25519 key up to its seed (RFC 8410 section 7), without the length of the outermost SEQUENCE. */
const ed25519Prefixes = ['020100300506032b657004220420', '020101300506032b657004220420'].map((hex) =>
  Buffer.from(hex, 'hex'),
)
const ed25519SeedBytes = 32
const ed25519Header = Buffer.from('302e020100300506032b657004220420', 'hex')

/** The inner part of RSA_AES_KEY_WRAP under a known AES key, which is wiped. @throws CallFailure `CiphertextInvalid` */
export function openKeyWrap(kek: Buffer, wrapped: Uint8Array): Buffer {
  try {
    const decipher = createDecipheriv('id-aes256-wrap-pad', kek, kwpInitialValue)
    const first = decipher.update(wrapped)
    const opened = Buffer.concat([first, decipher.final()])
    first.fill(0)
    return opened
  } catch {
    throw refusal('CiphertextInvalid', 'the wrapped key does not open')
  } finally {
    kek.fill(0)
  }
}

/** An object of `template` from a secret's value or a private key's PKCS#8, which is wiped. @throws CallFailure `KeyMaterialIncorrect` */
export async function createFromBytes(
  jobs: Jobs,
  facts: Facts,
  call: Call,
  bytes: Buffer,
  template: Template,
  shape: KeyShape,
): Promise<bigint> {
  try {
    if (shape.objectClass === 'secret') {
      if (bytes.length !== shape.valueBytes)
        throw refusal('KeyMaterialIncorrect', 'the imported key has a wrong length')
      return await createObject(jobs, call, bytes, template)
    }
    if (shape.keyType === CKK.ecEdwards) {
      return await createEd25519(jobs, call, ed25519Seed(bytes), template)
    }
    return await unwrapFromBytes(jobs, facts, call, bytes, template)
  } finally {
    bytes.fill(0)
  }
}

/** With its public key, which no operation of the module would show later; modules that know no CKA_PUBLIC_KEY_INFO go without. */
async function createEd25519(jobs: Jobs, call: Call, seed: Buffer, template: Template): Promise<bigint> {
  const key = Buffer.concat([ed25519Header, seed])
  const publicKey = createPublicKey(createPrivateKey({ key, format: 'der', type: 'pkcs8' }))
  key.fill(0)
  const spki = publicKey.export({ format: 'der', type: 'spki' })
  const withCurve: Template = [...template, [CKA.ecParams, ed25519Params]]
  return createObject(jobs, call, seed, [...withCurve, [CKA.publicKeyInfo, spki]])
}

/** C_CreateObject with this CKA_VALUE, which is wiped. */
export async function createObject(jobs: Jobs, call: Call, value: Buffer, template: Template): Promise<bigint> {
  const aux = encodeTemplate([...template, [CKA.value, value]])
  value.fill(0)
  try {
    return (await jobs.need(call, jobOp.createObject, { aux })).handle
  } finally {
    aux.fill(0)
  }
}

/** Wrapped anew under a key that both sides know, so that the module reads the PKCS#8 itself. */
async function unwrapFromBytes(
  jobs: Jobs,
  facts: Facts,
  call: Call,
  pkcs8: Buffer,
  template: Template,
): Promise<bigint> {
  const mechanism = kwpMechanism(facts)
  const kek = randomBytes(32)
  const cipher = createCipheriv('id-aes256-wrap-pad', kek, kwpInitialValue)
  const input = Buffer.concat([cipher.update(pkcs8), cipher.final()])
  const kekTemplate = sessionSecretTemplate(CKK.aes, 32, [CKA.unwrap]).filter(([type]) => type !== CKA.valueLen)
  const handle = await createObject(jobs, call, kek, kekTemplate)
  try {
    const aux = encodeTemplate(template)
    const { rv, handle: opened } = await jobs.attempt(call, jobOp.unwrap, { mechanism, key: handle, input, aux })
    if (rv === 0) return opened
    const { action } = jobs.judge(call, jobOp.unwrap, rv)
    // the wrapping is our own, so what the module dislikes is the key inside
    if (action === 'A' || action === 'B' || jobs.profile.badWrappedKey.includes(rv))
      throw refusal('KeyMaterialIncorrect', 'the module does not take this key')
    throw jobs.failure(call, jobOp.unwrap, rv)
  } finally {
    jobs.discard(handle)
  }
}

/** A copy of the seed. @throws CallFailure `KeyMaterialIncorrect` */
function ed25519Seed(pkcs8: Buffer): Buffer {
  const body = pkcs8[0] === 0x30 && (pkcs8[1] ?? 0xff) < 0x80 ? pkcs8.subarray(2) : undefined
  const prefix = ed25519Prefixes.find((known) => body?.subarray(0, known.length).equals(known))
  const seed = prefix && body?.subarray(prefix.length, prefix.length + ed25519SeedBytes)
  if (body === undefined || body.length !== pkcs8[1] || seed?.length !== ed25519SeedBytes) {
    throw refusal('KeyMaterialIncorrect', 'not the PKCS#8 of an Ed25519 key')
  }
  return Buffer.from(seed)
}
