/** AWS KMS Developer Guide, "kms:ResourceAliases": permissions that follow the aliases of a key, on keys with as many as there may be. */
import {
  CreateAliasCommand,
  CreateKeyCommand,
  DeleteAliasCommand,
  DescribeKeyCommand,
  EncryptCommand,
  type KMSClient,
  UpdateAliasCommand,
} from '@aws-sdk/client-kms'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { startGateway, type TestGateway } from '../../support/gateway.ts'

const aliasesPerKey = 50

let gateway: TestGateway
let kms: KMSClient
let manyId: string
let otherId: string

beforeAll(async () => {
  gateway = await startGateway()
  kms = gateway.client()
  const [many, other] = await Promise.all([kms.send(new CreateKeyCommand({})), kms.send(new CreateKeyCommand({}))])
  manyId = many.KeyMetadata!.KeyId!
  otherId = other.KeyMetadata!.KeyId!
  for (let at = 1; at <= aliasesPerKey; at++) {
    await kms.send(new CreateAliasCommand({ AliasName: `alias/many-${at}`, TargetKeyId: manyId }))
  }
}, 180_000)

afterAll(async () => {
  await gateway?.[Symbol.asyncDispose]()
})

async function userWith(name: string, ...Statement: readonly object[]): Promise<KMSClient> {
  return gateway.client({ credentials: await gateway.createUser(name, { Version: '2012-10-17', Statement }) })
}

const encrypt = (user: KMSClient, KeyId: string) =>
  user.send(new EncryptCommand({ KeyId, Plaintext: Buffer.from('x') }))
const condition = (operator: string, alias: string) => ({ Condition: { [operator]: { 'kms:ResourceAliases': alias } } })
const denied = { name: 'AccessDeniedException' }

describe('kms:ResourceAliases', () => {
  it('allows what any alias of the key allows, the last of fifty included, by whatever name the key is called', async () => {
    const user = await userWith('any-alias', {
      Effect: 'Allow',
      Action: 'kms:*',
      Resource: '*',
      ...condition('ForAnyValue:StringEquals', `alias/many-${aliasesPerKey}`),
    })
    for (const KeyId of [manyId, 'alias/many-1']) await expect(encrypt(user, KeyId)).resolves.toBeDefined()
    await expect(user.send(new DescribeKeyCommand({ KeyId: manyId }))).resolves.toBeDefined()
    await expect(encrypt(user, otherId)).rejects.toMatchObject(denied)
  })

  it('follows a change of aliases with the next call', async () => {
    const user = await userWith('moving-alias', {
      Effect: 'Allow',
      Action: 'kms:Encrypt',
      Resource: '*',
      ...condition('ForAnyValue:StringLike', 'alias/moving-*'),
    })
    await expect(encrypt(user, otherId)).rejects.toMatchObject(denied)
    await kms.send(new CreateAliasCommand({ AliasName: 'alias/moving-one', TargetKeyId: otherId }))
    await expect(encrypt(user, otherId)).resolves.toBeDefined()
    const { KeyMetadata } = await kms.send(new CreateKeyCommand({}))
    await kms.send(new UpdateAliasCommand({ AliasName: 'alias/moving-one', TargetKeyId: KeyMetadata!.KeyId! }))
    await expect(encrypt(user, otherId)).rejects.toMatchObject(denied)
    await expect(encrypt(user, KeyMetadata!.KeyId!)).resolves.toBeDefined()
    await kms.send(new DeleteAliasCommand({ AliasName: 'alias/moving-one' }))
    await expect(encrypt(user, KeyMetadata!.KeyId!)).rejects.toMatchObject(denied)
  })

  it('denies what any alias of the key denies', async () => {
    const user = await userWith(
      'denied-alias',
      { Effect: 'Allow', Action: 'kms:Encrypt', Resource: '*' },
      {
        Effect: 'Deny',
        Action: 'kms:Encrypt',
        Resource: '*',
        ...condition('ForAnyValue:StringLike', 'alias/many-4*'),
      },
    )
    await expect(encrypt(user, manyId)).rejects.toMatchObject(denied)
    await expect(encrypt(user, otherId)).resolves.toBeDefined()
  })

  it('is absent for a key without aliases', async () => {
    const { KeyMetadata } = await kms.send(new CreateKeyCommand({}))
    const user = await userWith('no-alias', {
      Effect: 'Allow',
      Action: 'kms:Encrypt',
      Resource: '*',
      Condition: { Null: { 'kms:ResourceAliases': 'true' } },
    })
    await expect(encrypt(user, KeyMetadata!.KeyId!)).resolves.toBeDefined()
    await expect(encrypt(user, manyId)).rejects.toMatchObject(denied)
  })
})
