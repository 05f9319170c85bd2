/** Traps of policies and grants, as the AWS SDK meets them. Their numbers are those of docs/kms-compatibility.md. */
import type { GrantOperation, KMS } from '@aws-sdk/client-kms'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { startGateway, type TestGateway, testAccount } from '../../support/gateway.ts'
import { createCall, refusal } from '../../support/kms-call.ts'
import { makeKey, type NewKey, openKms, refusalOf } from '../../support/kms-sdk.ts'

let gateway: TestGateway
let kms: KMS
let key: NewKey
const opened: KMS[] = []

beforeAll(async () => {
  gateway = await startGateway()
  kms = openKms(gateway)
  opened.push(kms)
  key = await makeKey(kms)
  await gateway.createUser('grantee')
}, 60_000)

afterAll(async () => {
  for (const client of opened) client.destroy()
  await gateway?.[Symbol.asyncDispose]()
})

const Plaintext = Buffer.from('plaintext')
const userArn = (name: string) => `arn:aws:iam::${testAccount}:user/${name}`
const GranteePrincipal = userArn('grantee')
const document = (...Statement: readonly object[]) => ({ Version: '2012-10-17', Statement })

async function openAs(name: string, ...statements: readonly object[]): Promise<KMS> {
  const client = openKms(gateway, { credentials: await gateway.createUser(name, document(...statements)) })
  opened.push(client)
  return client
}

describe('grants', () => {
  it('trap 37: CreateGrant is idempotent only with a name: the id is the same, the token is not', async () => {
    const request = { KeyId: key.id, GranteePrincipal, Operations: ['Encrypt'] satisfies GrantOperation[] }
    const named = [
      await kms.createGrant({ ...request, Name: 'once' }),
      await kms.createGrant({ ...request, Name: 'once' }),
    ]
    expect(named[0]!.GrantId).toBe(named[1]!.GrantId)
    expect(named[0]!.GrantToken).not.toBe(named[1]!.GrantToken)
    const unnamed = [await kms.createGrant(request), await kms.createGrant(request)]
    expect(unnamed[0]!.GrantId).not.toBe(unnamed[1]!.GrantId)
  })

  it('trap 38: operations that the key has not, and such as are spelled otherwise, are invalid', async () => {
    for (const operation of ['Sign', 'DECRYPT', 'GenerateMac']) {
      const grant = { KeyId: key.id, GranteePrincipal, Operations: [operation as GrantOperation] }
      expect(await refusalOf(kms.createGrant(grant))).toMatchObject({ name: 'ValidationException' })
    }
  })

  it('trap 39: RetireGrant wants a token, or a key ARN with a grant id, and never both; RevokeGrant takes no token', async () => {
    const make = () => kms.createGrant({ KeyId: key.id, GranteePrincipal, Operations: ['Encrypt'] })
    const { GrantId, GrantToken } = await make()
    for (const request of [{}, { GrantToken, KeyId: key.arn, GrantId }, { GrantId }, { KeyId: key.arn }]) {
      expect(await refusalOf(kms.retireGrant(request))).toMatchObject({ name: 'ValidationException' })
    }
    expect(await refusalOf(kms.revokeGrant({ KeyId: key.id, GrantToken } as never))).toMatchObject({
      name: 'ValidationException',
    })
    await kms.retireGrant({ GrantToken })
    const second = await make()
    await kms.retireGrant({ KeyId: key.arn, GrantId: second.GrantId })
    const third = await make()
    await kms.revokeGrant({ KeyId: key.id, GrantId: third.GrantId })
    const left = (await kms.listGrants({ KeyId: key.id })).Grants!.map((grant) => grant.GrantId)
    for (const gone of [GrantId, second.GrantId, third.GrantId]) expect(left).not.toContain(gone)
  })

  it('trap 40: ListRetirableGrants spans all keys, and the issuing account is a root ARN', async () => {
    await gateway.createUser('retirer')
    const RetiringPrincipal = userArn('retirer')
    const keys = [await makeKey(kms), await makeKey(kms)]
    for (const { id: KeyId } of keys) {
      await kms.createGrant({ KeyId, GranteePrincipal, RetiringPrincipal, Operations: ['Encrypt'] })
    }
    const { Grants } = await kms.listRetirableGrants({ RetiringPrincipal })
    expect(Grants!.map(({ KeyId }) => KeyId).sort()).toEqual(keys.map(({ arn }) => arn).sort())
    for (const grant of Grants!) {
      expect(grant).toMatchObject({ IssuingAccount: `arn:aws:iam::${testAccount}:root`, Name: '' })
    }
  })
})

describe('policies', () => {
  it('trap 41: a policy that locks its author out, or names nobody, is malformed, unless the check is bypassed', async () => {
    const { id: KeyId } = await makeKey(kms)
    const allow = (AWS: string, Action: string) =>
      JSON.stringify(document({ Effect: 'Allow', Principal: { AWS }, Action, Resource: '*' }))
    const lockout = allow(`arn:aws:iam::${testAccount}:root`, 'kms:DescribeKey')
    expect(await refusalOf(kms.putKeyPolicy({ KeyId, Policy: lockout }))).toMatchObject({
      name: 'MalformedPolicyDocumentException',
      message: 'The new key policy will not allow you to update the key policy in the future.',
    })
    const nobody = allow(userArn('nobody'), 'kms:*')
    for (const BypassPolicyLockoutSafetyCheck of [false, true]) {
      expect(
        await refusalOf(kms.putKeyPolicy({ KeyId, Policy: nobody, BypassPolicyLockoutSafetyCheck })),
      ).toMatchObject({
        name: 'MalformedPolicyDocumentException',
        message: 'Policy contains a statement with one or more invalid principals.',
      })
    }
    await kms.putKeyPolicy({ KeyId, Policy: lockout, BypassPolicyLockoutSafetyCheck: true })
    expect((await kms.describeKey({ KeyId })).KeyMetadata).toMatchObject({ KeyId })
  })

  it('trap 55: permission on an alias ARN is none on its key, and permission on the key needs none on the alias', async () => {
    const KeyId = 'alias/trap-55-sdk'
    await kms.createAlias({ AliasName: KeyId, TargetKeyId: key.id })
    const Resource = key.arn.replace(/key\/.*/, KeyId)
    const onAlias = await openAs('sdk-on-alias', { Effect: 'Allow', Action: 'kms:Encrypt', Resource })
    const onKey = await openAs('sdk-on-key', { Effect: 'Allow', Action: 'kms:Encrypt', Resource: key.arn })
    expect(await refusalOf(onAlias.encrypt({ KeyId, Plaintext }))).toMatchObject({ name: 'AccessDeniedException' })
    expect((await onKey.encrypt({ KeyId, Plaintext })).KeyId).toBe(key.arn)
  })

  it('trap 56: a key policy that does not name the account shuts out the identity policies of administrators', async () => {
    const { id: KeyId, arn } = await makeKey(kms)
    const statement = { Effect: 'Allow', Principal: { AWS: GranteePrincipal }, Action: 'kms:*', Resource: '*' }
    await kms.putKeyPolicy({
      KeyId,
      Policy: JSON.stringify(document(statement)),
      BypassPolicyLockoutSafetyCheck: true,
    })
    expect(await refusalOf(kms.describeKey({ KeyId }))).toMatchObject({
      name: 'AccessDeniedException',
      message: `User: ${userArn('administrator')} is not authorized to perform: kms:DescribeKey on resource: ${arn} because no resource-based policy allows the kms:DescribeKey action`,
      status: 400,
    })
  })

  it('trap 59: a denial of policies stands under Message, with a capital', async () => {
    const credentials = await gateway.createUser('denied')
    const body = await refusal(createCall(gateway, { credentials })('Encrypt', { KeyId: key.id, Plaintext: 'YQ==' }))
    expect(body).toEqual({
      __type: 'AccessDeniedException',
      Message: `User: ${userArn('denied')} is not authorized to perform: kms:Encrypt on resource: ${key.arn} because no identity-based policy allows the kms:Encrypt action`,
    })
    const client = openKms(gateway, { credentials })
    opened.push(client)
    expect((await refusalOf(client.encrypt({ KeyId: key.id, Plaintext }))).message).toBe(body.Message)
  })
})

describe('clocks', () => {
  it('trap 58: the Date of answers is right, so that a denial is not retried for the sake of the clock', async () => {
    const credentials = await gateway.createUser('denied-once')
    const client = openKms(gateway, { credentials, maxAttempts: 3 })
    opened.push(client)
    expect(await refusalOf(client.encrypt({ KeyId: key.id, Plaintext }))).toMatchObject({
      name: 'AccessDeniedException',
      attempts: 1,
    })
    const { headers } = await createCall(gateway)('ListKeys')
    expect(Math.abs(Date.parse(headers.get('date') as string) - Date.now())).toBeLessThan(30_000)
  })
})
