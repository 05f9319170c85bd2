/** AWS KMS API Reference: Sign, Verify, GetPublicKey, GenerateMac, VerifyMac. */
import { createHash, createPublicKey, verify } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { startGateway, type TestGateway } from '../../support/gateway.ts'
import { base64, type Call, createCall, refusal, succeed } from '../../support/kms-call.ts'

let gateway: TestGateway
let call: Call
const ids: Record<string, string> = {}
const arnOf = (name: string) => `arn:aws:kms:us-east-1:000000000000:key/${ids[name]}`

const made = {
  p256: { KeySpec: 'ECC_NIST_P256', KeyUsage: 'SIGN_VERIFY' },
  agree: { KeySpec: 'ECC_NIST_P256', KeyUsage: 'KEY_AGREEMENT' },
  p521: { KeySpec: 'ECC_NIST_P521', KeyUsage: 'SIGN_VERIFY' },
  rsa: { KeySpec: 'RSA_2048', KeyUsage: 'SIGN_VERIFY' },
  rsaEncrypt: { KeySpec: 'RSA_2048', KeyUsage: 'ENCRYPT_DECRYPT' },
  ed25519: { KeySpec: 'ECC_NIST_EDWARDS25519', KeyUsage: 'SIGN_VERIFY' },
  hmac224: { KeySpec: 'HMAC_224', KeyUsage: 'GENERATE_VERIFY_MAC' },
  hmac512: { KeySpec: 'HMAC_512', KeyUsage: 'GENERATE_VERIFY_MAC' },
  aes: {},
} as const

beforeAll(async () => {
  gateway = await startGateway()
  call = createCall(gateway)
  for (const [name, request] of Object.entries(made)) {
    const { KeyMetadata } = await succeed(call('CreateKey', request))
    ids[name] = (KeyMetadata as { KeyId: string }).KeyId
  }
}, 180_000)

afterAll(async () => {
  await gateway?.[Symbol.asyncDispose]()
})

const message = Buffer.from('a message')
const Message = base64(message)
const sha256 = createHash('sha256').update(message).digest()

describe('Sign and Verify', () => {
  it('name key and algorithm, and never answer false', async () => {
    const request = { KeyId: ids.p256, Message, SigningAlgorithm: 'ECDSA_SHA_256' }
    const signed = await succeed(call('Sign', request))
    expect(signed).toMatchObject({ KeyId: arnOf('p256'), SigningAlgorithm: 'ECDSA_SHA_256' })
    const { Signature } = signed
    expect(await succeed(call('Verify', { ...request, Signature }))).toEqual({
      KeyId: arnOf('p256'),
      SignatureValid: true,
      SigningAlgorithm: 'ECDSA_SHA_256',
    })
    for (const wrong of [
      { Signature, Message: base64('another message') },
      { Signature: base64('garbage') },
      { Signature: base64(Buffer.alloc(256)), KeyId: ids.rsa, SigningAlgorithm: 'RSASSA_PSS_SHA_256' },
    ]) {
      expect(await refusal(call('Verify', { ...request, ...wrong }))).toEqual({
        __type: 'KMSInvalidSignatureException',
      })
    }
  })

  it('take the digest of a message for the message', async () => {
    for (const [name, algorithm] of [
      ['p256', 'ECDSA_SHA_256'],
      ['rsa', 'RSASSA_PSS_SHA_256'],
      ['rsa', 'RSASSA_PKCS1_V1_5_SHA_256'],
    ] as const) {
      const request = { KeyId: ids[name], SigningAlgorithm: algorithm }
      const raw = await succeed(call('Sign', { ...request, Message }))
      const digest = await succeed(call('Sign', { ...request, Message: base64(sha256), MessageType: 'DIGEST' }))
      const ofDigest = { ...request, Message: base64(sha256), MessageType: 'DIGEST', Signature: raw.Signature }
      await succeed(call('Verify', ofDigest))
      await succeed(call('Verify', { ...request, Message, Signature: digest.Signature }))
    }
  })

  it('refuse a digest of another length before they look at the signature', async () => {
    const request = { KeyId: ids.p256, SigningAlgorithm: 'ECDSA_SHA_256', MessageType: 'DIGEST' }
    const wrong = {
      __type: 'ValidationException',
      message: 'Digest is invalid length for algorithm ECDSA_SHA_256.',
    }
    const short = { ...request, Message: base64(sha256.subarray(1)) }
    expect(await refusal(call('Sign', short))).toEqual(wrong)
    expect(await refusal(call('Verify', { ...short, Signature: base64('x') }))).toEqual(wrong)
  })

  it('give strict DER with minimal integers', async () => {
    const key = await publicKeyOf('p256')
    for (let i = 0; i < 40; i += 1) {
      const data = Buffer.from(`message ${i}`)
      const { Signature } = await succeed(
        call('Sign', { KeyId: ids.p256, Message: base64(data), SigningAlgorithm: 'ECDSA_SHA_256' }),
      )
      const der = Buffer.from(Signature as string, 'base64')
      expect(isMinimalDer(der)).toBe(true)
      expect(verify('sha256', data, key, der)).toBe(true)
    }
  })

  it('sign with PSS at a salt as long as the digest', async () => {
    const key = await publicKeyOf('rsa')
    for (const bits of [256, 384, 512]) {
      const { Signature } = await succeed(
        call('Sign', { KeyId: ids.rsa, Message, SigningAlgorithm: `RSASSA_PSS_SHA_${bits}` }),
      )
      const options = { key, padding: 6, saltLength: bits / 8 }
      expect(verify(`sha${bits}`, message, options, Buffer.from(Signature as string, 'base64'))).toBe(true)
    }
  })

  it('sign messages of 0 to 4096 bytes with Ed25519, and no digests', async () => {
    const key = await publicKeyOf('ed25519')
    for (const size of [0, 1, 4096]) {
      const data = Buffer.alloc(size, 7)
      const { Signature } = await succeed(
        call('Sign', { KeyId: ids.ed25519, Message: base64(data), SigningAlgorithm: 'ED25519_SHA_512' }),
      )
      expect(verify(null, data, key, Buffer.from(Signature as string, 'base64'))).toBe(true)
    }
    const digest = { KeyId: ids.ed25519, Message: base64(Buffer.alloc(64)), MessageType: 'DIGEST' }
    expect(await refusal(call('Sign', { ...digest, SigningAlgorithm: 'ED25519_SHA_512' }))).toMatchObject({
      __type: 'ValidationException',
    })
    expect(await refusal(call('Sign', { ...digest, SigningAlgorithm: 'ED25519_PH_SHA_512' }))).toMatchObject({
      __type: 'UnsupportedOperationException',
    })
  })

  it('refuse keys of other usages and algorithms of other keys', async () => {
    const sign = (name: string, SigningAlgorithm: string) =>
      refusal(call('Sign', { KeyId: ids[name], Message, SigningAlgorithm }))
    expect(await sign('aes', 'ECDSA_SHA_256')).toEqual({
      __type: 'InvalidKeyUsageException',
      message: `${arnOf('aes')} key usage is ENCRYPT_DECRYPT which is not valid for Sign.`,
    })
    expect(await sign('agree', 'ECDSA_SHA_256')).toMatchObject({ __type: 'InvalidKeyUsageException' })
    expect(await sign('p256', 'ECDSA_SHA_384')).toEqual({
      __type: 'InvalidKeyUsageException',
      message: 'Algorithm ECDSA_SHA_384 is incompatible with key spec ECC_NIST_P256.',
    })
    expect(await sign('p256', 'SM2DSA')).toMatchObject({ __type: 'UnsupportedOperationException' })
    expect(await sign('p256', 'NONE')).toMatchObject({ __type: 'ValidationException' })
  })

  it('answer a dry run with its exception, and a wrong signature with its own', async () => {
    const request = { KeyId: ids.p256, Message, SigningAlgorithm: 'ECDSA_SHA_256' }
    const { Signature } = await succeed(call('Sign', request))
    expect(await refusal(call('Sign', { ...request, DryRun: true }))).toMatchObject({
      __type: 'DryRunOperationException',
    })
    expect(await refusal(call('Verify', { ...request, Signature, DryRun: true }))).toMatchObject({
      __type: 'DryRunOperationException',
    })
    expect(await refusal(call('Verify', { ...request, Signature: base64('x'), DryRun: true }))).toEqual({
      __type: 'KMSInvalidSignatureException',
    })
  })

  it('need an enabled key, GetPublicKey too', async () => {
    const { KeyMetadata } = await succeed(call('CreateKey', made.p256))
    const { KeyId, Arn } = KeyMetadata as { KeyId: string; Arn: string }
    const request = { KeyId, Message, SigningAlgorithm: 'ECDSA_SHA_256' }
    const { Signature } = await succeed(call('Sign', request))
    await succeed(call('DisableKey', { KeyId }))
    const disabled = { __type: 'DisabledException', message: `${Arn} is disabled.` }
    expect(await refusal(call('Sign', request))).toEqual(disabled)
    expect(await refusal(call('Verify', { ...request, Signature }))).toEqual(disabled)
    expect(await refusal(call('GetPublicKey', { KeyId }))).toEqual(disabled)
    expect(await refusal(call('Sign', { ...request, DryRun: true }))).toEqual(disabled)
  })
})

describe('GetPublicKey', () => {
  it('gives SubjectPublicKeyInfo, the specs and the algorithms of the usage', async () => {
    expect(await succeed(call('GetPublicKey', { KeyId: ids.p521 }))).toEqual({
      KeyId: arnOf('p521'),
      PublicKey: expect.any(String),
      KeySpec: 'ECC_NIST_P521',
      CustomerMasterKeySpec: 'ECC_NIST_P521',
      KeyUsage: 'SIGN_VERIFY',
      SigningAlgorithms: ['ECDSA_SHA_512'],
    })
    const encrypting = await succeed(call('GetPublicKey', { KeyId: ids.rsaEncrypt }))
    expect(encrypting.EncryptionAlgorithms).toEqual(['RSAES_OAEP_SHA_1', 'RSAES_OAEP_SHA_256'])
    const agreeing = await succeed(call('GetPublicKey', { KeyId: ids.agree }))
    expect(agreeing.KeyAgreementAlgorithms).toEqual(['ECDH'])
    const sizes = { p256: 91, p521: 158, rsa: 294, ed25519: 44 }
    for (const [name, bytes] of Object.entries(sizes)) {
      const { PublicKey } = await succeed(call('GetPublicKey', { KeyId: ids[name] }))
      expect(Buffer.from(PublicKey as string, 'base64')).toHaveLength(bytes)
    }
  })

  it('refuses keys that have none', async () => {
    for (const name of ['aes', 'hmac224']) {
      expect(await refusal(call('GetPublicKey', { KeyId: ids[name] }))).toMatchObject({
        __type: 'UnsupportedOperationException',
      })
    }
  })
})

describe('GenerateMac and VerifyMac', () => {
  it('name key and algorithm, and never answer false', async () => {
    for (const [name, MacAlgorithm, bytes] of [
      ['hmac224', 'HMAC_SHA_224', 28],
      ['hmac512', 'HMAC_SHA_512', 64],
    ] as const) {
      const request = { KeyId: ids[name], Message, MacAlgorithm }
      const { Mac, ...rest } = await succeed(call('GenerateMac', request))
      expect(rest).toEqual({ KeyId: arnOf(name), MacAlgorithm })
      expect(Buffer.from(Mac as string, 'base64')).toHaveLength(bytes)
      expect(await succeed(call('VerifyMac', { ...request, Mac }))).toEqual({
        KeyId: arnOf(name),
        MacValid: true,
        MacAlgorithm,
      })
      const wrong = { __type: 'KMSInvalidMacException' }
      expect(await refusal(call('VerifyMac', { ...request, Mac: base64('short') }))).toEqual(wrong)
      expect(await refusal(call('VerifyMac', { ...request, Mac, Message: base64('other') }))).toEqual(wrong)
    }
  })

  it('refuse an algorithm that is not that of the key', async () => {
    expect(await refusal(call('GenerateMac', { KeyId: ids.hmac224, Message, MacAlgorithm: 'HMAC_SHA_256' }))).toEqual({
      __type: 'InvalidKeyUsageException',
      message: 'Algorithm HMAC_SHA_256 is incompatible with key spec HMAC_224.',
    })
    expect(await refusal(call('GenerateMac', { KeyId: ids.aes, Message, MacAlgorithm: 'HMAC_SHA_256' }))).toEqual({
      __type: 'InvalidKeyUsageException',
      message: `${arnOf('aes')} key usage is ENCRYPT_DECRYPT which is not valid for GenerateMac.`,
    })
  })
})

async function publicKeyOf(name: string) {
  const { PublicKey } = await succeed(call('GetPublicKey', { KeyId: ids[name] }))
  return createPublicKey({ key: Buffer.from(PublicKey as string, 'base64'), format: 'der', type: 'spki' })
}

/** SEQUENCE of two INTEGERs without a superfluous leading zero, and nothing after. */
function isMinimalDer(der: Buffer): boolean {
  if (der[0] !== 0x30 || der[1] !== der.length - 2) return false
  let at = 2
  for (let i = 0; i < 2; i += 1) {
    const length = der[at + 1] as number
    const [first = 0xff, second = 0] = der.subarray(at + 2, at + 4)
    if (der[at] !== 0x02 || first > 0x7f || (first === 0 && second < 0x80)) return false
    at += 2 + length
  }
  return at === der.length
}
