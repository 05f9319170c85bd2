/**
 * Ciphertext formats against checked vectors: what the specification recommends, and what AWS's sample proxy makes instead, opened by keys of a known
 * value in the token. A store of the sample proxy keeps its ciphertexts when it moves here.
 */
import { createCipheriv, createHash } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { composeContext } from '../../../src/transport/xks/additional-data.ts'
import { createSecretObjects } from '../../support/secret-objects.ts'
import { createTestToken, type TestToken } from '../../support/softhsm.ts'
import {
  createStore,
  createXksClient,
  decryptBody,
  encryptBody,
  startXksGateway,
  type XksClient,
  type XksGateway,
} from '../../support/xks-client.ts'

const value = Buffer.from(Array.from({ length: 32 }, (_, index) => index))
const iv = Buffer.from(Array.from({ length: 12 }, (_, index) => index))
const plaintext = Buffer.from('Hello World!')
const aad = Buffer.from('project=nile,department=marketing')
const metadata = Buffer.from('key_version=1')
const nothing = Buffer.alloc(0)
const base64 = (bytes: Buffer) => bytes.toString('base64')

/** Mode, additional data, metadata, tag, integrity value. */
const vectors = [
  ['spec', aad, metadata, 'z16Jpi+YEVrPfy7xOkRNVw==', 'f3I7NWF4DGjk7+jfvjeSU5DvQJDKZ/RQztaBma/YHso='],
  ['spec', aad, nothing, 'oD3KqtYrMSdh/L3FQun+ag==', 'ndew6iqil9so4xVeXqDoAWYgTm8gWoAIkLjPnyJAWhk='],
  ['spec', undefined, nothing, '+DX8ZJOvQVMTeK7gwOAsdg==', 'doMOaf+m+SLxEOfkUsWQLZ7ogxHdDMkxCl3238JWldo='],
  ['sha256', undefined, nothing, '+DX8ZJOvQVMTeK7gwOAsdg==', 'doMOaf+m+SLxEOfkUsWQLZ7ogxHdDMkxCl3238JWldo='],
  ['sha256', aad, nothing, 'WdOD39Mw7MOTotY7BIAKZQ==', 'OhcooyUiiDBXd3jBw+00masQxHXbWkn4hksr+7G9z1g='],
  ['sha256', aad, metadata, 'bfJZGtJ467nLg9SrQBNpoQ==', 'CO+RHockL4iQm/FxxQDtb8xEloJZNIx4tCIcI+o7fKg='],
] as const
const ciphertext = 'D2e6d6rFlXT/LfOq'

let token: TestToken
let xks: XksGateway
let clients: Record<'spec' | 'sha256', XksClient>

beforeAll(async () => {
  token = await createTestToken()
  await createSecretObjects(token, [{ label: 'known', usages: ['encrypt', 'decrypt'], value }])
  xks = await startXksGateway({ token })
  const { arn } = await xks.gateway.ask<{ arn: string }>('key', 'adopt', { label: 'known', purpose: 'xks' })
  const open = async (mode: 'spec' | 'sha256') => {
    const store = await createStore(xks, mode, { aadMode: mode })
    await xks.gateway.ask('xks-key', 'add', { store: mode, id: 'known', key: arn })
    return createXksClient(xks, store)
  }
  clients = { spec: await open('spec'), sha256: await open('sha256') }
}, 180_000)

afterAll(async () => {
  for (const client of Object.values(clients ?? {})) client[Symbol.dispose]()
  await xks?.[Symbol.asyncDispose]()
  await token?.[Symbol.asyncDispose]()
})

const bodyOf = (ct: string, tag: string, of: { iv?: Buffer; aad?: Buffer | undefined; metadata?: Buffer }) =>
  decryptBody(
    { ciphertext: ct, initializationVector: base64(of.iv ?? iv), authenticationTag: tag },
    {
      ...(of.aad === undefined ? {} : { additionalAuthenticatedData: base64(of.aad) }),
      ...(of.metadata === undefined || of.metadata.length === 0 ? {} : { ciphertextMetadata: base64(of.metadata) }),
    },
  )

describe.each(vectors)('ciphertexts in mode %s', (mode, data, md, tag, integrity) => {
  const what = `${data === undefined ? 'no' : 'some'} additional data and ${md.length} bytes of metadata`

  it(`open with ${what}`, async () => {
    const { status, body } = await clients[mode].call(
      'keys/known/decrypt',
      bodyOf(ciphertext, tag, { aad: data, metadata: md }),
    )
    expect({ status, body }).toEqual({ status: 200, body: { plaintext: base64(plaintext) } })
  })

  it(`have the vector's integrity value with ${what}`, () => {
    const digest = createHash('sha256')
    for (const part of [data ?? nothing, md, iv, Buffer.from(ciphertext, 'base64'), Buffer.from(tag, 'base64')])
      digest.update(part)
    expect(digest.digest('base64')).toBe(integrity)
  })
})

describe('the mode of additional data', () => {
  it('keeps ciphertexts of the two apart', async () => {
    const [, , , specTag] = vectors[1]
    const refused = await clients.sha256.call('keys/known/decrypt', bodyOf(ciphertext, specTag, { aad }))
    expect(refused).toMatchObject({ status: 400, body: { errorName: 'InvalidCiphertextException' } })
  })

  it('of our own ciphertexts stands in their metadata, so that a store may change its mode', async () => {
    const more = { additionalAuthenticatedData: base64(aad) }
    const { body } = await clients.sha256.call('keys/known/encrypt', encryptBody(plaintext, more))
    const opened = await clients.spec.call('keys/known/decrypt', decryptBody(body, more))
    expect(opened).toMatchObject({ status: 200, body: { plaintext: base64(plaintext) } })
  })

  it('tells additional data that is empty from none, as the sample proxy does', () => {
    expect(composeContext('sha256', undefined, nothing).toString('hex')).toBe('000000')
    expect(composeContext('sha256', nothing, nothing)).toHaveLength(35)
    expect(composeContext('spec', nothing, nothing).toString('hex')).toBe('000000')
  })
})

describe('what the door encrypts', () => {
  it('is AES-256-GCM over lengths, additional data and metadata, as anybody with the key can tell', async () => {
    const more = { additionalAuthenticatedData: base64(aad) }
    const { body } = await clients.spec.call('keys/known/encrypt', encryptBody(plaintext, more))
    const of = (name: string) => Buffer.from(body[name] as string, 'base64')
    const md = of('ciphertextMetadata')
    const context = Buffer.concat([Buffer.from([0, aad.length]), aad, Buffer.from([md.length]), md])
    const cipher = createCipheriv('aes-256-gcm', value, of('initializationVector')).setAAD(context)
    expect(cipher.update(plaintext).equals(of('ciphertext'))).toBe(true)
    cipher.final()
    expect(cipher.getAuthTag().equals(of('authenticationTag'))).toBe(true)
  })
})

describe('initialization vectors of 16 bytes', () => {
  it('open, as some modules make them', async () => {
    const long = Buffer.alloc(16, 7)
    const cipher = createCipheriv('aes-256-gcm', value, long).setAAD(composeContext('spec', aad, nothing))
    const ct = Buffer.concat([cipher.update(plaintext), cipher.final()])
    const body = bodyOf(base64(ct), base64(cipher.getAuthTag()), { iv: long, aad })
    expect(await clients.spec.call('keys/known/decrypt', body)).toMatchObject({
      status: 200,
      body: { plaintext: base64(plaintext) },
    })
  })
})

describe('a ciphertext', () => {
  it('opens no more when any of its parts is changed by one bit', async () => {
    const more = { additionalAuthenticatedData: base64(aad) }
    const { body } = await clients.spec.call('keys/known/encrypt', encryptBody(plaintext, more))
    const whole = decryptBody(body, more) as Record<string, unknown>
    for (const name of [
      'ciphertext',
      'initializationVector',
      'authenticationTag',
      'ciphertextMetadata',
      'additionalAuthenticatedData',
    ]) {
      const bytes = Buffer.from(whole[name] as string, 'base64')
      for (const at of [0, bytes.length - 1]) {
        const changed = Buffer.from(bytes)
        changed[at] = (changed[at] as number) ^ 1
        const answer = await clients.spec.call('keys/known/decrypt', { ...whole, [name]: base64(changed) })
        expect([name, at, answer]).toMatchObject([
          name,
          at,
          { status: 400, body: { errorName: 'InvalidCiphertextException' } },
        ])
      }
      if (name === 'ciphertextMetadata' || name === 'additionalAuthenticatedData') {
        const { [name]: _, ...without } = whole
        const answer = await clients.spec.call('keys/known/decrypt', without)
        expect(answer).toMatchObject({ status: 400, body: { errorName: 'InvalidCiphertextException' } })
      }
    }
  })
})
