/**
 * What AWS's public test client checks (aws-kms-xksproxy-test-client 1.1.0, all 49 checks of `test-xks-proxy -a`), with curl as it calls it, and what it
 * leaves out: status codes, and that the decrypted bytes are those that were encrypted. The keys are objects that another tool made and that
 * were adopted, as when a store of AWS's sample proxy moves here.
 */
import { createHash, randomBytes } from 'node:crypto'
import path from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { run } from '../../support/command.ts'
import { createSecretObjects } from '../../support/secret-objects.ts'
import { createTestToken, type TestToken } from '../../support/softhsm.ts'
import {
  createStore,
  decryptBody,
  encryptBody,
  metadataOf,
  startXksGateway,
  type XksGateway,
  type XksStore,
} from '../../support/xks-client.ts'

const credential = {
  accessKeyId: 'BETWEEN2TENAND3TENCHARACTERS',
  secretAccessKey: 'PleaseReplaceThisWithSomeSecretOfLength43To64',
}

let token: TestToken
let xks: XksGateway
let store: XksStore

beforeAll(async () => {
  token = await createTestToken()
  await createSecretObjects(token, [
    // as pkcs11-tool makes them, which tells SoftHSM nothing about usages
    { label: 'foo', usages: ['encrypt', 'decrypt', 'wrap', 'unwrap', 'sign', 'verify'] },
    { label: 'encrypt_only_key', usages: ['encrypt'] },
    { label: 'decrypt_only_key', usages: ['decrypt'] },
    { label: 'impotent_key', usages: ['sign', 'verify'] },
  ])
  xks = await startXksGateway({ token })
  store = await createStore(xks, 'example', { prefix: '/example/uri/path/prefix', ...credential })
  for (const label of ['foo', 'encrypt_only_key', 'decrypt_only_key', 'impotent_key']) {
    const { arn } = await xks.gateway.ask<{ arn: string }>('key', 'adopt', { label, purpose: 'xks' })
    await xks.gateway.ask('xks-key', 'add', { store: 'example', id: label, key: arn })
  }
}, 180_000)

afterAll(async () => {
  await xks?.[Symbol.asyncDispose]()
  await token?.[Symbol.asyncDispose]()
})

interface Answer {
  readonly status: number
  readonly body: Record<string, unknown>
}

/** As the client's scripts do: the body is the last line of the output. */
async function curl(api: string, body: unknown, as = credential, prefix = store.uriPath): Promise<Answer> {
  const { stdout, stderr } = await run('/usr/bin/curl', [
    '--silent',
    '--show-error',
    '--cacert',
    path.join(xks.tlsDirectory, 'ca.pem'),
    '--aws-sigv4',
    'aws:amz:us-east-1:kms-xks-proxy',
    '--user',
    `${as.accessKeyId}:${as.secretAccessKey}`,
    '--header',
    'Content-Type: application/json',
    '--data',
    JSON.stringify(body),
    '--write-out',
    '\\n%{http_code}',
    `${xks.endpoint}${prefix}/${api}`,
  ])
  const lines = stdout.toString().split('\n')
  const status = Number(lines.pop())
  if (status === 0) throw new Error(`curl: ${stderr}`)
  expect(lines).toHaveLength(1)
  return { status, body: JSON.parse(lines[0] as string) as Record<string, unknown> }
}

const badId = { ...credential, accessKeyId: 'NOT2BETWEEN2TENAND3TENCHARS' }
const badSecret = { ...credential, secretAccessKey: 'PleaseReplaceThisWithSomeSecretOfLength43To65' }
const refused = (status: number, errorName: string) => ({ status, body: expect.objectContaining({ errorName }) })
const notAuthenticated = refused(401, 'AuthenticationFailedException')
const badPath = refused(404, 'InvalidUriPathException')
const badRequest = refused(400, 'ValidationException')
const badUsage = refused(400, 'InvalidKeyUsageException')
const badCiphertext = refused(400, 'InvalidCiphertextException')
const noKey = refused(404, 'KeyNotFoundException')

const plaintext = Buffer.from('Hello World!')
const aad = Buffer.from('project=nile,department=marketing').toString('base64')
const withAad = { additionalAuthenticatedData: aad }
const withIntegrity = { ciphertextDataIntegrityValueAlgorithm: 'SHA_256' }

describe('test_get_health_status (6)', () => {
  it('passes', async () => {
    expect(await curl('health', metadataOf('KmsHealthCheck'))).toMatchObject({
      status: 200,
      body: { ekmFleetDetails: [{ healthStatus: 'ACTIVE' }] },
    })
    expect(await curl('health', {})).toEqual(badRequest)
    expect(await curl('health', { requestMetadata: {} })).toEqual(badRequest)
    expect(await curl('health', metadataOf('KmsHealthCheck'), badId)).toEqual(notAuthenticated)
    expect(await curl('health', metadataOf('KmsHealthCheck'), badSecret)).toEqual(notAuthenticated)
    const invalid = store.uriPath.replace('prefix', 'prefix/invalid')
    expect(await curl('health', metadataOf('KmsHealthCheck'), credential, invalid)).toEqual(badPath)
  })

  it('takes an empty request id, which a client without uuidgen sends', async () => {
    expect(await curl('health', metadataOf('KmsHealthCheck', { kmsRequestId: '' }))).toMatchObject({ status: 200 })
  })
})

describe('test_get_key_metadata (8)', () => {
  it('passes', async () => {
    for (const kmsOperation of ['DescribeKey', 'CreateKey']) {
      expect(await curl('keys/foo/metadata', metadataOf(kmsOperation))).toMatchObject({
        status: 200,
        body: { keySpec: 'AES_256', keyStatus: 'ENABLED', keyUsage: expect.arrayContaining(['ENCRYPT', 'DECRYPT']) },
      })
    }
    expect(await curl('keys/foo/metadata', {})).toEqual(badRequest)
    expect(await curl('keys/foo/metadata', { requestMetadata: {} })).toEqual(badRequest)
    expect(await curl('keys/foo/metadata', metadataOf('CreateKey'), badId)).toEqual(notAuthenticated)
    expect(await curl('keys/foo/metadata', metadataOf('CreateKey'), badSecret)).toEqual(notAuthenticated)
    const invalid = store.uriPath.replace('prefix', 'prefix/invalid')
    expect(await curl('keys/foo/metadata', metadataOf('CreateKey'), credential, invalid)).toEqual(badPath)
    expect(await curl('keys/non_existing_key/metadata', metadataOf('CreateKey'))).toEqual(noKey)
  })
})

describe('test_encrypt_decrypt (21)', () => {
  it('refuses what it should', async () => {
    expect(await curl('keys/non_existing_key/encrypt', encryptBody(plaintext))).toEqual(noKey)
    expect(await curl('keys/foo/encrypt', { ...metadataOf('Encrypt'), encryptionAlgorithm: 'AES_GCM' })).toEqual(
      badRequest,
    )
    expect(await curl('keys/foo/encrypt', encryptBody(plaintext), badId)).toEqual(notAuthenticated)
    expect(await curl('keys/foo/encrypt', encryptBody(plaintext), badSecret)).toEqual(notAuthenticated)
    expect(await curl('keys/foo/nowhere', encryptBody(plaintext))).toEqual(badPath)
  })

  it('opens nothing without its additional data, or with other', async () => {
    const { body } = await curl('keys/foo/encrypt', encryptBody(plaintext, withAad))
    expect(await curl('keys/foo/decrypt', decryptBody(body))).toEqual(badCiphertext)
    expect(await curl('keys/foo/decrypt', decryptBody(body))).toEqual(badCiphertext)
    const other = { additionalAuthenticatedData: Buffer.from('other').toString('base64') }
    expect(await curl('keys/foo/decrypt', decryptBody(body, other))).toEqual(badCiphertext)
  })

  it.each([
    ['without additional data', plaintext, {}],
    ['with additional data', plaintext, withAad],
    ['with an integrity value', plaintext, withIntegrity],
    ['with an integrity value and additional data', plaintext, { ...withIntegrity, ...withAad }],
    [
      'with 4096 bytes and 8192 bytes of additional data',
      randomBytes(4096),
      { additionalAuthenticatedData: randomBytes(8192).toString('base64') },
    ],
  ])('goes there and back %s', async (_what, data: Buffer, more: Record<string, string>) => {
    const { status, body } = await curl('keys/foo/encrypt', encryptBody(data, more))
    expect(status).toBe(200)
    const of = (name: string) => Buffer.from((body[name] as string | undefined) ?? '', 'base64')
    expect(of('ciphertext')).toHaveLength(data.length)
    expect(of('initializationVector')).toHaveLength(12)
    expect(of('authenticationTag')).toHaveLength(16)
    expect(of('ciphertextMetadata').length).toBeLessThanOrEqual(20)
    const { additionalAuthenticatedData } = more
    if ('ciphertextDataIntegrityValueAlgorithm' in more) {
      const digest = createHash('sha256').update(Buffer.from(additionalAuthenticatedData ?? '', 'base64'))
      for (const name of ['ciphertextMetadata', 'initializationVector', 'ciphertext', 'authenticationTag'])
        digest.update(of(name))
      expect(body.ciphertextDataIntegrityValue).toBe(digest.digest('base64'))
    } else expect(body).not.toHaveProperty('ciphertextDataIntegrityValue')
    const context = additionalAuthenticatedData === undefined ? {} : { additionalAuthenticatedData }
    const opened = await curl('keys/foo/decrypt', decryptBody(body, context))
    expect(opened).toEqual({ status: 200, body: { plaintext: data.toString('base64') } })
  })
})

describe('keys that permit less (14)', () => {
  it('test_encrypt_only_key: encrypts, neither decrypts nor proves', async () => {
    const { status, body } = await curl('keys/encrypt_only_key/encrypt', encryptBody(plaintext))
    expect(status).toBe(200)
    expect(await curl('keys/encrypt_only_key/decrypt', decryptBody(body))).toEqual(badUsage)
    const sealed = await curl('keys/encrypt_only_key/encrypt', encryptBody(plaintext, withAad))
    expect(sealed.status).toBe(200)
    expect(await curl('keys/encrypt_only_key/decrypt', decryptBody(sealed.body, withAad))).toEqual(badUsage)
    for (const more of [withIntegrity, { ...withIntegrity, ...withAad }]) {
      expect(await curl('keys/encrypt_only_key/encrypt', encryptBody(plaintext, more))).toEqual(badUsage)
    }
  })

  it.each(['decrypt_only_key', 'impotent_key'])('%s: encrypts in none of four forms', async (key) => {
    for (const more of [{}, withAad, withIntegrity, { ...withIntegrity, ...withAad }]) {
      expect(await curl(`keys/${key}/encrypt`, encryptBody(plaintext, more))).toEqual(badUsage)
    }
  })

  it('say so in their metadata', async () => {
    const usageOf = async (key: string) =>
      (await curl(`keys/${key}/metadata`, metadataOf('CreateKey'))).body.keyUsage as readonly string[]
    expect(await usageOf('encrypt_only_key')).toEqual(['ENCRYPT'])
    expect(await usageOf('decrypt_only_key')).toEqual(['DECRYPT'])
    expect(await usageOf('impotent_key')).toEqual(['SIGN', 'VERIFY'])
  })
})

describe('a plaintext', () => {
  it('may have 4300 bytes', async () => {
    const data = randomBytes(4300)
    const { status, body } = await curl('keys/foo/encrypt', encryptBody(data))
    expect(status).toBe(200)
    expect(await curl('keys/foo/decrypt', decryptBody(body))).toMatchObject({
      body: { plaintext: data.toString('base64') },
    })
  })
})
