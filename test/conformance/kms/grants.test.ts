/**
 * Grants as the AWS KMS Developer Guide has them ("Grants in AWS KMS"): who gets what by a grant, how it is named, ended and recorded.
 */
import { writeFile } from 'node:fs/promises'
import path from 'node:path'
import {
  CreateGrantCommand,
  type CreateGrantCommandInput,
  CreateKeyCommand,
  DecryptCommand,
  DescribeKeyCommand,
  DisableKeyCommand,
  EncryptCommand,
  GenerateDataKeyCommand,
  type GrantListEntry,
  type KMSClient,
  ListGrantsCommand,
  ListRetirableGrantsCommand,
  PutKeyPolicyCommand,
  paginateListGrants,
  ReEncryptCommand,
  RetireGrantCommand,
  RevokeGrantCommand,
  ScheduleKeyDeletionCommand,
  SignCommand,
} from '@aws-sdk/client-kms'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { runOk } from '../../support/command.ts'
import { startGateway, type TestGateway, testAccount } from '../../support/gateway.ts'

const otherAccount = '111122223333'
const Plaintext = Buffer.from('plain')
const arnOf = (name: string, account = testAccount) => `arn:aws:iam::${account}:user/${name}`

let gateway: TestGateway
let admin: KMSClient
/** May nothing but what grants give him. */
let alice: KMSClient
let bob: KMSClient
/** Of another account, which lets her do everything with everybody's keys. */
let carol: KMSClient
let keyId: string
let signingKey: string

beforeAll(async () => {
  gateway = await startGateway()
  admin = gateway.client()
  const everything = { Version: '2012-10-17', Statement: [{ Effect: 'Allow', Action: 'kms:*', Resource: '*' }] }
  alice = gateway.client({ credentials: await gateway.createUser('alice') })
  bob = gateway.client({ credentials: await gateway.createUser('bob') })
  carol = gateway.client({ credentials: await gateway.createUser('carol', everything, otherAccount) })
  keyId = await createKey()
  const { KeyMetadata } = await admin.send(new CreateKeyCommand({ KeySpec: 'ECC_NIST_P256', KeyUsage: 'SIGN_VERIFY' }))
  signingKey = KeyMetadata?.Arn as string
})

afterAll(async () => {
  await gateway?.[Symbol.asyncDispose]()
})

async function createKey(): Promise<string> {
  const { KeyMetadata } = await admin.send(new CreateKeyCommand({}))
  return KeyMetadata?.Arn as string
}

type GrantInput = Partial<CreateGrantCommandInput> & Pick<CreateGrantCommandInput, 'Operations'>

async function grant(input: GrantInput, client = admin): Promise<{ GrantId: string; GrantToken: string }> {
  const request = { KeyId: keyId, GranteePrincipal: arnOf('alice'), ...input }
  const { GrantId, GrantToken } = await client.send(new CreateGrantCommand(request))
  return { GrantId: GrantId as string, GrantToken: GrantToken as string }
}

async function revoke(GrantId: string, KeyId = keyId): Promise<void> {
  await admin.send(new RevokeGrantCommand({ KeyId, GrantId }))
}

async function listGrants(KeyId = keyId): Promise<GrantListEntry[]> {
  const grants: GrantListEntry[] = []
  for await (const page of paginateListGrants({ client: admin, pageSize: 100 }, { KeyId })) {
    grants.push(...(page.Grants ?? []))
  }
  return grants
}

const encrypt = (client: KMSClient, EncryptionContext?: Record<string, string>, KeyId = keyId) =>
  client.send(new EncryptCommand({ KeyId, Plaintext, ...(EncryptionContext && { EncryptionContext }) }))

const refused = (name: string, message?: string) => ({ name, ...(message === undefined ? {} : { message }) })

async function lastEvent(eventName: string): Promise<Record<string, unknown>> {
  const records = await gateway.auditRecords()
  return records.findLast(({ event }) => event.eventName === eventName)?.event as Record<string, unknown>
}

describe('a grant', () => {
  it('gives its grantee its operations and no other, until it is revoked, at once', async () => {
    await expect(encrypt(alice)).rejects.toMatchObject(refused('AccessDeniedException'))
    const { GrantId } = await grant({ Operations: ['Encrypt', 'DescribeKey'] })
    expect(GrantId).toMatch(/^[0-9a-f]{64}$/)
    const { CiphertextBlob } = await encrypt(alice)
    expect((await lastEvent('Encrypt')).additionalEventData).toMatchObject({
      grantId: GrantId,
      keyMaterialId: expect.any(String),
      decidedBy: `grant ${GrantId}`,
    })
    await alice.send(new DescribeKeyCommand({ KeyId: keyId }))
    const decrypt = alice.send(new DecryptCommand({ CiphertextBlob, KeyId: keyId }))
    await expect(decrypt).rejects.toMatchObject(refused('AccessDeniedException'))
    await expect(encrypt(bob)).rejects.toMatchObject(refused('AccessDeniedException'))
    await revoke(GrantId)
    await expect(encrypt(alice)).rejects.toMatchObject(refused('AccessDeniedException'))
  })

  it('loses against an explicit deny', async () => {
    const KeyId = await createKey()
    await grant({ KeyId, Operations: ['Encrypt'] })
    await encrypt(alice, undefined, KeyId)
    const root = { AWS: `arn:aws:iam::${testAccount}:root` }
    const Policy = JSON.stringify({
      Version: '2012-10-17',
      Statement: [
        { Effect: 'Allow', Principal: root, Action: 'kms:*', Resource: '*' },
        { Effect: 'Deny', Principal: { AWS: arnOf('alice') }, Action: 'kms:Encrypt', Resource: '*' },
      ],
    })
    await admin.send(new PutKeyPolicyCommand({ KeyId, Policy }))
    await expect(encrypt(alice, undefined, KeyId)).rejects.toMatchObject(refused('AccessDeniedException'))
  })

  it('holds after a restart, and so does its token', async () => {
    const { GrantId, GrantToken } = await grant({ Operations: ['Encrypt'] })
    const restartedEndpoint = async () => {
      await gateway.restart()
      const client = (name: KMSClient) =>
        gateway.client({ credentials: name.config.credentials, endpoint: gateway.endpoint })
      ;[admin, alice, bob, carol] = [client(admin), client(alice), client(bob), client(carol)]
    }
    await restartedEndpoint()
    await alice.send(new EncryptCommand({ KeyId: keyId, Plaintext, GrantTokens: [GrantToken] }))
    await revoke(GrantId)
  })

  it('on both keys lets a ciphertext move from one to the other, and the record names both grants', async () => {
    const destination = await createKey()
    const from = await grant({ Operations: ['ReEncryptFrom'] })
    const to = await grant({ KeyId: destination, Operations: ['ReEncryptTo'] })
    const { CiphertextBlob } = await encrypt(admin)
    await alice.send(new ReEncryptCommand({ CiphertextBlob, DestinationKeyId: destination }))
    const { additionalEventData } = await lastEvent('ReEncrypt')
    expect(additionalEventData).toMatchObject({ grantIds: [from.GrantId, to.GrantId] })
    await revoke(from.GrantId)
    const again = alice.send(new ReEncryptCommand({ CiphertextBlob, DestinationKeyId: destination }))
    await expect(again).rejects.toMatchObject(refused('AccessDeniedException'))
  })

  it('reaches into another account, named by ARN, if that account agrees', async () => {
    await expect(encrypt(carol)).rejects.toMatchObject(refused('AccessDeniedException'))
    const { GrantId } = await grant({ GranteePrincipal: arnOf('carol', otherAccount), Operations: ['Encrypt'] })
    await encrypt(carol)
    const byAccount = await grant({ GranteePrincipal: otherAccount, Operations: ['DescribeKey'] })
    await carol.send(new DescribeKeyCommand({ KeyId: keyId }))
    const listed = (await listGrants()).find((row) => row.GrantId === byAccount.GrantId)
    expect(listed?.GranteePrincipal).toBe(`arn:aws:iam::${otherAccount}:root`)
    await revoke(GrantId)
    await revoke(byAccount.GrantId)
    await expect(encrypt(carol)).rejects.toMatchObject(refused('AccessDeniedException'))
  })
})

describe('constraints on the encryption context', () => {
  it.each([
    [
      'Equals',
      { EncryptionContextEquals: { App: 'a', Tier: '1' } },
      { app: 'a', TIER: '1' },
      { App: 'a', Tier: '1', x: 'y' },
    ],
    ['Equals', { EncryptionContextEquals: { App: 'a' } }, { App: 'a' }, { App: 'A' }],
    ['Subset', { EncryptionContextSubset: { App: 'a' } }, { app: 'a', more: 'b' }, { other: 'a' }],
    ['Subset', { EncryptionContextSubset: { App: 'a' } }, { App: 'a' }, { App: 'a', app: 'a' }],
  ] as const)('%s %j allows %j and not %j', async (_kind, Constraints, good, bad) => {
    const { GrantId } = await grant({ Operations: ['Encrypt', 'DescribeKey'], Constraints })
    await encrypt(alice, good)
    await expect(encrypt(alice, bad)).rejects.toMatchObject(refused('AccessDeniedException'))
    await expect(encrypt(alice)).rejects.toMatchObject(refused('AccessDeniedException'))
    // DescribeKey has no context and is not bound by the constraint
    await alice.send(new DescribeKeyCommand({ KeyId: keyId }))
    await revoke(GrantId)
  })

  it('are refused for keys without one, of more than 8 pairs, of long values, and of both kinds at once', async () => {
    const pairs = (count: number, value = 'v') =>
      Object.fromEntries(Array.from({ length: count }, (_, index) => [`k${index}`, value]))
    const onSigningKey = grant({
      KeyId: signingKey,
      Operations: ['Sign'],
      Constraints: { EncryptionContextSubset: pairs(1) },
    })
    await expect(onSigningKey).rejects.toMatchObject(refused('ValidationException'))
    for (const Constraints of [
      { EncryptionContextEquals: pairs(9) },
      { EncryptionContextSubset: pairs(1, 'v'.repeat(385)) },
      { EncryptionContextEquals: pairs(1), EncryptionContextSubset: pairs(1) },
    ]) {
      await expect(grant({ Operations: ['Encrypt'], Constraints })).rejects.toMatchObject(
        refused('ValidationException'),
      )
    }
    const { GrantId } = await grant({
      Operations: ['Encrypt'],
      Constraints: { EncryptionContextEquals: pairs(8, 'v'.repeat(384)) },
    })
    await revoke(GrantId)
  })
})

describe('CreateGrant', () => {
  it('is idempotent only with a name: the id is the same, the token never (trap 37)', async () => {
    const request: GrantInput = { Name: 'app/one', Operations: ['Encrypt', 'Decrypt'] }
    const first = await grant(request)
    const again = await grant({ ...request, Operations: ['Decrypt', 'Encrypt'] })
    const other = await grant({ ...request, Operations: ['Encrypt'] })
    const elsewhere = await grant({ ...request, KeyId: await createKey() })
    expect(again.GrantId).toBe(first.GrantId)
    expect(new Set([first.GrantId, other.GrantId, elsewhere.GrantId]).size).toBe(3)
    expect(again.GrantToken).not.toBe(first.GrantToken)
    const unnamed = [await grant({ Operations: ['Encrypt'] }), await grant({ Operations: ['Encrypt'] })]
    expect(unnamed[0]?.GrantId).not.toBe(unnamed[1]?.GrantId)
    for (const { GrantId } of [first, other, ...unnamed]) await revoke(GrantId)
  })

  it('refuses operations that the key has not, and such as do not exist (trap 38)', async () => {
    for (const [KeyId, operation] of [
      [keyId, 'Sign'],
      [keyId, 'GetPublicKey'],
      [keyId, 'GenerateMac'],
      [signingKey, 'GenerateDataKey'],
      [signingKey, 'Encrypt'],
      [keyId, 'DECRYPT'],
    ]) {
      const made = grant({ KeyId: KeyId as string, Operations: [operation as 'Sign'] })
      await expect(made).rejects.toMatchObject(refused('ValidationException'))
    }
    await expect(grant({ Operations: [] })).rejects.toMatchObject(refused('ValidationException'))
    const fitting = await grant({ KeyId: signingKey, Operations: ['Sign', 'Verify', 'GetPublicKey'] })
    await alice.send(new SignCommand({ KeyId: signingKey, Message: Plaintext, SigningAlgorithm: 'ECDSA_SHA_256' }))
    await revoke(fitting.GrantId, signingKey)
  })

  it('refuses principals that do not exist and names that are none', async () => {
    for (const GranteePrincipal of [
      arnOf('nobody'),
      `arn:aws:iam::${testAccount}:group/all`,
      'alice',
      'arn:aws:s3:::b',
    ]) {
      const made = grant({ GranteePrincipal, Operations: ['Encrypt'] })
      await expect(made).rejects.toMatchObject(
        refused('InvalidArnException', `ARN does not refer to a valid principal: ${GranteePrincipal}`),
      )
    }
    const everybody = grant({ GranteePrincipal: '*', Operations: ['Encrypt'] })
    await expect(everybody).rejects.toMatchObject(refused('ValidationException'))
    const retired = grant({ RetiringPrincipal: arnOf('nobody'), Operations: ['Encrypt'] })
    await expect(retired).rejects.toMatchObject(refused('InvalidArnException'))
  })

  it('takes one grantee, and a service only with a source and somebody who can retire it', async () => {
    const service = 'dynamodb.us-east-1.amazonaws.com'
    const SourceArn = 'arn:aws:dynamodb:us-east-1:000000000000:table/t'
    const base = { KeyId: keyId, Operations: ['Decrypt' as const] }
    for (const request of [
      base,
      { ...base, GranteePrincipal: arnOf('alice'), GranteeServicePrincipal: service },
      { ...base, GranteeServicePrincipal: service, RetiringServicePrincipal: service },
      { ...base, GranteeServicePrincipal: service, Constraints: { SourceArn } },
    ]) {
      await expect(admin.send(new CreateGrantCommand(request))).rejects.toMatchObject(refused('ValidationException'))
    }
    const request = {
      ...base,
      GranteeServicePrincipal: service,
      RetiringServicePrincipal: service,
      Constraints: { SourceArn },
    }
    const { GrantId } = await admin.send(new CreateGrantCommand(request))
    const { Grants } = await admin.send(new ListGrantsCommand({ KeyId: keyId, GranteeServicePrincipal: service }))
    expect(Grants).toEqual([
      {
        KeyId: keyId,
        GrantId,
        Name: '',
        CreationDate: expect.any(Date),
        GranteeServicePrincipal: service,
        RetiringServicePrincipal: service,
        IssuingAccount: `arn:aws:iam::${testAccount}:root`,
        Operations: ['Decrypt'],
        Constraints: { SourceArn },
      },
    ])
    await revoke(GrantId as string)
  })

  it('by way of a grant gives no more than that grant', async () => {
    const Constraints = { EncryptionContextSubset: { app: 'a' } }
    const parent = await grant({ Operations: ['CreateGrant', 'Encrypt'], Constraints })
    const child = (input: GrantInput) => grant({ GranteePrincipal: arnOf('bob'), ...input }, alice)
    for (const input of [
      { Operations: ['Encrypt'] },
      { Operations: ['Decrypt'], Constraints },
      { Operations: ['Encrypt'], Constraints: { EncryptionContextSubset: { app: 'b' } } },
    ] satisfies GrantInput[]) {
      await expect(child(input)).rejects.toMatchObject(refused('AccessDeniedException'))
    }
    const made = await child({ Operations: ['Encrypt'], Constraints: { EncryptionContextEquals: { app: 'a' } } })
    expect((await lastEvent('CreateGrant')).additionalEventData).toMatchObject({ grantId: parent.GrantId })
    await encrypt(bob, { app: 'a' })
    await expect(encrypt(bob, { app: 'a', more: 'b' })).rejects.toMatchObject(refused('AccessDeniedException'))
    await revoke(parent.GrantId)
    // what was given on stays until it is revoked itself
    await encrypt(bob, { app: 'a' })
    await revoke(made.GrantId)
    await expect(encrypt(bob, { app: 'a' })).rejects.toMatchObject(refused('AccessDeniedException'))
  })

  it('obeys the condition keys of grants', async () => {
    const KeyId = await createKey()
    const statement = { Principal: { AWS: arnOf('alice') }, Action: 'kms:CreateGrant', Resource: '*', Effect: 'Allow' }
    const Policy = JSON.stringify({
      Version: '2012-10-17',
      Statement: [
        { ...statement, Principal: { AWS: `arn:aws:iam::${testAccount}:root` }, Action: 'kms:*' },
        {
          ...statement,
          Condition: {
            'ForAllValues:StringEquals': { 'kms:GrantOperations': ['Encrypt', 'Decrypt'] },
            StringEquals: {
              'kms:GranteePrincipal': arnOf('bob'),
              'kms:GrantConstraintType': 'EncryptionContextSubset',
              'kms:EncryptionContext:app': 'a',
            },
            Bool: { 'kms:GrantIsForAWSResource': 'false' },
          },
        },
      ],
    })
    await admin.send(new PutKeyPolicyCommand({ KeyId, Policy }))
    const good = {
      KeyId,
      GranteePrincipal: arnOf('bob'),
      Operations: ['Encrypt'],
      Constraints: { EncryptionContextSubset: { app: 'a' } },
    } satisfies GrantInput
    await grant(good, alice)
    for (const change of [
      { GranteePrincipal: arnOf('alice') },
      { Operations: ['Encrypt', 'CreateGrant'] },
      { Constraints: { EncryptionContextEquals: { app: 'a' } } },
      { Constraints: { EncryptionContextSubset: { app: 'b' } } },
    ] satisfies Partial<GrantInput>[]) {
      const made = grant({ ...good, ...change } as GrantInput, alice)
      await expect(made).rejects.toMatchObject(refused('AccessDeniedException'))
    }
  })

  it('needs a key that is enabled, named by id or ARN', async () => {
    const KeyId = await createKey()
    const made = (input: Partial<GrantInput>) => grant({ KeyId, Operations: ['Encrypt'], ...input })
    await expect(made({ KeyId: 'alias/a' })).rejects.toMatchObject(
      refused('NotFoundException', "Invalid keyId 'alias/a'"),
    )
    await admin.send(new DisableKeyCommand({ KeyId }))
    await expect(made({})).rejects.toMatchObject(refused('DisabledException', `${KeyId} is disabled.`))
    // the state is told before what does not fit the key (trap 20)
    await expect(made({ Operations: ['Sign'] })).rejects.toMatchObject(refused('DisabledException'))
    await admin.send(new ScheduleKeyDeletionCommand({ KeyId, PendingWindowInDays: 7 }))
    await expect(made({})).rejects.toMatchObject(refused('KMSInvalidStateException', `${KeyId} is pending deletion.`))
    expect(await listGrants(KeyId)).toEqual([])
  })
})

describe('grant tokens', () => {
  it('are accepted by every grant operation while their grant is there, and refused otherwise', async () => {
    const { GrantId, GrantToken } = await grant({ Operations: ['Encrypt', 'GenerateDataKey'] })
    const otherKey = await createKey()
    const use = (GrantTokens: string[], KeyId = keyId) =>
      admin.send(new EncryptCommand({ KeyId, Plaintext, GrantTokens }))
    await use([GrantToken])
    await alice.send(new GenerateDataKeyCommand({ KeyId: keyId, KeySpec: 'AES_128', GrantTokens: [GrantToken] }))
    const forged = Buffer.from(GrantToken, 'base64')
    forged[20] = (forged[20] as number) ^ 1
    for (const token of [forged.toString('base64'), 'unknown', GrantToken.slice(0, -4), `${GrantToken}====`]) {
      await expect(use([GrantToken, token])).rejects.toMatchObject(refused('InvalidGrantTokenException'))
    }
    // a token of another key
    await expect(use([GrantToken], otherKey)).rejects.toMatchObject(refused('InvalidGrantTokenException'))
    await expect(use(Array(11).fill(GrantToken))).rejects.toMatchObject(refused('ValidationException'))
    await revoke(GrantId)
    await expect(use([GrantToken])).rejects.toMatchObject(refused('InvalidGrantTokenException'))
  })

  it('are in no audit record', async () => {
    const { GrantId, GrantToken } = await grant({ Operations: ['Encrypt'] })
    await alice.send(new EncryptCommand({ KeyId: keyId, Plaintext, GrantTokens: [GrantToken] }))
    const created = await lastEvent('CreateGrant')
    expect(created).toMatchObject({
      readOnly: false,
      requestParameters: { keyId, granteePrincipal: arnOf('alice'), operations: ['Encrypt'] },
      responseElements: { grantId: GrantId, keyId },
      resources: [{ ARN: keyId }],
    })
    await admin.send(new RetireGrantCommand({ GrantToken }))
    expect(await lastEvent('RetireGrant')).toMatchObject({
      requestParameters: null,
      responseElements: { keyId },
      additionalEventData: { grantId: GrantId },
    })
    expect(JSON.stringify(await gateway.auditRecords())).not.toContain(GrantToken)
  })
})

describe('RetireGrant and RevokeGrant', () => {
  const retire = (client: KMSClient, GrantId: string, KeyId = keyId) =>
    client.send(new RetireGrantCommand({ KeyId, GrantId }))

  it('want a token or a key ARN with a grant id, and never both (trap 39)', async () => {
    const { GrantId, GrantToken } = await grant({ Operations: ['Encrypt'] })
    for (const request of [
      {},
      { KeyId: keyId },
      { GrantId },
      { GrantToken, KeyId: keyId, GrantId },
      { GrantToken, KeyId: keyId },
    ]) {
      await expect(admin.send(new RetireGrantCommand(request))).rejects.toMatchObject(refused('ValidationException'))
    }
    const bareId = keyId.slice(keyId.lastIndexOf('/') + 1)
    await expect(retire(admin, GrantId, bareId)).rejects.toMatchObject(refused('InvalidArnException'))
    await expect(retire(admin, 'nonsense')).rejects.toMatchObject(refused('InvalidGrantIdException'))
    const unknown = 'ab'.repeat(32)
    const notFound = refused('NotFoundException', `Grant ID ${unknown} not found`)
    await expect(retire(admin, unknown)).rejects.toMatchObject(notFound)
    await expect(revoke(unknown)).rejects.toMatchObject(notFound)
    // a grant of another key
    await expect(revoke(GrantId, await createKey())).rejects.toMatchObject(refused('NotFoundException'))
    const byToken = new RetireGrantCommand({ GrantToken: 'unknown' })
    await expect(admin.send(byToken)).rejects.toMatchObject(refused('InvalidGrantTokenException'))
    await revoke(GrantId)
  })

  it('are for the retiring principal, a grantee who may, and the issuing account; nobody else retires', async () => {
    const first = await grant({ Operations: ['Encrypt'], RetiringPrincipal: arnOf('bob') })
    await expect(retire(alice, first.GrantId)).rejects.toMatchObject(refused('AccessDeniedException'))
    await retire(bob, first.GrantId)
    await expect(encrypt(alice)).rejects.toMatchObject(refused('AccessDeniedException'))

    const second = await grant({ Operations: ['Encrypt', 'RetireGrant'] })
    await expect(retire(bob, second.GrantId)).rejects.toMatchObject(refused('AccessDeniedException'))
    await alice.send(new RetireGrantCommand({ GrantToken: second.GrantToken }))

    const third = await grant({ Operations: ['Encrypt'] })
    await retire(admin, third.GrantId)
    await expect(retire(admin, third.GrantId)).rejects.toMatchObject(refused('NotFoundException'))

    const fourth = await grant({ Operations: ['Encrypt'], RetiringPrincipal: arnOf('carol', otherAccount) })
    await retire(carol, fourth.GrantId)
    // to another account a grant that is gone looks like one that it may not retire
    await expect(retire(carol, fourth.GrantId)).rejects.toMatchObject(refused('AccessDeniedException'))
  })

  it('RevokeGrant is a matter of policies alone', async () => {
    const { GrantId } = await grant({ Operations: ['Encrypt', 'RetireGrant'], RetiringPrincipal: arnOf('alice') })
    const byAlice = alice.send(new RevokeGrantCommand({ KeyId: keyId, GrantId }))
    await expect(byAlice).rejects.toMatchObject(refused('AccessDeniedException'))
    await revoke(GrantId)
    expect(await lastEvent('RevokeGrant')).toMatchObject({
      requestParameters: { keyId, grantId: GrantId },
      responseElements: { keyId },
    })
  })

  it('a dry run changes nothing, for CreateGrant neither (trap 52)', async () => {
    const { GrantId, GrantToken } = await grant({ Operations: ['Encrypt'] })
    const before = await listGrants()
    const dry = refused('DryRunOperationException', 'The request would have succeeded, but the DryRun option is set.')
    const named = { KeyId: keyId, GrantId, DryRun: true }
    await expect(grant({ Operations: ['Decrypt'], DryRun: true })).rejects.toMatchObject(dry)
    await expect(admin.send(new RevokeGrantCommand(named))).rejects.toMatchObject(dry)
    await expect(admin.send(new RetireGrantCommand(named))).rejects.toMatchObject(dry)
    await expect(admin.send(new RetireGrantCommand({ GrantToken, DryRun: true }))).rejects.toMatchObject(dry)
    await expect(bob.send(new RetireGrantCommand(named))).rejects.toMatchObject(refused('AccessDeniedException'))
    expect(await listGrants()).toEqual(before)
    await revoke(GrantId)
  })
})

describe('lists of grants', () => {
  it('show all there is to a grant, the issuing account as a root ARN (trap 40)', async () => {
    const Constraints = { EncryptionContextSubset: { Ünï: 'çøde' } }
    const request: GrantInput = { Name: 'n', Operations: ['Encrypt'], RetiringPrincipal: arnOf('bob'), Constraints }
    const { GrantId } = await grant(request)
    const { Grants, Truncated } = await admin.send(new ListGrantsCommand({ KeyId: keyId, GrantId }))
    expect(Truncated).toBe(false)
    expect(Grants).toEqual([
      {
        KeyId: keyId,
        GrantId,
        Name: 'n',
        CreationDate: expect.any(Date),
        GranteePrincipal: arnOf('alice'),
        RetiringPrincipal: arnOf('bob'),
        IssuingAccount: `arn:aws:iam::${testAccount}:root`,
        Operations: ['Encrypt'],
        Constraints,
      },
    ])
    await revoke(GrantId)
    const { Grants: none } = await admin.send(new ListGrantsCommand({ KeyId: keyId, GrantId }))
    expect(none).toEqual([])
  })

  it('come in pages that survive deletions, filtered by grantee, at most 100 at a time (trap 29)', async () => {
    const KeyId = await createKey()
    const made = await Promise.all(
      Array.from({ length: 9 }, (_, index) =>
        grant({ KeyId, Operations: ['Encrypt'], GranteePrincipal: arnOf(index % 3 === 0 ? 'bob' : 'alice') }),
      ),
    )
    const seen: string[] = []
    let Marker: string | undefined
    do {
      const page = await admin.send(
        new ListGrantsCommand({ KeyId, Limit: 2, GranteePrincipal: arnOf('alice'), ...(Marker && { Marker }) }),
      )
      seen.push(...(page.Grants ?? []).map(({ GrantId }) => GrantId as string))
      Marker = page.NextMarker
      expect(page.Truncated).toBe(Marker !== undefined)
      // the page that was handed out goes away
      if (Marker !== undefined) await revoke(seen.at(-1) as string, KeyId)
    } while (Marker !== undefined)
    const expected = made.filter((_, index) => index % 3 !== 0).map(({ GrantId }) => GrantId)
    expect(seen.sort()).toEqual(expected.sort())
    const tooMany = admin.send(new ListGrantsCommand({ KeyId, Limit: 101 }))
    await expect(tooMany).rejects.toMatchObject(refused('ValidationException'))
    const wrongMarker = admin.send(new ListGrantsCommand({ KeyId, Marker: 'x' }))
    await expect(wrongMarker).rejects.toMatchObject(refused('InvalidMarkerException'))
  })

  it('of what a principal may retire span all keys, and are for its own account (trap 40)', async () => {
    const keys = [keyId, await createKey(), signingKey]
    const made: [string, string][] = []
    for (const KeyId of keys) {
      const Operations = [KeyId === signingKey ? 'Sign' : 'Encrypt'] as ['Sign']
      made.push([KeyId, (await grant({ KeyId, Operations, RetiringPrincipal: arnOf('carol', otherAccount) })).GrantId])
    }
    const RetiringPrincipal = arnOf('carol', otherAccount)
    const found: GrantListEntry[] = []
    let Marker: string | undefined
    do {
      const page = await carol.send(
        new ListRetirableGrantsCommand({ RetiringPrincipal, Limit: 1, ...(Marker && { Marker }) }),
      )
      found.push(...(page.Grants ?? []))
      Marker = page.NextMarker
    } while (Marker !== undefined)
    expect(found.map(({ KeyId, GrantId }) => [KeyId, GrantId]).sort()).toEqual(made.sort())
    const byAdmin = admin.send(new ListRetirableGrantsCommand({ RetiringPrincipal }))
    await expect(byAdmin).rejects.toMatchObject(refused('AccessDeniedException'))
    const byAlice = alice.send(new ListRetirableGrantsCommand({ RetiringPrincipal: arnOf('alice') }))
    await expect(byAlice).rejects.toMatchObject(refused('AccessDeniedException'))
    const nobody = admin.send(new ListRetirableGrantsCommand({}))
    await expect(nobody).rejects.toMatchObject(refused('ValidationException'))
    for (const [KeyId, GrantId] of made) await revoke(GrantId, KeyId)
  })
})

describe("Debian's AWS CLI", () => {
  it('makes, uses, lists and retires a grant', { timeout: 120_000 }, async () => {
    const aws = async (...args: string[]) => {
      const all = ['--endpoint-url', gateway.endpoint, 'kms', ...args, '--output', 'json']
      const text = (await runOk('/usr/bin/aws', all, { env: gateway.cliEnvironment })).toString()
      return text === '' ? {} : (JSON.parse(text) as Record<string, never>)
    }
    const constraints = 'EncryptionContextSubset={app=a}'
    const { GrantId, GrantToken } = (await aws(
      'create-grant',
      ...['--key-id', keyId, '--grantee-principal', arnOf('alice'), '--operations', 'Encrypt', 'Decrypt'],
      ...['--constraints', constraints, '--name', 'cli'],
    )) as unknown as { GrantId: string; GrantToken: string }
    const plain = path.join(gateway.token.directory, 'plain')
    await writeFile(plain, Plaintext)
    const encryption = ['encrypt', '--key-id', keyId, '--plaintext', `fileb://${plain}`, '--grant-tokens', GrantToken]
    expect(await aws(...encryption, '--encryption-context', 'app=a')).toMatchObject({ KeyId: keyId })
    const { Grants } = await aws('list-grants', '--key-id', keyId)
    expect((Grants as unknown as GrantListEntry[]).map((row) => row.GrantId)).toContain(GrantId)
    expect(await aws('retire-grant', '--grant-token', GrantToken)).toEqual({})
    expect((await listGrants()).map((row) => row.GrantId)).not.toContain(GrantId)
  })
})
