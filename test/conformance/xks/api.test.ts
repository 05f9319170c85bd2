/** The four APIs of the XKS proxy specification 1.0.3 on SoftHSM2, over TLS with HTTP/1.1. */
import { createHash } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import {
  createStore,
  createXksClient,
  decryptBody,
  encryptBody,
  metadataOf,
  startXksGateway,
  type XksClient,
  type XksGateway,
  type XksStore,
} from '../../support/xks-client.ts'

let xks: XksGateway
let store: XksStore
let client: XksClient
let arn: string

beforeAll(async () => {
  xks = await startXksGateway()
  store = await createStore(xks, 'main')
  ;({ arn } = await xks.gateway.ask<{ arn: string }>('xks-key', 'create', { store: 'main', id: 'foo' }))
  client = createXksClient(xks, store)
}, 180_000)

afterAll(async () => {
  client?.[Symbol.dispose]()
  await xks?.[Symbol.asyncDispose]()
})

describe('GetHealthStatus', () => {
  it('tells of an active fleet', async () => {
    const { status, contentType, body } = await client.call('health', metadataOf('KmsHealthCheck'))
    expect([status, contentType]).toEqual([200, 'application/json'])
    expect(body).toMatchObject({
      xksProxyFleetSize: 1,
      xksProxyVendor: 'hsmgate',
      ekmVendor: 'SoftHSM2',
      ekmFleetDetails: [{ id: expect.any(String), model: 'SoftHSM2', healthStatus: 'ACTIVE' }],
    })
  })
})

describe('GetKeyMetadata', () => {
  it('tells spec, usage and status', async () => {
    const { status, body } = await client.call('keys/foo/metadata', metadataOf('CreateKey'))
    expect(status).toBe(200)
    expect(body).toEqual({ keySpec: 'AES_256', keyUsage: ['ENCRYPT', 'DECRYPT'], keyStatus: 'ENABLED' })
    expect(arn).toMatch(/^arn:aws:kms:us-east-1:000000000000:key\//)
  })
})

describe('Encrypt', () => {
  it('answers what Decrypt opens', async () => {
    const plaintext = Buffer.from('Hello World!')
    const { status, body } = await client.call('keys/foo/encrypt', encryptBody(plaintext))
    expect([status, body]).toEqual([200, expect.any(Object)])
    const opened = await client.call('keys/foo/decrypt', decryptBody(body))
    expect(opened).toMatchObject({ status: 200, body: { plaintext: plaintext.toString('base64') } })
  })

  it('adds an integrity value over the raw values when it is asked for', async () => {
    const aad = Buffer.from('project=nile,department=marketing')
    const more = {
      additionalAuthenticatedData: aad.toString('base64'),
      ciphertextDataIntegrityValueAlgorithm: 'SHA_256',
    }
    const { status, body } = await client.call('keys/foo/encrypt', encryptBody(Buffer.from('x'), more))
    expect(status).toBe(200)
    const parts = ['ciphertextMetadata', 'initializationVector', 'ciphertext', 'authenticationTag'] as const
    const digest = createHash('sha256').update(aad)
    for (const part of parts) digest.update(Buffer.from(body[part] as string, 'base64'))
    expect(body.ciphertextDataIntegrityValue).toBe(digest.digest('base64'))
  })
})
