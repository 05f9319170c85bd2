/**
 * DER SubjectPublicKeyInfo (RFC 5280 section 4.1.2.7) from what PKCS#11 shows of a public key, and the way back for an ECDH peer.
 * RSA as RFC 3279 section 2.3.1 (with NULL parameters), EC as RFC 5480 (named curve, uncompressed point), Ed25519 as RFC 8410, ML-DSA as
 * RFC 9881, ML-KEM as RFC 9935. Pure.
 */
import { createPublicKey } from 'node:crypto'
import type { Curve, ParameterSet } from './key-shapes.ts'

const rsaAlgorithm = Buffer.from('300d06092a864886f70d0101010500', 'hex')
const ecPublicKeyOid = Buffer.from('06072a8648ce3d0201', 'hex')
const ed25519Algorithm = Buffer.from('300506032b6570', 'hex')

export const ed25519Bytes = 32

/** Big-endian magnitudes as CKA_MODULUS and CKA_PUBLIC_EXPONENT give them. */
export function rsaPublicKey(modulus: Uint8Array, exponent: Uint8Array): Buffer {
  return subjectPublicKey(rsaAlgorithm, der(0x30, integer(modulus), integer(exponent)))
}

/** @throws TypeError when `point` is no uncompressed point of the curve's size. */
export function ecPublicKey(curve: Curve, point: Uint8Array): Buffer {
  if (point.length !== 1 + 2 * curve.fieldBytes || point[0] !== 0x04) throw new TypeError('not an uncompressed point')
  return subjectPublicKey(der(0x30, ecPublicKeyOid, curve.params), point)
}

/** PKCS#8 of an EC key with its public key, as OpenSSL writes it (RFC 5915, RFC 5958). The answer is a secret. */
export function ecPrivateKey(curve: Curve, scalar: Uint8Array, point: Uint8Array): Buffer {
  const publicKey = der(0xa1, der(0x03, Buffer.from([0]), point))
  const inner = der(0x30, integer(Buffer.from([1])), der(0x04, scalar), publicKey)
  const algorithm = der(0x30, ecPublicKeyOid, curve.params)
  const outer = der(0x30, integer(Buffer.from([0])), algorithm, der(0x04, inner))
  inner.fill(0)
  return outer
}

/** @throws TypeError when `point` has not 32 bytes. */
export function ed25519PublicKey(point: Uint8Array): Buffer {
  if (point.length !== ed25519Bytes) throw new TypeError('not an Ed25519 public key')
  return subjectPublicKey(ed25519Algorithm, point)
}

/** @throws TypeError when `value` is not as long as a public key of the set. */
export function latticePublicKey(parameters: ParameterSet, value: Uint8Array): Buffer {
  if (value.length !== parameters.publicBytes) throw new TypeError(`not a public key of ${parameters.node}`)
  return subjectPublicKey(parameters.algorithm, value)
}

/** CKA_EC_POINT is a DER OCTET STRING around the point (PKCS#11 3.2, 6.3.3); some modules give the point itself. Both are accepted. */
export function decodeEcPoint(value: Uint8Array, pointBytes: number): Buffer {
  const bytes = Buffer.from(value.buffer, value.byteOffset, value.byteLength)
  if (bytes.length === pointBytes) return bytes
  const header = bytes.length - pointBytes
  if (header > 0 && der(0x04, bytes.subarray(header)).equals(bytes)) return bytes.subarray(header)
  throw new TypeError('CKA_EC_POINT has an unexpected length')
}

/**
 * The uncompressed point inside a peer's SubjectPublicKeyInfo; `undefined` unless it is a point on exactly this curve.
 * OpenSSL checks that it lies on the curve: an invalid-curve attack must not depend on the module's own check.
 */
export function parsePeerPoint(spki: Uint8Array, curve: Curve): Buffer | undefined {
  try {
    const key = createPublicKey({ key: Buffer.from(spki), format: 'der', type: 'spki' })
    if (key.asymmetricKeyType !== 'ec') return undefined
    const { crv, x, y } = key.export({ format: 'jwk' })
    if (crv !== curve.node || x === undefined || y === undefined) return undefined
    return Buffer.concat([Buffer.from([0x04]), Buffer.from(x, 'base64url'), Buffer.from(y, 'base64url')])
  } catch {
    return undefined
  }
}

function subjectPublicKey(algorithm: Uint8Array, key: Uint8Array): Buffer {
  return der(0x30, algorithm, der(0x03, Buffer.from([0]), key))
}

function integer(magnitude: Uint8Array): Buffer {
  let from = 0
  while (from < magnitude.length - 1 && magnitude[from] === 0) from++
  const trimmed = magnitude.subarray(from)
  return (trimmed[0] ?? 0) >= 0x80 ? der(0x02, Buffer.from([0]), trimmed) : der(0x02, trimmed)
}

function der(tag: number, ...contents: readonly Uint8Array[]): Buffer {
  const length = contents.reduce((sum, content) => sum + content.length, 0)
  return Buffer.concat([Buffer.from([tag]), derLength(length), ...contents])
}

function derLength(length: number): Buffer {
  if (length < 0x80) return Buffer.from([length])
  if (length < 0x100) return Buffer.from([0x81, length])
  return Buffer.from([0x82, length >> 8, length & 0xff])
}
