/** Key policies and identity policies together (AWS KMS Developer Guide, "Determining access to AWS KMS keys"), as callers see them. */
import {
  CreateAliasCommand,
  CreateKeyCommand,
  DescribeKeyCommand,
  EncryptCommand,
  GetKeyPolicyCommand,
  type KMSClient,
  PutKeyPolicyCommand,
} from '@aws-sdk/client-kms'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { startGateway, type TestGateway, testAccount, testRegion } from '../../support/gateway.ts'

const Plaintext = Buffer.from('p')
const document = (...Statement: Record<string, unknown>[]) => ({ Version: '2012-10-17', Statement })
const policyOf = (...statements: Record<string, unknown>[]) => JSON.stringify(document(...statements))
const userArn = (name: string) => `arn:aws:iam::${testAccount}:user/${name}`
const root = { AWS: `arn:aws:iam::${testAccount}:root` }
const deniedText = (name: string, action: string, KeyId: string, because: string) => ({
  name: 'AccessDeniedException',
  message: `User: ${userArn(name)} is not authorized to perform: ${action} on resource: ${KeyId} ${because}`,
})

let gateway: TestGateway
let admin: KMSClient

beforeAll(async () => {
  gateway = await startGateway()
  admin = gateway.client()
})

afterAll(async () => {
  await gateway?.[Symbol.asyncDispose]()
})

async function createKey(): Promise<string> {
  const { KeyMetadata } = await admin.send(new CreateKeyCommand({}))
  return KeyMetadata?.Arn as string
}

async function userClient(name: string, ...statements: Record<string, unknown>[]): Promise<KMSClient> {
  return gateway.client({ credentials: await gateway.createUser(name, document(...statements)) })
}

describe('a key policy', () => {
  it('that locks its author out is refused, unless the check is bypassed (trap 41)', async () => {
    const KeyId = await createKey()
    const before = await admin.send(new GetKeyPolicyCommand({ KeyId }))
    const Policy = policyOf({ Effect: 'Allow', Principal: root, Action: 'kms:DescribeKey', Resource: '*' })
    await expect(admin.send(new PutKeyPolicyCommand({ KeyId, Policy }))).rejects.toMatchObject({
      name: 'MalformedPolicyDocumentException',
      message: 'The new key policy will not allow you to update the key policy in the future.',
    })
    const nobody = policyOf({ Effect: 'Allow', Principal: { AWS: userArn('nobody') }, Action: 'kms:*', Resource: '*' })
    await expect(admin.send(new PutKeyPolicyCommand({ KeyId, Policy: nobody }))).rejects.toMatchObject({
      name: 'MalformedPolicyDocumentException',
      message: 'Policy contains a statement with one or more invalid principals.',
    })
    expect((await admin.send(new GetKeyPolicyCommand({ KeyId }))).Policy).toBe(before.Policy)
    await admin.send(new PutKeyPolicyCommand({ KeyId, Policy, BypassPolicyLockoutSafetyCheck: true }))
    await admin.send(new DescribeKeyCommand({ KeyId }))
    const back = admin.send(new PutKeyPolicyCommand({ KeyId, Policy: before.Policy }))
    await expect(back).rejects.toMatchObject({ name: 'AccessDeniedException' })
  })

  it('that does not name the account keeps administrators out (trap 56)', async () => {
    const KeyId = await createKey()
    await gateway.createUser('keeper')
    const Policy = policyOf({ Effect: 'Allow', Principal: { AWS: userArn('keeper') }, Action: 'kms:*', Resource: '*' })
    await admin.send(new PutKeyPolicyCommand({ KeyId, Policy, BypassPolicyLockoutSafetyCheck: true }))
    await expect(admin.send(new DescribeKeyCommand({ KeyId }))).rejects.toMatchObject(
      deniedText(
        'administrator',
        'kms:DescribeKey',
        KeyId,
        'because no resource-based policy allows the kms:DescribeKey action',
      ),
    )
  })
})

describe('an identity policy', () => {
  it('on an alias gives nothing on its key, and one on the key needs nothing on the alias (trap 55)', async () => {
    const KeyId = await createKey()
    const AliasName = 'alias/trap-55'
    await admin.send(new CreateAliasCommand({ AliasName, TargetKeyId: KeyId }))
    const aliasArn = `arn:aws:kms:${testRegion}:${testAccount}:${AliasName}`
    const onAlias = await userClient('on-alias', { Effect: 'Allow', Action: 'kms:Encrypt', Resource: aliasArn })
    const onKey = await userClient('on-key', { Effect: 'Allow', Action: 'kms:Encrypt', Resource: KeyId })
    for (const name of [AliasName, aliasArn, KeyId]) {
      const request = new EncryptCommand({ KeyId: name, Plaintext })
      await expect(onAlias.send(request)).rejects.toMatchObject(
        deniedText('on-alias', 'kms:Encrypt', KeyId, 'because no identity-based policy allows the kms:Encrypt action'),
      )
      await onKey.send(request)
    }
  })

  it('can ask for the alias by which the key is named', async () => {
    const KeyId = await createKey()
    await admin.send(new CreateAliasCommand({ AliasName: 'alias/by-name', TargetKeyId: KeyId }))
    const Condition = { StringEquals: { 'kms:RequestAlias': 'alias/by-name' } }
    const client = await userClient('by-name', { Effect: 'Allow', Action: 'kms:Encrypt', Resource: '*', Condition })
    await client.send(new EncryptCommand({ KeyId: 'alias/by-name', Plaintext }))
    const byArn = client.send(new EncryptCommand({ KeyId, Plaintext }))
    await expect(byArn).rejects.toMatchObject({ name: 'AccessDeniedException' })
  })
})
