/** Traps of cryptographic operations, as the AWS SDK meets them. Their numbers are those of docs/kms-compatibility.md. */
import { createHash, createPrivateKey, createPublicKey, verify } from 'node:crypto'
import { writeFile } from 'node:fs/promises'
import path from 'node:path'
import type { EncryptionAlgorithmSpec, KMS, SigningAlgorithmSpec } from '@aws-sdk/client-kms'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { runOk } from '../../support/command.ts'
import { startGateway, type TestGateway } from '../../support/gateway.ts'
import { makeKey, type NewKey, openKms, refusalOf } from '../../support/kms-sdk.ts'

let gateway: TestGateway
let kms: KMS
let key: NewKey
let other: NewKey
let hmac: NewKey
let rsa: NewKey
let rsaSign: NewKey
let p256: NewKey
let ed25519: NewKey

beforeAll(async () => {
  gateway = await startGateway()
  kms = openKms(gateway)
  key = await makeKey(kms)
  other = await makeKey(kms)
  hmac = await makeKey(kms, { KeySpec: 'HMAC_256', KeyUsage: 'GENERATE_VERIFY_MAC' })
  rsa = await makeKey(kms, { KeySpec: 'RSA_2048', KeyUsage: 'ENCRYPT_DECRYPT' })
  rsaSign = await makeKey(kms, { KeySpec: 'RSA_2048', KeyUsage: 'SIGN_VERIFY' })
  p256 = await makeKey(kms, { KeySpec: 'ECC_NIST_P256', KeyUsage: 'SIGN_VERIFY' })
  ed25519 = await makeKey(kms, { KeySpec: 'ECC_NIST_EDWARDS25519', KeyUsage: 'SIGN_VERIFY' })
  await kms.createAlias({ AliasName: 'alias/a', TargetKeyId: key.id })
}, 180_000)

afterAll(async () => {
  kms?.destroy()
  await gateway?.[Symbol.asyncDispose]()
})

const Plaintext = Buffer.from('plaintext')
const Message = Buffer.from('message')
const encrypt = async (KeyId = key.id, more: object = {}) =>
  (await kms.encrypt({ KeyId, Plaintext, ...more })).CiphertextBlob as Uint8Array
const flipped = (bytes: Uint8Array, at = bytes.length - 1) => {
  const copy = Buffer.from(bytes)
  copy.writeUInt8(copy.readUInt8(at) ^ 1, at)
  return copy
}
const file = (name: string) => path.join(gateway.token.directory, name)
const incorrectKey = {
  name: 'IncorrectKeyException',
  message: 'The key ID in the request does not identify a CMK that can perform this operation.',
}
const noText = (name: string) => ({ name, message: 'UnknownError', status: 400 })

async function publicKeyOf(KeyId: string): Promise<Buffer> {
  return Buffer.from((await kms.getPublicKey({ KeyId })).PublicKey as Uint8Array)
}

describe('identifiers in answers', () => {
  it('trap 2: cryptographic answers name the key by its ARN even where an alias was asked, lists and metadata by its id', async () => {
    const CiphertextBlob = await encrypt('alias/a')
    expect((await kms.encrypt({ KeyId: 'alias/a', Plaintext })).KeyId).toBe(key.arn)
    expect((await kms.decrypt({ KeyId: 'alias/a', CiphertextBlob })).KeyId).toBe(key.arn)
    expect((await kms.generateDataKey({ KeyId: 'alias/a', KeySpec: 'AES_256' })).KeyId).toBe(key.arn)
    expect((await kms.describeKey({ KeyId: 'alias/a' })).KeyMetadata?.KeyId).toBe(key.id)
    expect((await kms.listKeys({})).Keys).toContainEqual({ KeyId: key.id, KeyArn: key.arn })
    expect((await kms.listAliases({ KeyId: key.id })).Aliases?.[0]?.TargetKeyId).toBe(key.id)
    expect((await kms.getKeyLastUsage({ KeyId: key.id })).KeyId).toBe(key.id)
  })

  it('trap 3: SourceKeyId and the KeyId of life-cycle operations are ARNs', async () => {
    const CiphertextBlob = await encrypt()
    expect((await kms.reEncrypt({ CiphertextBlob, DestinationKeyId: other.id })).SourceKeyId).toBe(key.arn)
    const { id: KeyId, arn } = await makeKey(kms)
    expect((await kms.rotateKeyOnDemand({ KeyId })).KeyId).toBe(arn)
    expect((await kms.scheduleKeyDeletion({ KeyId })).KeyId).toBe(arn)
    expect((await kms.cancelKeyDeletion({ KeyId })).KeyId).toBe(arn)
    const external = await makeKey(kms, { Origin: 'EXTERNAL' })
    const parameters = await kms.getParametersForImport({
      KeyId: external.id,
      WrappingAlgorithm: 'RSAES_OAEP_SHA_1',
      WrappingKeySpec: 'RSA_2048',
    })
    expect(parameters.KeyId).toBe(external.arn)
  })
})

describe('Decrypt', () => {
  it('trap 4: another valid key is an incorrect key', async () => {
    const CiphertextBlob = await encrypt()
    expect(await refusalOf(kms.decrypt({ CiphertextBlob, KeyId: other.id }))).toMatchObject(incorrectKey)
  })

  it('trap 5: an HMAC or RSA key is an incorrect key for a symmetric ciphertext', async () => {
    const CiphertextBlob = await encrypt()
    for (const { id: KeyId } of [hmac, rsa, rsaSign]) {
      expect(await refusalOf(kms.decrypt({ CiphertextBlob, KeyId }))).toMatchObject(incorrectKey)
    }
  })

  it('trap 6: a ciphertext of a key that is not here is denied, not said to be missing', async () => {
    const blob = Buffer.from(await encrypt())
    blob.fill(0xcd, 2, 18)
    expect(await refusalOf(kms.decrypt({ CiphertextBlob: blob }))).toMatchObject({
      name: 'AccessDeniedException',
      message:
        'The ciphertext refers to a customer master key that does not exist, does not exist in this region, or you are not allowed to access.',
      status: 400,
    })
  })

  it('trap 7: wrong context, no context and a flipped bit are one refusal without a message', async () => {
    const EncryptionContext = { a: '1' }
    const CiphertextBlob = await encrypt(key.id, { EncryptionContext })
    for (const request of [
      { CiphertextBlob, EncryptionContext: { a: '2' } },
      { CiphertextBlob },
      { CiphertextBlob: flipped(CiphertextBlob), EncryptionContext },
    ]) {
      expect(await refusalOf(kms.decrypt(request))).toMatchObject(noText('InvalidCiphertextException'))
    }
  })

  it('trap 14: offline OAEP ciphertext decrypts by KeyId and algorithm, and not with the default algorithm', async () => {
    await writeFile(file('oaep.der'), await publicKeyOf(rsa.id))
    const padding = ['rsa_padding_mode:oaep', 'rsa_oaep_md:sha256', 'rsa_mgf1_md:sha256']
    const options = padding.flatMap((option) => ['-pkeyopt', option])
    const CiphertextBlob = await runOk(
      '/usr/bin/openssl',
      ['pkeyutl', '-encrypt', '-pubin', '-keyform', 'DER', '-inkey', file('oaep.der'), ...options],
      { input: Plaintext },
    )
    const EncryptionAlgorithm = 'RSAES_OAEP_SHA_256'
    const opened = await kms.decrypt({ KeyId: rsa.id, CiphertextBlob, EncryptionAlgorithm })
    expect(Buffer.from(opened.Plaintext as Uint8Array)).toEqual(Plaintext)
    expect(await refusalOf(kms.decrypt({ KeyId: rsa.id, CiphertextBlob }))).toMatchObject({
      name: 'InvalidCiphertextException',
    })
  })

  it('trap 15: OAEP with SHA-1 and with SHA-256 are not interchangeable', async () => {
    const algorithms = ['RSAES_OAEP_SHA_1', 'RSAES_OAEP_SHA_256'] satisfies EncryptionAlgorithmSpec[]
    for (const [used, asked] of [algorithms, algorithms.toReversed()]) {
      const CiphertextBlob = await encrypt(rsa.id, { EncryptionAlgorithm: used })
      const refusal = await refusalOf(kms.decrypt({ KeyId: rsa.id, CiphertextBlob, EncryptionAlgorithm: asked! }))
      expect(refusal).toMatchObject(noText('InvalidCiphertextException'))
    }
  })
})

describe('Encrypt', () => {
  it('trap 16: an empty plaintext and one of 4097 bytes are invalid, and neither is echoed', async () => {
    const refused = async (bytes: number) =>
      refusalOf(kms.encrypt({ KeyId: key.id, Plaintext: Buffer.alloc(bytes, 'secret') }))
    const text = (constraint: string) =>
      `1 validation error detected: Value at 'plaintext' failed to satisfy constraint: Member must have length ${constraint}`
    expect(await refused(0)).toMatchObject({
      name: 'ValidationException',
      message: text('greater than or equal to 1'),
    })
    expect(await refused(4097)).toMatchObject({
      name: 'ValidationException',
      message: text('less than or equal to 4096'),
    })
  })

  it('trap 17: the order of context pairs is irrelevant, case is not, and RSA keys take no context', async () => {
    const CiphertextBlob = await encrypt(key.id, { EncryptionContext: { a: '1', b: '2' } })
    await kms.decrypt({ CiphertextBlob, EncryptionContext: { b: '2', a: '1' } })
    const others: Record<string, string>[] = [
      { A: '1', b: '2' },
      { a: '1', b: '2', c: '' },
    ]
    for (const EncryptionContext of others) {
      expect(await refusalOf(kms.decrypt({ CiphertextBlob, EncryptionContext }))).toMatchObject(
        noText('InvalidCiphertextException'),
      )
    }
    const EncryptionAlgorithm = 'RSAES_OAEP_SHA_256'
    const withContext = { KeyId: rsa.id, Plaintext, EncryptionAlgorithm, EncryptionContext: { a: '1' } } as const
    expect(await refusalOf(kms.encrypt(withContext))).toMatchObject({ name: 'ValidationException' })
  })
})

describe('signatures', () => {
  it('trap 8: Verify and VerifyMac never answer false', async () => {
    const SigningAlgorithm = 'ECDSA_SHA_256'
    const { Signature } = await kms.sign({ KeyId: p256.id, Message, SigningAlgorithm })
    const signed = { KeyId: p256.id, Message, SigningAlgorithm } as const
    expect((await kms.verify({ ...signed, Signature })).SignatureValid).toBe(true)
    expect(await refusalOf(kms.verify({ ...signed, Signature: flipped(Signature!) }))).toMatchObject(
      noText('KMSInvalidSignatureException'),
    )
    const code = { KeyId: hmac.id, Message, MacAlgorithm: 'HMAC_SHA_256' } as const
    const { Mac } = await kms.generateMac(code)
    expect((await kms.verifyMac({ ...code, Mac })).MacValid).toBe(true)
    expect(await refusalOf(kms.verifyMac({ ...code, Mac: flipped(Mac!) }))).toMatchObject(
      noText('KMSInvalidMacException'),
    )
  })

  it('trap 9: a digest of the wrong length is invalid for Sign and Verify, before any signature is looked at', async () => {
    const SigningAlgorithm = 'ECDSA_SHA_256'
    const request = { KeyId: p256.id, Message: Buffer.alloc(31), MessageType: 'DIGEST', SigningAlgorithm } as const
    const invalid = {
      name: 'ValidationException',
      message: 'Digest is invalid length for algorithm ECDSA_SHA_256.',
    }
    expect(await refusalOf(kms.sign(request))).toMatchObject(invalid)
    expect(await refusalOf(kms.verify({ ...request, Signature: Buffer.alloc(8) }))).toMatchObject(invalid)
  })

  it('trap 10: the salt of PSS is as long as the digest', async () => {
    await writeFile(file('pss.der'), await publicKeyOf(rsaSign.id))
    await writeFile(file('pss.message'), Message)
    for (const [bits, salt] of [
      [256, 32],
      [384, 48],
      [512, 64],
    ] as const) {
      const SigningAlgorithm = `RSASSA_PSS_SHA_${bits}` as SigningAlgorithmSpec
      const { Signature } = await kms.sign({ KeyId: rsaSign.id, Message, SigningAlgorithm })
      await writeFile(file('pss.signature'), Signature!)
      const options = ['rsa_padding_mode:pss', `rsa_pss_saltlen:${salt}`].flatMap((option) => ['-sigopt', option])
      const args = ['dgst', `-sha${bits}`, '-keyform', 'DER', '-verify', file('pss.der'), ...options]
      const said = await runOk('/usr/bin/openssl', [...args, '-signature', file('pss.signature'), file('pss.message')])
      expect(said.toString()).toContain('Verified OK')
    }
  })

  it('trap 11: ECDSA signatures are strict DER with minimal integers', async () => {
    const KeyId = p256.id
    const lengths = new Set<number>()
    for (let round = 0; round < 64; round++) {
      const { Signature } = await kms.sign({ KeyId, Message: Buffer.from([round]), SigningAlgorithm: 'ECDSA_SHA_256' })
      const der = Buffer.from(Signature!)
      lengths.add(der.length)
      expect(der[0]).toBe(0x30)
      expect(der[1]).toBe(der.length - 2)
      const first = parseInteger(der, 2)
      const second = parseInteger(der, first)
      expect(second).toBe(der.length)
    }
    expect(Math.max(...lengths)).toBeLessThanOrEqual(72)
    expect(lengths.size).toBeGreaterThan(1)
  })

  it('trap 12: an algorithm that does not fit the spec is an invalid usage', async () => {
    const requests = [
      [p256.id, 'ECDSA_SHA_384', 'ECC_NIST_P256'],
      [p256.id, 'RSASSA_PSS_SHA_256', 'ECC_NIST_P256'],
      [rsaSign.id, 'ECDSA_SHA_256', 'RSA_2048'],
    ] as const
    for (const [KeyId, SigningAlgorithm, spec] of requests) {
      expect(await refusalOf(kms.sign({ KeyId, Message, SigningAlgorithm }))).toMatchObject({
        name: 'InvalidKeyUsageException',
        message: `Algorithm ${SigningAlgorithm} is incompatible with key spec ${spec}.`,
      })
    }
  })

  it('trap 13: GetPublicKey gives SubjectPublicKeyInfo for every asymmetric key, and is unsupported for the others', async () => {
    for (const { id } of [rsa, rsaSign, p256, ed25519]) {
      await writeFile(file('spki.der'), await publicKeyOf(id))
      await runOk('/usr/bin/openssl', ['pkey', '-pubin', '-inform', 'DER', '-in', file('spki.der'), '-noout'])
    }
    for (const { id: KeyId } of [key, hmac]) {
      expect(await refusalOf(kms.getPublicKey({ KeyId }))).toMatchObject({ name: 'UnsupportedOperationException' })
    }
  })
})

describe('random bytes and data keys', () => {
  it('trap 49: GenerateRandom has no default length', async () => {
    expect(await refusalOf(kms.generateRandom({}))).toMatchObject({
      name: 'ValidationException',
      message: 'NumberOfBytes is required.',
    })
  })

  it('trap 50: GenerateDataKey wants a spec or a number of bytes, and takes any number from 1 to 1024', async () => {
    const KeyId = key.id
    for (const request of [{ KeyId }, { KeyId, KeySpec: 'AES_256', NumberOfBytes: 32 } as const]) {
      expect(await refusalOf(kms.generateDataKey(request))).toMatchObject({
        name: 'ValidationException',
        message: 'Please specify either number of bytes or key spec.',
      })
    }
    for (const NumberOfBytes of [1, 7, 64, 1024]) {
      expect((await kms.generateDataKey({ KeyId, NumberOfBytes })).Plaintext).toHaveLength(NumberOfBytes)
    }
  })

  it('trap 51: private keys of data key pairs are PKCS#8, and their ciphertext decrypts to the same bytes', async () => {
    for (const KeyPairSpec of ['RSA_2048', 'ECC_NIST_P256', 'ECC_SECG_P256K1'] as const) {
      const pair = await kms.generateDataKeyPair({ KeyId: key.id, KeyPairSpec })
      const opened = await kms.decrypt({ CiphertextBlob: pair.PrivateKeyCiphertextBlob })
      expect(opened.Plaintext).toEqual(pair.PrivateKeyPlaintext)
      const der = { key: Buffer.from(pair.PrivateKeyPlaintext!), format: 'der', type: 'pkcs8' } as const
      const spki = createPublicKey(createPrivateKey(der)).export({ format: 'der', type: 'spki' })
      expect(Buffer.from(pair.PublicKey!)).toEqual(spki)
      const text = await runOk('/usr/bin/openssl', ['pkey', '-inform', 'DER', '-noout', '-text_pub'], {
        input: der.key,
      })
      expect(text.toString()).toContain('Public')
    }
  })
})

describe('what the module lacks', () => {
  it('trap 60: SoftHSM can not do Ed25519ph and the gateway does not pretend; plain Ed25519 and OAEP with SHA-256 are right', async () => {
    const digest = createHash('sha512').update(Message).digest()
    const prehashed = {
      KeyId: ed25519.id,
      Message: digest,
      MessageType: 'DIGEST',
      SigningAlgorithm: 'ED25519_PH_SHA_512',
    } as const
    expect(await refusalOf(kms.sign(prehashed))).toMatchObject({ name: 'UnsupportedOperationException' })
    const { Signature } = await kms.sign({ KeyId: ed25519.id, Message, SigningAlgorithm: 'ED25519_SHA_512' })
    const spki = { key: await publicKeyOf(ed25519.id), format: 'der', type: 'spki' } as const
    expect(verify(null, Message, createPublicKey(spki), Signature!)).toBe(true)
    const EncryptionAlgorithm = 'RSAES_OAEP_SHA_256'
    const CiphertextBlob = await encrypt(rsa.id, { EncryptionAlgorithm })
    const opened = await kms.decrypt({ KeyId: rsa.id, CiphertextBlob, EncryptionAlgorithm })
    expect(Buffer.from(opened.Plaintext!)).toEqual(Plaintext)
  })
})

/** Offset behind the DER INTEGER at `at`, which must be positive and minimal. */
function parseInteger(der: Buffer, at: number): number {
  expect(der[at]).toBe(0x02)
  const length = der.readUInt8(at + 1)
  const value = der.subarray(at + 2, at + 2 + length)
  expect(value.readUInt8(0)).toBeLessThan(0x80)
  if (value[0] === 0) expect(value.readUInt8(1)).toBeGreaterThanOrEqual(0x80)
  return at + 2 + length
}
