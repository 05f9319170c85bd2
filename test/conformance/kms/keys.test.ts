/** AWS KMS API Reference: CreateKey, DescribeKey, ListKeys, key life cycle, tags, aliases, key policies. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { startGateway, type TestGateway, testAccount } from '../../support/gateway.ts'
import { base64, type Call, createCall, refusal, succeed } from '../../support/kms-call.ts'

type Metadata = Record<string, unknown> & { KeyId: string; Arn: string }

let gateway: TestGateway
let call: Call

async function createKey(request: object = {}): Promise<Metadata> {
  return (await succeed(call('CreateKey', request))).KeyMetadata as Metadata
}

async function describeKey(KeyId: string): Promise<Metadata> {
  return (await succeed(call('DescribeKey', { KeyId }))).KeyMetadata as Metadata
}

beforeAll(async () => {
  gateway = await startGateway()
  call = createCall(gateway)
}, 180_000)

afterAll(async () => {
  await gateway?.[Symbol.asyncDispose]()
})

const plaintext = base64('x')

describe('CreateKey', () => {
  it('answers the metadata that DescribeKey answers', async () => {
    const metadata = await createKey({ Description: 'a key', Tags: [{ TagKey: 'a', TagValue: 'b' }] })
    expect(metadata).toEqual({
      AWSAccountId: testAccount,
      Arn: `arn:aws:kms:us-east-1:${testAccount}:key/${metadata.KeyId}`,
      KeyId: expect.stringMatching(/^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/),
      CreationDate: expect.any(Number),
      CurrentKeyMaterialId: expect.stringMatching(/^[0-9a-f]{64}$/),
      CustomerMasterKeySpec: 'SYMMETRIC_DEFAULT',
      Description: 'a key',
      Enabled: true,
      EncryptionAlgorithms: ['SYMMETRIC_DEFAULT'],
      KeyManager: 'CUSTOMER',
      KeySpec: 'SYMMETRIC_DEFAULT',
      KeyState: 'Enabled',
      KeyUsage: 'ENCRYPT_DECRYPT',
      MultiRegion: false,
      Origin: 'AWS_KMS',
    })
    expect(await describeKey(metadata.KeyId)).toEqual(metadata)
    expect(await describeKey(metadata.Arn)).toEqual(metadata)
  })

  it.each([
    [{ KeySpec: 'HMAC_256', KeyUsage: 'GENERATE_VERIFY_MAC' }, { MacAlgorithms: ['HMAC_SHA_256'] }],
    [{ CustomerMasterKeySpec: 'ECC_NIST_P384', KeyUsage: 'SIGN_VERIFY' }, { SigningAlgorithms: ['ECDSA_SHA_384'] }],
    [{ KeySpec: 'ECC_NIST_P256', KeyUsage: 'KEY_AGREEMENT' }, { KeyAgreementAlgorithms: ['ECDH'] }],
  ])('makes %j without a symmetric key material id and with one list of algorithms', async (request, algorithms) => {
    const metadata = await createKey(request)
    expect(metadata).toMatchObject(algorithms)
    expect(Object.keys(metadata).filter((name) => name.endsWith('Algorithms'))).toEqual(Object.keys(algorithms))
    expect(metadata).not.toHaveProperty('CurrentKeyMaterialId')
    expect(metadata.KeySpec).toBe(metadata.CustomerMasterKeySpec)
  })

  it('gives a multi-Region key its own kind of id and a lone primary', async () => {
    const metadata = await createKey({ MultiRegion: true })
    expect(metadata.KeyId).toMatch(/^mrk-[0-9a-f]{32}$/)
    expect(metadata).toMatchObject({
      MultiRegion: true,
      MultiRegionConfiguration: {
        MultiRegionKeyType: 'PRIMARY',
        PrimaryKey: { Arn: metadata.Arn, Region: 'us-east-1' },
        ReplicaKeys: [],
      },
    })
  })

  it('refuses a policy that locks its author out, and one that names nobody', async () => {
    const policyOf = (AWS: string) =>
      JSON.stringify({
        Version: '2012-10-17',
        Statement: [{ Sid: 'one', Effect: 'Allow', Principal: { AWS }, Action: 'kms:*', Resource: '*' }],
      })
    await gateway.createUser('policy-owner')
    const other = policyOf(`arn:aws:iam::${testAccount}:user/policy-owner`)
    expect(await refusal(call('CreateKey', { Policy: other }))).toEqual({
      __type: 'MalformedPolicyDocumentException',
      message: 'The new key policy will not allow you to update the key policy in the future.',
    })
    await createKey({ Policy: other, BypassPolicyLockoutSafetyCheck: true })
    expect(await refusal(call('CreateKey', { Policy: policyOf(`arn:aws:iam::${testAccount}:user/nobody`) }))).toEqual({
      __type: 'MalformedPolicyDocumentException',
      message: 'Policy contains a statement with one or more invalid principals.',
    })
    const large = policyOf(`arn:aws:iam::${testAccount}:root`).replace('"one"', JSON.stringify('x'.repeat(33_000)))
    expect(await refusal(call('CreateKey', { Policy: large }))).toMatchObject({ __type: 'LimitExceededException' })
    expect(await refusal(call('CreateKey', { Policy: '{"Version":"2012-10-17"}' }))).toMatchObject({
      __type: 'MalformedPolicyDocumentException',
    })
  })

  it('needs kms:TagResource for tags', async () => {
    const statement = { Effect: 'Allow', Action: 'kms:CreateKey', Resource: '*' }
    const credentials = await gateway.createUser('creator', { Version: '2012-10-17', Statement: [statement] })
    const creator = createCall(gateway, { credentials })
    await succeed(creator('CreateKey'))
    expect(await refusal(creator('CreateKey', { Tags: [{ TagKey: 'a', TagValue: 'b' }] }))).toMatchObject({
      __type: 'AccessDeniedException',
      Message: expect.stringContaining('not authorized to perform: kms:TagResource'),
    })
    const nobody = createCall(gateway, { credentials: await gateway.createUser('non-creator') })
    expect(await refusal(nobody('CreateKey'))).toEqual({
      __type: 'AccessDeniedException',
      Message: `User: arn:aws:iam::${testAccount}:user/non-creator is not authorized to perform: kms:CreateKey because no identity-based policy allows the kms:CreateKey action`,
    })
  })
})

describe('DescribeKey', () => {
  it('takes aliases and works in every state', async () => {
    const { KeyId } = await createKey()
    await succeed(call('CreateAlias', { AliasName: 'alias/described', TargetKeyId: KeyId }))
    expect((await describeKey('alias/described')).KeyId).toBe(KeyId)
    await succeed(call('DisableKey', { KeyId }))
    expect(await describeKey(KeyId)).toMatchObject({ KeyState: 'Disabled', Enabled: false })
  })

  it('keeps the Regions of one gateway apart', async () => {
    const { KeyId, Arn } = await createKey()
    const elsewhere = createCall(gateway, { region: 'us-west-2' })
    expect(await refusal(elsewhere('DescribeKey', { KeyId }))).toEqual({
      __type: 'NotFoundException',
      message: `Key '${Arn.replace('us-east-1', 'us-west-2')}' does not exist`,
    })
    expect(await refusal(elsewhere('DescribeKey', { KeyId: Arn }))).toEqual({
      __type: 'NotFoundException',
      message: 'Invalid arn us-east-1',
    })
  })

  it('tells another account nothing about existence', async () => {
    const { Arn, KeyId } = await createKey()
    const statement = { Effect: 'Allow', Action: 'kms:*', Resource: '*' }
    const policy = { Version: '2012-10-17', Statement: [statement] }
    const credentials = await gateway.createUser('foreigner', policy, '111122223333')
    const foreign = createCall(gateway, { credentials })
    const deny = (arn: string) => ({
      __type: 'AccessDeniedException',
      Message: `User: arn:aws:iam::111122223333:user/foreigner is not authorized to perform: kms:DescribeKey on resource: ${arn} because the resource does not exist in this Region, no resource-based policies allow access, or a resource-based policy explicitly denies access`,
    })
    expect(await refusal(foreign('DescribeKey', { KeyId: Arn }))).toEqual(deny(Arn))
    const missing = Arn.replace(KeyId, '11111111-2222-4333-8444-555555555555')
    expect(await refusal(foreign('DescribeKey', { KeyId: missing }))).toEqual(deny(missing))
  })
})

describe('ListKeys', () => {
  it('gives every key once, whatever the page size, and survives deletions between pages', async () => {
    await createKey()
    await createKey()
    const all = (await succeed(call('ListKeys', { Limit: 1000 }))) as { Keys: Metadata[]; Truncated: boolean }
    expect(all.Truncated).toBe(false)
    expect(all).not.toHaveProperty('NextMarker')
    const seen: string[] = []
    let Marker: string | undefined
    do {
      const page = (await succeed(call('ListKeys', { Limit: 2, ...(Marker === undefined ? {} : { Marker }) }))) as {
        Keys: { KeyId: string; KeyArn: string }[]
        Truncated: boolean
        NextMarker?: string
      }
      expect(page.Truncated).toBe(page.NextMarker !== undefined)
      for (const { KeyId, KeyArn } of page.Keys) expect(KeyArn).toMatch(new RegExp(`:key/${KeyId}$`))
      seen.push(...page.Keys.map(({ KeyId }) => KeyId))
      Marker = page.NextMarker
    } while (Marker !== undefined)
    expect(seen).toEqual(all.Keys.map(({ KeyId }) => KeyId))
    expect(new Set(seen).size).toBe(seen.length)
  })

  it('refuses limits out of range and markers that are not its own', async () => {
    expect(await refusal(call('ListKeys', { Limit: 1001 }))).toMatchObject({ __type: 'ValidationException' })
    expect(await refusal(call('ListKeys', { Marker: 'bogus' }))).toEqual({ __type: 'InvalidMarkerException' })
  })
})

describe('key life cycle', () => {
  it('disables and enables, and doing so twice is no error', async () => {
    const { KeyId, Arn } = await createKey()
    expect((await call('DisableKey', { KeyId })).body).toBeUndefined()
    await succeed(call('DisableKey', { KeyId }))
    expect(await refusal(call('Encrypt', { KeyId, Plaintext: plaintext }))).toEqual({
      __type: 'DisabledException',
      message: `${Arn} is disabled.`,
    })
    await succeed(call('EnableKey', { KeyId }))
    await succeed(call('EnableKey', { KeyId }))
    await succeed(call('Encrypt', { KeyId, Plaintext: plaintext }))
  })

  it('schedules deletion, refuses use meanwhile, and leaves a rescued key disabled', async () => {
    const { KeyId, Arn } = await createKey()
    expect(await refusal(call('CancelKeyDeletion', { KeyId }))).toEqual({
      __type: 'KMSInvalidStateException',
      message: `${Arn} is not pending deletion.`,
    })
    const before = Date.now() / 1000
    const scheduled = await succeed(call('ScheduleKeyDeletion', { KeyId, PendingWindowInDays: 7 }))
    expect(scheduled).toMatchObject({ KeyId: Arn, KeyState: 'PendingDeletion', PendingWindowInDays: 7 })
    expect(scheduled.DeletionDate as number).toBeGreaterThan(before + 7 * 86_400 - 60)
    const pending = { __type: 'KMSInvalidStateException', message: `${Arn} is pending deletion.` }
    expect(await refusal(call('ScheduleKeyDeletion', { KeyId }))).toEqual(pending)
    expect(await refusal(call('Encrypt', { KeyId, Plaintext: plaintext }))).toEqual(pending)
    expect(await refusal(call('EnableKey', { KeyId }))).toEqual(pending)
    expect(await refusal(call('CreateAlias', { AliasName: 'alias/doomed', TargetKeyId: KeyId }))).toEqual(pending)
    expect(await refusal(call('TagResource', { KeyId, Tags: [{ TagKey: 'a', TagValue: 'b' }] }))).toEqual(pending)
    expect(await describeKey(KeyId)).toMatchObject({
      DeletionDate: scheduled.DeletionDate,
      KeyState: 'PendingDeletion',
    })
    expect(await succeed(call('CancelKeyDeletion', { KeyId }))).toEqual({ KeyId: Arn })
    const rescued = await describeKey(KeyId)
    expect(rescued.KeyState).toBe('Disabled')
    expect(rescued).not.toHaveProperty('DeletionDate')
  })

  it('wants a waiting period of 7 to 30 days and a key, not an alias', async () => {
    const { KeyId } = await createKey()
    for (const PendingWindowInDays of [0, 6, 31, 366]) {
      expect(await refusal(call('ScheduleKeyDeletion', { KeyId, PendingWindowInDays }))).toMatchObject({
        __type: 'ValidationException',
      })
    }
    await succeed(call('CreateAlias', { AliasName: 'alias/kept', TargetKeyId: KeyId }))
    for (const operation of ['ScheduleKeyDeletion', 'DisableKey', 'GetKeyPolicy', 'ListResourceTags']) {
      expect(await refusal(call(operation, { KeyId: 'alias/kept' }))).toEqual({
        __type: 'NotFoundException',
        message: "Invalid keyId 'alias/kept'",
      })
    }
  })

  it('changes the description', async () => {
    const { KeyId } = await createKey({ Description: 'old' })
    await succeed(call('UpdateKeyDescription', { KeyId, Description: '' }))
    expect((await describeKey(KeyId)).Description).toBe('')
    expect(await refusal(call('UpdateKeyDescription', { KeyId }))).toMatchObject({ __type: 'ValidationException' })
  })
})

describe('tags', () => {
  it('are put, replaced, listed in pages and removed', async () => {
    const { KeyId } = await createKey({ Tags: [{ TagKey: 'a', TagValue: '1' }] })
    const tags = [
      { TagKey: 'b', TagValue: '2' },
      { TagKey: 'a', TagValue: '3' },
    ]
    expect((await call('TagResource', { KeyId, Tags: tags })).body).toBeUndefined()
    expect(await succeed(call('ListResourceTags', { KeyId }))).toEqual({
      Tags: [
        { TagKey: 'a', TagValue: '3' },
        { TagKey: 'b', TagValue: '2' },
      ],
      Truncated: false,
    })
    const first = await succeed(call('ListResourceTags', { KeyId, Limit: 1 }))
    await succeed(call('UntagResource', { KeyId, TagKeys: ['a', 'missing'] }))
    expect(await succeed(call('ListResourceTags', { KeyId, Limit: 1, Marker: first.NextMarker }))).toEqual({
      Tags: [{ TagKey: 'b', TagValue: '2' }],
      Truncated: false,
    })
  })

  it('are at most fifty, also in sum', async () => {
    const { KeyId } = await createKey()
    const tags = (from: number, to: number) =>
      Array.from({ length: to - from }, (_, i) => ({ TagKey: `k${from + i}`, TagValue: '' }))
    await succeed(call('TagResource', { KeyId, Tags: tags(0, 50) }))
    expect(await refusal(call('TagResource', { KeyId, Tags: tags(50, 51) }))).toEqual({
      __type: 'TagException',
      message: 'Too many tags',
    })
    await succeed(call('TagResource', { KeyId, Tags: tags(0, 1) }))
  })
})

describe('aliases', () => {
  it('point at one key, move, and go away', async () => {
    const [one, two] = [await createKey(), await createKey()]
    const AliasName = 'alias/moving/target_1-x'
    const AliasArn = `arn:aws:kms:us-east-1:${testAccount}:${AliasName}`
    expect((await call('CreateAlias', { AliasName, TargetKeyId: one.Arn })).body).toBeUndefined()
    expect(await refusal(call('CreateAlias', { AliasName, TargetKeyId: two.KeyId }))).toEqual({
      __type: 'AlreadyExistsException',
      message: `An alias with the name ${AliasArn} already exists`,
    })
    await succeed(call('UpdateAlias', { AliasName, TargetKeyId: two.KeyId }))
    expect((await describeKey(AliasArn)).KeyId).toBe(two.KeyId)
    expect(await succeed(call('ListAliases', { KeyId: two.Arn }))).toEqual({
      Aliases: [
        {
          AliasName,
          AliasArn,
          TargetKeyId: two.KeyId,
          CreationDate: expect.any(Number),
          LastUpdatedDate: expect.any(Number),
        },
      ],
      Truncated: false,
    })
    expect((await succeed(call('ListAliases', { KeyId: one.KeyId }))).Aliases).toEqual([])
    await succeed(call('DeleteAlias', { AliasName }))
    const gone = { __type: 'NotFoundException', message: `Alias ${AliasArn} is not found.` }
    expect(await refusal(call('DeleteAlias', { AliasName }))).toEqual(gone)
    expect(await refusal(call('UpdateAlias', { AliasName, TargetKeyId: one.KeyId }))).toEqual(gone)
  })

  it('never move to a key of another kind', async () => {
    const symmetric = await createKey()
    const hmac = await createKey({ KeySpec: 'HMAC_256', KeyUsage: 'GENERATE_VERIFY_MAC' })
    await succeed(call('CreateAlias', { AliasName: 'alias/kind', TargetKeyId: symmetric.KeyId }))
    expect(await refusal(call('UpdateAlias', { AliasName: 'alias/kind', TargetKeyId: hmac.KeyId }))).toMatchObject({
      __type: 'ValidationException',
    })
  })

  it('list in pages of at most a hundred', async () => {
    expect(await refusal(call('ListAliases', { Limit: 101 }))).toMatchObject({ __type: 'ValidationException' })
    const page = await succeed(call('ListAliases', { Limit: 1 }))
    expect(page.Truncated).toBe(true)
    expect((page.Aliases as object[]).length).toBe(1)
  })
})

describe('key policies', () => {
  it('start as the default policy and come back as they were put', async () => {
    const { KeyId } = await createKey()
    const { Policy, PolicyName } = await succeed(call('GetKeyPolicy', { KeyId }))
    expect(PolicyName).toBe('default')
    expect(JSON.parse(Policy as string)).toEqual({
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
    const changed = JSON.stringify({ ...JSON.parse(Policy as string), Id: 'mine' })
    expect((await call('PutKeyPolicy', { KeyId, Policy: changed })).body).toBeUndefined()
    expect((await succeed(call('GetKeyPolicy', { KeyId, PolicyName: 'default' }))).Policy).toBe(changed)
    expect(await succeed(call('ListKeyPolicies', { KeyId }))).toEqual({ PolicyNames: ['default'], Truncated: false })
    expect(await refusal(call('GetKeyPolicy', { KeyId, PolicyName: 'other' }))).toMatchObject({
      __type: 'NotFoundException',
    })
  })

  it('without the account in them shut its administrators out', async () => {
    const { KeyId } = await createKey()
    await gateway.createUser('sole-owner')
    const Policy = JSON.stringify({
      Version: '2012-10-17',
      Statement: [
        {
          Effect: 'Allow',
          Principal: { AWS: `arn:aws:iam::${testAccount}:user/sole-owner` },
          Action: 'kms:*',
          Resource: '*',
        },
      ],
    })
    expect(await refusal(call('PutKeyPolicy', { KeyId, Policy }))).toMatchObject({
      __type: 'MalformedPolicyDocumentException',
    })
    await succeed(call('PutKeyPolicy', { KeyId, Policy, BypassPolicyLockoutSafetyCheck: true }))
    expect(await refusal(call('DescribeKey', { KeyId }))).toMatchObject({ __type: 'AccessDeniedException' })
  })

  it('grant by condition on the encryption context', async () => {
    const { KeyId } = await createKey()
    const credentials = await gateway.createUser('conditional', {
      Version: '2012-10-17',
      Statement: [
        {
          Effect: 'Allow',
          Action: ['kms:Encrypt', 'kms:Decrypt'],
          Resource: '*',
          Condition: { StringEquals: { 'kms:EncryptionContext:App': 'billing' } },
        },
      ],
    })
    const conditional = createCall(gateway, { credentials })
    const EncryptionContext = { App: 'billing' }
    const { CiphertextBlob } = await succeed(conditional('Encrypt', { KeyId, Plaintext: plaintext, EncryptionContext }))
    await succeed(conditional('Decrypt', { CiphertextBlob, EncryptionContext }))
    for (const wrong of [undefined, { App: 'other' }, { Other: 'billing' }, { App: 'billing', APP: 'other' }]) {
      const request = { KeyId, Plaintext: plaintext, ...(wrong === undefined ? {} : { EncryptionContext: wrong }) }
      expect(await refusal(conditional('Encrypt', request))).toMatchObject({ __type: 'AccessDeniedException' })
    }
  })
})
