/**
 * Signatures on the gateway's side of the module: hashing before, encoding after, and verification with the public key in software, off the
 * event loop. Verification answers true or false and never throws for a malformed signature.
 */
import { createHash } from 'node:crypto'
import { loadAddon, type SignatureScheme, signatureScheme } from '../hsm/worker/addon.ts'
import type { SigningAlgorithm } from './algorithms.ts'

/** What the module signs: the digest, or the message itself for Ed25519. */
export function moduleInput(algorithm: SigningAlgorithm, message: Uint8Array, messageType: string): Uint8Array {
  if (messageType === 'RAW' && algorithm.hash !== null) return createHash(algorithm.hash).update(message).digest()
  return message
}

/** r || s in fixed width (PKCS#11) to DER SEQUENCE { r, s } with minimal INTEGERs (RFC 3279 section 2.2.3). */
export function encodeEcdsaSignature(raw: Uint8Array): Buffer {
  const half = raw.length / 2
  const r = minimalInteger(raw.subarray(0, half))
  const s = minimalInteger(raw.subarray(half))
  const bodyLength = 4 + r.length + s.length
  const header = bodyLength < 128 ? [0x30, bodyLength] : [0x30, 0x81, bodyLength]
  return Buffer.concat([Buffer.from(header), Buffer.from([2, r.length]), r, Buffer.from([2, s.length]), s])
}

function minimalInteger(bytes: Uint8Array): Buffer {
  let start = 0
  while (start < bytes.length - 1 && bytes[start] === 0) start++
  const digits = Buffer.from(bytes.buffer, bytes.byteOffset + start, bytes.length - start)
  return (digits[0] ?? 0) & 0x80 ? Buffer.concat([Buffer.from([0]), digits]) : digits
}

export interface VerifyRequest {
  readonly algorithm: SigningAlgorithm
  /** DER SubjectPublicKeyInfo. */
  readonly publicKey: Uint8Array
  readonly message: Uint8Array
  readonly messageType: string
  readonly signature: Uint8Array
}

const schemes: Readonly<Record<SigningAlgorithm['family'], SignatureScheme>> = {
  pkcs1: signatureScheme.pkcs1,
  pss: signatureScheme.pss,
  ecdsa: signatureScheme.ecdsa,
  ed25519: signatureScheme.ed25519,
  ed25519ph: signatureScheme.ed25519ph,
  'ml-dsa': signatureScheme.mlDsa,
}

export function isSignatureValid(request: VerifyRequest): Promise<boolean> {
  const { algorithm, publicKey, message, messageType, signature } = request
  const scheme = messageType === 'EXTERNAL_MU' ? signatureScheme.mlDsaMu : schemes[algorithm.family]
  const input = moduleInput(algorithm, message, messageType)
  return loadAddon().verifySignature(scheme, algorithm.hash ?? '', publicKey, input, signature)
}
