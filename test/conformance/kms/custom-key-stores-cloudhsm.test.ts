/** AWS KMS API Reference and Developer Guide, "AWS CloudHSM key stores": a second token as the cluster. */
import {
  CancelKeyDeletionCommand,
  ConnectCustomKeyStoreCommand,
  CreateCustomKeyStoreCommand,
  CreateGrantCommand,
  CreateKeyCommand,
  DecryptCommand,
  DeleteCustomKeyStoreCommand,
  DescribeCustomKeyStoresCommand,
  DescribeKeyCommand,
  DisableKeyCommand,
  DisconnectCustomKeyStoreCommand,
  EnableKeyCommand,
  EnableKeyRotationCommand,
  EncryptCommand,
  GenerateDataKeyCommand,
  GenerateDataKeyPairCommand,
  GenerateDataKeyWithoutPlaintextCommand,
  GenerateRandomCommand,
  GetKeyRotationStatusCommand,
  GetParametersForImportCommand,
  GetPublicKeyCommand,
  type KMSClient,
  ListKeyRotationsCommand,
  ReEncryptCommand,
  ReplicateKeyCommand,
  RotateKeyOnDemandCommand,
  ScheduleKeyDeletionCommand,
  UpdateCustomKeyStoreCommand,
} from '@aws-sdk/client-kms'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import {
  clusterId,
  clusterToken,
  connectStore,
  createCertificates,
  createClusterStore,
  describeStore,
  disconnectStore,
  passwordOf,
} from '../../support/custom-key-stores.ts'
import { startGateway, type TestGateway } from '../../support/gateway.ts'
import { createTestToken, type TestToken } from '../../support/softhsm.ts'

let main: TestToken
let cluster: TestToken
let certificates: Awaited<ReturnType<typeof createCertificates>>
let gateway: TestGateway
let kms: KMSClient
let password: string
let storeId: string
let keyId: string

const noSuchStore = 'cks-1234567890abcdef0'

beforeAll(async () => {
  ;[main, cluster, certificates] = await Promise.all([
    createTestToken(),
    createTestToken('hsmgate-cluster'),
    createCertificates(),
  ])
  password = await passwordOf(cluster)
  gateway = await startGateway({
    token: main,
    config: {
      tokens: {
        softhsm: { module: main.module, label: main.label, pinFile: main.pinFile, profile: 'softhsm', env: main.env },
        cluster: clusterToken(cluster, { trustAnchorFile: `${certificates.directory}/ca.pem` }),
      },
    },
  })
  kms = gateway.client()
})

afterAll(async () => {
  await gateway?.[Symbol.asyncDispose]()
  await Promise.all([main, cluster, certificates].map((each) => each?.[Symbol.asyncDispose]()))
})

const refused = (name: string) => ({ name, $metadata: { httpStatusCode: 400 } })

describe('DeleteCustomKeyStore', () => {
  it('removes a store without keys, whose name and cluster are free again', async () => {
    const id = await createClusterStore(kms, { password, trustAnchor: certificates.ca, name: 'store' })
    const { $metadata, ...members } = await kms.send(new DeleteCustomKeyStoreCommand({ CustomKeyStoreId: id }))
    expect($metadata.httpStatusCode).toBe(200)
    expect(members).toEqual({})
    const gone = refused('CustomKeyStoreNotFoundException')
    const again = kms.send(new DeleteCustomKeyStoreCommand({ CustomKeyStoreId: id }))
    await expect(again).rejects.toMatchObject(gone)
    await expect(describeStore(kms, id)).rejects.toMatchObject(gone)
  })
})

describe('CreateCustomKeyStore', () => {
  const request = () => ({
    CustomKeyStoreName: 'store',
    CloudHsmClusterId: clusterId,
    TrustAnchorCertificate: certificates.ca,
    KeyStorePassword: password,
  })
  const create = (changes: Partial<ReturnType<typeof request>>) =>
    kms.send(new CreateCustomKeyStoreCommand({ ...request(), ...changes }))

  it('refuses a cluster that is not configured, and a certificate that is not its own', async () => {
    await expect(create({ CloudHsmClusterId: 'cluster-aaaaaaaaaaa' })).rejects.toMatchObject(
      refused('CloudHsmClusterNotFoundException'),
    )
    const incorrect = refused('IncorrectTrustAnchorException')
    await expect(create({ TrustAnchorCertificate: 'no certificate' })).rejects.toMatchObject(incorrect)
    await using others = await createCertificates()
    await expect(create({ TrustAnchorCertificate: others.ca })).rejects.toMatchObject(incorrect)
  })

  it('makes a store that is disconnected, whose name and cluster are taken from then on', async () => {
    storeId = await createClusterStore(kms, { password, trustAnchor: certificates.ca, name: 'store' })
    expect(storeId).toMatch(/^cks-[0-9a-f]{17}$/)
    expect(await describeStore(kms, storeId)).toEqual({
      CustomKeyStoreId: storeId,
      CustomKeyStoreName: 'store',
      CustomKeyStoreType: 'AWS_CLOUDHSM',
      ConnectionState: 'DISCONNECTED',
      CreationDate: expect.any(Date),
      CloudHsmClusterId: clusterId,
      TrustAnchorCertificate: certificates.ca,
    })
    await expect(create({})).rejects.toMatchObject(refused('CustomKeyStoreNameInUseException'))
    await expect(create({ CustomKeyStoreName: 'other' })).rejects.toMatchObject(
      refused('CloudHsmClusterInUseException'),
    )
  })

  it('keeps the password out of the record', async () => {
    const records = await gateway.auditRecords()
    expect(records.at(-3)?.event ?? {}).toBeDefined()
    const created = records.findLast(
      ({ event }) => event.eventName === 'CreateCustomKeyStore' && event.errorCode == null,
    )
    expect(created?.event).toMatchObject({
      requestParameters: { customKeyStoreName: 'store', cloudHsmClusterId: clusterId },
      responseElements: { customKeyStoreId: storeId },
    })
    expect(JSON.stringify(records)).not.toContain(password)
  })
})

describe('a store that is disconnected', () => {
  it('takes no keys and gives no random bytes', async () => {
    const invalid = refused('CustomKeyStoreInvalidStateException')
    const Origin = 'AWS_CLOUDHSM'
    await expect(kms.send(new CreateKeyCommand({ Origin, CustomKeyStoreId: storeId }))).rejects.toMatchObject(invalid)
    const random = kms.send(new GenerateRandomCommand({ NumberOfBytes: 8, CustomKeyStoreId: storeId }))
    await expect(random).rejects.toMatchObject(invalid)
    const disconnect = kms.send(new DisconnectCustomKeyStoreCommand({ CustomKeyStoreId: storeId }))
    await expect(disconnect).rejects.toMatchObject(invalid)
  })
})

describe('a store that is connected', () => {
  it('has a token of its own, and stays connected when it is connected again', async () => {
    expect(await connectStore(kms, storeId)).toMatchObject({ ConnectionState: 'CONNECTED' })
    await kms.send(new ConnectCustomKeyStoreCommand({ CustomKeyStoreId: storeId }))
    expect(await describeStore(kms, storeId)).toMatchObject({ ConnectionState: 'CONNECTED' })
    const { Plaintext } = await kms.send(new GenerateRandomCommand({ NumberOfBytes: 8, CustomKeyStoreId: storeId }))
    expect(Plaintext).toHaveLength(8)
  })

  it('makes symmetric keys of a single Region and no others', async () => {
    const { KeyMetadata } = await kms.send(
      new CreateKeyCommand({ Origin: 'AWS_CLOUDHSM', CustomKeyStoreId: storeId, Description: 'in the cluster' }),
    )
    keyId = KeyMetadata?.KeyId as string
    expect(KeyMetadata).toMatchObject({
      Origin: 'AWS_CLOUDHSM',
      CustomKeyStoreId: storeId,
      CloudHsmClusterId: clusterId,
      KeyState: 'Enabled',
      MultiRegion: false,
      KeySpec: 'SYMMETRIC_DEFAULT',
    })
    expect(KeyMetadata).not.toHaveProperty('CurrentKeyMaterialId')
    expect((await kms.send(new DescribeKeyCommand({ KeyId: keyId }))).KeyMetadata).toEqual(KeyMetadata)
    for (const more of [
      { KeySpec: 'RSA_2048', KeyUsage: 'SIGN_VERIFY' },
      { KeySpec: 'HMAC_256', KeyUsage: 'GENERATE_VERIFY_MAC' },
      { MultiRegion: true },
    ] as const) {
      const create = kms.send(new CreateKeyCommand({ Origin: 'AWS_CLOUDHSM', CustomKeyStoreId: storeId, ...more }))
      await expect(create).rejects.toMatchObject(refused('UnsupportedOperationException'))
    }
  })

  it('wants store and origin to fit', async () => {
    for (const [request, name] of [
      [{ Origin: 'AWS_CLOUDHSM' }, 'ValidationException'],
      [{ CustomKeyStoreId: storeId }, 'ValidationException'],
      [{ Origin: 'EXTERNAL_KEY_STORE', CustomKeyStoreId: storeId, XksKeyId: 'a' }, 'ValidationException'],
      [{ Origin: 'EXTERNAL_KEY_STORE', CustomKeyStoreId: storeId }, 'ValidationException'],
      [{ Origin: 'AWS_CLOUDHSM', CustomKeyStoreId: storeId, XksKeyId: 'a' }, 'ValidationException'],
      [{ Origin: 'AWS_CLOUDHSM', CustomKeyStoreId: noSuchStore }, 'CustomKeyStoreNotFoundException'],
    ] as const) {
      await expect(kms.send(new CreateKeyCommand(request))).rejects.toMatchObject(refused(name))
    }
  })

  it('has keys that encrypt, decrypt, give data keys and re-encrypt, to and from other keys', async () => {
    const EncryptionContext = { app: 'one' }
    const { CiphertextBlob, KeyId } = await kms.send(
      new EncryptCommand({ KeyId: keyId, Plaintext: Buffer.from('secret'), EncryptionContext }),
    )
    expect(KeyId).toContain(keyId)
    const opened = await kms.send(new DecryptCommand({ CiphertextBlob, EncryptionContext }))
    expect(Buffer.from(opened.Plaintext as Uint8Array).toString()).toBe('secret')
    expect(opened).not.toHaveProperty('KeyMaterialId')
    await expect(kms.send(new DecryptCommand({ CiphertextBlob }))).rejects.toMatchObject(
      refused('InvalidCiphertextException'),
    )

    const dataKey = await kms.send(new GenerateDataKeyCommand({ KeyId: keyId, KeySpec: 'AES_256' }))
    const again = await kms.send(new DecryptCommand({ CiphertextBlob: dataKey.CiphertextBlob }))
    expect(again.Plaintext).toEqual(dataKey.Plaintext)
    await kms.send(new GenerateDataKeyWithoutPlaintextCommand({ KeyId: keyId, NumberOfBytes: 64 }))

    const ordinary = (await kms.send(new CreateKeyCommand({}))).KeyMetadata?.KeyId as string
    const moved = await kms.send(
      new ReEncryptCommand({ CiphertextBlob, SourceEncryptionContext: EncryptionContext, DestinationKeyId: ordinary }),
    )
    const back = await kms.send(new ReEncryptCommand({ CiphertextBlob: moved.CiphertextBlob, DestinationKeyId: keyId }))
    const last = await kms.send(new DecryptCommand({ CiphertextBlob: back.CiphertextBlob, KeyId: keyId }))
    expect(Buffer.from(last.Plaintext as Uint8Array).toString()).toBe('secret')
    const records = await gateway.auditRecords()
    expect(records.find(({ event }) => event.eventName === 'Encrypt')?.event).toMatchObject({
      additionalEventData: { customKeyStoreId: storeId, clusterId },
    })
  })

  it('has keys that do not rotate, make pairs, import, replicate or show a public key', async () => {
    const KeyId = keyId
    const unsupported = refused('UnsupportedOperationException')
    for (const command of [
      new EnableKeyRotationCommand({ KeyId }),
      new GetKeyRotationStatusCommand({ KeyId }),
      new RotateKeyOnDemandCommand({ KeyId }),
      new ListKeyRotationsCommand({ KeyId }),
      new GenerateDataKeyPairCommand({ KeyId, KeyPairSpec: 'ECC_NIST_P256' }),
      new GetParametersForImportCommand({
        KeyId,
        WrappingAlgorithm: 'RSAES_OAEP_SHA_256',
        WrappingKeySpec: 'RSA_2048',
      }),
      new ReplicateKeyCommand({ KeyId, ReplicaRegion: 'us-west-2' }),
      new GetPublicKeyCommand({ KeyId }),
    ]) {
      await expect(kms.send(command as never)).rejects.toMatchObject(unsupported)
    }
  })

  it('can be renamed, and changed in nothing else', async () => {
    await kms.send(new UpdateCustomKeyStoreCommand({ CustomKeyStoreId: storeId, NewCustomKeyStoreName: 'renamed' }))
    expect(await describeStore(kms, storeId)).toMatchObject({ CustomKeyStoreName: 'renamed' })
    for (const change of [{ KeyStorePassword: 'another-one' }, { CloudHsmClusterId: clusterId }]) {
      const update = kms.send(new UpdateCustomKeyStoreCommand({ CustomKeyStoreId: storeId, ...change }))
      await expect(update).rejects.toMatchObject(refused('CustomKeyStoreInvalidStateException'))
    }
    for (const change of [{}, { XksProxyUriPath: '/kms/xks/v1' }]) {
      const update = kms.send(new UpdateCustomKeyStoreCommand({ CustomKeyStoreId: storeId, ...change }))
      await expect(update).rejects.toMatchObject(refused('ValidationException'))
    }
  })

  it('is not deleted', async () => {
    const remove = kms.send(new DeleteCustomKeyStoreCommand({ CustomKeyStoreId: storeId }))
    await expect(remove).rejects.toMatchObject(refused('CustomKeyStoreInvalidStateException'))
  })
})

describe('keys of a store that was disconnected', () => {
  it('are unavailable until it is connected again, and then what they were', async () => {
    const KeyId = keyId
    const { CiphertextBlob } = await kms.send(new EncryptCommand({ KeyId, Plaintext: Buffer.from('kept') }))
    expect(await disconnectStore(kms, storeId)).toMatchObject({ ConnectionState: 'DISCONNECTED' })
    const describeKey = async () => (await kms.send(new DescribeKeyCommand({ KeyId }))).KeyMetadata
    expect(await describeKey()).toMatchObject({ KeyState: 'Unavailable', Enabled: false })
    for (const command of [
      new EncryptCommand({ KeyId, Plaintext: Buffer.from('x') }),
      new DecryptCommand({ CiphertextBlob }),
      new GenerateDataKeyCommand({ KeyId, KeySpec: 'AES_256' }),
      new ReEncryptCommand({ CiphertextBlob, DestinationKeyId: KeyId }),
    ]) {
      await expect(kms.send(command as never)).rejects.toMatchObject({
        ...refused('KMSInvalidStateException'),
        message: expect.stringMatching(/ is unavailable\.$/),
      })
    }
    const grant = { KeyId, GranteePrincipal: `arn:aws:iam::000000000000:user/administrator` }
    await kms.send(new CreateGrantCommand({ ...grant, Operations: ['Decrypt'] }))

    await kms.send(new DisableKeyCommand({ KeyId }))
    expect(await describeKey()).toMatchObject({ KeyState: 'Unavailable' })
    await kms.send(new CreateGrantCommand({ ...grant, Operations: ['Encrypt'] }))
    expect(await connectStore(kms, storeId)).toMatchObject({ ConnectionState: 'CONNECTED' })
    expect(await describeKey()).toMatchObject({ KeyState: 'Disabled' })
    await expect(kms.send(new DecryptCommand({ CiphertextBlob }))).rejects.toMatchObject(refused('DisabledException'))
    await kms.send(new EnableKeyCommand({ KeyId }))
    const { Plaintext } = await kms.send(new DecryptCommand({ CiphertextBlob }))
    expect(Buffer.from(Plaintext as Uint8Array).toString()).toBe('kept')
  })

  it('can be scheduled for deletion, which shows, and keep the store from being deleted', async () => {
    await disconnectStore(kms, storeId)
    await kms.send(new ScheduleKeyDeletionCommand({ KeyId: keyId, PendingWindowInDays: 7 }))
    const { KeyMetadata } = await kms.send(new DescribeKeyCommand({ KeyId: keyId }))
    expect(KeyMetadata).toMatchObject({ KeyState: 'PendingDeletion', DeletionDate: expect.any(Date) })
    const remove = kms.send(new DeleteCustomKeyStoreCommand({ CustomKeyStoreId: storeId }))
    await expect(remove).rejects.toMatchObject(refused('CustomKeyStoreHasCMKsException'))
    await kms.send(new CancelKeyDeletionCommand({ KeyId: keyId }))
    expect((await kms.send(new DescribeKeyCommand({ KeyId: keyId }))).KeyMetadata?.KeyState).toBe('Unavailable')
  })
})

describe('DescribeCustomKeyStores', () => {
  it('filters by id or name, and pages', async () => {
    const byName = await kms.send(new DescribeCustomKeyStoresCommand({ CustomKeyStoreName: 'renamed' }))
    expect(byName.CustomKeyStores?.map((store) => store.CustomKeyStoreId)).toEqual([storeId])
    const both = new DescribeCustomKeyStoresCommand({ CustomKeyStoreName: 'renamed', CustomKeyStoreId: storeId })
    await expect(kms.send(both)).rejects.toMatchObject(refused('ValidationException'))
    const bad = kms.send(new DescribeCustomKeyStoresCommand({ Marker: 'bad' }))
    await expect(bad).rejects.toMatchObject(refused('InvalidMarkerException'))
    const page = await kms.send(new DescribeCustomKeyStoresCommand({ Limit: 1 }))
    expect(page).toMatchObject({ CustomKeyStores: [{ CustomKeyStoreId: storeId }], Truncated: false })
  })

  it('shows nothing of another Region', async () => {
    const elsewhere = gateway.client({ region: 'eu-west-1' })
    expect((await elsewhere.send(new DescribeCustomKeyStoresCommand({}))).CustomKeyStores).toEqual([])
    const named = elsewhere.send(new ConnectCustomKeyStoreCommand({ CustomKeyStoreId: storeId }))
    await expect(named).rejects.toMatchObject(refused('CustomKeyStoreNotFoundException'))
  })
})

describe('permissions on custom key stores', () => {
  it('come from identity policies alone', async () => {
    const credentials = await gateway.createUser('reader', {
      Version: '2012-10-17',
      Statement: [{ Effect: 'Allow', Action: 'kms:DescribeCustomKeyStores', Resource: '*' }],
    })
    const reader = gateway.client({ credentials })
    expect((await reader.send(new DescribeCustomKeyStoresCommand({}))).CustomKeyStores).toHaveLength(1)
    const connect = reader.send(new ConnectCustomKeyStoreCommand({ CustomKeyStoreId: storeId }))
    await expect(connect).rejects.toMatchObject(refused('AccessDeniedException'))
  })
})
