/**
 * Multi-Region keys as the AWS KMS Developer Guide has them ("Multi-Region keys in AWS KMS"): several Regions of one gateway, one object in
 * the module.
 */
import {
  CancelKeyDeletionCommand,
  CreateAliasCommand,
  CreateGrantCommand,
  CreateKeyCommand,
  type CreateKeyCommandInput,
  DecryptCommand,
  DescribeKeyCommand,
  DisableKeyCommand,
  DisableKeyRotationCommand,
  EnableKeyCommand,
  EnableKeyRotationCommand,
  EncryptCommand,
  GenerateDataKeyCommand,
  GenerateMacCommand,
  GetKeyPolicyCommand,
  GetKeyRotationStatusCommand,
  GetPublicKeyCommand,
  type KeyMetadata,
  type KMSClient,
  ListAliasesCommand,
  ListGrantsCommand,
  ListKeyRotationsCommand,
  ListKeysCommand,
  ListResourceTagsCommand,
  PutKeyPolicyCommand,
  ReEncryptCommand,
  ReplicateKeyCommand,
  type ReplicateKeyCommandInput,
  RotateKeyOnDemandCommand,
  ScheduleKeyDeletionCommand,
  SignCommand,
  TagResourceCommand,
  UpdateKeyDescriptionCommand,
  UpdatePrimaryRegionCommand,
  VerifyCommand,
  VerifyMacCommand,
} from '@aws-sdk/client-kms'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { runOk } from '../../support/command.ts'
import { startGateway, type TestGateway, testAccount } from '../../support/gateway.ts'
import { createMovingClock, dayMs } from '../../support/moving-clock.ts'
import { listObjectIds } from '../../support/token-objects.ts'

const east = 'us-east-1'
const west = 'us-west-2'
const europe = 'eu-west-1'
const regions = [east, west, europe] as const
type Region = (typeof regions)[number]
const Plaintext = Buffer.from('plain')
const patience = { timeout: 60_000 }

const clock = createMovingClock()
let gateway: TestGateway
let kms: Record<Region, KMSClient>

beforeAll(async () => {
  gateway = await startGateway({ overrides: { clock } })
  connect()
}, 60_000)

afterAll(async () => {
  await gateway?.[Symbol.asyncDispose]()
})

function connect(): void {
  kms = Object.fromEntries(regions.map((region) => [region, gateway.client({ region })])) as typeof kms
}

const arnOf = (keyId: string, region: string) => `arn:aws:kms:${region}:${testAccount}:key/${keyId}`

async function createPrimary(request: CreateKeyCommandInput = {}): Promise<string> {
  const { KeyMetadata } = await kms[east].send(new CreateKeyCommand({ MultiRegion: true, ...request }))
  return KeyMetadata?.KeyId as string
}

async function metadataOf(KeyId: string, region: Region): Promise<KeyMetadata> {
  const { KeyMetadata } = await kms[region].send(new DescribeKeyCommand({ KeyId }))
  return KeyMetadata as KeyMetadata
}

const replicate = (KeyId: string, ReplicaRegion: Region, more: Partial<ReplicateKeyCommandInput> = {}) =>
  kms[east].send(new ReplicateKeyCommand({ KeyId, ReplicaRegion, ...more }))

/** Replication and the change of roles end some time after their answer. */
async function untilState(keyId: string, region: Region, state: string): Promise<KeyMetadata> {
  return await vi.waitFor(
    async () => {
      const metadata = await metadataOf(keyId, region)
      expect(metadata.KeyState).toBe(state)
      return metadata
    },
    { timeout: 20_000, interval: 20 },
  )
}

async function createReplicated(request: CreateKeyCommandInput = {}, where: readonly Region[] = [west]) {
  const keyId = await createPrimary(request)
  for (const region of where) {
    await replicate(keyId, region)
    await untilState(keyId, region, 'Enabled')
  }
  return keyId
}

async function userClients(name: string, ...statements: readonly object[]): Promise<typeof kms> {
  const credentials = await gateway.createUser(name, { Version: '2012-10-17', Statement: statements })
  return Object.fromEntries(regions.map((region) => [region, gateway.client({ region, credentials })])) as typeof kms
}

const configuration = (keyId: string, region: Region, primary: Region, replicas: readonly Region[]) => ({
  MultiRegionKeyType: region === primary ? 'PRIMARY' : 'REPLICA',
  PrimaryKey: { Arn: arnOf(keyId, primary), Region: primary },
  ReplicaKeys: replicas.map((Region) => ({ Arn: arnOf(keyId, Region), Region })),
})

describe('ReplicateKey', () => {
  it('answers a replica that is being made, with empty description and default policy, and enables it (trap 53)', async () => {
    const keyId = await createPrimary({ Description: 'the primary', Tags: [{ TagKey: 'a', TagValue: 'b' }] })
    const primary = await metadataOf(keyId, east)
    const { ReplicaKeyMetadata, ReplicaPolicy, ReplicaTags } = await replicate(keyId, west)
    const { CurrentKeyMaterialId, ...shared } = primary
    const replica = {
      ...shared,
      Arn: arnOf(keyId, west),
      CreationDate: expect.any(Date),
      Description: '',
      MultiRegionConfiguration: configuration(keyId, west, east, [west]),
    }
    expect(ReplicaKeyMetadata).toEqual({ ...replica, Enabled: false, KeyState: 'Creating' })
    expect(ReplicaTags).toEqual([])
    const { Policy } = await kms[east].send(new GetKeyPolicyCommand({ KeyId: keyId }))
    expect(ReplicaPolicy).toBe(Policy)
    expect(await untilState(keyId, west, 'Enabled')).toEqual({ ...replica, CurrentKeyMaterialId })
    expect(await metadataOf(keyId, east)).toEqual({
      ...primary,
      MultiRegionConfiguration: configuration(keyId, east, east, [west]),
    })
    const { Keys } = await kms[west].send(new ListKeysCommand({ Limit: 1000 }))
    expect(Keys).toContainEqual({ KeyId: keyId, KeyArn: arnOf(keyId, west) })
  })

  it('gives the replica what the request says, by the CLI too', async () => {
    const keyId = await createPrimary()
    const Policy = JSON.stringify({
      Version: '2012-10-17',
      Statement: [
        { Effect: 'Allow', Principal: { AWS: `arn:aws:iam::${testAccount}:root` }, Action: 'kms:*', Resource: '*' },
      ],
    })
    const Tags = [{ TagKey: 'c', TagValue: 'd' }]
    const answer = await replicate(keyId, west, { Description: 'mine', Policy, Tags })
    expect(answer).toMatchObject({
      ReplicaKeyMetadata: { Description: 'mine' },
      ReplicaPolicy: Policy,
      ReplicaTags: Tags,
    })
    expect(await kms[west].send(new ListResourceTagsCommand({ KeyId: keyId }))).toMatchObject({ Tags })
    expect(await kms[west].send(new GetKeyPolicyCommand({ KeyId: keyId }))).toMatchObject({ Policy })
    const stdout = await runOk(
      '/usr/bin/aws',
      [
        ...['kms', 'replicate-key', '--endpoint-url', gateway.endpoint, '--key-id', keyId],
        ...['--replica-region', europe, '--query', 'ReplicaKeyMetadata.MultiRegionConfiguration.ReplicaKeys[].Region'],
        ...['--output', 'json'],
      ],
      { env: gateway.cliEnvironment },
    )
    expect(JSON.parse(stdout.toString())).toEqual([europe, west])
  })

  it('makes no second key in a Region, not even beside one that is pending deletion, nor in its own', async () => {
    const keyId = await createReplicated()
    await expect(replicate(keyId, west)).rejects.toMatchObject({ name: 'AlreadyExistsException' })
    await expect(replicate(keyId, east)).rejects.toMatchObject({ name: 'AlreadyExistsException' })
    await kms[west].send(new ScheduleKeyDeletionCommand({ KeyId: keyId }))
    await expect(replicate(keyId, west)).rejects.toMatchObject({ name: 'AlreadyExistsException' })
  })

  it('makes one replica when several ask for it at once', async () => {
    const keyId = await createPrimary()
    const outcomes = await Promise.allSettled([1, 2, 3].map(() => replicate(keyId, west)))
    expect(outcomes.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected', 'rejected'])
    expect((await metadataOf(keyId, east)).MultiRegionConfiguration?.ReplicaKeys).toHaveLength(1)
  })

  it('takes a primary key alone', async () => {
    const keyId = await createReplicated()
    const ofReplica = kms[west].send(new ReplicateKeyCommand({ KeyId: keyId, ReplicaRegion: europe }))
    const name = 'UnsupportedOperationException'
    await expect(ofReplica).rejects.toMatchObject({
      name,
      message: `${arnOf(keyId, west)} is not a multi-region primary key.`,
    })
    const single = await createPrimary({ MultiRegion: false })
    await expect(replicate(single, west)).rejects.toMatchObject({
      name,
      message: `${arnOf(single, east)} is not a multi-region primary key.`,
    })
  })

  it('judges the state before the kind of key, and names and Regions before either', async () => {
    const keyId = await createPrimary({ MultiRegion: false })
    await kms[east].send(new DisableKeyCommand({ KeyId: keyId }))
    await expect(replicate(keyId, west)).rejects.toMatchObject({ name: 'DisabledException' })
    await kms[east].send(new ScheduleKeyDeletionCommand({ KeyId: keyId }))
    await expect(replicate(keyId, west)).rejects.toMatchObject({
      name: 'KMSInvalidStateException',
      message: `${arnOf(keyId, east)} is pending deletion.`,
    })
    const nowhere = 'mars-north-1' as Region
    await expect(replicate(keyId, nowhere)).rejects.toMatchObject({ name: 'ValidationException' })
    await expect(replicate(keyId, 'West' as Region)).rejects.toMatchObject({
      name: 'ValidationException',
      message: expect.stringContaining("at 'replicaRegion' failed to satisfy constraint"),
    })
    await expect(replicate('alias/x', west)).rejects.toMatchObject({
      name: 'NotFoundException',
      message: "Invalid keyId 'alias/x'",
    })
  })

  it('refuses a policy that locks its author out, tags that are reserved and more than one of a name', async () => {
    const keyId = await createPrimary()
    await gateway.createUser('replica-owner')
    const Policy = JSON.stringify({
      Version: '2012-10-17',
      Statement: [
        {
          Effect: 'Allow',
          Principal: { AWS: `arn:aws:iam::${testAccount}:user/replica-owner` },
          Action: 'kms:*',
          Resource: '*',
        },
      ],
    })
    await expect(replicate(keyId, west, { Policy })).rejects.toMatchObject({ name: 'MalformedPolicyDocumentException' })
    const reserved = [{ TagKey: 'AWS:x', TagValue: '' }]
    await expect(replicate(keyId, west, { Tags: reserved })).rejects.toMatchObject({ name: 'TagException' })
    await expect(metadataOf(keyId, west)).rejects.toMatchObject({ name: 'NotFoundException' })
    await replicate(keyId, west, { Policy, BypassPolicyLockoutSafetyCheck: true })
  })

  it('needs kms:ReplicateKey on the primary, and kms:CreateKey in the Region of the replica', async () => {
    const keyId = await createPrimary()
    const request = new ReplicateKeyCommand({ KeyId: keyId, ReplicaRegion: west })
    const replicates = (where: string) => ({
      Effect: 'Allow',
      Action: 'kms:ReplicateKey',
      Resource: '*',
      Condition: { StringEquals: { 'kms:ReplicaRegion': where } },
    })
    const creates = (where: string) => ({
      Effect: 'Allow',
      Action: ['kms:CreateKey', 'kms:TagResource'],
      Resource: '*',
      Condition: { StringEquals: { 'aws:RequestedRegion': where, 'kms:MultiRegionKeyType': 'REPLICA' } },
    })
    const elsewhere = await userClients('replicates-elsewhere', replicates(europe), creates(west))
    await expect(elsewhere[east].send(request)).rejects.toMatchObject({
      name: 'AccessDeniedException',
      message: expect.stringContaining(`to perform: kms:ReplicateKey on resource: ${arnOf(keyId, east)}`),
    })
    const noCreator = await userClients('replicates-only', replicates(west), creates(east))
    await expect(noCreator[east].send(request)).rejects.toMatchObject({
      name: 'AccessDeniedException',
      message: expect.stringContaining('to perform: kms:CreateKey because'),
    })
    const both = await userClients('replicates', replicates(west), creates(west))
    await both[east].send(request)
  })
})

describe('blobs, signatures and codes of one Region', () => {
  it('are decrypted in every Region of the key, with and without the KeyId of that Region (trap 54)', async () => {
    const keyId = await createReplicated({}, [west, europe])
    const EncryptionContext = { tenant: 'a' }
    for (const from of regions) {
      const { CiphertextBlob } = await kms[from].send(
        new EncryptCommand({ KeyId: keyId, Plaintext, EncryptionContext }),
      )
      for (const to of regions) {
        for (const KeyId of [undefined, keyId, arnOf(keyId, to)]) {
          const opened = await kms[to].send(new DecryptCommand({ KeyId, CiphertextBlob, EncryptionContext }))
          expect(Buffer.from(opened.Plaintext as Uint8Array)).toEqual(Plaintext)
          expect(opened.KeyId).toBe(arnOf(keyId, to))
        }
        await expect(kms[to].send(new DecryptCommand({ CiphertextBlob }))).rejects.toMatchObject({
          name: 'InvalidCiphertextException',
        })
      }
    }
  })

  it('are those of data keys too, and of what is encrypted again', async () => {
    const keyId = await createReplicated()
    const made = await kms[east].send(new GenerateDataKeyCommand({ KeyId: keyId, KeySpec: 'AES_256' }))
    const again = await kms[west].send(
      new ReEncryptCommand({ CiphertextBlob: made.CiphertextBlob, DestinationKeyId: keyId }),
    )
    expect(again).toMatchObject({ SourceKeyId: arnOf(keyId, west), KeyId: arnOf(keyId, west) })
    const opened = await kms[east].send(new DecryptCommand({ CiphertextBlob: again.CiphertextBlob }))
    expect(opened).toMatchObject({ KeyId: arnOf(keyId, east), Plaintext: made.Plaintext })
    expect(opened.KeyMaterialId).toBe(made.KeyMaterialId)
  })

  it('stay those of one key: another one is an incorrect key, and a Region without a replica has none', async () => {
    const keyId = await createReplicated()
    const { CiphertextBlob } = await kms[east].send(new EncryptCommand({ KeyId: keyId, Plaintext }))
    const other = await createReplicated()
    await expect(kms[west].send(new DecryptCommand({ KeyId: other, CiphertextBlob }))).rejects.toMatchObject({
      name: 'IncorrectKeyException',
    })
    await expect(kms[europe].send(new DecryptCommand({ CiphertextBlob }))).rejects.toMatchObject({
      name: 'AccessDeniedException',
      message: expect.stringContaining('does not exist in this region'),
    })
    await expect(
      kms[west].send(new DecryptCommand({ KeyId: arnOf(keyId, east), CiphertextBlob })),
    ).rejects.toMatchObject({
      name: 'NotFoundException',
      message: `Invalid arn ${east}`,
    })
  })

  it('are verified with the public key or the code of another', async () => {
    const signer = await createReplicated({ KeySpec: 'ECC_NIST_P256', KeyUsage: 'SIGN_VERIFY' })
    const SigningAlgorithm = 'ECDSA_SHA_256'
    const { Signature } = await kms[east].send(new SignCommand({ KeyId: signer, Message: Plaintext, SigningAlgorithm }))
    const verify = new VerifyCommand({ KeyId: signer, Message: Plaintext, SigningAlgorithm, Signature })
    expect(await kms[west].send(verify)).toMatchObject({ SignatureValid: true, KeyId: arnOf(signer, west) })
    const publicKeys = [east, west].map((region) =>
      kms[region as Region].send(new GetPublicKeyCommand({ KeyId: signer })),
    )
    const [here, there] = await Promise.all(publicKeys)
    expect(there?.PublicKey).toEqual(here?.PublicKey)

    const coder = await createReplicated({ KeySpec: 'HMAC_256', KeyUsage: 'GENERATE_VERIFY_MAC' })
    const MacAlgorithm = 'HMAC_SHA_256'
    const { Mac } = await kms[west].send(new GenerateMacCommand({ KeyId: coder, Message: Plaintext, MacAlgorithm }))
    expect(
      await kms[east].send(new VerifyMacCommand({ KeyId: coder, Message: Plaintext, MacAlgorithm, Mac })),
    ).toMatchObject({ MacValid: true, KeyId: arnOf(coder, east) })
  })
})

describe('related keys', () => {
  it('are enabled, described, tagged, named, granted and governed each for itself', async () => {
    const keyId = await createReplicated()
    const there = { KeyId: keyId }
    await kms[west].send(new UpdateKeyDescriptionCommand({ ...there, Description: 'western' }))
    await kms[west].send(new TagResourceCommand({ ...there, Tags: [{ TagKey: 'where', TagValue: 'west' }] }))
    await kms[west].send(new CreateAliasCommand({ AliasName: 'alias/western', TargetKeyId: keyId }))
    await kms[west].send(
      new CreateGrantCommand({
        ...there,
        GranteePrincipal: `arn:aws:iam::${testAccount}:user/administrator`,
        Operations: ['Decrypt'],
      }),
    )
    const Policy = JSON.stringify({
      Version: '2012-10-17',
      Id: 'western',
      Statement: [
        { Effect: 'Allow', Principal: { AWS: `arn:aws:iam::${testAccount}:root` }, Action: 'kms:*', Resource: '*' },
        {
          Effect: 'Deny',
          Principal: '*',
          Action: 'kms:Encrypt',
          Resource: '*',
          Condition: { StringEquals: { 'kms:MultiRegionKeyType': 'REPLICA' } },
        },
      ],
    })
    await kms[west].send(new PutKeyPolicyCommand({ ...there, Policy }))
    await expect(kms[west].send(new EncryptCommand({ KeyId: keyId, Plaintext }))).rejects.toMatchObject({
      name: 'AccessDeniedException',
    })
    await kms[east].send(new EncryptCommand({ KeyId: keyId, Plaintext }))
    await kms[west].send(new DisableKeyCommand(there))
    expect(await metadataOf(keyId, west)).toMatchObject({ KeyState: 'Disabled', Description: 'western' })
    expect(await metadataOf(keyId, east)).toMatchObject({ KeyState: 'Enabled', Description: '' })
    expect((await kms[east].send(new ListResourceTagsCommand(there))).Tags).toEqual([])
    expect((await kms[east].send(new ListAliasesCommand(there))).Aliases).toEqual([])
    expect((await kms[east].send(new ListGrantsCommand(there))).Grants).toEqual([])
    await expect(kms[west].send(new GenerateDataKeyCommand({ ...there, KeySpec: 'AES_256' }))).rejects.toMatchObject({
      name: 'DisabledException',
      message: `${arnOf(keyId, west)} is disabled.`,
    })
    const { CiphertextBlob } = await kms[east].send(new EncryptCommand({ KeyId: keyId, Plaintext }))
    await expect(kms[west].send(new DecryptCommand({ CiphertextBlob }))).rejects.toMatchObject({
      name: 'DisabledException',
    })
  })

  it('share one object in the module', async () => {
    const before = await listObjectIds(gateway.token)
    await createReplicated({}, [west, europe])
    expect(await listObjectIds(gateway.token)).toHaveLength(before.length + 1)
  })

  it('are there after a restart, and no object is unknown', patience, async () => {
    const keyId = await createReplicated({}, [west, europe])
    const { CiphertextBlob } = await kms[west].send(new EncryptCommand({ KeyId: keyId, Plaintext }))
    await gateway.restart()
    connect()
    for (const region of regions) {
      const metadata = await metadataOf(keyId, region)
      expect(metadata.MultiRegionConfiguration).toEqual(configuration(keyId, region, east, [europe, west]))
      await kms[region].send(new DecryptCommand({ CiphertextBlob }))
    }
    expect(await gateway.gateway.unknownObjects).toEqual([])
  })
})

describe('UpdatePrimaryRegion', () => {
  const update = (KeyId: string, PrimaryRegion: string, from: Region = east) =>
    kms[from].send(new UpdatePrimaryRegionCommand({ KeyId, PrimaryRegion }))

  it('exchanges the roles of primary and replica, and every related key tells so', async () => {
    const keyId = await createReplicated({}, [west, europe])
    await update(keyId, west)
    await untilState(keyId, east, 'Enabled')
    for (const region of regions) {
      const metadata = await metadataOf(keyId, region)
      expect(metadata.KeyState).toBe('Enabled')
      expect(metadata.MultiRegionConfiguration).toEqual(configuration(keyId, region, west, [europe, east]))
    }
    const name = 'UnsupportedOperationException'
    await expect(update(keyId, europe)).rejects.toMatchObject({
      name,
      message: `${arnOf(keyId, east)} is not a multi-region primary key.`,
    })
    await expect(replicate(keyId, west)).rejects.toMatchObject({ name })
    await update(keyId, europe, west)
    await untilState(keyId, west, 'Enabled')
    expect((await metadataOf(keyId, east)).MultiRegionConfiguration?.PrimaryKey?.Region).toBe(europe)
  })

  it('never interrupts cryptographic operations', async () => {
    const keyId = await createReplicated()
    const { CiphertextBlob } = await kms[east].send(new EncryptCommand({ KeyId: keyId, Plaintext }))
    const uses = () =>
      Promise.all([east, west].map((region) => kms[region as Region].send(new DecryptCommand({ CiphertextBlob }))))
    await Promise.all([uses(), update(keyId, west), uses(), uses()])
    await uses()
  })

  it('leaves a disabled replica disabled', async () => {
    const keyId = await createReplicated()
    await kms[west].send(new DisableKeyCommand({ KeyId: keyId }))
    await update(keyId, west)
    await untilState(keyId, east, 'Enabled')
    expect(await metadataOf(keyId, west)).toMatchObject({
      KeyState: 'Disabled',
      MultiRegionConfiguration: { MultiRegionKeyType: 'PRIMARY' },
    })
    await kms[west].send(new EnableKeyCommand({ KeyId: keyId }))
  })

  it('refuses a Region without a replica, its own, one of a replica that is pending deletion, and a disabled primary', async () => {
    const keyId = await createReplicated()
    await expect(update(keyId, europe)).rejects.toMatchObject({
      name: 'NotFoundException',
      message: `Key '${arnOf(keyId, europe)}' does not exist`,
    })
    await expect(update(keyId, east)).rejects.toMatchObject({ name: 'UnsupportedOperationException' })
    await expect(update(keyId, 'mars-north-1')).rejects.toMatchObject({ name: 'ValidationException' })
    await kms[west].send(new ScheduleKeyDeletionCommand({ KeyId: keyId }))
    await expect(update(keyId, west)).rejects.toMatchObject({
      name: 'KMSInvalidStateException',
      message: `${arnOf(keyId, west)} is pending deletion.`,
    })
    await kms[east].send(new DisableKeyCommand({ KeyId: keyId }))
    await expect(update(keyId, west)).rejects.toMatchObject({ name: 'DisabledException' })
  })

  it('needs its permission on both keys', async () => {
    const keyId = await createReplicated()
    const command = new UpdatePrimaryRegionCommand({ KeyId: keyId, PrimaryRegion: west })
    const allow = (Resource: string | string[]) => ({
      Effect: 'Allow',
      Action: 'kms:UpdatePrimaryRegion',
      Resource,
      Condition: { StringEquals: { 'kms:PrimaryRegion': west } },
    })
    const one = await userClients('updates-one', allow(arnOf(keyId, east)))
    await expect(one[east].send(command)).rejects.toMatchObject({
      name: 'AccessDeniedException',
      message: expect.stringContaining(`on resource: ${arnOf(keyId, west)}`),
    })
    const both = await userClients('updates-both', allow([arnOf(keyId, east), arnOf(keyId, west)]))
    await both[east].send(command)
    await untilState(keyId, east, 'Enabled')
  })
})

describe('deletion', () => {
  const schedule = (KeyId: string, region: Region, PendingWindowInDays: number) =>
    kms[region].send(new ScheduleKeyDeletionCommand({ KeyId, PendingWindowInDays }))
  /** `days` later a round of deletions destroys the key. */
  const untilGone = async (keyId: string, region: Region, days: number) => {
    clock.passes(days * dayMs)
    await gateway.ask('clock', 'confirm')
    const name = async () => await metadataOf(keyId, region).catch((error: Error) => error)
    await expect.poll(name, { timeout: 20_000 }).toMatchObject({ name: 'NotFoundException' })
  }

  it('takes a replica alone and leaves the object to the others', patience, async () => {
    const keyId = await createReplicated({}, [west, europe])
    const { CiphertextBlob } = await kms[west].send(new EncryptCommand({ KeyId: keyId, Plaintext }))
    const objects = await listObjectIds(gateway.token)
    expect(await schedule(keyId, west, 7)).toMatchObject({
      KeyId: arnOf(keyId, west),
      KeyState: 'PendingDeletion',
      DeletionDate: expect.any(Date),
    })
    expect((await metadataOf(keyId, east)).MultiRegionConfiguration?.ReplicaKeys).toHaveLength(2)
    await untilGone(keyId, west, 8)
    expect((await metadataOf(keyId, europe)).MultiRegionConfiguration).toEqual(
      configuration(keyId, europe, east, [europe]),
    )
    expect(await listObjectIds(gateway.token)).toEqual(objects)
    for (const region of [east, europe] as const) await kms[region].send(new DecryptCommand({ CiphertextBlob }))
    await replicate(keyId, west)
    await untilState(keyId, west, 'Enabled')
    await kms[west].send(new DecryptCommand({ CiphertextBlob }))
  })

  it('of a primary waits for its last replica, then for its own days, and ends with the object', patience, async () => {
    const others = await listObjectIds(gateway.token)
    const keyId = await createReplicated({}, [west, europe])
    const [object] = (await listObjectIds(gateway.token)).filter((id) => !others.includes(id))
    const scheduled = await schedule(keyId, east, 9)
    expect(scheduled).toMatchObject({ KeyState: 'PendingReplicaDeletion', PendingWindowInDays: 9 })
    expect(scheduled.DeletionDate).toBeUndefined()
    const waiting = await metadataOf(keyId, east)
    expect(waiting).toMatchObject({ KeyState: 'PendingReplicaDeletion', PendingDeletionWindowInDays: 9 })
    expect(waiting.DeletionDate).toBeUndefined()
    await expect(schedule(keyId, east, 9)).rejects.toMatchObject({
      name: 'KMSInvalidStateException',
      message: `${arnOf(keyId, east)} is pending deletion.`,
    })
    await expect(kms[east].send(new EncryptCommand({ KeyId: keyId, Plaintext }))).rejects.toMatchObject({
      name: 'KMSInvalidStateException',
    })
    await kms[west].send(new EncryptCommand({ KeyId: keyId, Plaintext }))

    await schedule(keyId, west, 7)
    await untilGone(keyId, west, 8)
    expect(await metadataOf(keyId, east)).toMatchObject({ KeyState: 'PendingReplicaDeletion' })
    await schedule(keyId, europe, 7)
    await untilGone(keyId, europe, 8)
    const dated = await metadataOf(keyId, east)
    expect(dated.KeyState).toBe('PendingDeletion')
    const daysLeft = ((dated.DeletionDate as Date).getTime() - clock.wallMs()) / dayMs
    expect(Math.round(daysLeft)).toBe(9)
    expect(dated).not.toHaveProperty('PendingDeletionWindowInDays')
    expect(await listObjectIds(gateway.token)).toContain(object)
    await untilGone(keyId, east, 10)
    expect(await listObjectIds(gateway.token)).not.toContain(object)
  })

  it('is cancelled while it waits, and the key is disabled then', async () => {
    const keyId = await createReplicated()
    await schedule(keyId, east, 9)
    expect(await kms[east].send(new CancelKeyDeletionCommand({ KeyId: keyId }))).toMatchObject({
      KeyId: arnOf(keyId, east),
    })
    const metadata = await metadataOf(keyId, east)
    expect(metadata.KeyState).toBe('Disabled')
    expect(metadata).not.toHaveProperty('PendingDeletionWindowInDays')
    await kms[east].send(new EnableKeyCommand({ KeyId: keyId }))
    await kms[east].send(new EncryptCommand({ KeyId: keyId, Plaintext }))
  })
})

describe('rotation', () => {
  const blob = async (keyId: string, region: Region) => {
    const { CiphertextBlob } = await kms[region].send(new EncryptCommand({ KeyId: keyId, Plaintext }))
    return CiphertextBlob as Uint8Array
  }
  const statusOf = (KeyId: string, region: Region) => kms[region].send(new GetKeyRotationStatusCommand({ KeyId }))

  it('is set on the primary and gives every related key the new material at once', async () => {
    const keyId = await createReplicated({}, [west, europe])
    const old = await blob(keyId, west)
    const before = (await metadataOf(keyId, east)).CurrentKeyMaterialId
    await kms[east].send(new RotateKeyOnDemandCommand({ KeyId: keyId }))
    const { CurrentKeyMaterialId } = await vi.waitFor(
      async () => {
        const metadata = await metadataOf(keyId, east)
        expect(metadata.CurrentKeyMaterialId).not.toBe(before)
        return metadata
      },
      { timeout: 20_000, interval: 20 },
    )
    for (const from of regions) {
      expect((await metadataOf(keyId, from)).CurrentKeyMaterialId).toBe(CurrentKeyMaterialId)
      const fresh = await blob(keyId, from)
      for (const to of regions) {
        const opened = await kms[to].send(new DecryptCommand({ CiphertextBlob: fresh }))
        expect(opened.KeyMaterialId).toBe(CurrentKeyMaterialId)
      }
      expect((await kms[from].send(new DecryptCommand({ CiphertextBlob: old }))).KeyMaterialId).toBe(before)
      const { Rotations } = await kms[from].send(new ListKeyRotationsCommand({ KeyId: keyId }))
      expect(Rotations).toMatchObject([{ KeyMaterialId: CurrentKeyMaterialId, RotationType: 'ON_DEMAND' }])
    }
  })

  it('is refused on a replica, which tells the schedule of its primary', async () => {
    const keyId = await createReplicated()
    const refused = {
      name: 'UnsupportedOperationException',
      message: `${arnOf(keyId, west)} is not a multi-region primary key.`,
    }
    await kms[east].send(new EnableKeyRotationCommand({ KeyId: keyId, RotationPeriodInDays: 100 }))
    for (const Command of [EnableKeyRotationCommand, DisableKeyRotationCommand, RotateKeyOnDemandCommand]) {
      await expect(kms[west].send(new Command({ KeyId: keyId }) as EnableKeyRotationCommand)).rejects.toMatchObject(
        refused,
      )
    }
    const { $metadata: _, ...status } = await statusOf(keyId, east)
    expect(status).toMatchObject({ KeyRotationEnabled: true, RotationPeriodInDays: 100 })
    expect(await statusOf(keyId, west)).toMatchObject(status)
    await kms[east].send(new DisableKeyRotationCommand({ KeyId: keyId }))
    expect(await statusOf(keyId, west)).toMatchObject({ KeyRotationEnabled: false })
  })

  it('goes on, once for all of them, after the roles have changed', patience, async () => {
    const keyId = await createReplicated({}, [west, europe])
    await kms[east].send(new EnableKeyRotationCommand({ KeyId: keyId, RotationPeriodInDays: 100 }))
    await kms[east].send(new UpdatePrimaryRegionCommand({ KeyId: keyId, PrimaryRegion: west }))
    await untilState(keyId, east, 'Enabled')
    const before = (await metadataOf(keyId, east)).CurrentKeyMaterialId
    clock.passes(101 * dayMs)
    await gateway.restart()
    connect()
    const rotations = async () => (await kms[west].send(new ListKeyRotationsCommand({ KeyId: keyId }))).Rotations
    await expect.poll(rotations, { timeout: 20_000 }).toHaveLength(1)
    const ids = await Promise.all(regions.map(async (region) => (await metadataOf(keyId, region)).CurrentKeyMaterialId))
    expect(new Set(ids).size).toBe(1)
    expect(ids).not.toContain(before)
    const events = async () => {
      const records = await gateway.auditRecords()
      return records
        .map(({ event }) => event)
        .filter(
          ({ eventName, resources }) =>
            /^(RotateKey|SynchronizeMultiRegionKey)$/.test(String(eventName)) &&
            JSON.stringify(resources).includes(keyId),
        )
        .map(({ eventName, awsRegion }) => [eventName, awsRegion])
    }
    await expect.poll(events, { timeout: 20_000 }).toEqual([
      ['RotateKey', west],
      ['SynchronizeMultiRegionKey', west],
    ])
  })
})

describe('audit records', () => {
  const eventsOf = async (keyId: string) => {
    const records = await gateway.auditRecords()
    return records.map(({ event }) => event).filter((event) => JSON.stringify(event.resources).includes(keyId))
  }

  it('tell of a replication in the Region of the primary, and of a new key in that of the replica', async () => {
    const keyId = await createReplicated()
    const events = await eventsOf(keyId)
    expect(events.find(({ eventName }) => eventName === 'ReplicateKey')).toMatchObject({
      awsRegion: east,
      eventType: 'AwsApiCall',
      readOnly: false,
      requestParameters: { keyId, replicaRegion: west, bypassPolicyLockoutSafetyCheck: false, description: '' },
      responseElements: {
        replicaKeyMetadata: {
          arn: arnOf(keyId, west),
          keyState: 'Creating',
          multiRegionConfiguration: { multiRegionKeyType: 'REPLICA', primaryKey: { region: east } },
        },
        replicaPolicy: expect.stringContaining('key-default-1'),
        replicaTags: [],
      },
      resources: [{ ARN: arnOf(keyId, east) }],
    })
    const created = events.filter(({ eventName, awsRegion }) => eventName === 'CreateKey' && awsRegion === west)
    expect(created).toEqual([
      expect.objectContaining({
        eventType: 'AwsServiceEvent',
        eventSource: 'kms.amazonaws.com',
        userIdentity: { accountId: testAccount, invokedBy: 'AWS Internal' },
        requestParameters: null,
        serviceEventDetails: { keyId },
        resources: [expect.objectContaining({ ARN: arnOf(keyId, west) })],
      }),
    ])
  })

  it('tell of a change of roles in both Regions', async () => {
    const keyId = await createReplicated()
    await kms[east].send(new UpdatePrimaryRegionCommand({ KeyId: keyId, PrimaryRegion: west }))
    await untilState(keyId, east, 'Enabled')
    const events = (await eventsOf(keyId)).filter(({ eventName }) => eventName === 'UpdatePrimaryRegion')
    expect(events).toMatchObject([
      {
        awsRegion: east,
        requestParameters: { keyId, primaryRegion: west },
        responseElements: { keyId: arnOf(keyId, east) },
        resources: [{ ARN: arnOf(keyId, east) }],
      },
      {
        awsRegion: west,
        eventType: 'AwsServiceEvent',
        eventSource: 'kms.amazonaws.com',
        serviceEventDetails: { keyId, primaryRegion: west },
        resources: [{ ARN: arnOf(keyId, west) }],
      },
    ])
  })
})
