/** AWS KMS API Reference: GetParametersForImport, ImportKeyMaterial, DeleteImportedKeyMaterial; keys of origin EXTERNAL. */
import { execFileSync } from 'node:child_process'
import {
  constants,
  createHmac,
  createPublicKey,
  diffieHellman,
  generateKeyPairSync,
  type KeyObject,
  publicEncrypt,
  randomBytes,
} from 'node:crypto'
import { writeFileSync } from 'node:fs'
import path from 'node:path'
import {
  type AlgorithmSpec,
  CreateKeyCommand,
  type CreateKeyCommandInput,
  DecryptCommand,
  DeleteImportedKeyMaterialCommand,
  DeriveSharedSecretCommand,
  DescribeKeyCommand,
  EnableKeyRotationCommand,
  EncryptCommand,
  GenerateMacCommand,
  GetKeyRotationStatusCommand,
  GetParametersForImportCommand,
  GetPublicKeyCommand,
  ImportKeyMaterialCommand,
  type KMSClient,
  ListKeyRotationsCommand,
  ReplicateKeyCommand,
  RotateKeyOnDemandCommand,
  ScheduleKeyDeletionCommand,
  SignCommand,
  type SigningAlgorithmSpec,
} from '@aws-sdk/client-kms'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { startGateway, type TestGateway, testAccount } from '../../support/gateway.ts'
import { type ImportOptions, importMaterial, wrapMaterial } from '../../support/import-wrapping.ts'
import { createMovingClock, dayMs, type MovingClock } from '../../support/moving-clock.ts'
import { listObjectIds } from '../../support/token-objects.ts'

let gateway: TestGateway
let kms: KMSClient
let clock: MovingClock

beforeAll(async () => {
  clock = createMovingClock()
  gateway = await startGateway({ config: { allowImportThroughMemory: true }, overrides: { clock } })
  kms = gateway.client()
}, 180_000)

afterAll(async () => {
  await gateway?.[Symbol.asyncDispose]()
})

interface ExternalKey {
  readonly id: string
  readonly arn: string
}

async function makeKey(request: CreateKeyCommandInput = {}): Promise<ExternalKey> {
  const { KeyMetadata } = await kms.send(new CreateKeyCommand({ Origin: 'EXTERNAL', ...request }))
  return { id: KeyMetadata!.KeyId!, arn: KeyMetadata!.Arn! }
}

const send = (id: string, material: Uint8Array, options?: ImportOptions) => importMaterial(kms, id, material, options)
const metadata = async (KeyId: string) => (await kms.send(new DescribeKeyCommand({ KeyId }))).KeyMetadata!
const encrypt = async (KeyId: string, text = 'text') =>
  (await kms.send(new EncryptCommand({ KeyId, Plaintext: Buffer.from(text) }))).CiphertextBlob!
const decrypt = async (CiphertextBlob: Uint8Array) =>
  Buffer.from((await kms.send(new DecryptCommand({ CiphertextBlob }))).Plaintext!).toString()
const remove = (KeyId: string, KeyMaterialId?: string) =>
  kms.send(new DeleteImportedKeyMaterialCommand({ KeyId, KeyMaterialId }))
const materials = async (KeyId: string) =>
  (await kms.send(new ListKeyRotationsCommand({ KeyId, IncludeKeyMaterial: 'ALL_KEY_MATERIAL' }))).Rotations!
const spki = (key: KeyObject): Buffer => createPublicKey(key).export({ format: 'der', type: 'spki' }) as Buffer
const pkcs8 = (key: KeyObject): Buffer => key.export({ format: 'der', type: 'pkcs8' })
const publicKeyOf = async (KeyId: string) =>
  Buffer.from((await kms.send(new GetPublicKeyCommand({ KeyId }))).PublicKey!)

describe('a key of origin EXTERNAL', () => {
  it('waits for its material, with no more metadata than it has', async () => {
    const { KeyMetadata } = await kms.send(new CreateKeyCommand({ Origin: 'EXTERNAL' }))
    expect(KeyMetadata).toMatchObject({ Origin: 'EXTERNAL', KeyState: 'PendingImport', Enabled: false })
    for (const absent of ['CurrentKeyMaterialId', 'ExpirationModel', 'ValidTo']) {
      expect(KeyMetadata).not.toHaveProperty(absent)
    }
    const { KeyId, Arn } = KeyMetadata!
    await expect(encrypt(KeyId!)).rejects.toMatchObject({
      name: 'KMSInvalidStateException',
      message: `${Arn} is pending import.`,
    })
    await expect(kms.send(new RotateKeyOnDemandCommand({ KeyId }))).rejects.toMatchObject({
      name: 'KMSInvalidStateException',
      message: `${Arn} is pending import.`,
    })
    const origin = {
      name: 'UnsupportedOperationException',
      message: `${Arn} origin is EXTERNAL which is not valid for this operation.`,
    }
    await expect(kms.send(new GetKeyRotationStatusCommand({ KeyId }))).rejects.toMatchObject(origin)
    await expect(kms.send(new EnableKeyRotationCommand({ KeyId }))).rejects.toMatchObject(origin)
    await remove(KeyId!)
  })

  it('is refused by every import operation when its origin is another', async () => {
    const { id, arn } = await makeKey({ Origin: 'AWS_KMS' })
    const refused = {
      name: 'UnsupportedOperationException',
      message: `${arn} origin is AWS_KMS which is not valid for this operation.`,
    }
    await expect(send(id, randomBytes(32))).rejects.toMatchObject(refused)
    await expect(remove(id)).rejects.toMatchObject(refused)
  })
})

describe('GetParametersForImport', () => {
  const parameters = (
    KeyId: string,
    WrappingAlgorithm: AlgorithmSpec,
    WrappingKeySpec: 'RSA_2048' | 'RSA_3072' = 'RSA_2048',
  ) => kms.send(new GetParametersForImportCommand({ KeyId, WrappingAlgorithm, WrappingKeySpec }))

  it('answers a token and an RSA key for 24 hours, the same key again and another for another KMS key', async () => {
    const [one, two] = [await makeKey(), await makeKey()]
    const first = await parameters(one.id, 'RSAES_OAEP_SHA_1')
    expect(first.KeyId).toBe(one.arn)
    expect((first.ParametersValidTo!.getTime() - clock.wallMs()) / dayMs).toBeCloseTo(1, 2)
    const details = createPublicKey({ key: Buffer.from(first.PublicKey!), format: 'der', type: 'spki' })
    expect(details.asymmetricKeyDetails?.modulusLength).toBe(2048)
    const second = await parameters(one.id, 'RSA_AES_KEY_WRAP_SHA_256').catch((cause) => cause.name)
    expect(second).toBe('ValidationException')
    expect((await parameters(one.id, 'RSAES_OAEP_SHA_256')).PublicKey).toEqual(first.PublicKey)
    expect((await parameters(two.id, 'RSAES_OAEP_SHA_1')).PublicKey).not.toEqual(first.PublicKey)
  })

  it.each([
    ['RSA_2048', 'SIGN_VERIFY', 'RSAES_OAEP_SHA_256'],
    ['HMAC_256', 'GENERATE_VERIFY_MAC', 'RSA_AES_KEY_WRAP_SHA_256'],
    ['ECC_NIST_P521', 'SIGN_VERIFY', 'RSAES_OAEP_SHA_256'],
  ] as const)('refuses to wrap %s (%s) with %s and RSA_2048', async (KeySpec, KeyUsage, algorithm) => {
    const { id } = await makeKey({ KeySpec, KeyUsage })
    await expect(parameters(id, algorithm)).rejects.toMatchObject({ name: 'ValidationException' })
  })

  it('no longer offers PKCS#1 v1.5', async () => {
    const { id } = await makeKey()
    await expect(parameters(id, 'RSAES_PKCS1_V1_5')).rejects.toMatchObject({ name: 'UnsupportedOperationException' })
  })

  it('leaves wrapping keys that go away when no token names them any more', { timeout: 60_000 }, async () => {
    const { id } = await makeKey()
    const before = new Set(await listObjectIds(gateway.token))
    await parameters(id, 'RSAES_OAEP_SHA_1')
    const made = (await listObjectIds(gateway.token)).filter((object) => !before.has(object))
    expect(made).toHaveLength(1)
    clock.passes(3 * dayMs)
    await gateway.gateway.settle()
    expect(await listObjectIds(gateway.token)).not.toContain(made[0])
    const deleted = (await gateway.auditRecords()).filter(({ event }) => event.eventName === 'DeleteKey')
    expect(deleted).toEqual([])
  })
})

describe('symmetric material', () => {
  it.each(['RSAES_OAEP_SHA_1', 'RSAES_OAEP_SHA_256'] as const)('arrives by %s and encrypts', async (algorithm) => {
    const { id, arn } = await makeKey()
    const { $metadata: _, ...answer } = await send(id, randomBytes(32), { algorithm })
    expect(answer).toEqual({ KeyId: arn, KeyMaterialId: expect.stringMatching(/^[0-9a-f]{64}$/) })
    expect(await metadata(id)).toMatchObject({
      KeyState: 'Enabled',
      CurrentKeyMaterialId: answer.KeyMaterialId,
      ExpirationModel: 'KEY_MATERIAL_DOES_NOT_EXPIRE',
    })
    expect(await decrypt(await encrypt(id))).toBe('text')
    expect((await kms.send(new GetKeyRotationStatusCommand({ KeyId: id }))).KeyRotationEnabled).toBe(false)
  })

  it('can be deleted and imported again, and then decrypts what it encrypted before', async () => {
    const { id, arn } = await makeKey()
    const material = randomBytes(32)
    const { KeyMaterialId } = await send(id, material)
    const ciphertext = await encrypt(id)
    const objects = await listObjectIds(gateway.token)
    const { $metadata: _, ...answer } = await remove(id)
    expect(answer).toEqual({ KeyId: arn, KeyMaterialId })
    expect(await listObjectIds(gateway.token)).toHaveLength(objects.length - 1)
    const gone = await metadata(id)
    expect(gone).toMatchObject({ KeyState: 'PendingImport', CurrentKeyMaterialId: KeyMaterialId })
    expect(gone).not.toHaveProperty('ExpirationModel')
    await expect(decrypt(ciphertext)).rejects.toMatchObject({ name: 'KMSInvalidStateException' })
    await expect(send(id, randomBytes(32))).rejects.toMatchObject({ name: 'IncorrectKeyMaterialException' })
    expect((await metadata(id)).KeyState).toBe('PendingImport')
    expect((await send(id, material)).KeyMaterialId).toBe(KeyMaterialId)
    expect(await decrypt(ciphertext)).toBe('text')
  })

  it.each([16, 31, 33])('of %i bytes is refused and changes nothing', async (bytes) => {
    const { id } = await makeKey()
    for (const algorithm of ['RSAES_OAEP_SHA_1', 'RSAES_OAEP_SHA_256'] as const) {
      await expect(send(id, randomBytes(bytes), { algorithm })).rejects.toMatchObject({
        name: 'IncorrectKeyMaterialException',
      })
    }
    expect(await metadata(id)).toMatchObject({ KeyState: 'PendingImport' })
    expect(await materials(id)).toEqual([])
  })

  it('that was tampered with, cut short or wrapped with another hash does not open', async () => {
    const { id } = await makeKey()
    const parameters = await kms.send(
      new GetParametersForImportCommand({
        KeyId: id,
        WrappingAlgorithm: 'RSAES_OAEP_SHA_1',
        WrappingKeySpec: 'RSA_2048',
      }),
    )
    const wrapped = wrapMaterial('RSAES_OAEP_SHA_1', parameters.PublicKey!, randomBytes(32))
    const tampered = Buffer.from(wrapped)
    tampered[100] = tampered[100]! ^ 1
    const otherHash = wrapMaterial('RSAES_OAEP_SHA_256', parameters.PublicKey!, randomBytes(32))
    const names = new Set<string>()
    for (const EncryptedKeyMaterial of [tampered, wrapped.subarray(0, 255), randomBytes(10), otherHash]) {
      await send(id, randomBytes(32), { ImportToken: parameters.ImportToken, EncryptedKeyMaterial }).catch((cause) =>
        names.add(`${cause.name} ${cause.message}`),
      )
    }
    expect([...names]).toEqual(['InvalidCiphertextException UnknownError'])
    expect((await metadata(id)).KeyState).toBe('PendingImport')
  })
})

describe('import tokens', () => {
  it('of another key, or not of this gateway, are invalid', async () => {
    const [one, two] = [await makeKey(), await makeKey()]
    const { ImportToken } = await kms.send(
      new GetParametersForImportCommand({
        KeyId: two.id,
        WrappingAlgorithm: 'RSAES_OAEP_SHA_1',
        WrappingKeySpec: 'RSA_2048',
      }),
    )
    for (const token of [ImportToken, randomBytes(200), Buffer.from('x')]) {
      await expect(send(one.id, randomBytes(32), { ImportToken: token })).rejects.toMatchObject({
        name: 'InvalidImportTokenException',
        message: 'UnknownError',
      })
    }
  })

  it('can be used again within 24 hours, and then have expired', async () => {
    const { id } = await makeKey()
    const material = randomBytes(32)
    const parameters = await kms.send(
      new GetParametersForImportCommand({
        KeyId: id,
        WrappingAlgorithm: 'RSAES_OAEP_SHA_1',
        WrappingKeySpec: 'RSA_2048',
      }),
    )
    const again = () =>
      kms.send(
        new ImportKeyMaterialCommand({
          KeyId: id,
          ImportToken: parameters.ImportToken,
          EncryptedKeyMaterial: wrapMaterial('RSAES_OAEP_SHA_1', parameters.PublicKey!, material),
          ExpirationModel: 'KEY_MATERIAL_DOES_NOT_EXPIRE',
        }),
      )
    await again()
    clock.passes(23 * 60 * 60_000)
    await gateway.gateway.settle()
    await again()
    clock.passes(60 * 60_000)
    await expect(again()).rejects.toMatchObject({ name: 'ExpiredImportTokenException', message: 'UnknownError' })
  })
})

describe('HMAC material', () => {
  it.each([
    ['HMAC_224', 28, 'sha224', 'HMAC_SHA_224'],
    ['HMAC_256', 32, 'sha256', 'HMAC_SHA_256'],
    ['HMAC_384', 48, 'sha384', 'HMAC_SHA_384'],
    ['HMAC_512', 64, 'sha512', 'HMAC_SHA_512'],
  ] as const)(
    'of %s is the key that was sent, and no other length is taken',
    async (KeySpec, bytes, hash, MacAlgorithm) => {
      const { id } = await makeKey({ KeySpec, KeyUsage: 'GENERATE_VERIFY_MAC' })
      for (const wrong of [bytes - 8, bytes + 8, bytes === 28 ? 32 : bytes - 1]) {
        await expect(send(id, randomBytes(wrong))).rejects.toMatchObject({ name: 'IncorrectKeyMaterialException' })
      }
      const material = randomBytes(bytes)
      await send(id, material)
      const Message = Buffer.from('message')
      const { Mac } = await kms.send(new GenerateMacCommand({ KeyId: id, Message, MacAlgorithm }))
      expect(Buffer.from(Mac!)).toEqual(createHmac(hash, material).update(Message).digest())
      await remove(id)
      await expect(send(id, randomBytes(bytes))).rejects.toMatchObject({ name: 'IncorrectKeyMaterialException' })
      await send(id, material)
      expect((await metadata(id)).KeyState).toBe('Enabled')
    },
  )

  it('takes none of the members of symmetric keys', async () => {
    const { id } = await makeKey({ KeySpec: 'HMAC_256', KeyUsage: 'GENERATE_VERIFY_MAC' })
    for (const member of [{ ImportType: 'NEW_KEY_MATERIAL' as const }, { KeyMaterialDescription: 'x' }]) {
      await expect(send(id, randomBytes(32), member)).rejects.toMatchObject({ name: 'ValidationException' })
    }
  })
})

describe('EC private keys', () => {
  it.each([
    ['ECC_NIST_P256', 'P-256', 'RSAES_OAEP_SHA_1', 'RSA_2048', 'ECDSA_SHA_256', 'sha256'],
    ['ECC_NIST_P384', 'P-384', 'RSAES_OAEP_SHA_256', 'RSA_2048', 'ECDSA_SHA_384', 'sha384'],
    ['ECC_NIST_P521', 'P-521', 'RSA_AES_KEY_WRAP_SHA_256', 'RSA_2048', 'ECDSA_SHA_512', 'sha512'],
    ['ECC_NIST_P521', 'P-521', 'RSAES_OAEP_SHA_1', 'RSA_3072', 'ECDSA_SHA_512', 'sha512'],
    ['ECC_SECG_P256K1', 'secp256k1', 'RSA_AES_KEY_WRAP_SHA_1', 'RSA_2048', 'ECDSA_SHA_256', 'sha256'],
  ] as const)(
    'of %s (%s) by %s sign as openssl verifies',
    async (KeySpec, namedCurve, algorithm, wrappingSpec, signing, hash) => {
      const { privateKey } = generateKeyPairSync('ec', { namedCurve })
      const { id } = await makeKey({ KeySpec, KeyUsage: 'SIGN_VERIFY' })
      await send(id, pkcs8(privateKey), { algorithm, wrappingSpec })
      expect(await publicKeyOf(id)).toEqual(spki(privateKey))
      const Message = Buffer.from('signed')
      const { Signature } = await kms.send(
        new SignCommand({ KeyId: id, Message, SigningAlgorithm: signing as SigningAlgorithmSpec }),
      )
      const file = (name: string, bytes: Uint8Array) => {
        const at = path.join(gateway.directory, `${id}-${name}`)
        writeFileSync(at, bytes)
        return at
      }
      const key = file('public.der', await publicKeyOf(id))
      const args = ['dgst', `-${hash}`, '-keyform', 'DER', '-verify', key, '-signature', file('signature', Signature!)]
      expect(execFileSync('/usr/bin/openssl', [...args, file('message', Message)]).toString()).toContain('Verified OK')
    },
  )

  it('for key agreement have their own public key and agree', async () => {
    const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
    const { id, arn } = await makeKey({ KeySpec: 'ECC_NIST_P256', KeyUsage: 'KEY_AGREEMENT' })
    await send(id, pkcs8(privateKey))
    expect(await publicKeyOf(id)).toEqual(spki(privateKey))
    const peer = generateKeyPairSync('ec', { namedCurve: 'P-256' })
    const { SharedSecret, KeyOrigin, KeyId } = await kms.send(
      new DeriveSharedSecretCommand({
        KeyId: id,
        KeyAgreementAlgorithm: 'ECDH',
        PublicKey: peer.publicKey.export({ format: 'der', type: 'spki' }),
      }),
    )
    expect(KeyOrigin).toBe('EXTERNAL')
    expect(KeyId).toBe(arn)
    expect(Buffer.from(SharedSecret!)).toEqual(
      diffieHellman({ privateKey: peer.privateKey, publicKey: createPublicKey(privateKey) }),
    )
  })

  it('of another curve, another kind or no kind at all are refused and change nothing', async () => {
    const { id } = await makeKey({ KeySpec: 'ECC_NIST_P256', KeyUsage: 'SIGN_VERIFY' })
    const other = pkcs8(generateKeyPairSync('ec', { namedCurve: 'P-384' }).privateKey)
    const rsa = pkcs8(generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey)
    for (const [material, algorithm] of [
      [other, 'RSAES_OAEP_SHA_1'],
      [other, 'RSAES_OAEP_SHA_256'],
      [other, 'RSA_AES_KEY_WRAP_SHA_256'],
      [rsa, 'RSA_AES_KEY_WRAP_SHA_256'],
      [randomBytes(32), 'RSAES_OAEP_SHA_256'],
      [randomBytes(32), 'RSA_AES_KEY_WRAP_SHA_1'],
    ] as const) {
      const name = await send(id, material, { algorithm }).catch((cause) => cause.name)
      expect(['IncorrectKeyMaterialException', 'InvalidCiphertextException']).toContain(name)
    }
    expect((await metadata(id)).KeyState).toBe('PendingImport')
  })
})

describe('Ed25519 private keys', () => {
  it.each(['RSAES_OAEP_SHA_1', 'RSA_AES_KEY_WRAP_SHA_256'] as const)('arrive by %s', async (algorithm) => {
    const { privateKey } = generateKeyPairSync('ed25519')
    const { id } = await makeKey({ KeySpec: 'ECC_NIST_EDWARDS25519', KeyUsage: 'SIGN_VERIFY' })
    await send(id, pkcs8(privateKey), { algorithm })
    expect(await publicKeyOf(id)).toEqual(spki(privateKey))
  })
})

describe('RSA private keys', () => {
  it('sign and decrypt with the public key they came with', async () => {
    const { privateKey, publicKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })
    const signs = await makeKey({ KeySpec: 'RSA_2048', KeyUsage: 'SIGN_VERIFY' })
    await send(signs.id, pkcs8(privateKey), { algorithm: 'RSA_AES_KEY_WRAP_SHA_1' })
    expect(await publicKeyOf(signs.id)).toEqual(spki(privateKey))
    const decrypts = await makeKey({ KeySpec: 'RSA_2048', KeyUsage: 'ENCRYPT_DECRYPT' })
    await send(decrypts.id, pkcs8(privateKey), { algorithm: 'RSA_AES_KEY_WRAP_SHA_256' })
    const CiphertextBlob = publicEncrypt(
      { key: publicKey, padding: constants.RSA_PKCS1_OAEP_PADDING, oaepHash: 'sha256' },
      Buffer.from('text'),
    )
    const { Plaintext } = await kms.send(
      new DecryptCommand({ KeyId: decrypts.id, CiphertextBlob, EncryptionAlgorithm: 'RSAES_OAEP_SHA_256' }),
    )
    expect(Buffer.from(Plaintext!).toString()).toBe('text')
  })

  it('of another size are refused', async () => {
    const { id } = await makeKey({ KeySpec: 'RSA_3072', KeyUsage: 'SIGN_VERIFY' })
    const material = pkcs8(generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey)
    await expect(send(id, material, { algorithm: 'RSA_AES_KEY_WRAP_SHA_256' })).rejects.toMatchObject({
      name: 'IncorrectKeyMaterialException',
    })
  })
})

describe('expiry', () => {
  it('must be given unless the material does not expire, lie ahead and within a year', async () => {
    const { id } = await makeKey()
    await expect(send(id, randomBytes(32), { ExpirationModel: undefined })).rejects.toMatchObject({
      name: 'ValidationException',
      message: 'A validTo date must be set if the ExpirationModel is KEY_MATERIAL_EXPIRES',
    })
    const at = (days: number) => new Date(clock.wallMs() + days * dayMs)
    for (const members of [
      { ExpirationModel: 'KEY_MATERIAL_DOES_NOT_EXPIRE', ValidTo: at(1) },
      { ExpirationModel: 'KEY_MATERIAL_EXPIRES', ValidTo: at(-1) },
      { ExpirationModel: 'KEY_MATERIAL_EXPIRES', ValidTo: at(366) },
    ] as const) {
      await expect(send(id, randomBytes(32), members)).rejects.toMatchObject({ name: 'ValidationException' })
    }
  })

  it('deletes the material, tells so, and lets the same one back', { timeout: 60_000 }, async () => {
    const { id, arn } = await makeKey()
    const material = randomBytes(32)
    const ValidTo = new Date(Math.floor(clock.wallMs() / 1000) * 1000 + 10 * dayMs)
    const expires = { ExpirationModel: 'KEY_MATERIAL_EXPIRES', ValidTo } as const
    const { KeyMaterialId } = await send(id, material, expires)
    expect(await metadata(id)).toMatchObject(expires)
    const ciphertext = await encrypt(id)
    clock.passes(10 * dayMs)
    // refused before anybody came to delete it
    await expect(decrypt(ciphertext)).rejects.toMatchObject({ name: 'KMSInvalidStateException' })
    expect((await metadata(id)).KeyState).toBe('PendingImport')
    await gateway.gateway.settle()
    const records = (await gateway.auditRecords()).map(({ event }) => event)
    const event = records.find(({ eventName }) => eventName === 'DeleteExpiredKeyMaterial')
    expect(event).toMatchObject({
      eventType: 'AwsServiceEvent',
      serviceEventDetails: { keyId: id, keyMaterialId: KeyMaterialId },
      resources: [{ accountId: testAccount, type: 'AWS::KMS::Key', ARN: arn }],
    })
    expect(await materials(id)).toMatchObject([{ ImportState: 'PENDING_IMPORT', KeyMaterialState: 'CURRENT' }])
    await send(id, material)
    expect(await decrypt(ciphertext)).toBe('text')
    const imported = records.filter(({ eventName }) => eventName === 'ImportKeyMaterial')
    expect(imported.at(-1)?.requestParameters).toEqual({
      keyId: id,
      validTo: expect.stringMatching(/^[A-Z][a-z]{2} \d+, \d{4}, /),
      expirationModel: 'KEY_MATERIAL_EXPIRES',
    })
    expect(imported.at(-1)?.responseElements).toEqual({ keyId: arn, keyMaterialId: KeyMaterialId })
  })

  it('is changed by importing again', async () => {
    const { id } = await makeKey()
    const material = randomBytes(32)
    const ValidTo = new Date(Math.floor(clock.wallMs() / 1000) * 1000 + 10 * dayMs)
    await send(id, material, { ExpirationModel: 'KEY_MATERIAL_EXPIRES', ValidTo })
    const objects = await listObjectIds(gateway.token)
    await send(id, material)
    expect(await listObjectIds(gateway.token)).toEqual(objects)
    clock.passes(11 * dayMs)
    await gateway.gateway.settle()
    expect((await metadata(id)).ExpirationModel).toBe('KEY_MATERIAL_DOES_NOT_EXPIRE')
    expect(await decrypt(await encrypt(id))).toBe('text')
  })

  it('refuses at once and destroys nothing when the clock jumps, and is undone when that is set right', async () => {
    const { id } = await makeKey()
    const ValidTo = new Date(clock.wallMs() + 10 * dayMs)
    await send(id, randomBytes(32), { ExpirationModel: 'KEY_MATERIAL_EXPIRES', ValidTo })
    const ciphertext = await encrypt(id)
    clock.jumps(30 * dayMs)
    await gateway.gateway.settle()
    await expect(decrypt(ciphertext)).rejects.toMatchObject({ name: 'KMSInvalidStateException' })
    clock.jumps(-30 * dayMs)
    await gateway.gateway.settle()
    expect(await decrypt(ciphertext)).toBe('text')
  })
})

describe('several materials of a symmetric key', () => {
  it('wait for a rotation, one at a time, and then all belong to the key', async () => {
    const { id, arn } = await makeKey()
    const [first, second, third] = [randomBytes(32), randomBytes(32), randomBytes(32)]
    const { KeyMaterialId: firstId } = await send(id, first, { KeyMaterialDescription: 'first' })
    const oldCiphertext = await encrypt(id, 'old')
    await expect(kms.send(new RotateKeyOnDemandCommand({ KeyId: id }))).rejects.toMatchObject({
      name: 'KMSInvalidStateException',
      message: `No available key material pending rotation for the key: ${arn}.`,
    })
    await expect(send(id, second)).rejects.toMatchObject({ name: 'IncorrectKeyMaterialException' })
    const { KeyMaterialId: secondId } = await send(id, second, { ImportType: 'NEW_KEY_MATERIAL' })
    expect((await metadata(id)).CurrentKeyMaterialId).toBe(firstId)
    const refused = await send(id, third, { ImportType: 'NEW_KEY_MATERIAL' }).catch((cause) => cause)
    expect(refused.name).toBe('KMSInvalidStateException')
    expect(refused.message).toMatch(
      new RegExp(
        `^New key material \\(id: [0-9a-f]{64}\\) cannot be imported into KMS key ${arn}, because another key material \\(id: ${secondId}\\) is pending rotation\\.$`,
      ),
    )
    expect(await materials(id)).toEqual([
      {
        KeyId: id,
        KeyMaterialId: firstId,
        KeyMaterialDescription: 'first',
        KeyMaterialState: 'CURRENT',
        ImportState: 'IMPORTED',
        ExpirationModel: 'KEY_MATERIAL_DOES_NOT_EXPIRE',
      },
      {
        KeyId: id,
        KeyMaterialId: secondId,
        KeyMaterialState: 'PENDING_ROTATION',
        ImportState: 'IMPORTED',
        ExpirationModel: 'KEY_MATERIAL_DOES_NOT_EXPIRE',
      },
    ])

    await remove(id, secondId)
    expect(await materials(id)).toHaveLength(1)
    expect((await metadata(id)).KeyState).toBe('Enabled')
    await send(id, second, { ImportType: 'NEW_KEY_MATERIAL' })
    await kms.send(new RotateKeyOnDemandCommand({ KeyId: id }))
    expect((await metadata(id)).CurrentKeyMaterialId).toBe(secondId)
    expect(await materials(id)).toMatchObject([
      { KeyMaterialId: firstId, KeyMaterialState: 'NON_CURRENT' },
      { KeyMaterialId: secondId, KeyMaterialState: 'CURRENT', RotationType: 'ON_DEMAND' },
    ])
    expect(await decrypt(oldCiphertext)).toBe('old')

    await remove(id, firstId)
    expect((await metadata(id)).KeyState).toBe('PendingImport')
    await expect(encrypt(id)).rejects.toMatchObject({ name: 'KMSInvalidStateException' })
    await expect(
      send(id, second, { ImportType: 'EXISTING_KEY_MATERIAL', KeyMaterialId: firstId }),
    ).rejects.toMatchObject({ name: 'IncorrectKeyMaterialException' })
    await send(id, first, { KeyMaterialId: firstId })
    expect((await metadata(id)).KeyState).toBe('Enabled')
    expect(await decrypt(oldCiphertext)).toBe('old')
  })

  it('can lose material while the key waits for its deletion, and gain none', async () => {
    const { id } = await makeKey()
    await send(id, randomBytes(32))
    await kms.send(new ScheduleKeyDeletionCommand({ KeyId: id }))
    await expect(send(id, randomBytes(32))).rejects.toMatchObject({ name: 'KMSInvalidStateException' })
    await remove(id)
    expect((await metadata(id)).KeyState).toBe('PendingDeletion')
    clock.passes(31 * dayMs)
    await gateway.gateway.settle()
    await expect(metadata(id)).rejects.toMatchObject({ name: 'NotFoundException' })
  })
})

describe('a replica of a multi-Region key', () => {
  it('takes the material of its primary, no other, and then decrypts for it', async () => {
    const { id } = await makeKey({ MultiRegion: true })
    const material = randomBytes(32)
    const { KeyMaterialId } = await send(id, material)
    const ciphertext = await encrypt(id)
    await kms.send(new ReplicateKeyCommand({ KeyId: id, ReplicaRegion: 'us-west-2' }))
    await gateway.gateway.settle()
    const west = gateway.client({ region: 'us-west-2' })
    const state = async () => (await west.send(new DescribeKeyCommand({ KeyId: id }))).KeyMetadata!.KeyState
    expect(await state()).toBe('PendingImport')
    await expect(importMaterial(west, id, randomBytes(32))).rejects.toMatchObject({
      name: 'IncorrectKeyMaterialException',
    })
    expect((await importMaterial(west, id, material)).KeyMaterialId).toBe(KeyMaterialId)
    expect(await state()).toBe('Enabled')
    const { Plaintext } = await west.send(new DecryptCommand({ CiphertextBlob: ciphertext }))
    expect(Buffer.from(Plaintext!).toString()).toBe('text')
  })
})

describe('a gateway that may not show imported keys to its workers', () => {
  it('takes what the module opens itself and refuses the rest', { timeout: 120_000 }, async () => {
    await using strict = await startGateway()
    const client = strict.client()
    const make = async (request: CreateKeyCommandInput) =>
      (await client.send(new CreateKeyCommand({ Origin: 'EXTERNAL', ...request }))).KeyMetadata!.KeyId!
    const symmetric = await make({})
    await importMaterial(client, symmetric, randomBytes(32))
    await expect(
      importMaterial(client, symmetric, randomBytes(32), { algorithm: 'RSAES_OAEP_SHA_256' }),
    ).rejects.toMatchObject({ name: 'UnsupportedOperationException' })
    const rsa = await make({ KeySpec: 'RSA_2048', KeyUsage: 'SIGN_VERIFY' })
    const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })
    await importMaterial(client, rsa, pkcs8(privateKey), { algorithm: 'RSA_AES_KEY_WRAP_SHA_256' })
    const edwards = await make({ KeySpec: 'ECC_NIST_EDWARDS25519', KeyUsage: 'SIGN_VERIFY' })
    await expect(
      importMaterial(client, edwards, pkcs8(generateKeyPairSync('ed25519').privateKey)),
    ).rejects.toMatchObject({ name: 'UnsupportedOperationException' })
  })
})
