/**
 * Public keys as the token shows them: attributes of a public or private object to SubjectPublicKeyInfo. Read back, never assumed.
 */
import { createPublicKey } from 'node:crypto'
import { jobOp } from './addon.ts'
import { CKA, CKK } from './cryptoki.ts'
import type { Call, Jobs } from './jobs.ts'
import type { KeyShape } from './key-shapes.ts'
import { decodeAttributes, encodeAttributeTypes, encodeTemplate } from './pack.ts'
import { decodeEcPoint, ecPublicKey, ed25519Bytes, ed25519PublicKey, latticePublicKey, rsaPublicKey } from './spki.ts'

const publicTypes = encodeAttributeTypes([CKA.modulus, CKA.publicExponent, CKA.ecPoint, CKA.publicKeyInfo])
/** CKA_VALUE of a public object (PKCS#11 3.2, 6.67.2 and 6.68.2); of a private one it would be the key itself, and is never asked for. */
const latticePublicTypes = encodeAttributeTypes([CKA.value, CKA.publicKeyInfo])
const publicBytesMax = 8192

/** `undefined` when the object does not show its public key (an EC private key of most modules). An ML-DSA or ML-KEM object must be a public one. */
export async function readPublicKey(
  jobs: Jobs,
  call: Call,
  handle: bigint,
  shape: KeyShape,
): Promise<Buffer | undefined> {
  const aux = shape.parameters === undefined ? publicTypes : latticePublicTypes
  const job = { key: handle, aux, outMax: publicBytesMax }
  const { rv, output } = await jobs.attempt(call, jobOp.getAttributes, job)
  if (output === null) {
    if (rv === 0) return undefined
    throw jobs.failure(call, jobOp.getAttributes, rv)
  }
  return publicKeyOf(shape, decodeAttributes(output))
}

/**
 * From the key's own numbers; else from CKA_PUBLIC_KEY_INFO, which newer modules fill in for private keys and which `writePublicKey` fills
 * in for ours.
 * @throws TypeError when the attributes do not fit the shape.
 */
export function publicKeyOf(shape: KeyShape, attributes: ReadonlyMap<number, Buffer | null>): Buffer | undefined {
  if (shape.keyType === CKK.rsa) {
    const modulus = attributes.get(CKA.modulus)
    const exponent = attributes.get(CKA.publicExponent)
    if (modulus?.length && exponent?.length) return rsaPublicKey(modulus, exponent)
    return recorded(shape, attributes)
  }
  if (shape.parameters !== undefined) {
    const value = attributes.get(CKA.value)
    return value?.length ? latticePublicKey(shape.parameters, value) : recorded(shape, attributes)
  }
  const point = attributes.get(CKA.ecPoint)
  if (!point?.length) return recorded(shape, attributes)
  const { curve } = shape
  if (curve === undefined) return ed25519PublicKey(decodeEcPoint(point, ed25519Bytes))
  return ecPublicKey(curve, decodeEcPoint(point, 1 + 2 * curve.fieldBytes))
}

/** A SubjectPublicKeyInfo that somebody recorded: taken only when it is a key of this shape. */
function recorded(shape: KeyShape, attributes: ReadonlyMap<number, Buffer | null>): Buffer | undefined {
  const spki = attributes.get(CKA.publicKeyInfo)
  return spki?.length && fitsPublicKey(shape, spki) ? spki : undefined
}

/** Whether a SubjectPublicKeyInfo is of this shape; whether it belongs to the private key is for a signature to show. */
export function fitsPublicKey(shape: KeyShape, spki: Buffer): boolean {
  try {
    const { asymmetricKeyType, asymmetricKeyDetails } = createPublicKey({ key: spki, format: 'der', type: 'spki' })
    const { curve, modulusBits, parameters } = shape
    if (parameters !== undefined) return asymmetricKeyType === parameters.node
    if (modulusBits !== undefined) {
      return asymmetricKeyType === 'rsa' && asymmetricKeyDetails?.modulusLength === modulusBits
    }
    if (curve === undefined) return asymmetricKeyType === 'ed25519'
    return asymmetricKeyType === 'ec' && asymmetricKeyDetails?.namedCurve === curve.opensslName
  } catch {
    return false
  }
}

/**
 * Records the public key with its private object: an EC private key shows none of its own, and after a lost answer or a lost catalog the
 * token alone can tell. Modules that refuse go without.
 */
export async function writePublicKey(jobs: Jobs, call: Call, handle: bigint, spki: Buffer): Promise<void> {
  const aux = encodeTemplate([[CKA.publicKeyInfo, spki]])
  await jobs.attempt(call, jobOp.setAttributes, { key: handle, aux })
}
