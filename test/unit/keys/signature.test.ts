import { constants, createHash, createPrivateKey, generateKeyPairSync, privateEncrypt, sign } from 'node:crypto'
import { ed25519ph } from '@noble/curves/ed25519.js'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { KeySpec } from '../../../src/hsm/port.ts'
import { algorithms, type SigningAlgorithm } from '../../../src/keys/algorithms.ts'
import { encodeEcdsaSignature, isSignatureValid } from '../../../src/keys/signature.ts'

const message = Buffer.from('the quick brown fox')
const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 })

function row(name: string): SigningAlgorithm {
  return algorithms.get(name) as SigningAlgorithm
}

function flipped(bytes: Uint8Array): Buffer {
  const copy = Buffer.from(bytes)
  copy[copy.length >> 1] = (copy[copy.length >> 1] ?? 0) ^ 1
  return copy
}

describe('signature verification', () => {
  it.each([
    'RSASSA_PKCS1_V1_5_SHA_256',
    'RSASSA_PKCS1_V1_5_SHA_384',
    'RSASSA_PKCS1_V1_5_SHA_512',
    'RSASSA_PSS_SHA_256',
    'RSASSA_PSS_SHA_384',
    'RSASSA_PSS_SHA_512',
  ])('accepts and refuses %s as message and as digest', (name) => {
    const algorithm = row(name)
    const hash = algorithm.hash as string
    const options =
      algorithm.family === 'pss'
        ? { padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: constants.RSA_PSS_SALTLEN_DIGEST }
        : {}
    const signature = sign(hash, message, { key: rsa.privateKey, ...options })
    const base = { spec: 'RSA_2048' as KeySpec, algorithm, publicKey: rsa.publicKey }
    const digest = createHash(hash).update(message).digest()
    for (const [messageType, content] of [
      ['RAW', message],
      ['DIGEST', digest],
    ] as const) {
      expect(isSignatureValid({ ...base, messageType, message: content, signature })).toBe(true)
      expect(isSignatureValid({ ...base, messageType, message: flipped(content), signature })).toBe(false)
      expect(isSignatureValid({ ...base, messageType, message: content, signature: flipped(signature) })).toBe(false)
      expect(isSignatureValid({ ...base, messageType, message: content, signature: Buffer.alloc(3) })).toBe(false)
    }
  })

  it('refuses a PSS signature whose salt is not as long as the hash', () => {
    const signature = sign('sha256', message, {
      key: rsa.privateKey,
      padding: constants.RSA_PKCS1_PSS_PADDING,
      saltLength: 20,
    })
    const base = {
      spec: 'RSA_2048' as KeySpec,
      algorithm: row('RSASSA_PSS_SHA_256'),
      publicKey: rsa.publicKey,
      signature,
    }
    const digest = createHash('sha256').update(message).digest()
    expect(isSignatureValid({ ...base, messageType: 'RAW', message })).toBe(false)
    expect(isSignatureValid({ ...base, messageType: 'DIGEST', message: digest })).toBe(false)
  })

  it('refuses a PKCS#1 signature over a digest without DigestInfo', () => {
    const digest = createHash('sha256').update(message).digest()
    const signature = privateEncrypt({ key: rsa.privateKey, padding: constants.RSA_PKCS1_PADDING }, digest)
    const request = {
      spec: 'RSA_2048' as KeySpec,
      algorithm: row('RSASSA_PKCS1_V1_5_SHA_256'),
      publicKey: rsa.publicKey,
    }
    expect(isSignatureValid({ ...request, messageType: 'DIGEST', message: digest, signature })).toBe(false)
  })

  it.each([
    ['ECC_NIST_P256', 'prime256v1', 'ECDSA_SHA_256'],
    ['ECC_NIST_P384', 'secp384r1', 'ECDSA_SHA_384'],
    ['ECC_NIST_P521', 'secp521r1', 'ECDSA_SHA_512'],
    ['ECC_SECG_P256K1', 'secp256k1', 'ECDSA_SHA_256'],
  ] as const)('accepts high and low s of %s as message and as digest', (spec, namedCurve, name) => {
    const pair = generateKeyPairSync('ec', { namedCurve })
    const algorithm = row(name)
    const hash = algorithm.hash as string
    const base = { spec, algorithm, publicKey: pair.publicKey }
    const digest = createHash(hash).update(message).digest()
    for (let i = 0; i < 8; i++) {
      const signature = sign(hash, message, pair.privateKey)
      expect(isSignatureValid({ ...base, messageType: 'RAW', message, signature })).toBe(true)
      expect(isSignatureValid({ ...base, messageType: 'DIGEST', message: digest, signature })).toBe(true)
      expect(isSignatureValid({ ...base, messageType: 'DIGEST', message: flipped(digest), signature })).toBe(false)
    }
  })

  it('tells Ed25519 from Ed25519ph', () => {
    const pair = generateKeyPairSync('ed25519')
    const seed = pair.privateKey.export({ format: 'der', type: 'pkcs8' }).subarray(-32)
    const digest = createHash('sha512').update(message).digest()
    const prehashed = Buffer.from(ed25519ph.sign(digest, seed))
    const plain = sign(null, digest, createPrivateKey(pair.privateKey.export({ format: 'pem', type: 'pkcs8' })))
    const base = { spec: 'ECC_NIST_EDWARDS25519' as KeySpec, publicKey: pair.publicKey, message: digest }
    const ph = { ...base, algorithm: row('ED25519_PH_SHA_512'), messageType: 'DIGEST' }
    const pure = { ...base, algorithm: row('ED25519_SHA_512'), messageType: 'RAW' }
    expect(isSignatureValid({ ...ph, signature: prehashed })).toBe(true)
    expect(isSignatureValid({ ...ph, signature: plain })).toBe(false)
    expect(isSignatureValid({ ...pure, signature: plain })).toBe(true)
    expect(isSignatureValid({ ...pure, signature: prehashed })).toBe(false)
  })
})

describe('ECDSA signature encoding', () => {
  it('writes minimal positive INTEGERs that OpenSSL verifies', () => {
    fc.assert(
      fc.property(fc.constantFrom(32, 48, 66), fc.uint8Array({ minLength: 132, maxLength: 132 }), (width, random) => {
        const raw = random.subarray(0, 2 * width)
        const der = encodeEcdsaSignature(raw)
        const long = der[1] === 0x81
        expect(der.length).toBe((long ? 3 : 2) + (der[long ? 2 : 1] as number))
        let at = long ? 3 : 2
        for (const part of [raw.subarray(0, width), raw.subarray(width)]) {
          const length = der[at + 1] as number
          const digits = der.subarray(at + 2, at + 2 + length)
          expect(der[at]).toBe(2)
          expect((digits[0] as number) & 0x80).toBe(0)
          expect(digits.length === 1 || digits[0] !== 0 || ((digits[1] as number) & 0x80) !== 0).toBe(true)
          expect(BigInt(`0x${digits.toString('hex')}`)).toBe(BigInt(`0x${Buffer.from(part).toString('hex')}`))
          at += 2 + length
        }
      }),
    )
  })
})
