import {
  constants,
  createHash,
  createPrivateKey,
  generateKeyPairSync,
  type KeyObject,
  privateEncrypt,
  sign,
} from 'node:crypto'
import { ed25519ph } from '@noble/curves/ed25519.js'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { algorithms, type SigningAlgorithm } from '../../../src/keys/algorithms.ts'
import { encodeEcdsaSignature, isSignatureValid } from '../../../src/keys/signature.ts'

const message = Buffer.from('the quick brown fox')
const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 })

function row(name: string): SigningAlgorithm {
  return algorithms.get(name) as SigningAlgorithm
}

function spkiOf(publicKey: KeyObject): Buffer {
  return publicKey.export({ format: 'der', type: 'spki' })
}

function shake256(...parts: readonly Uint8Array[]): Buffer {
  const hash = createHash('shake256', { outputLength: 64 })
  for (const part of parts) hash.update(part)
  return hash.digest()
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
  ])('accepts and refuses %s as message and as digest', async (name) => {
    const algorithm = row(name)
    const hash = algorithm.hash as string
    const options =
      algorithm.family === 'pss'
        ? { padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: constants.RSA_PSS_SALTLEN_DIGEST }
        : {}
    const signature = sign(hash, message, { key: rsa.privateKey, ...options })
    const base = { algorithm, publicKey: spkiOf(rsa.publicKey) }
    const digest = createHash(hash).update(message).digest()
    for (const [messageType, content] of [
      ['RAW', message],
      ['DIGEST', digest],
    ] as const) {
      expect(await isSignatureValid({ ...base, messageType, message: content, signature })).toBe(true)
      expect(await isSignatureValid({ ...base, messageType, message: flipped(content), signature })).toBe(false)
      expect(await isSignatureValid({ ...base, messageType, message: content, signature: flipped(signature) })).toBe(
        false,
      )
      expect(await isSignatureValid({ ...base, messageType, message: content, signature: Buffer.alloc(3) })).toBe(false)
    }
  })

  it('refuses a PSS signature whose salt is not as long as the hash', async () => {
    const signature = sign('sha256', message, {
      key: rsa.privateKey,
      padding: constants.RSA_PKCS1_PSS_PADDING,
      saltLength: 20,
    })
    const base = {
      algorithm: row('RSASSA_PSS_SHA_256'),
      publicKey: spkiOf(rsa.publicKey),
      signature,
    }
    const digest = createHash('sha256').update(message).digest()
    expect(await isSignatureValid({ ...base, messageType: 'RAW', message })).toBe(false)
    expect(await isSignatureValid({ ...base, messageType: 'DIGEST', message: digest })).toBe(false)
  })

  it('refuses a PKCS#1 signature over a digest without DigestInfo', async () => {
    const digest = createHash('sha256').update(message).digest()
    const signature = privateEncrypt({ key: rsa.privateKey, padding: constants.RSA_PKCS1_PADDING }, digest)
    const request = {
      algorithm: row('RSASSA_PKCS1_V1_5_SHA_256'),
      publicKey: spkiOf(rsa.publicKey),
    }
    expect(await isSignatureValid({ ...request, messageType: 'DIGEST', message: digest, signature })).toBe(false)
  })

  it.each([
    ['ECC_NIST_P256', 'prime256v1', 'ECDSA_SHA_256'],
    ['ECC_NIST_P384', 'secp384r1', 'ECDSA_SHA_384'],
    ['ECC_NIST_P521', 'secp521r1', 'ECDSA_SHA_512'],
    ['ECC_SECG_P256K1', 'secp256k1', 'ECDSA_SHA_256'],
  ] as const)('accepts high and low s of %s as message and as digest', async (_spec, namedCurve, name) => {
    const pair = generateKeyPairSync('ec', { namedCurve })
    const algorithm = row(name)
    const hash = algorithm.hash as string
    const base = { algorithm, publicKey: spkiOf(pair.publicKey) }
    const digest = createHash(hash).update(message).digest()
    for (let i = 0; i < 8; i++) {
      const signature = sign(hash, message, pair.privateKey)
      expect(await isSignatureValid({ ...base, messageType: 'RAW', message, signature })).toBe(true)
      expect(await isSignatureValid({ ...base, messageType: 'DIGEST', message: digest, signature })).toBe(true)
      expect(await isSignatureValid({ ...base, messageType: 'DIGEST', message: flipped(digest), signature })).toBe(
        false,
      )
    }
  })

  it('tells Ed25519 from Ed25519ph', async () => {
    const pair = generateKeyPairSync('ed25519')
    const seed = pair.privateKey.export({ format: 'der', type: 'pkcs8' }).subarray(-32)
    const digest = createHash('sha512').update(message).digest()
    const prehashed = Buffer.from(ed25519ph.sign(digest, seed))
    const plain = sign(null, digest, createPrivateKey(pair.privateKey.export({ format: 'pem', type: 'pkcs8' })))
    const base = { publicKey: spkiOf(pair.publicKey), message: digest }
    const ph = { ...base, algorithm: row('ED25519_PH_SHA_512'), messageType: 'DIGEST' }
    const pure = { ...base, algorithm: row('ED25519_SHA_512'), messageType: 'RAW' }
    expect(await isSignatureValid({ ...ph, signature: prehashed })).toBe(true)
    expect(await isSignatureValid({ ...ph, signature: plain })).toBe(false)
    expect(await isSignatureValid({ ...pure, signature: plain })).toBe(true)
    expect(await isSignatureValid({ ...pure, signature: prehashed })).toBe(false)
  })

  it.each([44, 65, 87] as const)('accepts ML-DSA-%i over a message and over its external mu', async (parameters) => {
    const pair = generateKeyPairSync(`ml-dsa-${parameters}`)
    const publicKey = spkiOf(pair.publicKey)
    const signature = sign(null, message, pair.privateKey)
    // FIPS 204 sections 5.2 and 6.2: mu = H(H(pk) || 0 || length of the context || message), here with an empty context
    const mu = shake256(shake256(publicKey.subarray(22)), Buffer.from([0, 0]), message)
    const base = { algorithm: row('ML_DSA_SHAKE_256'), publicKey }
    const raw = { ...base, messageType: 'RAW', message }
    const external = { ...base, messageType: 'EXTERNAL_MU', message: mu }
    expect(await isSignatureValid({ ...raw, signature })).toBe(true)
    expect(await isSignatureValid({ ...external, signature })).toBe(true)
    expect(await isSignatureValid({ ...raw, message: mu, signature })).toBe(false)
    for (const request of [raw, external]) {
      expect(await isSignatureValid({ ...request, message: flipped(request.message), signature })).toBe(false)
      expect(await isSignatureValid({ ...request, signature: flipped(signature) })).toBe(false)
      expect(await isSignatureValid({ ...request, signature: signature.subarray(1) })).toBe(false)
    }
  })

  it('refuses a public key of another kind', async () => {
    const pair = generateKeyPairSync('ed25519')
    const request = {
      algorithm: row('ML_DSA_SHAKE_256'),
      publicKey: spkiOf(pair.publicKey),
      messageType: 'RAW',
      message,
    }
    expect(await isSignatureValid({ ...request, signature: sign(null, message, pair.privateKey) })).toBe(false)
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
