import fc from 'fast-check'
import { beforeEach, describe, expect, it } from 'vitest'
import type { Demand, Principal } from '../../../../src/call.ts'
import type { KeyEntry } from '../../../../src/catalog/catalog.ts'
import { GatewayError } from '../../../../src/error.ts'
import type { KeyService, ResolvedKey } from '../../../../src/keys/keys.ts'
import type { Scope } from '../../../../src/pipeline.ts'
import { renderError } from '../../../../src/transport/kms/dialect.ts'
import type { KmsParts } from '../../../../src/transport/kms/operations/key-operation.ts'
import { createOperations } from '../../../../src/transport/kms/operations/registry.ts'

const account = '000000000000'
const region = 'us-east-1'
const keyId = '01234567-89ab-4def-8123-456789abcdef'
const arn = `arn:aws:kms:${region}:${account}:key/${keyId}`
const policy = '{"Version":"2012-10-17","Statement":[]}'
const principal: Principal = { type: 'user', arn: `arn:aws:iam::${account}:user/a`, account, principalId: 'AIDA' }
const scope: Scope = {
  partition: 'aws',
  account,
  region,
  principal,
  requestId: 'r',
  source: { ip: '192.0.2.1', userAgent: 'sdk' },
  deadline: { atMs: Number.POSITIVE_INFINITY },
}

function entryOf(changes: Partial<KeyEntry['key']> = {}, tags: Record<string, string> = {}): KeyEntry {
  return {
    key: {
      account,
      region,
      keyId,
      spec: 'SYMMETRIC_DEFAULT',
      usage: 'ENCRYPT_DECRYPT',
      origin: 'AWS_KMS',
      purpose: 'kms',
      group: 'g',
      custody: 'token',
      state: 'Enabled',
      description: '',
      multiRegion: false,
      createdAt: 1_700_000_000_123,
      deletionAt: null,
      currentMaterial: 1,
      adopted: false,
      extra: {},
      revision: 1,
      ...changes,
    },
    materials: [],
    policy: { document: policy, revision: 7 },
    tags,
    grants: null,
  } as KeyEntry
}

/** Looks keys up as scripted; everything else of the key service is beyond these tests. */
function partsOf(resolved: Record<string, ResolvedKey>, overrides: Partial<KeyService> = {}): KmsParts {
  const keys = {
    keyArn: (name: { keyId: string }) => `arn:aws:kms:${region}:${account}:key/${name.keyId}`,
    parseGrantToken: () => undefined,
    aliasArn: (alias: { name: string }) => `arn:aws:kms:${region}:${account}:${alias.name}`,
    algorithmsOf: () => ['SYMMETRIC_DEFAULT'],
    condition: ({ key }: KeyEntry) => ({ state: key.state }),
    storeOf: () => undefined,
    async resolve(reference: string) {
      const key = resolved[reference]
      if (key === undefined) throw new GatewayError('KeyNotFound', { text: `Key '${reference}' does not exist` })
      return key
    },
    ...overrides,
  } as unknown as KeyService
  return { keys, authorizer: { decide: () => ({ allowed: true, by: 'administrator', statement: 'x' }) } }
}

let present: ResolvedKey
let parts: KmsParts

beforeEach(() => {
  present = { arn, account, entry: entryOf({}, { Team: 'blue' }) }
  parts = partsOf({ [keyId]: present, 'alias/a': { ...present, alias: 'alias/a' } })
})

const bodyOf = (request: object) => ({ bytes: Buffer.from(JSON.stringify(request)), secrets: [] })

function operation(name: string, from = parts) {
  const found = createOperations(from).get(name)
  if (found === undefined) throw new Error(`no operation ${name}`)
  return found
}

function refusal(name: string, request: object): unknown {
  try {
    operation(name).parse(bodyOf(request))
  } catch (error) {
    return JSON.parse(renderError(error).body)
  }
  return 'accepted'
}

async function prepared(name: string, request: object, from = parts) {
  const row = operation(name, from)
  const input = row.parse(bodyOf(request))
  return { input, row, ...(await row.prepare(input, scope)) }
}

async function onlyDemand(name: string, request: object, from = parts): Promise<Demand & { keys: object }> {
  const { demands } = await prepared(name, request, from)
  expect(demands).toHaveLength(1)
  const demand = demands[0] as Demand
  return { ...demand, keys: Object.fromEntries(demand.context) }
}

const invalid = (message: string) => ({ __type: 'ValidationException', message })
const blob = Buffer.from('hello').toString('base64')

describe('createOperations', () => {
  it('names every row as its operation is named', () => {
    const operations = [...createOperations(parts)]
    expect(operations.length).toBeGreaterThan(0)
    for (const [name, row] of operations) expect(row.name).toBe(name)
  })

  it('marks reading and cryptography read-only and changes not', () => {
    // CloudTrail's readOnly, by the verb
    const reads = /^(?:De|En|ReEn)crypt$|^(?:De|En)capsulate$|^(?:Derive|Generate|Sign$|Verify|Get|List|Describe)/
    for (const [name, row] of createOperations(parts)) expect([name, row.readOnly]).toEqual([name, reads.test(name)])
  })
})

describe('rules that need no key', () => {
  it.each([
    ['GenerateRandom', {}, 'NumberOfBytes is required.'],
    ['GenerateDataKey', { KeyId: 'k' }, 'Please specify either number of bytes or key spec.'],
    [
      'GenerateDataKey',
      { KeyId: 'k', KeySpec: 'AES_256', NumberOfBytes: 32 },
      'Please specify either number of bytes or key spec.',
    ],
    [
      'CreateKey',
      { KeySpec: 'RSA_2048' },
      'You must specify a KeyUsage value for all KMS keys except for symmetric encryption keys.',
    ],
    [
      'CreateKey',
      { KeySpec: 'HMAC_256' },
      'You must specify a KeyUsage value for all KMS keys except for symmetric encryption keys.',
    ],
    [
      'CreateKey',
      { KeySpec: 'RSA_2048', KeyUsage: 'KEY_AGREEMENT' },
      'KeyUsage KEY_AGREEMENT is not compatible with KeySpec RSA_2048',
    ],
    ['CreateKey', { KeyUsage: 'SIGN_VERIFY' }, 'KeyUsage SIGN_VERIFY is not compatible with KeySpec SYMMETRIC_DEFAULT'],
    [
      'CreateKey',
      { KeySpec: 'ECC_SECG_P256K1', KeyUsage: 'KEY_AGREEMENT' },
      'KeyUsage KEY_AGREEMENT is not compatible with KeySpec ECC_SECG_P256K1',
    ],
    [
      'CreateKey',
      { KeySpec: 'RSA_2048', CustomerMasterKeySpec: 'RSA_2048', KeyUsage: 'SIGN_VERIFY' },
      'You cannot specify KeySpec and CustomerMasterKeySpec in the same request. CustomerMasterKeySpec is deprecated.',
    ],
    [
      'CreateAlias',
      { AliasName: 'a', TargetKeyId: keyId },
      'Alias must start with the prefix "alias/". Please see https://docs.aws.amazon.com/kms/latest/developerguide/kms-alias.html',
    ],
    [
      'CreateAlias',
      { AliasName: 'alias/a:b', TargetKeyId: keyId },
      'alias/a:b contains invalid characters for an alias',
    ],
    ['CreateAlias', { AliasName: 'alias/a', TargetKeyId: 'alias/b' }, 'Aliases must refer to keys. Not aliases'],
    [
      'Decrypt',
      {},
      "1 validation error detected: Value null at 'ciphertextBlob' failed to satisfy constraint: Member must not be null",
    ],
    [
      'ScheduleKeyDeletion',
      { KeyId: keyId, PendingWindowInDays: 6 },
      'PendingWindowInDays must be between 7 and 30 (inclusive).',
    ],
    [
      'Sign',
      { KeyId: keyId, SigningAlgorithm: 'RSASSA_PSS_SHA_256' },
      "1 validation error detected: Value null at 'message' failed to satisfy constraint: Member must not be null",
    ],
    [
      'Encrypt',
      { KeyId: keyId, Plaintext: '' },
      "1 validation error detected: Value at 'plaintext' failed to satisfy constraint: Member must have length greater than or equal to 1",
    ],
  ])('%s refuses %j', (name, request, message) => {
    expect(refusal(name, request)).toEqual(invalid(message))
  })

  it('refuses tags that are reserved, doubled or too many', () => {
    const tags = (...keys: string[]) => ({ Tags: keys.map((key) => ({ TagKey: key, TagValue: 'v' })) })
    expect(refusal('CreateKey', tags('AwS:x'))).toEqual({
      __type: 'TagException',
      message: 'Tags beginning with aws: are reserved',
    })
    expect(refusal('CreateKey', tags('a', 'a'))).toEqual({ __type: 'TagException', message: 'Duplicate tag keys' })
    expect(refusal('CreateKey', tags(...Array.from({ length: 51 }, (_, i) => `k${i}`)))).toEqual({
      __type: 'TagException',
      message: 'Too many tags',
    })
    expect(refusal('CreateKey', tags('__proto__', 'constructor'))).toBe('accepted')
  })

  it('leaves alias/aws/ to AWS', () => {
    expect(refusal('CreateAlias', { AliasName: 'alias/aws/s3', TargetKeyId: keyId })).toEqual({
      __type: 'NotAuthorizedException',
    })
  })

  it('never gives plaintext to a caller who asked for it to be enveloped', () => {
    const Recipient = { KeyEncryptionAlgorithm: 'RSAES_OAEP_SHA_256', AttestationDocument: blob }
    for (const [name, request] of [
      ['Decrypt', { CiphertextBlob: blob }],
      ['GenerateDataKey', { KeyId: 'k', KeySpec: 'AES_256' }],
      ['GenerateRandom', { NumberOfBytes: 1 }],
    ] as const) {
      expect(refusal(name, { ...request, Recipient })).toEqual({ __type: 'UnsupportedOperationException' })
    }
  })

  it('wants the members of custom key stores together, and does not offer what it lacks', () => {
    const store = { Origin: 'EXTERNAL_KEY_STORE', CustomKeyStoreId: 'cks-1' }
    expect(refusal('CreateKey', store)).toMatchObject({ __type: 'ValidationException' })
    expect(refusal('CreateKey', { KeySpec: 'SM2', KeyUsage: 'SIGN_VERIFY' })).toEqual({
      __type: 'UnsupportedOperationException',
    })
  })

  it('asks for a key where the ciphertext can not name one', () => {
    expect(refusal('Decrypt', { CiphertextBlob: blob, EncryptionAlgorithm: 'RSAES_OAEP_SHA_1' })).toMatchObject({
      __type: 'ValidationException',
    })
    const modifiers = { DryRunModifiers: ['IGNORE_CIPHERTEXT'] }
    expect(refusal('Decrypt', { CiphertextBlob: blob, ...modifiers })).toMatchObject({ __type: 'ValidationException' })
    expect(refusal('Decrypt', { DryRun: true, ...modifiers })).toMatchObject({ __type: 'ValidationException' })
    expect(refusal('Decrypt', { DryRun: true, KeyId: 'k', ...modifiers })).toBe('accepted')
  })
})

describe('any JSON', () => {
  const names = [
    'KeyId',
    'Plaintext',
    'CiphertextBlob',
    'EncryptionContext',
    'GrantTokens',
    'NumberOfBytes',
    'KeySpec',
    'KeyUsage',
    'Origin',
    'Policy',
    'Tags',
    'TagKeys',
    'AliasName',
    'TargetKeyId',
    'Limit',
    'Marker',
    'Message',
    'Recipient',
    'DryRun',
    'DryRunModifiers',
    'PendingWindowInDays',
    '__proto__',
  ]
  const value = fc.oneof(
    fc.jsonValue(),
    fc.constantFrom(keyId, 'alias/a', 'AES_256', 'RSA_2048', 'SIGN_VERIFY', 'aGk=', 7, 1000, true),
    fc.array(fc.record({ TagKey: fc.string(), TagValue: fc.jsonValue() }), { maxLength: 3 }),
  )

  it.each([...createOperations(partsOf({})).keys()])(
    'is parsed or refused by %s in modelled words, and recorded without harm',
    (name) => {
      const row = operation(name)
      fc.assert(
        fc.property(fc.dictionary(fc.constantFrom(...names), value, { maxKeys: 8 }), (request) => {
          try {
            const record = row.record(row.parse(bodyOf(request)))
            expect(typeof JSON.stringify(record)).toBe('string')
          } catch (error) {
            expect(error).toBeInstanceOf(GatewayError)
            expect(renderError(error).status).toBe(400)
          }
        }),
        { numRuns: 150 },
      )
    },
  )
})

describe('demands', () => {
  it('carry the key, its policy and the properties of call and key', async () => {
    const demand = await onlyDemand('DescribeKey', { KeyId: keyId })
    expect(demand).toMatchObject({
      action: 'kms:DescribeKey',
      resource: arn,
      resourceAccount: account,
      resourcePolicy: policy,
      resourcePolicyRevision: 7,
    })
    expect(demand.keys).toEqual({
      'aws:sourceip': '192.0.2.1',
      'aws:useragent': 'sdk',
      'aws:securetransport': 'false',
      'aws:requestedregion': region,
      'aws:resourcetag/team': 'blue',
      'kms:calleraccount': account,
      'kms:keyspec': 'SYMMETRIC_DEFAULT',
      'kms:customermasterkeyspec': 'SYMMETRIC_DEFAULT',
      'kms:keyusage': 'ENCRYPT_DECRYPT',
      'kms:customermasterkeyusage': 'ENCRYPT_DECRYPT',
      'kms:keyorigin': 'AWS_KMS',
      'kms:multiregion': 'false',
    })
  })

  it('name the alias only when the request did', async () => {
    const byAlias = await onlyDemand('Encrypt', { KeyId: 'alias/a', Plaintext: blob })
    expect(byAlias.keys).toMatchObject({ 'kms:requestalias': 'alias/a' })
    const byId = await onlyDemand('Encrypt', { KeyId: keyId, Plaintext: blob })
    expect(byId.keys).not.toHaveProperty('kms:requestalias')
  })

  it('carry encryption context and algorithm of cryptographic calls', async () => {
    const request = { KeyId: keyId, Plaintext: blob, EncryptionContext: { App: 'x', Zone: 'y' } }
    expect((await onlyDemand('Encrypt', request)).keys).toMatchObject({
      'kms:encryptioncontext:app': 'x',
      'kms:encryptioncontext:zone': 'y',
      'kms:encryptioncontextkeys': ['App', 'Zone'],
      'kms:encryptionalgorithm': 'SYMMETRIC_DEFAULT',
    })
    const sign = { KeyId: keyId, Message: blob, SigningAlgorithm: 'ECDSA_SHA_256' }
    expect((await onlyDemand('Sign', sign)).keys).toMatchObject({
      'kms:signingalgorithm': 'ECDSA_SHA_256',
      'kms:messagetype': 'RAW',
    })
    const mac = { KeyId: keyId, Message: blob, MacAlgorithm: 'HMAC_SHA_256' }
    expect((await onlyDemand('GenerateMac', mac)).keys).toMatchObject({ 'kms:macalgorithm': 'HMAC_SHA_256' })
  })

  it('of operations without a key ask identity policies alone', async () => {
    const random = await onlyDemand('GenerateRandom', { NumberOfBytes: 1 })
    expect(random).toMatchObject({ resource: '*', resourcePolicy: null })
    expect(random.keys).not.toHaveProperty('kms:calleraccount')
    const create = await onlyDemand('CreateKey', {
      KeySpec: 'ECC_NIST_P256',
      KeyUsage: 'SIGN_VERIFY',
      MultiRegion: true,
    })
    expect(create).toMatchObject({ action: 'kms:CreateKey', resource: '*', resourcePolicy: null })
    expect(create.keys).toMatchObject({
      'kms:keyspec': 'ECC_NIST_P256',
      'kms:keyusage': 'SIGN_VERIFY',
      'kms:keyorigin': 'AWS_KMS',
      'kms:multiregion': 'true',
      'kms:multiregionkeytype': 'PRIMARY',
      'kms:bypasspolicylockoutsafetycheck': 'false',
      'kms:calleraccount': account,
    })
  })

  it('ask for TagResource too when a key is created with tags', async () => {
    const { demands } = await prepared('CreateKey', { Tags: [{ TagKey: 'Team', TagValue: 'red' }] })
    expect(demands.map(({ action, resource }) => [action, resource])).toEqual([
      ['kms:CreateKey', '*'],
      ['kms:TagResource', `arn:aws:kms:${region}:${account}:key/*`],
    ])
    for (const { context } of demands) {
      expect(context.get('aws:requesttag/team')).toBe('red')
      expect(context.get('aws:tagkeys')).toEqual(['Team'])
    }
  })

  it('of alias operations are on the alias and on every key it touches', async () => {
    const aliasArn = `arn:aws:kms:${region}:${account}:alias/a`
    const { demands } = await prepared('UpdateAlias', { AliasName: 'alias/a', TargetKeyId: keyId })
    expect(demands.map(({ resource, resourcePolicy }) => [resource, resourcePolicy])).toEqual([
      [aliasArn, null],
      [arn, policy],
      [arn, policy],
    ])
  })

  it('of ReEncrypt are from the source and to the destination', async () => {
    const source = { ...present, entry: entryOf(), arn: arn.replace('0123', 'ffff') }
    const both = partsOf({ [keyId]: present, source })
    const { demands } = await prepared(
      'ReEncrypt',
      { CiphertextBlob: blob, SourceKeyId: 'source', DestinationKeyId: keyId },
      both,
    )
    expect(demands.map(({ action, resource }) => [action, resource])).toEqual([
      ['kms:ReEncryptFrom', source.arn],
      ['kms:ReEncryptTo', arn],
    ])
    expect(demands[0]?.context.get('kms:reencryptonsamekey')).toBe('false')
  })

  it('on a key of another account that does not exist carry no policy', async () => {
    const foreign = { arn: arn.replace(account, '111122223333'), account: '111122223333', entry: undefined }
    const demand = await onlyDemand('Encrypt', { KeyId: 'f', Plaintext: blob }, partsOf({ f: foreign }))
    expect(demand.resourcePolicy).toBeUndefined()
  })

  it('on a foreign key carry no policy where the operation never reaches into another account', async () => {
    const foreign = { arn: arn.replace(account, '111122223333'), account: '111122223333', entry: entryOf() }
    const demand = await onlyDemand('DisableKey', { KeyId: 'f' }, partsOf({ f: foreign }))
    expect(demand.resourcePolicy).toBeUndefined()
  })

  it('are never made on keys of another door', async () => {
    const xks = partsOf({ [keyId]: { ...present, entry: entryOf({ purpose: 'xks' }) } })
    await expect(
      prepared('Sign', { KeyId: keyId, Message: blob, SigningAlgorithm: 'ECDSA_SHA_256' }, xks),
    ).rejects.toMatchObject({
      code: 'KeyNotFound',
    })
  })

  it('refuses a grant token that stands for no grant', async () => {
    await expect(prepared('Encrypt', { KeyId: keyId, Plaintext: blob, GrantTokens: ['t'] })).rejects.toMatchObject({
      kmsCode: 'GrantTokenInvalid',
    })
  })
})

describe('Decrypt without a key id', () => {
  const blobParts = (found: ResolvedKey | undefined) =>
    partsOf({}, { parseBlob: () => ({ keyId, materialId: '' }), findByBlob: async () => found })

  it('demands the key that the ciphertext names and hides whether it exists', async () => {
    const { demands, denial } = await prepared('Decrypt', { CiphertextBlob: blob }, blobParts(present))
    expect(demands[0]?.resource).toBe(arn)
    const decision = { allowed: false, reason: 'no-identity-allow', statement: '' } as const
    const denied = renderError(denial?.(decision, demands[0] as Demand)).body
    const missing = await prepared('Decrypt', { CiphertextBlob: blob }, blobParts(undefined)).catch((error) => error)
    expect(renderError(missing).body).toBe(denied)
  })
})

describe('audit records', () => {
  it('show the request without its secrets and with its defaults', async () => {
    const { row, input, resources } = await prepared('Encrypt', {
      KeyId: 'alias/a',
      Plaintext: blob,
      EncryptionContext: { a: 'b' },
    })
    const record = row.record(input, resources, {
      members: { CiphertextBlob: Buffer.from('c') },
      additionalEventData: { keyMaterialId: 'm' },
    })
    expect(JSON.parse(JSON.stringify(record))).toEqual({
      requestParameters: {
        keyId: 'alias/a',
        encryptionContext: { a: 'b' },
        encryptionAlgorithm: 'SYMMETRIC_DEFAULT',
      },
      responseElements: null,
      resources: [{ account, type: 'AWS::KMS::Key', arn }],
      additionalEventData: { keyMaterialId: 'm' },
    })
  })

  it('hold no input blob, message, signature or grant token of any operation', async () => {
    const secret = Buffer.from('this must never be recorded').toString('base64')
    const request = {
      KeyId: keyId,
      DestinationKeyId: keyId,
      SourceKeyId: keyId,
      Plaintext: secret,
      Message: secret,
      CiphertextBlob: secret,
      Signature: secret,
      Mac: secret,
      SigningAlgorithm: 'ECDSA_SHA_256',
      MacAlgorithm: 'HMAC_SHA_256',
      KeySpec: 'AES_256',
      GrantTokens: [secret],
    }
    for (const name of [
      'Encrypt',
      'Decrypt',
      'ReEncrypt',
      'Sign',
      'Verify',
      'GenerateMac',
      'VerifyMac',
      'GenerateDataKey',
    ]) {
      const row = operation(name)
      expect(JSON.stringify(row.record(row.parse(bodyOf(request))))).not.toContain(secret.slice(0, 8))
    }
  })

  it('of CreateKey show the metadata with dates in words', async () => {
    const { row, input, resources } = await prepared('CreateKey', {})
    const output = {
      members: {
        KeyMetadata: { AWSAccountId: account, Arn: arn, CreationDate: Date.UTC(2022, 7, 10, 22, 38, 27) / 1000 },
      },
    }
    expect(row.record(input, resources, output)).toMatchObject({
      requestParameters: {
        keySpec: 'SYMMETRIC_DEFAULT',
        customerMasterKeySpec: 'SYMMETRIC_DEFAULT',
        keyUsage: 'ENCRYPT_DECRYPT',
        origin: 'AWS_KMS',
        bypassPolicyLockoutSafetyCheck: false,
        multiRegion: false,
        description: '',
      },
      responseElements: {
        keyMetadata: { aWSAccountId: account, arn, creationDate: 'Aug 10, 2022, 10:38:27 PM' },
      },
      resources: [{ account, type: 'AWS::KMS::Key', arn }],
    })
  })
})

describe('CreateKey', () => {
  it('gives a key the default policy, as AWS lays it out', async () => {
    const created: { policy?: string } = {}
    const recording = partsOf(
      {},
      {
        create: async (request) => {
          created.policy = request.policy
          return entryOf()
        },
      },
    )
    const { row, input, resources } = await prepared('CreateKey', {}, recording)
    await row.perform(input, resources, scope)
    expect(created.policy).toContain('"Sid" : "Enable IAM User Permissions"')
  })

  it('refuses a policy that locks its author out, unless told to bypass the check', async () => {
    const denying: KmsParts = {
      ...partsOf({}, { create: async () => entryOf() }),
      authorizer: { decide: () => ({ allowed: false, reason: 'no-resource-allow', statement: '' }) },
    }
    const Policy = JSON.stringify({
      Version: '2012-10-17',
      Statement: [{ Effect: 'Allow', Principal: { AWS: '*' }, Action: 'kms:Encrypt', Resource: '*' }],
    })
    const { row, input, resources } = await prepared('CreateKey', { Policy }, denying)
    await expect(row.perform(input, resources, scope)).rejects.toMatchObject({
      code: 'PolicyMalformed',
      params: { text: 'The new key policy will not allow you to update the key policy in the future.' },
    })
    const bypassed = await prepared('CreateKey', { Policy, BypassPolicyLockoutSafetyCheck: true }, denying)
    await expect(bypassed.row.perform(bypassed.input, bypassed.resources, scope)).resolves.toBeDefined()
  })

  it('refuses a policy that is none, too large, or names principals that do not exist', async () => {
    const strict: KmsParts = { ...partsOf({}), principalExists: () => false }
    const run = async (Policy: string) => {
      const { row, input, resources } = await prepared('CreateKey', { Policy }, strict)
      return renderError(await row.perform(input, resources, scope).catch((error: unknown) => error))
    }
    expect((await run('{}')).name).toBe('MalformedPolicyDocumentException')
    expect((await run('x'.repeat(32_769))).name).toBe('LimitExceededException')
    const statement = {
      Effect: 'Allow',
      Principal: { AWS: `arn:aws:iam::${account}:user/nobody` },
      Action: '*',
      Resource: '*',
    }
    expect((await run(JSON.stringify({ Version: '2012-10-17', Statement: [statement] }))).body).toContain(
      'invalid principals',
    )
  })
})

describe('pagination', () => {
  it('goes on after the last item even if it is gone, and refuses foreign markers', async () => {
    const all = ['a', 'b', 'c', 'd']
    const listing = partsOf(
      {},
      {
        list: async (_locale, after, limit) => {
          const rest = all.filter((id) => after === undefined || id > after)
          return { keyIds: rest.slice(0, limit), more: rest.length > limit }
        },
      },
    )
    const page = async (request: object) => {
      const { row, input, resources } = await prepared('ListKeys', request, listing)
      return (await row.perform(input, resources, scope)).members as {
        Keys: { KeyId: string }[]
        Truncated: boolean
        NextMarker?: string
      }
    }
    const first = await page({ Limit: 2 })
    expect(first).toMatchObject({ Keys: [{ KeyId: 'a' }, { KeyId: 'b' }], Truncated: true })
    all.splice(1, 1)
    const second = await page({ Limit: 2, Marker: first.NextMarker })
    expect(second.Keys.map(({ KeyId }) => KeyId)).toEqual(['c', 'd'])
    expect(second.Truncated).toBe(false)
    expect(second).not.toHaveProperty('NextMarker')
    for (const Marker of [
      'x',
      `${first.NextMarker}=`,
      Buffer.from('["v1","ListAliases/","b"]').toString('base64url'),
    ]) {
      await expect(page({ Marker })).rejects.toMatchObject({ code: 'MarkerInvalid' })
    }
  })

  it('pages through tags by name', async () => {
    const tagged = partsOf({ [keyId]: { ...present, entry: entryOf({}, { c: '3', a: '1', b: '2' }) } })
    const seen: string[] = []
    let Marker: string | undefined
    do {
      const { row, input, resources } = await prepared(
        'ListResourceTags',
        { KeyId: keyId, Limit: 1, ...(Marker && { Marker }) },
        tagged,
      )
      const { members } = await row.perform(input, resources, scope)
      const page = members as { Tags: { TagKey: string }[]; NextMarker?: string }
      seen.push(...page.Tags.map(({ TagKey }) => TagKey))
      Marker = page.NextMarker
    } while (Marker !== undefined)
    expect(seen).toEqual(['a', 'b', 'c'])
  })
})

describe('KeyMetadata', () => {
  const describe_ = async (entry: KeyEntry) => {
    const { row, input, resources } = await prepared(
      'DescribeKey',
      { KeyId: keyId },
      partsOf({ [keyId]: { ...present, entry } }),
    )
    return (await row.perform(input, resources, scope)).members?.KeyMetadata as Record<string, unknown>
  }

  it('shows numbers for times, both spec members and one list of algorithms', async () => {
    expect(await describe_(entryOf())).toEqual({
      AWSAccountId: account,
      KeyId: keyId,
      Arn: arn,
      CreationDate: 1_700_000_000.123,
      Enabled: true,
      Description: '',
      KeyUsage: 'ENCRYPT_DECRYPT',
      KeyState: 'Enabled',
      Origin: 'AWS_KMS',
      KeyManager: 'CUSTOMER',
      CustomerMasterKeySpec: 'SYMMETRIC_DEFAULT',
      KeySpec: 'SYMMETRIC_DEFAULT',
      EncryptionAlgorithms: ['SYMMETRIC_DEFAULT'],
      MultiRegion: false,
    })
  })

  it('shows DeletionDate only while deletion is pending', async () => {
    expect(await describe_(entryOf({ state: 'PendingDeletion', deletionAt: 1000 }))).toMatchObject({
      DeletionDate: 1,
      Enabled: false,
    })
    expect(await describe_(entryOf({ state: 'Disabled', deletionAt: 1000 }))).not.toHaveProperty('DeletionDate')
  })

  it('shows a lone primary of a multi-Region key with an empty list of replicas', async () => {
    const lone = entryOf({ multiRegion: true, related: { primary: region, regions: [region] } })
    expect(await describe_(lone)).toMatchObject({
      MultiRegionConfiguration: {
        MultiRegionKeyType: 'PRIMARY',
        PrimaryKey: { Arn: arn, Region: region },
        ReplicaKeys: [],
      },
    })
  })
})
