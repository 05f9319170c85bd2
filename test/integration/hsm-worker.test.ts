/** The worker processes over their pipe against SoftHSM2; what they answer is checked in software. */
import { createHash, createPublicKey, randomBytes, verify } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { ObjectSummary } from '../../src/hsm/port.ts'
import {
  algorithmCode,
  generateKey,
  keyFields,
  startWorker,
  type TestKey,
  type TestWorker,
} from '../support/hsm-worker.ts'
import { createTestToken, type TestToken } from '../support/softhsm.ts'

let token: TestToken
let manage: TestWorker
let serve: TestWorker

beforeAll(async () => {
  token = await createTestToken()
  manage = await startWorker(token, { role: 'manage' })
  serve = await startWorker(token, { role: 'serve' })
}, 60_000)

afterAll(async () => {
  await serve?.[Symbol.asyncDispose]()
  await manage?.[Symbol.asyncDispose]()
  await token?.[Symbol.asyncDispose]()
})

const spki = (key: TestKey) => createPublicKey({ key: key.publicKey, format: 'der', type: 'spki' })
const sha256 = (data: Buffer) => createHash('sha256').update(data).digest()
const nothing = Buffer.alloc(0)

describe('a worker', () => {
  it('says which token it serves', () => {
    expect(serve.ready).toMatchObject({ label: token.label, serial: token.serial, sessions: 2, objects: 0 })
    expect(serve.ready.pin.bytes).toBeGreaterThan(0)
  })

  it('signs with an RSA key that manage made after the enumeration', async () => {
    const key = await generateKey(manage, { spec: 'RSA_2048', usage: 'SIGN_VERIFY' })
    const data = randomBytes(100)
    const { signature } = await serve.ask('sign', {
      ...keyFields(key),
      algorithm: algorithmCode('RSASSA_PKCS1_V1_5_SHA_256'),
      input: sha256(data),
    })
    expect(verify('sha256', data, spki(key), signature)).toBe(true)
  })

  it('signs with an elliptic curve key', async () => {
    const key = await generateKey(manage, { spec: 'ECC_NIST_P256', usage: 'SIGN_VERIFY' })
    const data = randomBytes(100)
    const { signature } = await serve.ask('sign', {
      ...keyFields(key),
      algorithm: algorithmCode('ECDSA'),
      input: sha256(data),
    })
    expect(verify('sha256', data, { key: spki(key), dsaEncoding: 'ieee-p1363' }, signature)).toBe(true)
  })

  it('seals and opens with a derive-only key', async () => {
    const key = await generateKey(manage, { spec: 'SYMMETRIC_DEFAULT', usage: 'ENCRYPT_DECRYPT' })
    expect(key.construction).toBe('derived')
    const algorithm = algorithmCode('SEAL')
    const prefix = Buffer.from('prefix')
    const context = Buffer.from('context')
    const { output } = await serve.ask('encrypt', {
      ...keyFields(key),
      algorithm,
      prefix,
      context,
      data: Buffer.from('plaintext'),
    })
    expect(output[0]).toBe(32)
    const opened = await serve.ask('decrypt', { ...keyFields(key), algorithm, prefix, context, data: output })
    expect(Buffer.from(opened.output).toString()).toBe('plaintext')
    const { object } = await manage.ask('attributes', keyFields(key))
    expect((object as ObjectSummary).usages).toEqual(['derive'])
  })

  it('gives random bytes', async () => {
    const one = await serve.ask('random', { count: 1024 })
    const two = await serve.ask('random', { count: 1024 })
    expect(one.output).toHaveLength(1024)
    expect(Buffer.from(one.output).equals(Buffer.from(two.output))).toBe(false)
    expect((await serve.ask('random', { count: 0 })).output).toHaveLength(0)
  })

  it('enumerates what was made', async () => {
    const key = await generateKey(manage, { spec: 'HMAC_256', usage: 'GENERATE_VERIFY_MAC' })
    const { objects } = await manage.ask('enumerate', {})
    const found = (objects as ObjectSummary[]).find(({ objectId }) => key.objectId.equals(objectId))
    expect(found).toMatchObject({
      objectClass: 'secret',
      spec: 'HMAC_256',
      sensitive: true,
      extractable: false,
      neverExtractable: true,
      local: true,
      isPrivate: true,
      usages: ['sign', 'verify'],
      publicKey: null,
    })
    expect(nothing).toHaveLength(0)
  })
})
