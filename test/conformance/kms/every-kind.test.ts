/**
 * Every operation on every kind of key that SoftHSM can make: the members of its answer, no more and no fewer (AWS KMS API Reference), and the refusal
 * where the kind does not fit. Raw calls, because an SDK drops members that it does not know.
 */
import { createHash, generateKeyPairSync } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { startGateway, type TestGateway, testAccount, testRegion } from '../../support/gateway.ts'
import { base64, type Call, createCall, refusal, succeed } from '../../support/kms-call.ts'

let gateway: TestGateway
let call: Call
let helperId: string

beforeAll(async () => {
  gateway = await startGateway()
  call = createCall(gateway)
  helperId = (await createKey('SYMMETRIC_DEFAULT', 'ENCRYPT_DECRYPT')).id
  await gateway.createUser('grantee')
}, 60_000)

afterAll(async () => {
  await gateway?.[Symbol.asyncDispose]()
})

const pss = ['RSASSA_PSS_SHA_256', 'RSASSA_PSS_SHA_384', 'RSASSA_PSS_SHA_512']
const pkcs1 = ['RSASSA_PKCS1_V1_5_SHA_256', 'RSASSA_PKCS1_V1_5_SHA_384', 'RSASSA_PKCS1_V1_5_SHA_512']
const oaep = ['RSAES_OAEP_SHA_1', 'RSAES_OAEP_SHA_256']

/** Spec, usage, member that lists the algorithms, algorithms, bytes of the public key. */
const kinds = [
  ['SYMMETRIC_DEFAULT', 'ENCRYPT_DECRYPT', 'EncryptionAlgorithms', ['SYMMETRIC_DEFAULT'], 0],
  ['RSA_2048', 'ENCRYPT_DECRYPT', 'EncryptionAlgorithms', oaep, 294],
  ['RSA_3072', 'ENCRYPT_DECRYPT', 'EncryptionAlgorithms', oaep, 422],
  ['RSA_4096', 'ENCRYPT_DECRYPT', 'EncryptionAlgorithms', oaep, 550],
  ['RSA_2048', 'SIGN_VERIFY', 'SigningAlgorithms', [...pkcs1, ...pss], 294],
  ['RSA_3072', 'SIGN_VERIFY', 'SigningAlgorithms', [...pkcs1, ...pss], 422],
  ['RSA_4096', 'SIGN_VERIFY', 'SigningAlgorithms', [...pkcs1, ...pss], 550],
  ['ECC_NIST_P256', 'SIGN_VERIFY', 'SigningAlgorithms', ['ECDSA_SHA_256'], 91],
  ['ECC_NIST_P384', 'SIGN_VERIFY', 'SigningAlgorithms', ['ECDSA_SHA_384'], 120],
  ['ECC_NIST_P521', 'SIGN_VERIFY', 'SigningAlgorithms', ['ECDSA_SHA_512'], 158],
  ['ECC_SECG_P256K1', 'SIGN_VERIFY', 'SigningAlgorithms', ['ECDSA_SHA_256'], 88],
  ['ECC_NIST_EDWARDS25519', 'SIGN_VERIFY', 'SigningAlgorithms', ['ED25519_SHA_512', 'ED25519_PH_SHA_512'], 44],
  ['ECC_NIST_P256', 'KEY_AGREEMENT', 'KeyAgreementAlgorithms', ['ECDH'], 91],
  ['ECC_NIST_P384', 'KEY_AGREEMENT', 'KeyAgreementAlgorithms', ['ECDH'], 120],
  ['ECC_NIST_P521', 'KEY_AGREEMENT', 'KeyAgreementAlgorithms', ['ECDH'], 158],
  ['HMAC_224', 'GENERATE_VERIFY_MAC', 'MacAlgorithms', ['HMAC_SHA_224'], 0],
  ['HMAC_256', 'GENERATE_VERIFY_MAC', 'MacAlgorithms', ['HMAC_SHA_256'], 0],
  ['HMAC_384', 'GENERATE_VERIFY_MAC', 'MacAlgorithms', ['HMAC_SHA_384'], 0],
  ['HMAC_512', 'GENERATE_VERIFY_MAC', 'MacAlgorithms', ['HMAC_SHA_512'], 0],
] as const

interface Key {
  readonly id: string
  readonly arn: string
  readonly metadata: Readonly<Record<string, unknown>>
}

async function createKey(KeySpec: string, KeyUsage: string): Promise<Key> {
  const { KeyMetadata } = await succeed(call('CreateKey', { KeySpec, KeyUsage }))
  const metadata = KeyMetadata as Key['metadata']
  return { id: metadata.KeyId as string, arn: metadata.Arn as string, metadata }
}

const text = expect.any(String)
const materialId = expect.stringMatching(/^[0-9a-f]{64}$/)
const Message = base64('message')
const Plaintext = base64('plaintext')

/** An empty body and nothing in it. */
async function expectNothing(operation: string, request: object): Promise<void> {
  const { status, body } = await call(operation, request)
  expect({ operation, status, body }).toEqual({ operation, status: 200, body: undefined })
}

async function expectAnswer(operation: string, request: object, members: object): Promise<Record<string, unknown>> {
  const output = await succeed(call(operation, request))
  expect(output).toEqual(members)
  return output
}

describe.each(kinds)('a key of spec %s for %s', (spec, usage, listMember, algorithms, publicKeyBytes) => {
  let key: Key
  const isSymmetric = spec === 'SYMMETRIC_DEFAULT'

  beforeAll(async () => {
    key = await createKey(spec, usage)
  }, 120_000)

  it('has its metadata, no more and no less', async () => {
    expect(key.metadata).toEqual({
      AWSAccountId: testAccount,
      Arn: `arn:aws:kms:${testRegion}:${testAccount}:key/${key.id}`,
      KeyId: key.id,
      CreationDate: expect.any(Number),
      CustomerMasterKeySpec: spec,
      Description: '',
      Enabled: true,
      KeyManager: 'CUSTOMER',
      KeySpec: spec,
      KeyState: 'Enabled',
      KeyUsage: usage,
      MultiRegion: false,
      Origin: 'AWS_KMS',
      [listMember]: algorithms,
      ...(isSymmetric ? { CurrentKeyMaterialId: materialId } : {}),
    })
    await expectAnswer('DescribeKey', { KeyId: key.id }, { KeyMetadata: key.metadata })
  })

  it('takes part in everything that any key does', { timeout: 60_000 }, async () => {
    const { id: KeyId, arn } = key
    const page = { Truncated: false }
    const { Policy } = await expectAnswer('GetKeyPolicy', { KeyId }, { Policy: text, PolicyName: 'default' })
    await expectNothing('PutKeyPolicy', { KeyId, Policy })
    await expectAnswer('ListKeyPolicies', { KeyId }, { PolicyNames: ['default'], ...page })
    await expectNothing('TagResource', { KeyId, Tags: [{ TagKey: 'a', TagValue: 'b' }] })
    await expectAnswer('ListResourceTags', { KeyId }, { Tags: [{ TagKey: 'a', TagValue: 'b' }], ...page })
    await expectNothing('UntagResource', { KeyId, TagKeys: ['a', 'never there'] })
    await expectNothing('UpdateKeyDescription', { KeyId, Description: '' })
    const AliasName = `alias/${spec}-${usage}`
    await expectNothing('CreateAlias', { AliasName, TargetKeyId: KeyId })
    await expectNothing('UpdateAlias', { AliasName, TargetKeyId: arn })
    const alias = {
      AliasName,
      AliasArn: arn.replace(/key\/.*/, AliasName),
      TargetKeyId: KeyId,
      CreationDate: expect.any(Number),
      LastUpdatedDate: expect.any(Number),
    }
    await expectAnswer('ListAliases', { KeyId }, { Aliases: [alias], ...page })
    await expectNothing('DeleteAlias', { AliasName })
    const principal = `arn:aws:iam::${testAccount}:user/grantee`
    const grant = { KeyId, GranteePrincipal: principal, RetiringPrincipal: principal, Operations: ['DescribeKey'] }
    const made = await expectAnswer('CreateGrant', grant, { GrantId: materialId, GrantToken: text })
    const listed = {
      ...grant,
      KeyId: arn,
      GrantId: made.GrantId,
      Name: '',
      CreationDate: expect.any(Number),
      IssuingAccount: `arn:aws:iam::${testAccount}:root`,
    }
    await expectAnswer('ListGrants', { KeyId }, { Grants: [listed], ...page })
    await expectAnswer('ListRetirableGrants', { RetiringPrincipal: principal }, { Grants: [listed], ...page })
    await expectNothing('RetireGrant', { GrantToken: made.GrantToken })
    const again = await succeed(call('CreateGrant', grant))
    await expectNothing('RevokeGrant', { KeyId, GrantId: again.GrantId })
    await expectAnswer('GetKeyRotationStatus', { KeyId }, { KeyId, KeyRotationEnabled: false })
    await expectNothing('DisableKey', { KeyId })
    await expectNothing('EnableKey', { KeyId })
    await expectAnswer(
      'ScheduleKeyDeletion',
      { KeyId, PendingWindowInDays: 7 },
      { KeyId: arn, DeletionDate: expect.any(Number), KeyState: 'PendingDeletion', PendingWindowInDays: 7 },
    )
    await expectAnswer('CancelKeyDeletion', { KeyId }, { KeyId: arn })
    await expectNothing('EnableKey', { KeyId })
  })

  it('shows its public key if it has one', async () => {
    const { id: KeyId, arn } = key
    if (publicKeyBytes === 0) {
      expect(await refusal(call('GetPublicKey', { KeyId }))).toMatchObject({ __type: 'UnsupportedOperationException' })
      return
    }
    const shown = await expectAnswer(
      'GetPublicKey',
      { KeyId },
      {
        KeyId: arn,
        PublicKey: text,
        KeySpec: spec,
        CustomerMasterKeySpec: spec,
        KeyUsage: usage,
        [listMember]: algorithms,
      },
    )
    expect(Buffer.from(shown.PublicKey as string, 'base64')).toHaveLength(publicKeyBytes)
  })

  it('rotates if it is symmetric', async () => {
    const { id: KeyId, arn } = key
    if (!isSymmetric) {
      for (const operation of ['EnableKeyRotation', 'DisableKeyRotation', 'RotateKeyOnDemand', 'ListKeyRotations']) {
        expect(await refusal(call(operation, { KeyId }))).toEqual({ __type: 'UnsupportedOperationException' })
      }
      return
    }
    await expectNothing('EnableKeyRotation', { KeyId, RotationPeriodInDays: 90 })
    await expectAnswer(
      'GetKeyRotationStatus',
      { KeyId },
      { KeyId, KeyRotationEnabled: true, RotationPeriodInDays: 90, NextRotationDate: expect.any(Number) },
    )
    await expectNothing('DisableKeyRotation', { KeyId })
    await expectAnswer('RotateKeyOnDemand', { KeyId }, { KeyId: arn })
    const rotated = {
      KeyId,
      KeyMaterialId: materialId,
      KeyMaterialState: 'CURRENT',
      RotationType: 'ON_DEMAND',
      RotationDate: expect.any(Number),
    }
    await expectAnswer('ListKeyRotations', { KeyId }, { Rotations: [rotated], Truncated: false })
  })

  it('is refused by the import operations, for its origin', async () => {
    const { id: KeyId, arn } = key
    const blob = base64('x')
    const requests = {
      GetParametersForImport: { WrappingAlgorithm: 'RSAES_OAEP_SHA_1', WrappingKeySpec: 'RSA_2048' },
      ImportKeyMaterial: {
        ImportToken: blob,
        EncryptedKeyMaterial: blob,
        ExpirationModel: 'KEY_MATERIAL_DOES_NOT_EXPIRE',
      },
      DeleteImportedKeyMaterial: {},
    }
    for (const [operation, request] of Object.entries(requests)) {
      expect(await refusal(call(operation, { KeyId, ...request }))).toEqual({
        __type: 'UnsupportedOperationException',
        message: `${arn} origin is AWS_KMS which is not valid for this operation.`,
      })
    }
  })

  it('does the cryptography of its usage and no other', { timeout: 60_000 }, async () => {
    const { id: KeyId, arn } = key
    const uses: Readonly<Record<string, object>> = {
      Encrypt: { Plaintext, EncryptionAlgorithm: algorithms[0] },
      GenerateDataKey: { KeySpec: 'AES_256' },
      GenerateDataKeyWithoutPlaintext: { KeySpec: 'AES_256' },
      GenerateDataKeyPair: { KeyPairSpec: 'ECC_NIST_P256' },
      GenerateDataKeyPairWithoutPlaintext: { KeyPairSpec: 'ECC_NIST_P256' },
      Sign: { Message, SigningAlgorithm: 'ECDSA_SHA_256' },
      Verify: { Message, SigningAlgorithm: 'ECDSA_SHA_256', Signature: base64('s') },
      GenerateMac: { Message, MacAlgorithm: 'HMAC_SHA_256' },
      VerifyMac: { Message, MacAlgorithm: 'HMAC_SHA_256', Mac: base64('m') },
      DeriveSharedSecret: { KeyAgreementAlgorithm: 'ECDH', PublicKey: base64('p') },
    }
    const usageOf = (operation: string) => {
      if (operation === 'Sign' || operation === 'Verify') return 'SIGN_VERIFY'
      if (operation.endsWith('Mac')) return 'GENERATE_VERIFY_MAC'
      return operation === 'DeriveSharedSecret' ? 'KEY_AGREEMENT' : 'ENCRYPT_DECRYPT'
    }
    for (const [operation, request] of Object.entries(uses)) {
      if (usageOf(operation) === usage) continue
      const asked = operation === 'Encrypt' ? { ...request, EncryptionAlgorithm: 'SYMMETRIC_DEFAULT' } : request
      expect(await refusal(call(operation, { KeyId, ...asked }))).toEqual({
        __type: 'InvalidKeyUsageException',
        message: `${arn} key usage is ${usage} which is not valid for ${operation}.`,
      })
    }
    if (isSymmetric) await useSymmetric(key)
    else if (usage === 'ENCRYPT_DECRYPT') await useRsa(key, spec)
    else if (usage === 'SIGN_VERIFY') await useSigning(key, algorithms)
    else if (usage === 'GENERATE_VERIFY_MAC') await useMac(key, algorithms[0])
    else await useAgreement(key, spec)
  })
})

async function useSymmetric({ id: KeyId, arn }: Key): Promise<void> {
  const EncryptionContext = { a: '1' }
  const encrypted = await expectAnswer(
    'Encrypt',
    { KeyId, Plaintext, EncryptionContext },
    { CiphertextBlob: text, KeyId: arn, EncryptionAlgorithm: 'SYMMETRIC_DEFAULT' },
  )
  const { CiphertextBlob } = encrypted
  const opened = { KeyId: arn, EncryptionAlgorithm: 'SYMMETRIC_DEFAULT', KeyMaterialId: materialId }
  await expectAnswer('Decrypt', { CiphertextBlob, EncryptionContext }, { ...opened, Plaintext })
  await expectAnswer(
    'ReEncrypt',
    { CiphertextBlob, SourceEncryptionContext: EncryptionContext, DestinationKeyId: helperId },
    {
      CiphertextBlob: text,
      SourceKeyId: arn,
      KeyId: arn.replace(KeyId, helperId),
      SourceEncryptionAlgorithm: 'SYMMETRIC_DEFAULT',
      DestinationEncryptionAlgorithm: 'SYMMETRIC_DEFAULT',
      SourceKeyMaterialId: materialId,
      DestinationKeyMaterialId: materialId,
    },
  )
  const dataKey = { CiphertextBlob: text, KeyId: arn, KeyMaterialId: materialId }
  await expectAnswer('GenerateDataKey', { KeyId, KeySpec: 'AES_128' }, { ...dataKey, Plaintext: text })
  await expectAnswer('GenerateDataKeyWithoutPlaintext', { KeyId, NumberOfBytes: 7 }, dataKey)
  for (const KeyPairSpec of ['RSA_2048', 'ECC_NIST_P521', 'ECC_SECG_P256K1', 'ECC_NIST_EDWARDS25519', 'ML_KEM_768']) {
    const pair = { PrivateKeyCiphertextBlob: text, PublicKey: text, KeyId: arn, KeyPairSpec, KeyMaterialId: materialId }
    await expectAnswer('GenerateDataKeyPair', { KeyId, KeyPairSpec }, { ...pair, PrivateKeyPlaintext: text })
    await expectAnswer('GenerateDataKeyPairWithoutPlaintext', { KeyId, KeyPairSpec }, pair)
  }
  const usage = {
    Operation: 'GenerateDataKeyPairWithoutPlaintext',
    Timestamp: expect.any(Number),
    CloudTrailEventId: text,
    KmsRequestId: text,
  }
  await expectAnswer(
    'GetKeyLastUsage',
    { KeyId },
    { KeyId, KeyLastUsage: usage, TrackingStartDate: expect.any(Number), KeyCreationDate: expect.any(Number) },
  )
}

async function useRsa({ id: KeyId, arn }: Key, spec: string): Promise<void> {
  const bytes = Number(spec.slice(4)) / 8
  for (const [EncryptionAlgorithm, hashBytes] of [
    ['RSAES_OAEP_SHA_1', 20],
    ['RSAES_OAEP_SHA_256', 32],
  ] as const) {
    const most = bytes - 2 * hashBytes - 2
    const largest = base64(Buffer.alloc(most, 7))
    const request = { KeyId, Plaintext: largest, EncryptionAlgorithm }
    const { CiphertextBlob } = await expectAnswer('Encrypt', request, {
      CiphertextBlob: text,
      KeyId: arn,
      EncryptionAlgorithm,
    })
    expect(Buffer.from(CiphertextBlob as string, 'base64')).toHaveLength(bytes)
    await expectAnswer(
      'Decrypt',
      { KeyId, CiphertextBlob, EncryptionAlgorithm },
      { KeyId: arn, Plaintext: largest, EncryptionAlgorithm },
    )
    const moved = await expectAnswer(
      'ReEncrypt',
      {
        CiphertextBlob,
        SourceKeyId: KeyId,
        SourceEncryptionAlgorithm: EncryptionAlgorithm,
        DestinationKeyId: helperId,
      },
      {
        CiphertextBlob: text,
        SourceKeyId: arn,
        KeyId: arn.replace(KeyId, helperId),
        SourceEncryptionAlgorithm: EncryptionAlgorithm,
        DestinationEncryptionAlgorithm: 'SYMMETRIC_DEFAULT',
        DestinationKeyMaterialId: materialId,
      },
    )
    await expectAnswer(
      'ReEncrypt',
      {
        ...moved,
        DestinationKeyId: KeyId,
        DestinationEncryptionAlgorithm: EncryptionAlgorithm,
        SourceKeyId: undefined,
        SourceEncryptionAlgorithm: undefined,
      },
      {
        CiphertextBlob: text,
        SourceKeyId: arn.replace(KeyId, helperId),
        KeyId: arn,
        SourceEncryptionAlgorithm: 'SYMMETRIC_DEFAULT',
        DestinationEncryptionAlgorithm: EncryptionAlgorithm,
        SourceKeyMaterialId: materialId,
      },
    )
    expect(await refusal(call('Encrypt', { ...request, Plaintext: base64(Buffer.alloc(most + 1)) }))).toEqual({
      __type: 'ValidationException',
      message: `Algorithm ${EncryptionAlgorithm} and key spec ${spec} cannot encrypt data larger than ${most} bytes.`,
    })
  }
  for (const operation of ['GenerateDataKey', 'GenerateDataKeyWithoutPlaintext']) {
    expect(await refusal(call(operation, { KeyId, KeySpec: 'AES_256' }))).toEqual({
      __type: 'InvalidKeyUsageException',
      message: `Algorithm SYMMETRIC_DEFAULT is incompatible with key spec ${spec}.`,
    })
  }
}

async function useSigning({ id: KeyId, arn }: Key, algorithms: readonly string[]): Promise<void> {
  for (const SigningAlgorithm of algorithms) {
    // The module can not.
    if (SigningAlgorithm === 'ED25519_PH_SHA_512') continue
    const hash = `sha${SigningAlgorithm.slice(-3)}`
    const digest = createHash(hash).update(Buffer.from(Message, 'base64')).digest('base64')
    const forms = SigningAlgorithm.startsWith('ED25519') ? ['RAW'] : ['RAW', 'DIGEST']
    for (const MessageType of forms) {
      const request = { KeyId, SigningAlgorithm, MessageType, Message: MessageType === 'RAW' ? Message : digest }
      const { Signature } = await expectAnswer('Sign', request, { KeyId: arn, Signature: text, SigningAlgorithm })
      const valid = { KeyId: arn, SignatureValid: true, SigningAlgorithm }
      await expectAnswer('Verify', { ...request, Signature }, valid)
      // A digest is the digest of the message.
      await expectAnswer('Verify', { KeyId, SigningAlgorithm, Message, Signature }, valid)
      expect(await refusal(call('Verify', { ...request, Signature: base64('no signature') }))).toEqual({
        __type: 'KMSInvalidSignatureException',
      })
    }
  }
}

async function useMac({ id: KeyId, arn }: Key, MacAlgorithm: string): Promise<void> {
  const request = { KeyId, Message, MacAlgorithm }
  const { Mac } = await expectAnswer('GenerateMac', request, { KeyId: arn, Mac: text, MacAlgorithm })
  expect(Buffer.from(Mac as string, 'base64')).toHaveLength(Number(MacAlgorithm.slice(-3)) / 8)
  await expectAnswer('VerifyMac', { ...request, Mac }, { KeyId: arn, MacValid: true, MacAlgorithm })
}

async function useAgreement({ id: KeyId, arn }: Key, spec: string): Promise<void> {
  const curve = `P-${spec.slice(-3)}`
  const { publicKey } = generateKeyPairSync('ec', { namedCurve: curve })
  const PublicKey = publicKey.export({ format: 'der', type: 'spki' }).toString('base64')
  const derived = await expectAnswer(
    'DeriveSharedSecret',
    { KeyId, KeyAgreementAlgorithm: 'ECDH', PublicKey },
    { KeyId: arn, SharedSecret: text, KeyAgreementAlgorithm: 'ECDH', KeyOrigin: 'AWS_KMS' },
  )
  expect(Buffer.from(derived.SharedSecret as string, 'base64')).toHaveLength(Math.ceil(Number(spec.slice(-3)) / 8))
}

describe('operations without a key', () => {
  it('answer their members and no others', async () => {
    await expectAnswer('GenerateRandom', { NumberOfBytes: 5 }, { Plaintext: text })
    const { Keys } = await expectAnswer('ListKeys', { Limit: 1000 }, { Keys: expect.any(Array), Truncated: false })
    for (const entry of Keys as object[]) expect(entry).toEqual({ KeyId: text, KeyArn: text })
    await expectAnswer('ListKeys', { Limit: 1 }, { Keys: [expect.anything()], Truncated: true, NextMarker: text })
    await expectAnswer('DescribeCustomKeyStores', {}, { CustomKeyStores: [], Truncated: false })
  })
})

describe('multi-Region keys', () => {
  it.each([
    ['SYMMETRIC_DEFAULT', 'ENCRYPT_DECRYPT'],
    ['RSA_2048', 'SIGN_VERIFY'],
    ['ECC_NIST_P256', 'SIGN_VERIFY'],
    ['ECC_NIST_P384', 'KEY_AGREEMENT'],
    ['ECC_NIST_EDWARDS25519', 'SIGN_VERIFY'],
    ['HMAC_256', 'GENERATE_VERIFY_MAC'],
  ])('of spec %s for %s are replicated and change roles', { timeout: 60_000 }, async (KeySpec, KeyUsage) => {
    const { KeyMetadata } = await succeed(call('CreateKey', { KeySpec, KeyUsage, MultiRegion: true }))
    const { KeyId, Arn } = KeyMetadata as { KeyId: string; Arn: string }
    expect(KeyId).toMatch(/^mrk-[0-9a-f]{32}$/)
    const west = createCall(gateway, { region: 'us-west-2' })
    const replica = await succeed(call('ReplicateKey', { KeyId, ReplicaRegion: 'us-west-2' }))
    expect(Object.keys(replica).sort()).toEqual(['ReplicaKeyMetadata', 'ReplicaPolicy', 'ReplicaTags'])
    const inState = async (asked: Call, state: string) =>
      expect
        .poll(
          async () => ((await succeed(asked('DescribeKey', { KeyId }))).KeyMetadata as { KeyState: string }).KeyState,
        )
        .toBe(state)
    await inState(west, 'Enabled')
    await expectNothing('UpdatePrimaryRegion', { KeyId, PrimaryRegion: 'us-west-2' })
    await inState(call, 'Enabled')
    const { KeyMetadata: after } = await succeed(west('DescribeKey', { KeyId }))
    expect((after as { MultiRegionConfiguration: unknown }).MultiRegionConfiguration).toEqual({
      MultiRegionKeyType: 'PRIMARY',
      PrimaryKey: { Arn: Arn.replace('us-east-1', 'us-west-2'), Region: 'us-west-2' },
      ReplicaKeys: [{ Arn, Region: 'us-east-1' }],
    })
  })
})
