/**
 * Security Token Service as clients use it (AWS Security Token Service API Reference, 2011-06-15): the SDK's own STS client, the AWS CLI
 * as it is in Debian, and sessions at the KMS door.
 */

import {
  CreateKeyCommand,
  DescribeKeyCommand,
  EncryptCommand,
  type KMSClient,
  PutKeyPolicyCommand,
} from '@aws-sdk/client-kms'
import { AssumeRoleCommand, type AssumeRoleCommandInput, STSClient } from '@aws-sdk/nested-clients/sts'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { signRequest } from '../../../src/authenticate/sign-request.ts'
import { run, runOk } from '../../support/command.ts'
import { startGateway, type TestCredentials, type TestGateway, testAccount, testRegion } from '../../support/gateway.ts'

const otherAccount = '111122223333'
const userArn = (name: string, account = testAccount) => `arn:aws:iam::${account}:user/${name}`
const roleArn = (name: string, account = testAccount) => `arn:aws:iam::${account}:role/${name}`
const statement = (rest: Record<string, unknown>) => JSON.stringify({ Version: '2012-10-17', Statement: [rest] })
const trust = (principal: string, rest: Record<string, unknown> = {}) =>
  statement({ Effect: 'Allow', Principal: { AWS: principal }, Action: 'sts:AssumeRole', ...rest })
const allow = (Action: string | string[], rest: Record<string, unknown> = {}) =>
  statement({ Effect: 'Allow', Action, Resource: '*', ...rest })

let gateway: TestGateway
let alice: TestCredentials
let carol: TestCredentials
let keyId: string
const clients: STSClient[] = []

interface Session extends TestCredentials {
  readonly sessionToken: string
}

function sts(credentials: TestCredentials | Session = alice): STSClient {
  const client = new STSClient({ endpoint: gateway.endpoint, region: testRegion, credentials, maxAttempts: 1 })
  clients.push(client)
  return client
}

async function assume(
  role: string,
  input: Partial<AssumeRoleCommandInput> = {},
  client = sts(),
): Promise<{ session: Session; expiration: Date; arn: string; id: string }> {
  const { Credentials, AssumedRoleUser } = await client.send(
    new AssumeRoleCommand({ RoleArn: roleArn(role), RoleSessionName: 'session-1', ...input }),
  )
  return {
    session: {
      accessKeyId: Credentials?.AccessKeyId as string,
      secretAccessKey: Credentials?.SecretAccessKey as string,
      sessionToken: Credentials?.SessionToken as string,
    },
    expiration: Credentials?.Expiration as Date,
    arn: AssumedRoleUser?.Arn as string,
    id: AssumedRoleUser?.AssumedRoleId as string,
  }
}

const kms = (credentials: TestCredentials): KMSClient => gateway.client({ credentials })
const describeKey = (credentials: TestCredentials) => kms(credentials).send(new DescribeKeyCommand({ KeyId: keyId }))
const encrypt = (credentials: TestCredentials) =>
  kms(credentials).send(new EncryptCommand({ KeyId: keyId, Plaintext: Buffer.from('p') }))
const denied = { name: 'AccessDenied' }
const deniedByKms = { name: 'AccessDeniedException' }
const unknownToken = {
  name: 'UnrecognizedClientException',
  message: 'The security token included in the request is invalid.',
}

async function lastEvent(eventName: string): Promise<Record<string, unknown>> {
  const records = await gateway.auditRecords()
  return records.findLast(({ event }) => event.eventName === eventName)?.event as Record<string, unknown>
}

/** A Query request signed by hand; answers status and XML. */
async function query(body: string, options: { credentials?: TestCredentials; atMs?: number } = {}) {
  const { host } = new URL(gateway.endpoint)
  const { credentials = alice, atMs = Date.now() } = options
  const identity = {
    ...credentials,
    secret: Buffer.from(credentials.secretAccessKey),
    region: testRegion,
    service: 'sts',
  }
  const form = { host, 'content-type': 'application/x-www-form-urlencoded' }
  const signed = signRequest({ method: 'POST', target: '/', headers: form, body: Buffer.from(body) }, identity, atMs)
  const { host: _sentByFetch, ...headers } = signed
  const response = await fetch(gateway.endpoint, { method: 'POST', body, headers })
  return { status: response.status, type: response.headers.get('content-type'), xml: await response.text() }
}

beforeAll(async () => {
  gateway = await startGateway()
  const { administration } = gateway.gateway
  alice = await gateway.createUser('alice')
  carol = await gateway.createUser('carol', JSON.parse(allow('sts:AssumeRole')), otherAccount)
  await administration.createRole(testAccount, 'reader', trust(userArn('alice')))
  await administration.putRolePolicy(testAccount, 'reader', 'kms', allow(['kms:DescribeKey', 'kms:Encrypt']))
  const { KeyMetadata } = await gateway.client().send(new CreateKeyCommand({}))
  keyId = KeyMetadata?.Arn as string
})

afterAll(async () => {
  for (const client of clients) client.destroy()
  await gateway?.[Symbol.asyncDispose]()
})

describe('AssumeRole', () => {
  it('gives whoever the role trusts what the role may, in its own name', async () => {
    await expect(describeKey(alice)).rejects.toMatchObject(deniedByKms)
    const { session, arn, id, expiration } = await assume('reader')
    expect(session.accessKeyId).toMatch(/^ASIA[A-Z2-7]{16}$/)
    expect(arn).toBe(`arn:aws:sts::${testAccount}:assumed-role/reader/session-1`)
    expect(id).toMatch(/^AROA[A-Z2-7]{17}:session-1$/)
    expect(expiration.getTime() - Date.now()).toBeGreaterThan(3_500_000)
    await describeKey(session)
    await encrypt(session)
    const create = kms(session).send(new CreateKeyCommand({}))
    await expect(create).rejects.toMatchObject({ ...deniedByKms, message: expect.stringContaining(`User: ${arn} `) })
    expect((await lastEvent('Encrypt')).userIdentity).toMatchObject({
      type: 'AssumedRole',
      principalId: id,
      arn,
      accountId: testAccount,
      accessKeyId: session.accessKeyId,
      sessionContext: { sessionIssuer: { type: 'Role', arn: roleArn('reader'), userName: 'reader' } },
    })
  })

  it('is recorded without secret and token', async () => {
    const { session, arn } = await assume('reader', { ExternalId: 'ext', DurationSeconds: 900 })
    expect(await lastEvent('AssumeRole')).toMatchObject({
      eventSource: 'sts.amazonaws.com',
      requestParameters: {
        roleArn: roleArn('reader'),
        roleSessionName: 'session-1',
        durationSeconds: 900,
        externalId: 'ext',
      },
      responseElements: {
        credentials: { accessKeyId: session.accessKeyId, expiration: expect.any(String) },
        assumedRoleUser: { arn },
      },
      resources: [{ type: 'AWS::IAM::Role', ARN: roleArn('reader') }],
    })
    const journal = JSON.stringify(await gateway.auditRecords())
    expect(journal).not.toContain(session.secretAccessKey)
    expect(journal).not.toContain(session.sessionToken)
  })

  it('is denied to all whom the role does not trust, as for roles that do not exist or are disabled', async () => {
    const stranger = sts(await gateway.createUser('stranger'))
    const message = (role: string) =>
      `User: ${userArn('stranger')} is not authorized to perform: sts:AssumeRole on resource: ${roleArn(role)}`
    for (const role of ['reader', 'missing']) {
      await expect(assume(role, {}, stranger)).rejects.toMatchObject({ ...denied, message: message(role) })
    }
    const elsewhere = assume('x', { RoleArn: roleArn('reader', '999988887777') })
    await expect(elsewhere).rejects.toMatchObject(denied)
    const { administration } = gateway.gateway
    await administration.createRole(testAccount, 'off', trust(userArn('alice')))
    await administration.setRoleEnabled(testAccount, 'off', false)
    await expect(assume('off')).rejects.toMatchObject(denied)
  })

  it('obeys conditions of the trust policy and identity policies where the trust is the account’s', async () => {
    const { administration } = gateway.gateway
    const Condition = { StringEquals: { 'sts:ExternalId': 'shared' } }
    await administration.createRole(testAccount, 'external', trust(userArn('alice'), { Condition }))
    await expect(assume('external')).rejects.toMatchObject(denied)
    await expect(assume('external', { ExternalId: 'guessed' })).rejects.toMatchObject(denied)
    await assume('external', { ExternalId: 'shared' })
    await administration.createRole(testAccount, 'delegated', trust(`arn:aws:iam::${testAccount}:root`))
    await expect(assume('delegated')).rejects.toMatchObject(denied)
    await administration.putPolicy(testAccount, 'alice', 'assume', allow('sts:AssumeRole'))
    await assume('delegated')
    await administration.deletePolicy(testAccount, 'alice', 'assume')
    await expect(assume('delegated')).rejects.toMatchObject(denied)
  })

  it('crosses accounts when both agree', async () => {
    const { administration } = gateway.gateway
    await administration.createRole(testAccount, 'visitors', trust(userArn('carol', otherAccount)))
    const { arn } = await assume('visitors', {}, sts(carol))
    expect(arn).toBe(`arn:aws:sts::${testAccount}:assumed-role/visitors/session-1`)
    await administration.deletePolicy(otherAccount, 'carol', 'test')
    await expect(assume('visitors', {}, sts(carol))).rejects.toMatchObject(denied)
  })

  it('validates its members in the framework’s words', async () => {
    for (const [input, text] of [
      [{ DurationSeconds: 899 }, "Value '899' at 'durationSeconds'"],
      [{ DurationSeconds: 43_201 }, "Value '43201' at 'durationSeconds'"],
      [{ RoleSessionName: 'a' }, "Value 'a' at 'roleSessionName'"],
      [{ RoleSessionName: 'a b' }, 'Member must satisfy regular expression pattern'],
      [{ RoleArn: 'arn:aws:iam::1:r' }, "at 'roleArn'"],
      [{ RoleArn: 'arn:aws:s3:::some-bucket-name' }, 'is invalid'],
      [{ Policy: 'x'.repeat(2049) }, "at 'policy'"],
      [{ SerialNumber: 'arn:aws:iam::000000000000:mfa/alice', TokenCode: '123456' }, 'SerialNumber is not supported.'],
      [{ TransitiveTagKeys: ['a'] }, 'TransitiveTagKeys is not supported.'],
    ] as const) {
      await expect(assume('reader', input as object)).rejects.toMatchObject({
        name: 'ValidationError',
        message: expect.stringContaining(text),
      })
    }
    const Policy = '{"Version":"2012-10-17","Statement":[{"Effect":"Perhaps"}]}'
    await expect(assume('reader', { Policy })).rejects.toMatchObject({ name: 'MalformedPolicyDocumentException' })
  })
})

describe('a session', () => {
  it('is narrowed by its session policy, and is never given more by it', async () => {
    const narrowed = await assume('reader', { Policy: allow('kms:DescribeKey') })
    await describeKey(narrowed.session)
    await expect(encrypt(narrowed.session)).rejects.toMatchObject(deniedByKms)
    const widened = await assume('reader', { Policy: allow('*') })
    await encrypt(widened.session)
    await expect(kms(widened.session).send(new CreateKeyCommand({}))).rejects.toMatchObject(deniedByKms)
    // two sessions of one name keep their own policies
    await expect(encrypt(narrowed.session)).rejects.toMatchObject(deniedByKms)
  })

  it('carries tags that the trust policy permits it to have', async () => {
    const { administration } = gateway.gateway
    const Tags = [{ Key: 'Team', Value: 'blue' }]
    await expect(assume('reader', { Tags })).rejects.toMatchObject({
      ...denied,
      message: expect.stringContaining('sts:TagSession'),
    })
    const Condition = { StringEquals: { 'aws:RequestTag/team': ['blue', 'red'] } }
    const Action = ['sts:AssumeRole', 'sts:TagSession']
    await administration.createRole(testAccount, 'tagged', trust(userArn('alice'), { Action, Condition }))
    const onlyBlue = { Condition: { StringEquals: { 'aws:PrincipalTag/Team': 'blue' } } }
    await administration.putRolePolicy(testAccount, 'tagged', 'kms', allow('kms:DescribeKey', onlyBlue))
    await describeKey((await assume('tagged', { Tags })).session)
    const red = await assume('tagged', { Tags: [{ Key: 'Team', Value: 'red' }] })
    await expect(describeKey(red.session)).rejects.toMatchObject(deniedByKms)
    await expect(assume('tagged', { Tags: [{ Key: 'Team', Value: 'green' }] })).rejects.toMatchObject(denied)
    const twice = [...Tags, { Key: 'TEAM', Value: 'red' }]
    await expect(assume('tagged', { Tags: twice })).rejects.toMatchObject({ name: 'ValidationError' })
    const huge = Array.from({ length: 40 }, (_, index) => ({ Key: `k${index}`, Value: 'v'.repeat(256) }))
    await expect(assume('tagged', { Tags: [...Tags, ...huge] })).rejects.toMatchObject({
      name: expect.stringMatching(/^PackedPolicyTooLarge/),
    })
  })

  it('may assume another role for an hour at most', async () => {
    const { administration } = gateway.gateway
    await administration.createRole(testAccount, 'next', trust(roleArn('reader')))
    await administration.putRolePolicy(testAccount, 'reader', 'chain', allow('sts:AssumeRole'))
    const { session } = await assume('reader', { DurationSeconds: 43_200 })
    const long = assume('next', { DurationSeconds: 3_601 }, sts(session))
    await expect(long).rejects.toMatchObject({ name: 'ValidationError' })
    await assume('next', { DurationSeconds: 3_600 }, sts(session))
    await administration.deleteRolePolicy(testAccount, 'reader', 'chain')
  })

  it('survives a restart of the gateway', async () => {
    const { session } = await assume('reader')
    await gateway.restart()
    await describeKey(session)
    await encrypt(session)
  })

  it('ends at once when its role is disabled or deleted, and does not pass to a new role of that name', async () => {
    const { administration } = gateway.gateway
    const make = async () => {
      await administration.createRole(testAccount, 'short', trust(userArn('alice')))
      await administration.putRolePolicy(testAccount, 'short', 'kms', allow('kms:DescribeKey'))
    }
    await make()
    const { session } = await assume('short')
    await describeKey(session)
    await administration.setRoleEnabled(testAccount, 'short', false)
    await expect(describeKey(session)).rejects.toMatchObject(unknownToken)
    await administration.setRoleEnabled(testAccount, 'short', true)
    await describeKey(session)
    await administration.putRolePolicy(testAccount, 'short', 'kms', allow('kms:Encrypt'))
    await expect(describeKey(session)).rejects.toMatchObject(deniedByKms)
    await administration.deleteRole(testAccount, 'short')
    await expect(describeKey(session)).rejects.toMatchObject(unknownToken)
    await make()
    await expect(describeKey(session)).rejects.toMatchObject(unknownToken)
  })

  it('is nothing without its own token, and nobody can make one up', async () => {
    const { session } = await assume('reader')
    const other = await assume('reader')
    const bytes = Buffer.from(session.sessionToken, 'base64')
    bytes[40] = (bytes[40] as number) ^ 1
    const { accessKeyId, secretAccessKey } = session
    for (const sessionToken of [undefined, 'x', bytes.toString('base64'), other.session.sessionToken]) {
      const forged = { accessKeyId, secretAccessKey, ...(sessionToken === undefined ? {} : { sessionToken }) }
      await expect(describeKey(forged)).rejects.toMatchObject(unknownToken)
    }
    const wrongSecret = { ...session, secretAccessKey: other.session.secretAccessKey }
    await expect(describeKey(wrongSecret)).rejects.toMatchObject({ name: 'InvalidSignatureException' })
    // a user's access key takes no token
    const withToken = { ...alice, sessionToken: session.sessionToken }
    await expect(describeKey(withToken)).rejects.toMatchObject(unknownToken)
    await describeKey(session)
  })

  it('is what a key policy can name, by its role or by itself', async () => {
    const { session, arn } = await assume('reader', { RoleSessionName: 'named' })
    const { session: second } = await assume('reader', { RoleSessionName: 'other' })
    const { KeyMetadata } = await gateway.client().send(new CreateKeyCommand({}))
    const KeyId = KeyMetadata?.Arn as string
    const root = { AWS: `arn:aws:iam::${testAccount}:root` }
    const Policy = JSON.stringify({
      Version: '2012-10-17',
      Statement: [
        { Effect: 'Allow', Principal: root, Action: 'kms:PutKeyPolicy', Resource: '*' },
        { Effect: 'Allow', Principal: { AWS: roleArn('reader') }, Action: 'kms:GetKeyPolicy', Resource: '*' },
        { Effect: 'Allow', Principal: { AWS: arn }, Action: 'kms:DescribeKey', Resource: '*' },
      ],
    })
    await gateway.client().send(new PutKeyPolicyCommand({ KeyId, Policy }))
    await kms(session).send(new DescribeKeyCommand({ KeyId }))
    await expect(kms(second).send(new DescribeKeyCommand({ KeyId }))).rejects.toMatchObject(deniedByKms)
  })
})

describe('the Query protocol', () => {
  it('answers XML, with 403 for callers it does not know', async () => {
    const identity = await query('Action=GetCallerIdentity&Version=2011-06-15')
    expect(identity).toMatchObject({ status: 200, type: 'text/xml' })
    expect(identity.xml).toMatch(
      new RegExp(
        '^<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><GetCallerIdentityResult>' +
          `<Arn>${userArn('alice')}</Arn><UserId>AIDA[A-Z2-7]{17}</UserId><Account>${testAccount}</Account>` +
          '</GetCallerIdentityResult><ResponseMetadata><RequestId>[0-9a-f-]{36}</RequestId></ResponseMetadata>' +
          '</GetCallerIdentityResponse>$',
      ),
    )
    const unknown = { accessKeyId: 'AKIAUNKNOWNUNKNOWN22', secretAccessKey: 'x' }
    for (const [answer, status, code] of [
      [
        await query('Action=GetCallerIdentity&Version=2011-06-15', { credentials: unknown }),
        403,
        'InvalidClientTokenId',
      ],
      [
        await query('Action=GetCallerIdentity&Version=2011-06-15', { credentials: { ...alice, secretAccessKey: 'x' } }),
        403,
        'SignatureDoesNotMatch',
      ],
      [
        await query('Action=GetCallerIdentity&Version=2011-06-15', { atMs: Date.now() - 3_600_000 }),
        403,
        'SignatureDoesNotMatch',
      ],
      [await query('Action=Gone%3C%26&Version=2011-06-15'), 400, 'InvalidAction'],
      [await query('Action=GetCallerIdentity&Version=2010-01-01'), 400, 'InvalidAction'],
      [await query('Version=2011-06-15'), 400, 'MissingAction'],
      [await query('Action=GetCallerIdentity&Action=AssumeRole&Version=2011-06-15'), 400, 'MalformedInput'],
      [await query('Action=AssumeRole&Version=2011-06-15'), 400, 'ValidationError'],
    ] as const) {
      expect(answer.status).toBe(status)
      expect(answer.xml).toContain(`<Error><Type>Sender</Type><Code>${code}</Code><Message>`)
    }
    const escaped = await query('Action=Gone%3C%26&Version=2011-06-15')
    expect(escaped.xml).toContain('Could not find operation Gone&lt;&amp; for version 2011-06-15')
  })
})

describe("Debian's AWS CLI", { timeout: 120_000 }, () => {
  const aws = async (credentials: TestCredentials & { sessionToken?: string }, ...args: string[]) => {
    const env = {
      ...gateway.cliEnvironment,
      AWS_ACCESS_KEY_ID: credentials.accessKeyId,
      AWS_SECRET_ACCESS_KEY: credentials.secretAccessKey,
      ...(credentials.sessionToken === undefined ? {} : { AWS_SESSION_TOKEN: credentials.sessionToken }),
    }
    const all = ['--endpoint-url', gateway.endpoint, ...args, '--output', 'json']
    return JSON.parse((await runOk('/usr/bin/aws', all, { env })).toString())
  }

  it('asks who it is, assumes a role and works as it', async () => {
    expect(await aws(alice, 'sts', 'get-caller-identity')).toMatchObject({
      Account: testAccount,
      Arn: userArn('alice'),
    })
    const role = ['--role-arn', roleArn('reader'), '--role-session-name', 'cli']
    const { Credentials } = await aws(alice, 'sts', 'assume-role', ...role)
    const session = {
      accessKeyId: Credentials.AccessKeyId,
      secretAccessKey: Credentials.SecretAccessKey,
      sessionToken: Credentials.SessionToken,
    }
    const arn = `arn:aws:sts::${testAccount}:assumed-role/reader/cli`
    expect(await aws(session, 'sts', 'get-caller-identity')).toMatchObject({ Arn: arn })
    expect((await aws(session, 'kms', 'describe-key', '--key-id', keyId)).KeyMetadata.Arn).toBe(keyId)
  })

  it('shows why a role is refused', async () => {
    const env = {
      ...gateway.cliEnvironment,
      AWS_ACCESS_KEY_ID: alice.accessKeyId,
      AWS_SECRET_ACCESS_KEY: alice.secretAccessKey,
    }
    const args = ['sts', 'assume-role', '--role-arn', roleArn('missing'), '--role-session-name', 'cli']
    const { status, stderr } = await run('/usr/bin/aws', ['--endpoint-url', gateway.endpoint, ...args], { env })
    expect(status).toBe(254)
    expect(stderr).toContain('An error occurred (AccessDenied) when calling the AssumeRole operation')
  })
})
