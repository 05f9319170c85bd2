/** What the module behind the door does: initialization vectors that never repeat, and its failures as the specification words them. */
import { randomUUID } from 'node:crypto'
import path from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { deadlineIn } from '../../../src/call.ts'
import { openHsm } from '../../../src/hsm/hsm.ts'
import { createShimmedToken, type ShimmedToken } from '../../support/shim.ts'
import { createTestToken } from '../../support/softhsm.ts'
import {
  createStore,
  createXksClient,
  decryptBody,
  encryptBody,
  metadataOf,
  startXksGateway,
  type XksClient,
  type XksGateway,
} from '../../support/xks-client.ts'

describe('initialization vectors', () => {
  it('of 100,000 encryptions under one key all differ', { timeout: 180_000 }, async () => {
    await using token = await createTestToken()
    const { module, label, pinFile, env } = token
    const described = { name: 't', module, label, pinFile, profile: 'softhsm', env, workers: 2, sessions: 2 }
    await using hsm = await openHsm({
      tokens: [described],
      groups: [{ name: 'g', tokens: ['t'] }],
      stateDirectory: path.join(token.directory, 'state'),
    })
    const keyId = randomUUID()
    const { key } = await hsm.generate(
      {
        group: 'g',
        spec: 'SYMMETRIC_DEFAULT',
        usage: 'ENCRYPT_DECRYPT',
        purpose: 'xks',
        objectId: Buffer.from(keyId.replaceAll('-', ''), 'hex'),
        keyId,
        number: 1,
        residence: 'token',
      },
      deadlineIn(20_000),
    )
    const context = Buffer.from([0, 0, 0])
    const seen = new Set<string>()
    const count = 100_000
    let started = 0
    const draw = async () => {
      while (started++ < count) {
        const sealed = await hsm.encrypt(key, 'AES_GCM', { context, data: Buffer.from('same') }, deadlineIn(60_000))
        seen.add(sealed.toString('latin1', 1, 13))
      }
    }
    await Promise.all(Array.from({ length: 128 }, draw))
    expect(seen.size).toBe(count)
    expect(seen.has('\u0000'.repeat(12))).toBe(false)
  })
})

describe('a module that', () => {
  let token: ShimmedToken
  let xks: XksGateway
  let client: XksClient

  beforeAll(async () => {
    token = await createShimmedToken()
    xks = await startXksGateway({ token, config: { xks: { deadlineMs: 2000 } } })
    const store = await createStore(xks, 'main')
    await xks.gateway.ask('xks-key', 'create', { store: 'main', id: 'foo' })
    client = createXksClient(xks, store)
  }, 180_000)
  afterAll(async () => {
    client?.[Symbol.dispose]()
    await xks?.[Symbol.asyncDispose]()
    await token?.[Symbol.asyncDispose]()
  })

  const more = { ciphertextDataIntegrityValueAlgorithm: 'SHA_256' }
  const encrypt = () => client.call('keys/foo/encrypt', encryptBody(Buffer.from('x'), more))
  const recovered = async () => {
    token.clear()
    await expect.poll(async () => (await encrypt()).status, { timeout: 30_000 }).toBe(200)
  }

  it('flips a bit of a ciphertext is found out before the answer', async () => {
    token.rules(['C_Encrypt to=1 scope=all flip'])
    const { status, body } = await encrypt()
    expect(token.hits(0)).toBe(1)
    // proven anew elsewhere, or refused; never answered wrong
    if (status === 200) {
      expect(await client.call('keys/foo/decrypt', decryptBody(body))).toMatchObject({ body: { plaintext: 'eA==' } })
    } else expect(body).toMatchObject({ errorName: 'InternalException' })
    token.rules(['C_Encrypt flip'])
    expect(await encrypt()).toMatchObject({ status: 500, body: { errorName: 'InternalException' } })
    await recovered()
  })

  it.each([
    ['CKR_DEVICE_ERROR', 500, 'InternalException'],
    ['CKR_KEY_FUNCTION_NOT_PERMITTED', 400, 'InvalidKeyUsageException'],
    ['CKR_MECHANISM_INVALID', 501, 'UnsupportedOperationException'],
    ['CKR_DEVICE_MEMORY', 429, 'ThrottlingException'],
  ])('answers %s to encryptions is worded', async (rv, status, errorName) => {
    token.rules([`C_EncryptInit,C_Encrypt rv=${rv}`])
    const answer = await encrypt()
    expect([rv, answer]).toMatchObject([rv, { status, contentType: 'application/json', body: { errorName } }])
    await recovered()
  })

  it('answers CKR_GENERAL_ERROR to a wrong tag is right, and keeps its sessions', async () => {
    const { body } = await encrypt()
    const forged = { ...decryptBody(body), authenticationTag: Buffer.alloc(16).toString('base64') }
    const opened = token.count('C_OpenSession')
    for (let i = 0; i < 20; i++) {
      expect(await client.call('keys/foo/decrypt', forged)).toMatchObject({
        status: 400,
        body: { errorName: 'InvalidCiphertextException' },
      })
    }
    expect(await client.call('keys/foo/decrypt', decryptBody(body))).toMatchObject({ status: 200 })
    expect(token.count('C_OpenSession')).toBeLessThanOrEqual(opened + 2)
  })

  it('loses its sessions is asked again, and nobody notices', async () => {
    token.rules(['C_EncryptInit to=1 scope=all rv=CKR_SESSION_HANDLE_INVALID'])
    expect(await encrypt()).toMatchObject({ status: 200 })
    token.clear()
  })

  it('is gone makes the fleet unavailable, and comes back', async () => {
    token.rules(['C_EncryptInit,C_DecryptInit,C_GenerateRandom,C_OpenSession rv=CKR_DEVICE_REMOVED'])
    const health = () => client.call('health', metadataOf('KmsHealthCheck'))
    const stateOf = async () =>
      ((await health()).body.ekmFleetDetails as { healthStatus: string }[] | undefined)?.[0]?.healthStatus
    await expect.poll(stateOf, { timeout: 30_000, interval: 500 }).toBe('UNAVAILABLE')
    token.clear()
    await expect.poll(stateOf, { timeout: 30_000, interval: 500 }).toBe('ACTIVE')
  })
})

describe('a module that is slower than the deadline', () => {
  it('is a dependency that timed out', async () => {
    await using token = await createShimmedToken()
    await using xks = await startXksGateway({ token, config: { xks: { deadlineMs: 500 } } })
    const store = await createStore(xks, 'main')
    await xks.gateway.ask('xks-key', 'create', { store: 'main', id: 'foo' })
    using client = createXksClient(xks, store)
    // shorter than what a worker is killed for
    token.rules(['C_Encrypt delay=700'])
    expect(await client.call('keys/foo/encrypt', encryptBody(Buffer.from('x')))).toMatchObject({
      status: 503,
      contentType: 'application/json',
      body: { errorName: 'DependencyTimeoutException' },
    })
    token.clear()
  })
})
