/** AWS KMS Developer Guide, "Rotate multi-Region keys" with imported material: imported in every Region, rotated in the primary's. */
import { randomBytes } from 'node:crypto'
import {
  CreateKeyCommand,
  DecryptCommand,
  DeleteImportedKeyMaterialCommand,
  DescribeKeyCommand,
  EncryptCommand,
  type KMSClient,
  ListKeyRotationsCommand,
  ReplicateKeyCommand,
  RotateKeyOnDemandCommand,
  UpdatePrimaryRegionCommand,
} from '@aws-sdk/client-kms'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { startGateway, type TestGateway } from '../../support/gateway.ts'
import { importMaterial } from '../../support/import-wrapping.ts'

let gateway: TestGateway
let east: KMSClient
let west: KMSClient
let europe: KMSClient

beforeAll(async () => {
  gateway = await startGateway()
  east = gateway.client()
  west = gateway.client({ region: 'us-west-2' })
  europe = gateway.client({ region: 'eu-west-1' })
}, 180_000)

afterAll(async () => {
  await gateway?.[Symbol.asyncDispose]()
})

const isNew = { ImportType: 'NEW_KEY_MATERIAL' } as const
const isKnown = { ImportType: 'EXISTING_KEY_MATERIAL' } as const

/** A primary in us-east-1 with replicas, each with the first material. */
async function makeKeys(...replicas: readonly (readonly [string, KMSClient])[]) {
  const { KeyMetadata } = await east.send(new CreateKeyCommand({ Origin: 'EXTERNAL', MultiRegion: true }))
  const id = KeyMetadata!.KeyId!
  const material = randomBytes(32)
  const { KeyMaterialId } = await importMaterial(east, id, material)
  for (const [ReplicaRegion] of replicas) await east.send(new ReplicateKeyCommand({ KeyId: id, ReplicaRegion }))
  await gateway.gateway.settle()
  for (const [, client] of replicas) await importMaterial(client, id, material)
  return { id, arn: KeyMetadata!.Arn!, first: KeyMaterialId! }
}

async function states(client: KMSClient, KeyId: string): Promise<Record<string, string>> {
  const { Rotations } = await client.send(
    new ListKeyRotationsCommand({ KeyId, IncludeKeyMaterial: 'ALL_KEY_MATERIAL' }),
  )
  return Object.fromEntries(Rotations!.map((each) => [each.KeyMaterialId!, each.KeyMaterialState!]))
}

const current = async (client: KMSClient, KeyId: string) =>
  (await client.send(new DescribeKeyCommand({ KeyId }))).KeyMetadata!.CurrentKeyMaterialId
const rotate = (client: KMSClient, KeyId: string) => client.send(new RotateKeyOnDemandCommand({ KeyId }))
const seal = async (client: KMSClient, KeyId: string) =>
  (await client.send(new EncryptCommand({ KeyId, Plaintext: Buffer.from('text') }))).CiphertextBlob!
const open = async (client: KMSClient, CiphertextBlob: Uint8Array) => {
  const { Plaintext, KeyMaterialId } = await client.send(new DecryptCommand({ CiphertextBlob }))
  expect(Buffer.from(Plaintext!).toString()).toBe('text')
  return KeyMaterialId
}

describe('imported material of multi-Region keys', () => {
  it('waits until every replica has it, then rotates in all Regions with the primary', async () => {
    const { id, arn, first } = await makeKeys(['us-west-2', west], ['eu-west-1', europe])
    const before = await seal(west, id)
    const material = randomBytes(32)
    const { KeyMaterialId: second } = await importMaterial(east, id, material, isNew)
    const awaited = { [first]: 'CURRENT', [second!]: 'PENDING_MULTI_REGION_IMPORT_AND_ROTATION' }
    expect(await states(east, id)).toEqual(awaited)
    expect(await states(west, id)).toEqual({ [first]: 'CURRENT' })
    await expect(rotate(east, id)).rejects.toMatchObject({
      name: 'KMSInvalidStateException',
      message: `No available key material pending rotation for the key: ${arn}.`,
    })

    await importMaterial(west, id, material, isKnown)
    expect(await states(east, id)).toEqual(awaited)
    expect(await states(west, id)).toEqual({ [first]: 'CURRENT', [second!]: 'PENDING_ROTATION' })
    await expect(rotate(east, id)).rejects.toMatchObject({ name: 'KMSInvalidStateException' })

    await importMaterial(europe, id, material, isKnown)
    expect(await states(east, id)).toEqual({ [first]: 'CURRENT', [second!]: 'PENDING_ROTATION' })
    for (const client of [east, west, europe]) expect(await current(client, id)).toBe(first)
    expect((await rotate(east, id)).KeyId).toBe(arn)
    await gateway.gateway.settle()
    for (const client of [east, west, europe]) {
      expect(await current(client, id)).toBe(second)
      expect(await states(client, id)).toEqual({ [first]: 'NON_CURRENT', [second!]: 'CURRENT' })
      expect(await open(client, before)).toBe(first)
    }
    const after = await seal(europe, id)
    for (const client of [east, west]) expect(await open(client, after)).toBe(second)
    const { Rotations } = await west.send(new ListKeyRotationsCommand({ KeyId: id }))
    expect(Rotations).toMatchObject([{ KeyMaterialId: second, RotationType: 'ON_DEMAND', KeyMaterialState: 'CURRENT' }])

    const events = (await gateway.auditRecords()).map(({ event }) => event)
    const told = events.filter(({ eventType, serviceEventDetails }) => {
      return eventType === 'AwsServiceEvent' && (serviceEventDetails as { keyId?: string } | undefined)?.keyId === id
    })
    expect(told.map(({ eventName }) => eventName)).toEqual(
      expect.arrayContaining(['RotateKey', 'SynchronizeMultiRegionKey']),
    )
    expect(told.filter(({ eventName }) => eventName === 'RotateKey')).toHaveLength(1)
  })

  it('is rotated by the primary alone', async () => {
    const { id } = await makeKeys(['us-west-2', west])
    const material = randomBytes(32)
    await importMaterial(east, id, material, isNew)
    await importMaterial(west, id, material, isKnown)
    await expect(rotate(west, id)).rejects.toMatchObject({
      name: 'UnsupportedOperationException',
      message: `arn:aws:kms:us-west-2:000000000000:key/${id} is not a multi-region primary key.`,
    })
    await east.send(new UpdatePrimaryRegionCommand({ KeyId: id, PrimaryRegion: 'us-west-2' }))
    await gateway.gateway.settle()
    await expect(rotate(east, id)).rejects.toMatchObject({ name: 'UnsupportedOperationException' })
    await rotate(west, id)
    expect(await current(east, id)).toBe(await current(west, id))
  })

  it('that is new comes into the primary first', async () => {
    const { id } = await makeKeys(['us-west-2', west])
    await expect(importMaterial(west, id, randomBytes(32), isNew)).rejects.toMatchObject({
      name: 'IncorrectKeyMaterialException',
    })
    expect(Object.values(await states(west, id))).toEqual(['CURRENT'])
  })

  it('may be deleted and replaced while it waits, in every Region', async () => {
    const { id, first } = await makeKeys(['us-west-2', west])
    const material = randomBytes(32)
    const { KeyMaterialId: second } = await importMaterial(east, id, material, isNew)
    await importMaterial(west, id, material, isKnown)
    await west.send(new DeleteImportedKeyMaterialCommand({ KeyId: id, KeyMaterialId: second }))
    expect((await states(east, id))[second!]).toBe('PENDING_MULTI_REGION_IMPORT_AND_ROTATION')
    await expect(rotate(east, id)).rejects.toMatchObject({ name: 'KMSInvalidStateException' })
    await east.send(new DeleteImportedKeyMaterialCommand({ KeyId: id, KeyMaterialId: second }))
    const other = randomBytes(32)
    const { KeyMaterialId: third } = await importMaterial(east, id, other, isNew)
    await importMaterial(west, id, other, isKnown)
    await rotate(east, id)
    for (const client of [east, west]) {
      expect(await states(client, id)).toEqual({ [first]: 'NON_CURRENT', [third!]: 'CURRENT' })
    }
  })

  it('comes into a later replica as what it is in the primary', async () => {
    const material = randomBytes(32)
    const { KeyMetadata } = await east.send(new CreateKeyCommand({ Origin: 'EXTERNAL', MultiRegion: true }))
    const KeyId = KeyMetadata!.KeyId!
    const one = randomBytes(32)
    const { KeyMaterialId: oneId } = await importMaterial(east, KeyId, one)
    const sealed = await seal(east, KeyId)
    const { KeyMaterialId: twoId } = await importMaterial(east, KeyId, material, isNew)
    await rotate(east, KeyId)
    await east.send(new ReplicateKeyCommand({ KeyId, ReplicaRegion: 'us-west-2' }))
    await gateway.gateway.settle()
    const state = async () => (await west.send(new DescribeKeyCommand({ KeyId }))).KeyMetadata!.KeyState
    await importMaterial(west, KeyId, one)
    expect(await state()).toBe('PendingImport')
    await importMaterial(west, KeyId, material)
    expect(await state()).toBe('Enabled')
    expect(await states(west, KeyId)).toEqual({ [oneId!]: 'NON_CURRENT', [twoId!]: 'CURRENT' })
    expect(await open(west, sealed)).toBe(oneId)
  })
})
