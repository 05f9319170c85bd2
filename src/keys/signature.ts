/**
 * Signatures on the gateway's side of the module: hashing before, encoding after, and verification with the public key in software.
 * Verification answers true or false and never throws for a malformed signature.
 */
import {
  constants,
  createHash,
  type KeyObject,
  verify as opensslVerify,
  publicDecrypt,
  publicEncrypt,
} from 'node:crypto'
import { ed25519ph } from '@noble/curves/ed25519.js'
import { p256, p384, p521 } from '@noble/curves/nist.js'
import { secp256k1 } from '@noble/curves/secp256k1.js'
import type { KeySpec } from '../hsm/port.ts'
import { type Hash, type SigningAlgorithm, specs } from './algorithms.ts'

const curves = { p256, p384, p521, secp256k1 }

/** DER DigestInfo up to the digest (RFC 8017 section 9.2, note 1). */
const digestInfoPrefixes: Readonly<Record<Hash, Buffer>> = {
  sha1: Buffer.from('3021300906052b0e03021a05000414', 'hex'),
  sha256: Buffer.from('3031300d060960864801650304020105000420', 'hex'),
  sha384: Buffer.from('3041300d060960864801650304020205000430', 'hex'),
  sha512: Buffer.from('3051300d060960864801650304020305000440', 'hex'),
}

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
  readonly spec: KeySpec
  readonly algorithm: SigningAlgorithm
  readonly publicKey: KeyObject
  readonly message: Uint8Array
  readonly messageType: string
  readonly signature: Uint8Array
}

export function isSignatureValid(request: VerifyRequest): boolean {
  try {
    return request.messageType === 'RAW' ? verifyMessage(request) : verifyDigest(request)
  } catch {
    // OpenSSL and noble throw for signatures that don't even parse.
    return false
  }
}

function verifyMessage({ algorithm, publicKey, message, signature }: VerifyRequest): boolean {
  if (algorithm.family === 'pss') {
    const padding = constants.RSA_PKCS1_PSS_PADDING
    return opensslVerify(
      algorithm.hash,
      message,
      { key: publicKey, padding, saltLength: constants.RSA_PSS_SALTLEN_DIGEST },
      signature,
    )
  }
  return opensslVerify(algorithm.hash, message, publicKey, signature)
}

/** Node hashes whatever it verifies, so prehashed messages take other roads to the same answer. */
function verifyDigest({ spec, algorithm, publicKey, message, signature }: VerifyRequest): boolean {
  switch (algorithm.family) {
    case 'pkcs1': {
      const expected = Buffer.concat([digestInfoPrefixes[algorithm.hash as Hash], message])
      return expected.equals(publicDecrypt({ key: publicKey, padding: constants.RSA_PKCS1_PADDING }, signature))
    }
    case 'pss': {
      const encoded = publicEncrypt({ key: publicKey, padding: constants.RSA_NO_PADDING }, signature)
      return isPssEncoding(encoded, message, algorithm.hash as Hash)
    }
    case 'ecdsa': {
      const curve = specs[spec].curve
      if (curve === undefined) return false
      const options = { prehash: false, lowS: false, format: 'der' } as const
      return curves[curve].verify(signature, message, uncompressedPoint(publicKey), options)
    }
    case 'ed25519ph': {
      const raw = publicKey.export({ format: 'der', type: 'spki' }).subarray(-32)
      return ed25519ph.verify(signature, message, raw)
    }
    default:
      return false
  }
}

function uncompressedPoint(publicKey: KeyObject): Uint8Array {
  const { x, y } = publicKey.export({ format: 'jwk' })
  return Buffer.concat([Buffer.from([4]), Buffer.from(x ?? '', 'base64url'), Buffer.from(y ?? '', 'base64url')])
}

/** EMSA-PSS-VERIFY (RFC 8017 section 9.1.2) with salt length = hash length and a modulus of a whole number of bytes. */
function isPssEncoding(encoded: Buffer, digest: Uint8Array, hash: Hash): boolean {
  const hashBytes = digest.length
  if (encoded.length < 2 * hashBytes + 2 || encoded.at(-1) !== 0xbc) return false
  const masked = encoded.subarray(0, encoded.length - hashBytes - 1)
  const h = encoded.subarray(encoded.length - hashBytes - 1, encoded.length - 1)
  if ((masked[0] ?? 0) & 0x80) return false
  const block = mgf1(h, masked.length, hash)
  for (let i = 0; i < block.length; i++) block[i] = (block[i] ?? 0) ^ (masked[i] ?? 0)
  block[0] = (block[0] ?? 0) & 0x7f
  const paddingBytes = masked.length - hashBytes - 1
  for (let i = 0; i < paddingBytes; i++) if (block[i] !== 0) return false
  if (block[paddingBytes] !== 1) return false
  const salt = block.subarray(paddingBytes + 1)
  return createHash(hash).update(Buffer.alloc(8)).update(digest).update(salt).digest().equals(h)
}

function mgf1(seed: Uint8Array, length: number, hash: Hash): Buffer {
  const parts: Buffer[] = []
  const counter = Buffer.alloc(4)
  for (let produced = 0, i = 0; produced < length; i++) {
    counter.writeUInt32BE(i)
    const part = createHash(hash).update(seed).update(counter).digest()
    parts.push(part)
    produced += part.length
  }
  return Buffer.concat(parts).subarray(0, length)
}
