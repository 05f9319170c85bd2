/** AWS KMS API Reference: GenerateDataKeyPair, GenerateDataKeyPairWithoutPlaintext. */
import { execFileSync } from 'node:child_process'
import { createPrivateKey, createPublicKey } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import path from 'node:path'
import {
  CreateKeyCommand,
  type DataKeyPairSpec,
  DecryptCommand,
  DisableKeyCommand,
  GenerateDataKeyPairCommand,
  GenerateDataKeyPairWithoutPlaintextCommand,
  type KMSClient,
} from '@aws-sdk/client-kms'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { startGateway, type TestGateway } from '../../support/gateway.ts'
import { listObjectIds } from '../../support/token-objects.ts'

let gateway: TestGateway
let kms: KMSClient
let KeyId: string
let arn: string

beforeAll(async () => {
  gateway = await startGateway()
  kms = gateway.client()
  const { KeyMetadata } = await kms.send(new CreateKeyCommand({}))
  KeyId = KeyMetadata!.KeyId!
  arn = KeyMetadata!.Arn!
}, 180_000)

afterAll(async () => {
  await gateway?.[Symbol.asyncDispose]()
})

const generate = (KeyPairSpec: DataKeyPairSpec, more: object = {}) =>
  kms.send(new GenerateDataKeyPairCommand({ KeyId, KeyPairSpec, ...more }))
const decrypt = async (CiphertextBlob: Uint8Array, EncryptionContext?: Record<string, string>) =>
  Buffer.from((await kms.send(new DecryptCommand({ CiphertextBlob, EncryptionContext }))).Plaintext!)

/** What openssl makes of a DER key. */
function openssl(der: Uint8Array, ...words: readonly string[]): Buffer {
  const file = path.join(gateway.directory, 'key.der')
  writeFileSync(file, der)
  return execFileSync('/usr/bin/openssl', [...words, '-inform', 'DER', '-in', file, '-outform', 'DER'])
}

describe('GenerateDataKeyPair', () => {
  it.each([
    ['RSA_2048', 294],
    ['ECC_NIST_P256', 91],
    ['ECC_NIST_P384', 120],
    ['ECC_NIST_P521', 158],
    ['ECC_SECG_P256K1', 88],
    ['ECC_NIST_EDWARDS25519', 44],
  ] as const)(
    'of %s answers PKCS#8 and SubjectPublicKeyInfo as openssl writes them',
    { timeout: 60_000 },
    async (spec, spkiBytes) => {
      const { $metadata: _, ...pair } = await generate(spec)
      expect(Object.keys(pair).sort()).toEqual([
        'KeyId',
        'KeyMaterialId',
        'KeyPairSpec',
        'PrivateKeyCiphertextBlob',
        'PrivateKeyPlaintext',
        'PublicKey',
      ])
      expect(pair).toMatchObject({ KeyId: arn, KeyPairSpec: spec })
      const [privateKey, publicKey] = [pair.PrivateKeyPlaintext!, pair.PublicKey!].map((bytes) => Buffer.from(bytes))
      expect(publicKey).toHaveLength(spkiBytes)
      expect(openssl(privateKey!, 'pkcs8', '-topk8', '-nocrypt')).toEqual(privateKey)
      expect(openssl(privateKey!, 'pkey', '-pubout')).toEqual(publicKey)
      expect(openssl(publicKey!, 'pkey', '-pubin')).toEqual(publicKey)
      expect(await decrypt(pair.PrivateKeyCiphertextBlob!)).toEqual(privateKey)
    },
  )

  it.each([
    ['ML_KEM_512', 822],
    ['ML_KEM_768', 1206],
    ['ML_KEM_1024', 1590],
  ] as const)('of %s answers the seed alone as private key', async (spec, spkiBytes) => {
    const pair = await generate(spec)
    expect(pair.PublicKey).toHaveLength(spkiBytes)
    expect(pair.PrivateKeyPlaintext).toHaveLength(86)
    const key = createPrivateKey({ key: Buffer.from(pair.PrivateKeyPlaintext!), format: 'der', type: 'pkcs8' })
    expect(createPublicKey(key).export({ format: 'der', type: 'spki' })).toEqual(Buffer.from(pair.PublicKey!))
  })

  it('gives another pair every time and leaves nothing in the token', async () => {
    const before = await listObjectIds(gateway.token)
    const [one, two] = [await generate('ECC_NIST_P256'), await generate('ECC_NIST_P256')]
    expect(one.PublicKey).not.toEqual(two.PublicKey)
    expect(await listObjectIds(gateway.token)).toEqual(before)
  })

  it('binds the private key to the encryption context', async () => {
    const EncryptionContext = { purpose: 'test' }
    const pair = await generate('ECC_NIST_P256', { EncryptionContext })
    expect(await decrypt(pair.PrivateKeyCiphertextBlob!, EncryptionContext)).toEqual(
      Buffer.from(pair.PrivateKeyPlaintext!),
    )
    await expect(decrypt(pair.PrivateKeyCiphertextBlob!)).rejects.toMatchObject({
      name: 'InvalidCiphertextException',
    })
  })

  it('records neither half of the private key', async () => {
    const pair = await generate('ECC_NIST_P256', { EncryptionContext: { a: 'b' } })
    const text = JSON.stringify(await gateway.auditRecords())
    expect(text).not.toContain(Buffer.from(pair.PrivateKeyPlaintext!).toString('base64').slice(0, 40))
    expect(text).not.toContain(Buffer.from(pair.PrivateKeyCiphertextBlob!).toString('base64').slice(0, 40))
    const record = (await gateway.auditRecords()).at(-1)!.event
    expect(record).toMatchObject({
      eventName: 'GenerateDataKeyPair',
      readOnly: true,
      requestParameters: { keyId: KeyId, keyPairSpec: 'ECC_NIST_P256', encryptionContext: { a: 'b' } },
      responseElements: null,
      additionalEventData: { keyMaterialId: pair.KeyMaterialId },
    })
  })

  it('refuses SM2, keys that do not encrypt, and a dry run that would succeed', async () => {
    await expect(generate('SM2')).rejects.toMatchObject({ name: 'UnsupportedOperationException' })
    await expect(generate('ECC_NIST_P256', { DryRun: true })).rejects.toMatchObject({
      name: 'DryRunOperationException',
    })
    const { KeyMetadata } = await kms.send(
      new CreateKeyCommand({ KeySpec: 'HMAC_256', KeyUsage: 'GENERATE_VERIFY_MAC' }),
    )
    await expect(generate('ECC_NIST_P256', { KeyId: KeyMetadata!.KeyId })).rejects.toMatchObject({
      name: 'InvalidKeyUsageException',
      message: `${KeyMetadata!.Arn} key usage is GENERATE_VERIFY_MAC which is not valid for GenerateDataKeyPair.`,
    })
    await kms.send(new DisableKeyCommand({ KeyId: KeyMetadata!.KeyId }))
    await expect(generate('ECC_NIST_P256', { KeyId: KeyMetadata!.KeyId, DryRun: true })).rejects.toMatchObject({
      name: 'DisabledException',
    })
  })
})

describe('GenerateDataKeyPairWithoutPlaintext', () => {
  it('answers all but the private key in clear', async () => {
    const { $metadata: _, ...pair } = await kms.send(
      new GenerateDataKeyPairWithoutPlaintextCommand({ KeyId, KeyPairSpec: 'ECC_NIST_P384' }),
    )
    expect(pair).toEqual({
      KeyId: arn,
      KeyMaterialId: expect.stringMatching(/^[0-9a-f]{64}$/),
      KeyPairSpec: 'ECC_NIST_P384',
      PrivateKeyCiphertextBlob: expect.any(Uint8Array),
      PublicKey: expect.any(Uint8Array),
    })
    const key = createPrivateKey({ key: await decrypt(pair.PrivateKeyCiphertextBlob!), format: 'der', type: 'pkcs8' })
    expect(createPublicKey(key).export({ format: 'der', type: 'spki' })).toEqual(Buffer.from(pair.PublicKey!))
  })
})
