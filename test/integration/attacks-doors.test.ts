/** A key of one door at another: by its ARN, behind an alias, named by a ciphertext, bound, listed or adopted again. */
import { randomBytes } from 'node:crypto'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { encodeBlobHeader } from '../../src/keys/ciphertext-blob.ts'
import { testAccount } from '../support/gateway.ts'
import { createCall } from '../support/kms-call.ts'
import { createStore, startXksGateway, type XksGateway } from '../support/xks-client.ts'

let xks: XksGateway
let keys: { readonly kms: string; readonly tls: string; readonly xks: string }
const call = (operation: string, body: object) => createCall(xks.gateway)(operation, body)
const ask = (noun: string, verb: string, question: Readonly<Record<string, string | boolean>>) =>
  xks.gateway.ask<{ readonly arn: string }>(noun, verb, question)
const base64 = (bytes: Uint8Array) => Buffer.from(bytes).toString('base64')

beforeAll(async () => {
  xks = await startXksGateway()
  await createStore(xks, 'main')
  const { body } = await call('CreateKey', {})
  keys = {
    kms: (body as { KeyMetadata: { Arn: string } }).KeyMetadata.Arn,
    tls: (await ask('tls', 'create-key', { spec: 'RSA_2048', alias: 'site' })).arn,
    xks: (await ask('xks-key', 'create', { store: 'main', id: 'foo' })).arn,
  }
}, 120_000)
afterAll(() => xks?.[Symbol.asyncDispose]())

it.each([
  ['Encrypt', { Plaintext: base64(randomBytes(4)) }],
  ['GenerateDataKey', { KeySpec: 'AES_256' }],
  ['DescribeKey', {}],
  ['DisableKey', {}],
  ['ScheduleKeyDeletion', {}],
  ['CreateGrant', { GranteePrincipal: `arn:aws:iam::${testAccount}:root`, Operations: ['Encrypt'] }],
  ['PutKeyPolicy', { Policy: '{}' }],
  ['TagResource', { Tags: [] }],
])('the KMS door knows no key of an external key store: %s', async (operation, members) => {
  const { status, body } = await call(operation, { KeyId: keys.xks, ...members })
  expect([status, (body as { __type: string }).__type]).toEqual([400, 'NotFoundException'])
})

it('the KMS door leads no alias and no ciphertext to a key of an external key store', async () => {
  const refused = { status: 400 }
  expect(await call('CreateAlias', { AliasName: 'alias/x', TargetKeyId: keys.xks })).toMatchObject(refused)
  await call('CreateAlias', { AliasName: 'alias/x', TargetKeyId: keys.kms })
  expect(await call('UpdateAlias', { AliasName: 'alias/x', TargetKeyId: keys.xks })).toMatchObject(refused)
  const keyId = keys.xks.split('/')[1] as string
  for (const external of [false, true]) {
    const header = encodeBlobHeader({ keyId, materialId: randomBytes(32), derived: false, external })
    const CiphertextBlob = base64(Buffer.concat([header, Buffer.of(0, 12), randomBytes(60)]))
    for (const [operation, members] of [
      ['Decrypt', {}],
      ['ReEncrypt', { DestinationKeyId: keys.kms }],
    ] as const) {
      const { body } = await call(operation, { CiphertextBlob, ...members })
      expect((body as { __type: string }).__type).toBe('AccessDeniedException')
    }
  }
  const { body } = await call('Encrypt', { KeyId: keys.kms, Plaintext: base64(randomBytes(4)) })
  const { CiphertextBlob } = body as { CiphertextBlob: string }
  expect(await call('ReEncrypt', { CiphertextBlob, DestinationKeyId: keys.xks })).toMatchObject(refused)
})

it('the KMS door signs nothing with a key of a TLS server, by its alias neither, nor copies or fills it', async () => {
  const message = { Message: base64(randomBytes(32)), SigningAlgorithm: 'RSASSA_PSS_SHA_256' }
  for (const KeyId of [keys.tls, 'alias/site']) {
    for (const members of [{}, { DryRun: true }, { MessageType: 'DIGEST' }]) {
      const { body } = await call('Sign', { KeyId, ...message, ...members })
      expect((body as { __type: string }).__type).toBe('InvalidKeyUsageException')
    }
  }
  const wrapping = { WrappingAlgorithm: 'RSAES_OAEP_SHA_256', WrappingKeySpec: 'RSA_2048' }
  for (const [operation, members] of [
    ['ReplicateKey', { ReplicaRegion: 'eu-west-1' }],
    ['GetParametersForImport', wrapping],
    ['Decrypt', { CiphertextBlob: base64(randomBytes(256)), EncryptionAlgorithm: 'RSAES_OAEP_SHA_256' }],
  ] as const) {
    const { status } = await call(operation, { KeyId: keys.tls, ...members })
    expect(status).toBe(400)
  }
})

it('keys of other doors are neither bound to tokens nor put into stores', async () => {
  for (const key of [keys.kms, keys.xks]) {
    const binding = { name: 'stolen', key, anyUser: true, policies: 'any' }
    await expect(ask('tls', 'bind', binding)).rejects.toThrow(/tls/)
  }
  for (const key of [keys.kms, keys.tls]) {
    await expect(ask('xks-key', 'add', { store: 'main', id: 'stolen', key })).rejects.toThrow()
  }
  // the key of health checks is the gateway's own
  const own = keys.xks.replace(/:[^:]+:\d{12}:key\/.*/, ':system:system:key/xks-health')
  await expect(ask('xks-key', 'add', { store: 'main', id: 'stolen', key: own })).rejects.toThrow()
})
