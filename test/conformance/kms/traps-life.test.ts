/** Traps of rotation, import and multi-Region keys, as the AWS SDK meets them. Their numbers are those of docs/kms-compatibility.md. */
import { randomBytes } from 'node:crypto'
import type { KMS } from '@aws-sdk/client-kms'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { startGateway, type TestGateway, testAccount } from '../../support/gateway.ts'
import { importMaterial, wrapMaterial } from '../../support/import-wrapping.ts'
import { makeKey, openKms, refusalOf } from '../../support/kms-sdk.ts'
import { createMovingClock, dayMs, type MovingClock } from '../../support/moving-clock.ts'

let gateway: TestGateway
let kms: KMS
let west: KMS
let clock: MovingClock

beforeAll(async () => {
  clock = createMovingClock()
  gateway = await startGateway({ overrides: { clock } })
  kms = openKms(gateway)
  west = openKms(gateway, { region: 'us-west-2' })
}, 180_000)

afterAll(async () => {
  kms?.destroy()
  west?.destroy()
  await gateway?.[Symbol.asyncDispose]()
})

const Plaintext = Buffer.from('plaintext')
const metadataOf = async (KeyId: string, client = kms) => (await client.describeKey({ KeyId })).KeyMetadata!
const wrapping = { WrappingAlgorithm: 'RSAES_OAEP_SHA_1', WrappingKeySpec: 'RSA_2048' } as const
const forEver = { ExpirationModel: 'KEY_MATERIAL_DOES_NOT_EXPIRE' } as const

describe('rotation', () => {
  it('trap 30: GetKeyRotationStatus answers false for asymmetric and HMAC keys', async () => {
    for (const request of [
      { KeySpec: 'RSA_2048', KeyUsage: 'SIGN_VERIFY' },
      { KeySpec: 'HMAC_256', KeyUsage: 'GENERATE_VERIFY_MAC' },
    ] as const) {
      const { id: KeyId } = await makeKey(kms, request)
      expect(await kms.getKeyRotationStatus({ KeyId })).toMatchObject({ KeyId, KeyRotationEnabled: false })
    }
  })

  it('trap 31: rotating an asymmetric or HMAC key is unsupported, not invalid', async () => {
    for (const request of [
      { KeySpec: 'ECC_NIST_P256', KeyUsage: 'SIGN_VERIFY' },
      { KeySpec: 'HMAC_256', KeyUsage: 'GENERATE_VERIFY_MAC' },
    ] as const) {
      const { id: KeyId } = await makeKey(kms, request)
      for (const call of [() => kms.enableKeyRotation({ KeyId }), () => kms.rotateKeyOnDemand({ KeyId })]) {
        expect(await refusalOf(call())).toMatchObject({ name: 'UnsupportedOperationException', status: 400 })
      }
    }
  })

  it('trap 32: a rotation on demand leaves NextRotationDate, changes the material, and old ciphertext names the old one', async () => {
    const { id: KeyId } = await makeKey(kms)
    await kms.enableKeyRotation({ KeyId, RotationPeriodInDays: 90 })
    const before = await kms.getKeyRotationStatus({ KeyId })
    const { CurrentKeyMaterialId: old } = await metadataOf(KeyId)
    const { CiphertextBlob } = await kms.encrypt({ KeyId, Plaintext })
    await kms.rotateKeyOnDemand({ KeyId })
    expect((await kms.getKeyRotationStatus({ KeyId })).NextRotationDate).toEqual(before.NextRotationDate)
    const { CurrentKeyMaterialId: current } = await metadataOf(KeyId)
    expect(current).not.toBe(old)
    expect((await kms.decrypt({ CiphertextBlob })).KeyMaterialId).toBe(old)
    const { CiphertextBlob: fresh } = await kms.encrypt({ KeyId, Plaintext })
    expect((await kms.decrypt({ CiphertextBlob: fresh })).KeyMaterialId).toBe(current)
  })

  it('trap 33: ListKeyRotations lists completed rotations only, unless all key material is asked for', async () => {
    const { id: KeyId } = await makeKey(kms)
    expect((await kms.listKeyRotations({ KeyId })).Rotations).toEqual([])
    const all = await kms.listKeyRotations({ KeyId, IncludeKeyMaterial: 'ALL_KEY_MATERIAL' })
    expect(all.Rotations).toEqual([
      { KeyId, KeyMaterialId: (await metadataOf(KeyId)).CurrentKeyMaterialId, KeyMaterialState: 'CURRENT' },
    ])
  })
})

describe('import', () => {
  it('trap 34: deleted material leaves CurrentKeyMaterialId and takes ExpirationModel, and other bytes are incorrect', async () => {
    const { id: KeyId } = await makeKey(kms, { Origin: 'EXTERNAL' })
    const material = randomBytes(32)
    const { KeyMaterialId } = await importMaterial(kms, KeyId, material)
    expect(await metadataOf(KeyId)).toMatchObject({ ...forEver, CurrentKeyMaterialId: KeyMaterialId })
    await kms.deleteImportedKeyMaterial({ KeyId })
    const gone = await metadataOf(KeyId)
    expect(gone).toMatchObject({ KeyState: 'PendingImport', CurrentKeyMaterialId: KeyMaterialId })
    expect(gone).not.toHaveProperty('ExpirationModel')
    expect(await refusalOf(importMaterial(kms, KeyId, randomBytes(32)))).toMatchObject({
      name: 'IncorrectKeyMaterialException',
      message: 'UnknownError',
    })
    await importMaterial(kms, KeyId, material)
  })

  it('trap 35: the default of ExpirationModel is that material expires, so ValidTo must be given', async () => {
    const { id: KeyId } = await makeKey(kms, { Origin: 'EXTERNAL' })
    const imported = importMaterial(kms, KeyId, randomBytes(32), { ExpirationModel: undefined })
    expect(await refusalOf(imported)).toMatchObject({
      name: 'ValidationException',
      message: 'A validTo date must be set if the ExpirationModel is KEY_MATERIAL_EXPIRES',
    })
  })

  it('trap 36: an import token of another key is invalid, and one of yesterday has expired', async () => {
    const [one, two] = [await makeKey(kms, { Origin: 'EXTERNAL' }), await makeKey(kms, { Origin: 'EXTERNAL' })]
    const { ImportToken, PublicKey } = await kms.getParametersForImport({ KeyId: one.id, ...wrapping })
    const EncryptedKeyMaterial = wrapMaterial(wrapping.WrappingAlgorithm, PublicKey!, randomBytes(32))
    const request = { ImportToken, EncryptedKeyMaterial, ...forEver }
    expect(await refusalOf(kms.importKeyMaterial({ ...request, KeyId: two.id }))).toMatchObject({
      name: 'InvalidImportTokenException',
    })
    clock.passes(dayMs)
    await gateway.gateway.settle()
    expect(await refusalOf(kms.importKeyMaterial({ ...request, KeyId: one.id }))).toMatchObject({
      name: 'ExpiredImportTokenException',
    })
  })
})

describe('multi-Region keys', () => {
  it('trap 53: a replica is answered while it is being made, with no description and the default policy', async () => {
    const { id: KeyId } = await makeKey(kms, { MultiRegion: true, Description: 'the primary' })
    const { ReplicaKeyMetadata, ReplicaPolicy } = await kms.replicateKey({ KeyId, ReplicaRegion: 'us-west-2' })
    expect(ReplicaKeyMetadata).toMatchObject({ KeyState: 'Creating', Enabled: false, Description: '' })
    expect(JSON.parse(ReplicaPolicy!)).toMatchObject({ Id: 'key-default-1' })
    // Whoever comes at once is told that it is being made, or is served because it has been.
    const early = await west.encrypt({ KeyId, Plaintext }).then(
      () => undefined,
      (refused: Error) => ({ name: refused.name, message: refused.message }),
    )
    if (early !== undefined) {
      expect(early).toEqual({
        name: 'KMSInvalidStateException',
        message: `arn:aws:kms:us-west-2:${testAccount}:key/${KeyId} is creating.`,
      })
    }
    await vi.waitFor(async () => expect(await metadataOf(KeyId, west)).toMatchObject({ KeyState: 'Enabled' }))
  })

  it('trap 54: ciphertext of one Region decrypts in another with the KeyId of that Region', async () => {
    const { id: KeyId, arn } = await makeKey(kms, { MultiRegion: true })
    await kms.replicateKey({ KeyId, ReplicaRegion: 'us-west-2' })
    await vi.waitFor(async () => expect(await metadataOf(KeyId, west)).toMatchObject({ KeyState: 'Enabled' }))
    const { CiphertextBlob } = await kms.encrypt({ KeyId, Plaintext })
    const there = arn.replace('us-east-1', 'us-west-2')
    for (const named of [{ KeyId: there }, { KeyId }, {}]) {
      const opened = await west.decrypt({ CiphertextBlob, ...named })
      expect(opened.KeyId).toBe(there)
      expect(Buffer.from(opened.Plaintext!)).toEqual(Plaintext)
    }
  })
})
