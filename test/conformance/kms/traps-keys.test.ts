/** Traps of keys, their states, names and lists, as the AWS SDK meets them. Their numbers are those of docs/kms-compatibility.md. */
import type { KMS, ListKeysCommandOutput } from '@aws-sdk/client-kms'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { startGateway, type TestGateway, testAccount, testRegion } from '../../support/gateway.ts'
import { createCall, refusal } from '../../support/kms-call.ts'
import { makeKey, type NewKey, openKms, refusalOf } from '../../support/kms-sdk.ts'

let gateway: TestGateway
let kms: KMS
let key: NewKey
let rsa: NewKey
let hmac: NewKey
let p256: NewKey

beforeAll(async () => {
  gateway = await startGateway()
  kms = openKms(gateway)
  key = await makeKey(kms)
  rsa = await makeKey(kms, { KeySpec: 'RSA_2048', KeyUsage: 'ENCRYPT_DECRYPT' })
  hmac = await makeKey(kms, { KeySpec: 'HMAC_256', KeyUsage: 'GENERATE_VERIFY_MAC' })
  p256 = await makeKey(kms, { KeySpec: 'ECC_NIST_P256', KeyUsage: 'SIGN_VERIFY' })
}, 180_000)

afterAll(async () => {
  kms?.destroy()
  await gateway?.[Symbol.asyncDispose]()
})

const Plaintext = Buffer.from('plaintext')
const Message = Buffer.from('message')
const unknown = '11111111-2222-4333-8444-555555555555'
const arnOf = (id: string, region = testRegion) => `arn:aws:kms:${region}:${testAccount}:key/${id}`
const metadataOf = async (KeyId: string) => (await kms.describeKey({ KeyId })).KeyMetadata!

describe('requests', () => {
  it('trap 1: a refusal of the caller has HTTP status 400, whatever the API model says', async () => {
    await kms.createAlias({ AliasName: 'alias/trap-1', TargetKeyId: key.id })
    const { id: pending } = await makeKey(kms)
    await kms.scheduleKeyDeletion({ KeyId: pending })
    const refusals = [
      [() => kms.describeKey({ KeyId: unknown }), 'NotFoundException'],
      [() => kms.createAlias({ AliasName: 'alias/trap-1', TargetKeyId: key.id }), 'AlreadyExistsException'],
      [() => kms.encrypt({ KeyId: pending, Plaintext }), 'KMSInvalidStateException'],
      [() => kms.encrypt({ KeyId: key.id, Plaintext, DryRun: true }), 'DryRunOperationException'],
    ] as const
    for (const [call, name] of refusals) expect(await refusalOf(call())).toMatchObject({ name, status: 400 })
  })

  it('trap 18: a required member that is missing is named as null by ValidationException', async () => {
    expect(await refusal(createCall(gateway)('Encrypt', {}))).toEqual({
      __type: 'ValidationException',
      message:
        "2 validation errors detected: Value null at 'keyId' failed to satisfy constraint: Member must not be null; Value null at 'plaintext' failed to satisfy constraint: Member must not be null",
    })
    expect(await refusalOf(kms.encrypt({} as never))).toMatchObject({ name: 'ValidationException' })
  })

  it('trap 19: validation comes before the key is looked for', async () => {
    const request = { KeyId: unknown, Plaintext, EncryptionAlgorithm: 'ROT13' as never }
    expect(await refusalOf(kms.encrypt(request))).toMatchObject({ name: 'ValidationException' })
  })

  it('trap 47: a key of another Region is an invalid ARN by ARN, and does not exist by id', async () => {
    const elsewhere = openKms(gateway, { region: 'us-west-2' })
    expect(await refusalOf(elsewhere.describeKey({ KeyId: key.arn }))).toMatchObject({
      name: 'NotFoundException',
      message: 'Invalid arn us-east-1',
    })
    expect(await refusalOf(elsewhere.describeKey({ KeyId: key.id }))).toMatchObject({
      name: 'NotFoundException',
      message: `Key '${arnOf(key.id, 'us-west-2')}' does not exist`,
    })
    elsewhere.destroy()
  })

  it('trap 48: upper-case ids and ids without dashes are invalid, not absent', async () => {
    for (const KeyId of [key.id.toUpperCase(), key.id.replaceAll('-', ''), 'xyz']) {
      expect(await refusalOf(kms.describeKey({ KeyId }))).toMatchObject({
        name: 'NotFoundException',
        message: `Invalid keyId '${KeyId}'`,
      })
    }
  })

  it('trap 57: timestamps are numbers, which the SDK turns into dates', async () => {
    const { body } = await createCall(gateway)('DescribeKey', { KeyId: key.id })
    const { CreationDate } = body!.KeyMetadata as { CreationDate: unknown }
    expect(CreationDate).toBeTypeOf('number')
    expect(Math.abs((CreationDate as number) * 1000 - Date.now())).toBeLessThan(600_000)
    expect((await metadataOf(key.id)).CreationDate).toBeInstanceOf(Date)
  })

  it('trap 52: a dry run that would succeed is an error, and neither creates nor records anything', async () => {
    const { id: KeyId } = await makeKey(kms)
    const grant = {
      KeyId,
      GranteePrincipal: `arn:aws:iam::${testAccount}:user/administrator`,
      Operations: ['Encrypt'],
    } as const
    const dry = {
      name: 'DryRunOperationException',
      message: 'The request would have succeeded, but the DryRun option is set.',
      status: 400,
    }
    for (const call of [
      () => kms.encrypt({ KeyId, Plaintext, DryRun: true }),
      () => kms.generateDataKey({ KeyId, KeySpec: 'AES_256', DryRun: true }),
      () => kms.createGrant({ ...grant, Operations: [...grant.Operations], DryRun: true }),
    ]) {
      expect(await refusalOf(call())).toMatchObject(dry)
    }
    expect((await kms.listGrants({ KeyId })).Grants).toEqual([])
    expect((await kms.getKeyLastUsage({ KeyId })).KeyLastUsage).toEqual({})
  })
})

describe('states', () => {
  it('trap 20: the state is checked before the kind of key', async () => {
    const { id: KeyId, arn } = await makeKey(kms, { KeySpec: 'HMAC_384', KeyUsage: 'GENERATE_VERIFY_MAC' })
    await kms.disableKey({ KeyId })
    const disabled = { name: 'DisabledException', message: `${arn} is disabled.` }
    expect(await refusalOf(kms.rotateKeyOnDemand({ KeyId }))).toMatchObject(disabled)
    expect(await refusalOf(kms.encrypt({ KeyId, Plaintext }))).toMatchObject(disabled)
  })

  it('trap 21: a key that waits for its deletion has an invalid state, a disabled one is disabled', async () => {
    const { id: KeyId, arn } = await makeKey(kms)
    await kms.disableKey({ KeyId })
    expect(await refusalOf(kms.encrypt({ KeyId, Plaintext }))).toMatchObject({ name: 'DisabledException' })
    await kms.scheduleKeyDeletion({ KeyId })
    expect(await refusalOf(kms.encrypt({ KeyId, Plaintext }))).toMatchObject({
      name: 'KMSInvalidStateException',
      message: `${arn} is pending deletion.`,
    })
  })

  it('trap 22: a cancelled deletion leaves the key disabled, without a deletion date', async () => {
    const { id: KeyId } = await makeKey(kms)
    await kms.scheduleKeyDeletion({ KeyId, PendingWindowInDays: 7 })
    expect(await metadataOf(KeyId)).toMatchObject({ KeyState: 'PendingDeletion', DeletionDate: expect.any(Date) })
    await kms.cancelKeyDeletion({ KeyId })
    const metadata = await metadataOf(KeyId)
    expect(metadata).toMatchObject({ KeyState: 'Disabled', Enabled: false })
    expect(metadata).not.toHaveProperty('DeletionDate')
  })

  it('trap 23: a second deletion is an invalid state, and a window of 6 or 31 days is invalid', async () => {
    const { id: KeyId, arn } = await makeKey(kms)
    for (const PendingWindowInDays of [6, 31]) {
      expect(await refusalOf(kms.scheduleKeyDeletion({ KeyId, PendingWindowInDays }))).toMatchObject({
        name: 'ValidationException',
      })
    }
    await kms.scheduleKeyDeletion({ KeyId })
    expect(await refusalOf(kms.scheduleKeyDeletion({ KeyId }))).toMatchObject({
      name: 'KMSInvalidStateException',
      message: `${arn} is pending deletion.`,
    })
  })

  it('trap 24: GetPublicKey and Verify need an enabled key', async () => {
    const { id: KeyId } = await makeKey(kms, { KeySpec: 'ECC_NIST_P256', KeyUsage: 'SIGN_VERIFY' })
    const signing = { KeyId, Message, SigningAlgorithm: 'ECDSA_SHA_256' } as const
    const { Signature } = await kms.sign(signing)
    await kms.disableKey({ KeyId })
    expect(await refusalOf(kms.getPublicKey({ KeyId }))).toMatchObject({ name: 'DisabledException' })
    expect(await refusalOf(kms.verify({ ...signing, Signature }))).toMatchObject({ name: 'DisabledException' })
  })
})

describe('aliases', () => {
  it('trap 25: an alias moves only between keys of one type and usage, never to one that waits for deletion, but away from one', async () => {
    const AliasName = 'alias/trap-25'
    const first = await makeKey(kms)
    await kms.createAlias({ AliasName, TargetKeyId: first.id })
    for (const { id: TargetKeyId } of [hmac, rsa, p256]) {
      expect(await refusalOf(kms.updateAlias({ AliasName, TargetKeyId }))).toMatchObject({
        name: 'ValidationException',
      })
    }
    const doomed = await makeKey(kms)
    await kms.scheduleKeyDeletion({ KeyId: doomed.id })
    expect(await refusalOf(kms.updateAlias({ AliasName, TargetKeyId: doomed.id }))).toMatchObject({
      name: 'KMSInvalidStateException',
      message: `${doomed.arn} is pending deletion.`,
    })
    await kms.scheduleKeyDeletion({ KeyId: first.id })
    await kms.updateAlias({ AliasName, TargetKeyId: key.id })
    expect((await metadataOf(AliasName)).KeyId).toBe(key.id)
  })

  it('trap 26: aliases are accepted by cryptography, DescribeKey and GetPublicKey, and refused elsewhere', async () => {
    const KeyId = 'alias/trap-26'
    await kms.createAlias({ AliasName: KeyId, TargetKeyId: key.id })
    await kms.encrypt({ KeyId, Plaintext })
    await kms.describeKey({ KeyId })
    await kms.createAlias({ AliasName: 'alias/trap-26-rsa', TargetKeyId: rsa.id })
    await kms.getPublicKey({ KeyId: 'alias/trap-26-rsa' })
    const GranteePrincipal = `arn:aws:iam::${testAccount}:user/administrator`
    const refusing = [
      () => kms.enableKeyRotation({ KeyId }),
      () => kms.disableKeyRotation({ KeyId }),
      () => kms.getKeyRotationStatus({ KeyId }),
      () => kms.rotateKeyOnDemand({ KeyId }),
      () => kms.putKeyPolicy({ KeyId, Policy: '{}' }),
      () => kms.getKeyPolicy({ KeyId }),
      () => kms.listKeyPolicies({ KeyId }),
      () => kms.tagResource({ KeyId, Tags: [{ TagKey: 'a', TagValue: 'b' }] }),
      () => kms.untagResource({ KeyId, TagKeys: ['a'] }),
      () => kms.listResourceTags({ KeyId }),
      () => kms.createGrant({ KeyId, GranteePrincipal, Operations: ['Encrypt'] }),
      () => kms.listGrants({ KeyId }),
      () => kms.revokeGrant({ KeyId, GrantId: 'a'.repeat(64) }),
      () => kms.scheduleKeyDeletion({ KeyId }),
      () => kms.cancelKeyDeletion({ KeyId }),
      () => kms.getKeyLastUsage({ KeyId }),
      () => kms.enableKey({ KeyId }),
      () => kms.disableKey({ KeyId }),
      () => kms.updateKeyDescription({ KeyId, Description: '' }),
      () => kms.listKeyRotations({ KeyId }),
      () => kms.listAliases({ KeyId }),
      () => kms.replicateKey({ KeyId, ReplicaRegion: 'us-west-2' }),
      () => kms.updatePrimaryRegion({ KeyId, PrimaryRegion: 'us-west-2' }),
      () => kms.deleteImportedKeyMaterial({ KeyId }),
    ]
    for (const call of refusing) {
      expect(await refusalOf(call())).toMatchObject({
        name: 'NotFoundException',
        message: "Invalid keyId 'alias/trap-26'",
      })
    }
  })

  it('trap 27: ListAliases filters by key, and DescribeKey names no aliases', async () => {
    const [one, two] = [await makeKey(kms), await makeKey(kms)]
    await kms.createAlias({ AliasName: 'alias/trap-27-one', TargetKeyId: one.id })
    await kms.createAlias({ AliasName: 'alias/trap-27-two', TargetKeyId: two.id })
    const { Aliases } = await kms.listAliases({ KeyId: one.arn })
    expect(Aliases?.map(({ AliasName }) => AliasName)).toEqual(['alias/trap-27-one'])
    expect(JSON.stringify(await metadataOf(one.id))).not.toContain('alias/')
  })
})

describe('lists', () => {
  it('trap 28: every list says whether it is truncated, and pages survive deletions between them', async () => {
    const KeyId = key.id
    const RetiringPrincipal = `arn:aws:iam::${testAccount}:user/administrator`
    const lists = [
      await kms.listKeys({}),
      await kms.listAliases({}),
      await kms.listGrants({ KeyId }),
      await kms.listKeyPolicies({ KeyId }),
      await kms.listKeyRotations({ KeyId }),
      await kms.listResourceTags({ KeyId }),
      await kms.listRetirableGrants({ RetiringPrincipal }),
      await kms.describeCustomKeyStores({}),
    ]
    for (const list of lists) {
      expect(list.Truncated).toBe(false)
      expect(list.NextMarker).toBeUndefined()
    }
    const names = ['a', 'b', 'c', 'd'].map((letter) => `alias/trap-28-${letter}`)
    const { id: TargetKeyId } = await makeKey(kms)
    for (const AliasName of names) await kms.createAlias({ AliasName, TargetKeyId })
    const first = await kms.listAliases({ KeyId: TargetKeyId, Limit: 2 })
    expect(first).toMatchObject({ Truncated: true, NextMarker: expect.any(String) })
    // What the marker names is gone when it is used.
    await kms.deleteAlias({ AliasName: first.Aliases?.[1]?.AliasName })
    const second = await kms.listAliases({ KeyId: TargetKeyId, Limit: 2, Marker: first.NextMarker })
    const seen = [...first.Aliases!, ...second.Aliases!].map(({ AliasName }) => AliasName)
    expect(seen).toEqual(names)
    let page: ListKeysCommandOutput = await kms.listKeys({ Limit: 1 })
    const keys = [...page.Keys!]
    while (page.NextMarker !== undefined) {
      page = await kms.listKeys({ Limit: 1, Marker: page.NextMarker })
      keys.push(...page.Keys!)
    }
    expect(keys).toEqual((await kms.listKeys({})).Keys)
  })

  it('trap 29: a Limit above the real maximum is invalid, though the API model allows it', async () => {
    const KeyId = key.id
    const RetiringPrincipal = `arn:aws:iam::${testAccount}:user/administrator`
    for (const call of [
      () => kms.listGrants({ KeyId, Limit: 101 }),
      () => kms.listAliases({ Limit: 101 }),
      () => kms.listRetirableGrants({ RetiringPrincipal, Limit: 101 }),
      () => kms.listResourceTags({ KeyId, Limit: 51 }),
      () => kms.listKeys({ Limit: 1001 }),
      () => kms.listKeyPolicies({ KeyId, Limit: 1001 }),
      () => kms.listKeyRotations({ KeyId, Limit: 1001 }),
    ]) {
      expect(await refusalOf(call())).toMatchObject({ name: 'ValidationException' })
    }
    await kms.listKeys({ Limit: 1000 })
    await kms.listGrants({ KeyId, Limit: 100 })
    await kms.listResourceTags({ KeyId, Limit: 50 })
  })
})

describe('CreateKey', () => {
  it('trap 45: KeySpec and CustomerMasterKeySpec together are invalid, and answers carry both', async () => {
    const both = { KeySpec: 'SYMMETRIC_DEFAULT', CustomerMasterKeySpec: 'SYMMETRIC_DEFAULT' } as const
    expect(await refusalOf(kms.createKey(both))).toMatchObject({
      name: 'ValidationException',
      message:
        'You cannot specify KeySpec and CustomerMasterKeySpec in the same request. CustomerMasterKeySpec is deprecated.',
    })
    const { KeyMetadata } = await kms.createKey({
      CustomerMasterKeySpec: 'ECC_NIST_P384',
      KeyUsage: 'SIGN_VERIFY',
    })
    expect(KeyMetadata).toMatchObject({ KeySpec: 'ECC_NIST_P384', CustomerMasterKeySpec: 'ECC_NIST_P384' })
  })

  it('trap 46: EXTERNAL is legal for RSA, EC and HMAC keys', async () => {
    for (const [KeySpec, KeyUsage] of [
      ['RSA_2048', 'SIGN_VERIFY'],
      ['ECC_NIST_P256', 'SIGN_VERIFY'],
      ['ECC_NIST_P384', 'KEY_AGREEMENT'],
      ['HMAC_256', 'GENERATE_VERIFY_MAC'],
    ] as const) {
      const { KeyMetadata } = await kms.createKey({ Origin: 'EXTERNAL', KeySpec, KeyUsage })
      expect(KeyMetadata).toMatchObject({ Origin: 'EXTERNAL', KeyState: 'PendingImport', KeySpec })
    }
  })
})

describe('tags and policies', () => {
  it('trap 44: reserved, doubled and too many tags are TagExceptions, lengths are validation', async () => {
    const put = (...Tags: { TagKey: string; TagValue: string }[]) => refusalOf(kms.tagResource({ KeyId: key.id, Tags }))
    const tag = (TagKey: string, TagValue = 'x') => ({ TagKey, TagValue })
    for (const reserved of ['aws:x', 'AWS:x', 'Aws:x']) {
      expect(await put(tag(reserved))).toMatchObject({
        name: 'TagException',
        message: 'Tags beginning with aws: are reserved',
      })
    }
    expect(await put(tag('a'), tag('a', 'y'))).toMatchObject({ name: 'TagException', message: 'Duplicate tag keys' })
    expect(await put(...Array.from({ length: 51 }, (_, i) => tag(`t${i}`)))).toMatchObject({
      name: 'TagException',
      message: 'Too many tags',
    })
    expect(await put(tag('k'.repeat(129)))).toMatchObject({ name: 'ValidationException' })
    expect(await put(tag('k', 'v'.repeat(257)))).toMatchObject({ name: 'ValidationException' })
    expect((await kms.listResourceTags({ KeyId: key.id })).Tags).toEqual([])
  })

  it('trap 42: a policy comes back as it was put, and the default one has the Id and Sid that clients compare', async () => {
    const { id: KeyId } = await makeKey(kms)
    const { Policy: standard } = await kms.getKeyPolicy({ KeyId })
    expect(JSON.parse(standard!)).toEqual({
      Version: '2012-10-17',
      Id: 'key-default-1',
      Statement: [
        {
          Sid: 'Enable IAM User Permissions',
          Effect: 'Allow',
          Principal: { AWS: `arn:aws:iam::${testAccount}:root` },
          Action: 'kms:*',
          Resource: '*',
        },
      ],
    })
    const Policy = `  ${standard!.replace('key-default-1', 'mine')}\n`
    await kms.putKeyPolicy({ KeyId, Policy })
    expect(JSON.parse((await kms.getKeyPolicy({ KeyId })).Policy!)).toEqual(JSON.parse(Policy))
  })

  it('trap 43: a policy beyond 32768 bytes exceeds a limit, which the SDK asks for three times; one beyond 131072 characters is invalid', async () => {
    const patient = openKms(gateway, { maxAttempts: 3 })
    const { Policy } = await kms.getKeyPolicy({ KeyId: key.id })
    const put = (chars: number) => refusalOf(patient.putKeyPolicy({ KeyId: key.id, Policy: Policy!.padEnd(chars) }))
    expect(await put(32_769)).toMatchObject({ name: 'LimitExceededException', attempts: 3 })
    expect(await put(131_073)).toMatchObject({ name: 'ValidationException', attempts: 1 })
    patient.destroy()
    await kms.putKeyPolicy({ KeyId: key.id, Policy: Policy!.padEnd(32_768) })
  })
})
