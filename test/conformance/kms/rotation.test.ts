/** AWS KMS API Reference: EnableKeyRotation, DisableKeyRotation, GetKeyRotationStatus, RotateKeyOnDemand, ListKeyRotations, GetKeyLastUsage. */
import {
  CancelKeyDeletionCommand,
  CreateKeyCommand,
  type CreateKeyCommandInput,
  DecryptCommand,
  DescribeKeyCommand,
  DisableKeyCommand,
  DisableKeyRotationCommand,
  EnableKeyCommand,
  EnableKeyRotationCommand,
  EncryptCommand,
  GetKeyLastUsageCommand,
  GetKeyRotationStatusCommand,
  type KMSClient,
  ListKeyRotationsCommand,
  paginateListKeyRotations,
  ReEncryptCommand,
  RotateKeyOnDemandCommand,
  ScheduleKeyDeletionCommand,
} from '@aws-sdk/client-kms'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { startGateway, type TestGateway, testAccount } from '../../support/gateway.ts'
import { createMovingClock, dayMs, type MovingClock } from '../../support/moving-clock.ts'

let gateway: TestGateway
let kms: KMSClient
let clock: MovingClock

beforeAll(async () => {
  clock = createMovingClock()
  gateway = await startGateway({ overrides: { clock } })
  kms = gateway.client()
}, 180_000)

afterAll(async () => {
  await gateway?.[Symbol.asyncDispose]()
})

async function makeKey(request: CreateKeyCommandInput = {}): Promise<{ id: string; arn: string }> {
  const { KeyMetadata } = await kms.send(new CreateKeyCommand(request))
  return { id: KeyMetadata!.KeyId!, arn: KeyMetadata!.Arn! }
}

const currentMaterial = async (KeyId: string) =>
  (await kms.send(new DescribeKeyCommand({ KeyId }))).KeyMetadata!.CurrentKeyMaterialId!
const status = (KeyId: string) => kms.send(new GetKeyRotationStatusCommand({ KeyId }))
const encrypt = async (KeyId: string, text: string) =>
  (await kms.send(new EncryptCommand({ KeyId, Plaintext: Buffer.from(text) }))).CiphertextBlob!
const decrypt = async (CiphertextBlob: Uint8Array) => {
  const { Plaintext, KeyMaterialId } = await kms.send(new DecryptCommand({ CiphertextBlob }))
  return { text: Buffer.from(Plaintext!).toString(), KeyMaterialId }
}
const rotations = async (KeyId: string, all = false) =>
  (
    await kms.send(
      new ListKeyRotationsCommand({ KeyId, ...(all ? { IncludeKeyMaterial: 'ALL_KEY_MATERIAL' as const } : {}) }),
    )
  ).Rotations!
const rotateEvents = async (keyId: string) =>
  (await gateway.auditRecords())
    .map(({ event }) => event)
    .filter((event) => event.eventName === 'RotateKey')
    .filter((event) => (event.serviceEventDetails as { keyId: string }).keyId === keyId)

describe('GetKeyRotationStatus', () => {
  it('is off for a new key, with its id and nothing else', async () => {
    const { id, arn } = await makeKey()
    const { $metadata: _, ...answer } = await status(arn)
    expect(answer).toEqual({ KeyId: id, KeyRotationEnabled: false })
  })

  it('answers false for an asymmetric and an HMAC key, since clients ask for every key', async () => {
    for (const request of [
      { KeySpec: 'ECC_NIST_P256', KeyUsage: 'SIGN_VERIFY' },
      { KeySpec: 'HMAC_256', KeyUsage: 'GENERATE_VERIFY_MAC' },
    ] as const) {
      const { id } = await makeKey(request)
      expect((await status(id)).KeyRotationEnabled).toBe(false)
    }
  })

  it('refuses an alias', async () => {
    await expect(status('alias/x')).rejects.toMatchObject({
      name: 'NotFoundException',
      message: "Invalid keyId 'alias/x'",
    })
  })
})

describe('EnableKeyRotation', () => {
  it('counts the period from the call, again from the next call', async () => {
    const { id } = await makeKey()
    await kms.send(new EnableKeyRotationCommand({ KeyId: id }))
    const first = await status(id)
    expect(first).toMatchObject({ KeyRotationEnabled: true, RotationPeriodInDays: 365 })
    const inDays = (date: Date) => (date.getTime() - clock.wallMs()) / dayMs
    expect(inDays(first.NextRotationDate!)).toBeCloseTo(365, 2)
    await kms.send(new EnableKeyRotationCommand({ KeyId: id, RotationPeriodInDays: 90 }))
    const second = await status(id)
    expect(second.RotationPeriodInDays).toBe(90)
    expect(inDays(second.NextRotationDate!)).toBeCloseTo(90, 2)
    await kms.send(new DisableKeyRotationCommand({ KeyId: id }))
    const { $metadata: _, ...off } = await status(id)
    expect(off).toEqual({ KeyId: id, KeyRotationEnabled: false })
  })

  it.each([89, 2561])('refuses a period of %i days', async (RotationPeriodInDays) => {
    const { id } = await makeKey()
    await expect(kms.send(new EnableKeyRotationCommand({ KeyId: id, RotationPeriodInDays }))).rejects.toMatchObject({
      name: 'ValidationException',
      message: expect.stringContaining(`Value '${RotationPeriodInDays}' at 'rotationPeriodInDays'`),
    })
  })

  it('is unsupported for asymmetric and HMAC keys, without a message', async () => {
    const { id } = await makeKey({ KeySpec: 'HMAC_256', KeyUsage: 'GENERATE_VERIFY_MAC' })
    for (const command of [
      new EnableKeyRotationCommand({ KeyId: id }),
      new DisableKeyRotationCommand({ KeyId: id }),
      new RotateKeyOnDemandCommand({ KeyId: id }),
    ]) {
      await expect(kms.send(command as EnableKeyRotationCommand)).rejects.toMatchObject({
        name: 'UnsupportedOperationException',
        message: 'UnknownError',
      })
    }
  })

  it('tells of the state before the kind of key', async () => {
    const { id, arn } = await makeKey({ KeySpec: 'ECC_NIST_P256', KeyUsage: 'SIGN_VERIFY' })
    await kms.send(new DisableKeyCommand({ KeyId: id }))
    await expect(kms.send(new RotateKeyOnDemandCommand({ KeyId: id }))).rejects.toMatchObject({
      name: 'DisabledException',
      message: `${arn} is disabled.`,
    })
  })

  it('reports false while the key waits for its deletion, and what it was after that is cancelled', async () => {
    const { id, arn } = await makeKey()
    await kms.send(new EnableKeyRotationCommand({ KeyId: id }))
    await kms.send(new ScheduleKeyDeletionCommand({ KeyId: id }))
    expect((await status(id)).KeyRotationEnabled).toBe(false)
    await expect(kms.send(new EnableKeyRotationCommand({ KeyId: id }))).rejects.toMatchObject({
      name: 'KMSInvalidStateException',
      message: `${arn} is pending deletion.`,
    })
    await kms.send(new CancelKeyDeletionCommand({ KeyId: id }))
    expect((await status(id)).KeyRotationEnabled).toBe(true)
  })
})

describe('RotateKeyOnDemand', () => {
  it('makes new material current, leaves the schedule alone and keeps old ciphertext readable', async () => {
    const { id, arn } = await makeKey()
    await kms.send(new EnableKeyRotationCommand({ KeyId: id }))
    const before = await status(id)
    const old = await currentMaterial(id)
    const ciphertext = await encrypt(id, 'before')
    const { $metadata: _, ...answer } = await kms.send(new RotateKeyOnDemandCommand({ KeyId: id }))
    expect(answer).toEqual({ KeyId: arn })
    const current = await currentMaterial(id)
    expect(current).not.toBe(old)
    expect((await status(id)).NextRotationDate).toEqual(before.NextRotationDate)
    expect(await decrypt(ciphertext)).toEqual({ text: 'before', KeyMaterialId: old })
    expect(await decrypt(await encrypt(id, 'after'))).toEqual({ text: 'after', KeyMaterialId: current })
    const moved = await kms.send(new ReEncryptCommand({ CiphertextBlob: ciphertext, DestinationKeyId: id }))
    expect(moved).toMatchObject({ SourceKeyMaterialId: old, DestinationKeyMaterialId: current })
  })

  it('becomes a RotateKey service event', async () => {
    const { id, arn } = await makeKey()
    const previous = await currentMaterial(id)
    await kms.send(new RotateKeyOnDemandCommand({ KeyId: id }))
    await gateway.gateway.settle()
    const [event, ...more] = await rotateEvents(id)
    expect(more).toEqual([])
    expect(event).toMatchObject({
      eventType: 'AwsServiceEvent',
      eventSource: 'kms.amazonaws.com',
      requestParameters: null,
      userIdentity: { accountId: testAccount, invokedBy: 'AWS Internal' },
      resources: [{ accountId: testAccount, type: 'AWS::KMS::Key', ARN: arn }],
    })
    expect(event?.serviceEventDetails).toEqual({
      rotationType: 'ON_DEMAND',
      keyOrigin: 'AWS_KMS',
      previousKeyMaterialId: previous,
      currentKeyMaterialId: await currentMaterial(id),
      keyId: id,
    })
  })

  it('is refused within 20 minutes of an automatic rotation', async () => {
    const { id } = await makeKey()
    await kms.send(new EnableKeyRotationCommand({ KeyId: id, RotationPeriodInDays: 90 }))
    clock.passes(90 * dayMs - 10 * 60_000)
    await expect(kms.send(new RotateKeyOnDemandCommand({ KeyId: id }))).rejects.toMatchObject({
      name: 'ConflictException',
    })
  })

  it('ends after 25 rotations, whose materials all still decrypt', { timeout: 60_000 }, async () => {
    const { id, arn } = await makeKey()
    const ciphertexts: Uint8Array[] = []
    for (let i = 0; i < 25; i++) {
      ciphertexts.push(await encrypt(id, String(i)))
      await kms.send(new RotateKeyOnDemandCommand({ KeyId: id }))
    }
    await expect(kms.send(new RotateKeyOnDemandCommand({ KeyId: id }))).rejects.toMatchObject({
      name: 'LimitExceededException',
      message: `The on-demand rotations limit has been reached for the given keyId. No more on-demand rotations can be performed for this key: ${arn}`,
    })
    await gateway.restart()
    kms = gateway.client()
    for (const [i, ciphertext] of ciphertexts.entries()) expect((await decrypt(ciphertext)).text).toBe(String(i))

    const listed = []
    for await (const { Rotations } of paginateListKeyRotations({ client: kms, pageSize: 10 }, { KeyId: id })) {
      listed.push(...Rotations!)
    }
    expect(listed).toHaveLength(25)
    expect(new Set(listed.map(({ KeyMaterialId }) => KeyMaterialId)).size).toBe(25)
    expect(listed.at(-1)).toMatchObject({ KeyMaterialState: 'CURRENT', RotationType: 'ON_DEMAND' })
  })
})

describe('ListKeyRotations', () => {
  it('lists completed rotations, and the first material when all is asked for', async () => {
    const { id } = await makeKey()
    expect(await rotations(id)).toEqual([])
    const first = await currentMaterial(id)
    expect(await rotations(id, true)).toEqual([{ KeyId: id, KeyMaterialId: first, KeyMaterialState: 'CURRENT' }])
    await kms.send(new RotateKeyOnDemandCommand({ KeyId: id }))
    const rotation = {
      KeyId: id,
      KeyMaterialId: await currentMaterial(id),
      KeyMaterialState: 'CURRENT',
      RotationDate: expect.any(Date),
      RotationType: 'ON_DEMAND',
    }
    expect(await rotations(id)).toEqual([rotation])
    expect(await rotations(id, true)).toEqual([
      { KeyId: id, KeyMaterialId: first, KeyMaterialState: 'NON_CURRENT' },
      rotation,
    ])
  })

  it('is unsupported for keys that do not rotate', async () => {
    const { id } = await makeKey({ KeySpec: 'ECC_NIST_P256', KeyUsage: 'SIGN_VERIFY' })
    await expect(rotations(id)).rejects.toMatchObject({ name: 'UnsupportedOperationException' })
  })
})

describe('automatic rotation', () => {
  it('happens when its date has come, across a restart', async () => {
    const { id } = await makeKey()
    const old = await currentMaterial(id)
    const ciphertext = await encrypt(id, 'old')
    await kms.send(new EnableKeyRotationCommand({ KeyId: id, RotationPeriodInDays: 100 }))
    clock.passes(99 * dayMs)
    await gateway.gateway.settle()
    expect(await currentMaterial(id)).toBe(old)
    clock.passes(2 * dayMs)
    await gateway.restart()
    kms = gateway.client()
    await gateway.gateway.settle()
    expect(await currentMaterial(id)).not.toBe(old)
    expect(await decrypt(ciphertext)).toMatchObject({ text: 'old', KeyMaterialId: old })
    expect(await rotations(id)).toMatchObject([{ RotationType: 'AUTOMATIC' }])
    const { NextRotationDate } = await status(id)
    expect((NextRotationDate!.getTime() - clock.wallMs()) / dayMs).toBeCloseTo(100, 2)
    expect((await rotateEvents(id)).map((event) => event.serviceEventDetails)).toMatchObject([
      { rotationType: 'AUTOMATIC', previousKeyMaterialId: old },
    ])
  })

  it('waits for a disabled key, and happens at once when that is enabled', async () => {
    const { id } = await makeKey()
    const old = await currentMaterial(id)
    await kms.send(new EnableKeyRotationCommand({ KeyId: id, RotationPeriodInDays: 90 }))
    await kms.send(new DisableKeyCommand({ KeyId: id }))
    clock.passes(91 * dayMs)
    await gateway.gateway.settle()
    expect(await currentMaterial(id)).toBe(old)
    await kms.send(new EnableKeyCommand({ KeyId: id }))
    await gateway.gateway.settle()
    expect(await currentMaterial(id)).not.toBe(old)
  })

  it('does not happen because the clock jumps', async () => {
    const { id } = await makeKey()
    const old = await currentMaterial(id)
    await kms.send(new EnableKeyRotationCommand({ KeyId: id, RotationPeriodInDays: 90 }))
    clock.jumps(100 * dayMs)
    await gateway.gateway.settle()
    expect(await currentMaterial(id)).toBe(old)
    clock.jumps(-100 * dayMs)
    await gateway.gateway.settle()
    expect(await currentMaterial(id)).toBe(old)
  })
})

describe('GetKeyLastUsage', () => {
  it('is empty for a key that was never used', async () => {
    const { id } = await makeKey()
    const { $metadata: _, ...answer } = await kms.send(new GetKeyLastUsageCommand({ KeyId: id }))
    expect(answer).toEqual({
      KeyId: id,
      KeyLastUsage: {},
      KeyCreationDate: expect.any(Date),
      TrackingStartDate: expect.any(Date),
    })
  })

  it('names the last successful use by its audit record, also after a restart', async () => {
    const { id } = await makeKey()
    await encrypt(id, 'x')
    await kms.send(new DescribeKeyCommand({ KeyId: id }))
    await expect(
      kms.send(new EncryptCommand({ KeyId: id, Plaintext: Buffer.from('x'), DryRun: true })),
    ).rejects.toMatchObject({ name: 'DryRunOperationException' })
    const { KeyLastUsage } = await kms.send(new GetKeyLastUsageCommand({ KeyId: id }))
    expect(KeyLastUsage).toMatchObject({ Operation: 'Encrypt', Timestamp: expect.any(Date) })
    const record = (await gateway.auditRecords()).find(({ event }) => event.eventID === KeyLastUsage!.CloudTrailEventId)
    expect(record?.event).toMatchObject({ eventName: 'Encrypt', requestID: KeyLastUsage!.KmsRequestId })
    await gateway.restart()
    kms = gateway.client()
    expect((await kms.send(new GetKeyLastUsageCommand({ KeyId: id }))).KeyLastUsage).toEqual(KeyLastUsage)
  })

  it('notes a ReEncrypt on both keys', async () => {
    const [one, two] = [await makeKey(), await makeKey()]
    const CiphertextBlob = await encrypt(one.id, 'x')
    await kms.send(new ReEncryptCommand({ CiphertextBlob, DestinationKeyId: two.id }))
    for (const { id } of [one, two]) {
      const { KeyLastUsage } = await kms.send(new GetKeyLastUsageCommand({ KeyId: id }))
      expect(KeyLastUsage?.Operation).toBe('ReEncrypt')
    }
  })
})
