/** Signature Version 4 for `kms-xks-proxy`: what is signed, for whom, when; two credentials at a time and their rotation without a restart. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { signRequest } from '../../../src/authenticate/sign-request.ts'
import {
  createStore,
  createXksClient,
  encryptBody,
  metadataOf,
  startXksGateway,
  type XksAnswer,
  type XksCallOptions,
  type XksClient,
  type XksCredential,
  type XksGateway,
  type XksStore,
} from '../../support/xks-client.ts'

let xks: XksGateway
let store: XksStore
let client: XksClient

beforeAll(async () => {
  xks = await startXksGateway()
  store = await createStore(xks, 'main')
  await xks.gateway.ask('xks-key', 'create', { store: 'main', id: 'foo' })
  client = createXksClient(xks, store)
}, 180_000)

afterAll(async () => {
  client?.[Symbol.dispose]()
  await xks?.[Symbol.asyncDispose]()
})

const health = metadataOf('KmsHealthCheck')
const ask = (options: XksCallOptions = {}, body: unknown = health) => client.call('health', body, options)

function expectUnauthenticated(answer: XksAnswer): void {
  expect(answer).toMatchObject({
    status: 401,
    contentType: 'application/json',
    body: { errorName: 'AuthenticationFailedException' },
  })
}

describe('the signature', () => {
  it('has the vector of the reference', () => {
    const body = Buffer.from('{"requestMetadata":{"kmsRequestId":"r1","kmsOperation":"KmsHealthCheck"}}')
    const target = '/example/uri/path/prefix/kms/xks/v1/health'
    const signed = signRequest(
      { method: 'POST', target, headers: { host: 'xks.example.com' }, body },
      {
        accessKeyId: 'BETWEEN2TENAND3TENCHARACTERS',
        secret: Buffer.from('PleaseReplaceThisWithSomeSecretOfLength43To64'),
        region: 'us-east-1',
        service: 'kms-xks-proxy',
      },
      Date.UTC(2024, 0, 1),
    )
    expect(signed.authorization).toMatch(/caf301d8f70164665dec0b9f8b4c2cb196bdeb7240b69e404e35110b4788731e$/)
  })

  it('may cover host and date alone, as AWS signs, or more', async () => {
    expect(await ask()).toMatchObject({ status: 200 })
    expect(await ask({ headers: { 'x-amzn-trace-id': 'Root=1' } })).toMatchObject({ status: 200 })
  })

  it('is needed', async () => {
    expectUnauthenticated(await ask({ signed: false }))
    for (const authorization of ['', 'Basic eDp5', 'AWS4-HMAC-SHA256', `AWS4-HMAC-SHA256 ${'x'.repeat(4000)}`]) {
      expectUnauthenticated(await ask({ sent: { headers: { authorization } } }))
    }
  })

  it('is for this service, this Region and this day', async () => {
    expectUnauthenticated(await ask({ service: 'kms' }))
    expectUnauthenticated(await ask({ region: 'us-west-2' }))
    expectUnauthenticated(await ask({ region: 'mars-north-1' }))
    const headers: Record<string, string> = {}
    headers['x-amz-date'] = new Date(Date.now() - 1000).toISOString().replace(/[-:]|\.\d{3}/g, '')
    expectUnauthenticated(await ask({ sent: { headers } }))
  })

  it('is good for five minutes before and after', async () => {
    const minute = 60_000
    for (const offset of [-4.8 * minute, 4.8 * minute]) {
      expect(await ask({ nowMs: Date.now() + offset })).toMatchObject({ status: 200 })
    }
    for (const offset of [-5.2 * minute, 5.2 * minute, -24 * 60 * minute, 24 * 60 * minute]) {
      expectUnauthenticated(await ask({ nowMs: Date.now() + offset }))
    }
  })

  it('of one call is none of another: altered bodies, paths, hosts and headers', async () => {
    const body = Buffer.from(JSON.stringify(encryptBody(Buffer.from('x'))))
    const other = Buffer.from(JSON.stringify(encryptBody(Buffer.from('y'))))
    const call = (sent: XksCallOptions['sent']) => client.call('keys/foo/encrypt', body, { sent })
    expect(await call({})).toMatchObject({ status: 200 })
    expectUnauthenticated(await call({ body: other }))
    expectUnauthenticated(await call({ body: Buffer.concat([body, Buffer.from(' ')]) }))
    expectUnauthenticated(await call({ path: `${store.uriPath}/keys/foo/decrypt` }))
    expectUnauthenticated(await call({ path: `${store.uriPath}/keys/bar/encrypt` }))
    expectUnauthenticated(await call({ headers: { host: 'elsewhere.example.com' } }))
    expectUnauthenticated(await call({ headers: { 'content-type': 'text/plain' } }))
    expectUnauthenticated(await call({ headers: { 'x-amz-content-sha256': 'UNSIGNED-PAYLOAD' } }))
    expectUnauthenticated(await call({ headers: { 'x-amz-security-token': 'x' } }))
  })

  it('may be replayed, as the same call and no other', async () => {
    const nowMs = Date.now()
    expect(await ask({ nowMs })).toMatchObject({ status: 200 })
    expect(await ask({ nowMs })).toMatchObject({ status: 200 })
  })

  it('by an unknown key id and one by a wrong secret get the same status', async () => {
    const unknown = { ...store.credential, accessKeyId: 'A'.repeat(20) }
    const wrong = { ...store.credential, secretAccessKey: 'x'.repeat(43) }
    expectUnauthenticated(await ask({ credential: unknown }))
    expectUnauthenticated(await ask({ credential: wrong }))
  })

  it('is judged before the body, the key and the rest', async () => {
    expectUnauthenticated(await ask({ credential: { ...store.credential, secretAccessKey: 'x'.repeat(43) } }, '{'))
    const answer = await client.call('keys/nobody/encrypt', '{', { signed: false })
    expectUnauthenticated(answer)
  })
})

describe('credentials', () => {
  it('of one store are none of another', async () => {
    const other = await createStore(xks, 'other')
    using foreign = createXksClient(xks, other)
    expect(await foreign.call('health', health)).toMatchObject({ status: 200 })
    expectUnauthenticated(await foreign.call('health', health, { credential: store.credential }))
    expectUnauthenticated(await ask({ credential: other.credential }))
  })

  it('rotate without a restart: two live ones, then the new one alone', async () => {
    const rotated = await createStore(xks, 'rotated')
    using own = createXksClient(xks, rotated)
    const name = { store: 'rotated' }
    const { accessKeyId: old } = rotated.credential
    await expect(xks.gateway.ask('xks-store', 'retire-credential', { ...name, accessKeyId: old })).rejects.toThrow(
      'only credential',
    )
    const next = await xks.gateway.ask<XksCredential>('xks-store', 'rotate-credential', name)
    for (const credential of [rotated.credential, next]) {
      expect(await own.call('health', health, { credential })).toMatchObject({ status: 200 })
    }
    await expect(xks.gateway.ask('xks-store', 'rotate-credential', name)).rejects.toThrow('two credentials')
    await xks.gateway.ask('xks-store', 'retire-credential', { ...name, accessKeyId: old })
    expectUnauthenticated(await own.call('health', health))
    expect(await own.call('health', health, { credential: next })).toMatchObject({ status: 200 })
    await expect(xks.gateway.ask('xks-store', 'retire-credential', { ...name, accessKeyId: old })).rejects.toThrow(
      'no credential',
    )
  })

  it('of other lengths than ours are taken along when a store moves here', async () => {
    const credential = { accessKeyId: 'Z'.repeat(30), secretAccessKey: '+'.repeat(64) }
    const moved = await createStore(xks, 'moved', credential)
    using own = createXksClient(xks, moved)
    expect(await own.call('health', health)).toMatchObject({ status: 200 })
    const refused = async (given: Partial<XksCredential>) =>
      expect(createStore(xks, 'refused', { ...credential, ...given })).rejects.toThrow()
    await refused({ accessKeyId: 'A'.repeat(19) })
    await refused({ accessKeyId: 'A'.repeat(31) })
    await refused({ accessKeyId: `${'A'.repeat(19)}1` })
    await refused({ secretAccessKey: 'x'.repeat(42) })
    await refused({ secretAccessKey: 'x'.repeat(65) })
  })

  it('survive a restart, sealed in the catalog', async () => {
    await xks.gateway.restart()
    using again = createXksClient(xks, store)
    expect(await again.call('keys/foo/encrypt', encryptBody(Buffer.from('x')))).toMatchObject({ status: 200 })
  })
})
