/**
 * The public half of an imported EC key, where the module doesn't show it: an ECDSA signature leaves a few candidates (SEC 1 version 2.0, section
 * 4.1.6), two signatures leave one.
 */
import { createHash, createPublicKey, randomBytes } from 'node:crypto'
import { p256, p384, p521 } from '@noble/curves/nist.js'
import { secp256k1 } from '@noble/curves/secp256k1.js'
import type { Deadline } from '../call.ts'
import { GatewayError } from '../error.ts'
import type { Hsm, HsmKey, KeySpec } from '../hsm/port.ts'
import { specs } from './algorithms.ts'

const curves = { p256, p384, p521, secp256k1 }
const jwkNames = { p256: 'P-256', p384: 'P-384', p521: 'P-521', secp256k1: 'secp256k1' }
/** r can stand for two x coordinates, each with two y. */
const recoveryBits = [0, 1, 2, 3]

/** DER SubjectPublicKeyInfo. @throws GatewayError `KeyMaterialIncorrect` when the signatures have no key in common. */
export async function recoverPublicKey(hsm: Hsm, key: HsmKey, deadline: Deadline): Promise<Buffer> {
  const [first, second] = await Promise.all([candidates(hsm, key, deadline), candidates(hsm, key, deadline)])
  const common = first.filter((point) => second.includes(point))
  if (common.length !== 1) throw new GatewayError('KeyMaterialIncorrect')
  return encodePoint(key.spec, Buffer.from(common[0] as string, 'hex'))
}

/** Uncompressed points in hex. */
async function candidates(hsm: Hsm, key: HsmKey, deadline: Deadline): Promise<readonly string[]> {
  const { curve } = specs[key.spec]
  if (curve === undefined) throw new TypeError(`${key.spec} is no ECDSA key`)
  const digest = createHash('sha256').update(randomBytes(32)).digest()
  const signature = await hsm.sign(key, 'ECDSA', digest, deadline)
  const { Signature } = curves[curve]
  const points: string[] = []
  for (const bit of recoveryBits) {
    try {
      const point = Signature.fromBytes(signature, 'compact').addRecoveryBit(bit).recoverPublicKey(digest)
      points.push(point.toHex(false))
    } catch {
      // No point has this x.
    }
  }
  return points
}

function encodePoint(spec: KeySpec, point: Buffer): Buffer {
  const crv = jwkNames[specs[spec].curve as keyof typeof jwkNames]
  const half = (point.length - 1) / 2
  const x = point.toString('base64url', 1, 1 + half)
  const y = point.toString('base64url', 1 + half)
  return createPublicKey({ key: { kty: 'EC', crv, x, y }, format: 'jwk' }).export({ format: 'der', type: 'spki' })
}
