/**
 * Public keys as the token shows them: attributes of a public or private object to SubjectPublicKeyInfo. Read back, never assumed.
 */
import { jobOp } from './addon.ts'
import { CKA, CKK } from './cryptoki.ts'
import type { Call, Jobs } from './jobs.ts'
import type { KeyShape } from './key-shapes.ts'
import { decodeAttributes, encodeAttributeTypes } from './pack.ts'
import { decodeEcPoint, ecPublicKey, ed25519Bytes, ed25519PublicKey, rsaPublicKey } from './spki.ts'

const publicTypes = encodeAttributeTypes([CKA.modulus, CKA.publicExponent, CKA.ecPoint])
const publicBytesMax = 4096

/** `undefined` when the object does not show its public key (an EC private key of most modules). */
export async function readPublicKey(
  jobs: Jobs,
  call: Call,
  handle: bigint,
  shape: KeyShape,
): Promise<Buffer | undefined> {
  const job = { key: handle, aux: publicTypes, outMax: publicBytesMax }
  const { rv, output } = await jobs.attempt(call, jobOp.getAttributes, job)
  if (output === null) {
    if (rv === 0) return undefined
    throw jobs.failure(call, jobOp.getAttributes, rv)
  }
  return publicKeyOf(shape, decodeAttributes(output))
}

/** @throws TypeError when the attributes do not fit the shape. */
export function publicKeyOf(shape: KeyShape, attributes: ReadonlyMap<number, Buffer | null>): Buffer | undefined {
  if (shape.keyType === CKK.rsa) {
    const modulus = attributes.get(CKA.modulus)
    const exponent = attributes.get(CKA.publicExponent)
    return modulus?.length && exponent?.length ? rsaPublicKey(modulus, exponent) : undefined
  }
  const point = attributes.get(CKA.ecPoint)
  if (!point?.length) return undefined
  const { curve } = shape
  if (curve === undefined) return ed25519PublicKey(decodeEcPoint(point, ed25519Bytes))
  return ecPublicKey(curve, decodeEcPoint(point, 1 + 2 * curve.fieldBytes))
}
