/**
 * The XKS door on SoftHSM2, given anything: signed garbage, almost valid requests, tampered ciphertexts, any path. Every byte sequence gets one line of
 * JSON with a modelled errorName, never a 500, a hang or a dead worker.
 */
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { GroupState } from '../../src/hsm/port.ts'
import { parseXksPath } from '../../src/transport/xks/uri-path.ts'
import {
  createHttp2Client,
  createStore,
  createXksClient,
  decryptBody,
  encryptBody,
  startXksGateway,
  type XksAnswer,
  type XksClient,
  type XksGateway,
} from '../support/xks-client.ts'
import { fuzzBounds, patience } from './bounds.ts'

let xks: XksGateway
let clients: readonly XksClient[]
let sealed: Record<string, unknown>
let pids: readonly (number | undefined)[]

const listWorkers = async () => {
  const { groups } = await xks.gateway.ask<{ groups: readonly GroupState[] }>('token', 'list')
  return groups.flatMap(({ workers }) => workers).map(({ pid }) => pid)
}

beforeAll(async () => {
  xks = await startXksGateway()
  const store = await createStore(xks, 'main')
  await xks.gateway.ask('xks-key', 'create', { store: 'main', id: 'foo' })
  clients = [createXksClient(xks, store), createHttp2Client(xks, store)]
  sealed = (await clients[0]!.call('keys/foo/encrypt', encryptBody(Buffer.from('fuzz')))).body
  pids = await listWorkers()
}, 120_000)

afterAll(async () => {
  for (const client of clients ?? []) client[Symbol.dispose]()
  await xks?.[Symbol.asyncDispose]()
})

const modelled: Readonly<Record<string, number>> = {
  ValidationException: 400,
  InvalidStateException: 400,
  InvalidCiphertextException: 400,
  InvalidKeyUsageException: 400,
  AuthenticationFailedException: 401,
  AccessDeniedException: 403,
  KeyNotFoundException: 404,
  InvalidUriPathException: 404,
  UnsupportedOperationException: 501,
}

function expectModelled({ status, contentType, text, body }: XksAnswer): void {
  expect(contentType).toBe('application/json')
  expect(text).not.toMatch(/\n/)
  if (status === 200) return
  const { errorName, errorMessage = '' } = body as { errorName: string; errorMessage?: string }
  expect([text, modelled[errorName]]).toEqual([text, status])
  expect(errorMessage).toMatch(/^[\x20-\x7e]{0,511}$/)
  expect(text).not.toMatch(/node:|\.ts:\d|undefined|\[object/)
}

const apis = fc.constantFrom('health', 'keys/foo/metadata', 'keys/foo/encrypt', 'keys/foo/decrypt', 'keys/bar/encrypt')
const which = fc.constantFrom(0, 1)
const members = fc.constantFrom(
  ...`requestMetadata plaintext ciphertext initializationVector authenticationTag ciphertextMetadata encryptionAlgorithm
    additionalAuthenticatedData ciphertextDataIntegrityValueAlgorithm kmsRequestId kmsOperation awsPrincipalArn kmsKeyArn
    awsSourceVpc kmsViaService __proto__ constructor`
    .trim()
    .split(/\s+/),
)
const anything = fc.oneof(
  fc.jsonValue({ maxDepth: 3 }),
  fc.base64String({ maxLength: 64 }),
  fc.string({ unit: 'binary', maxLength: 40 }),
  fc.constantFrom('AES_GCM', 'SHA_256', '', null, '\ud800', '\u0000'),
)

describe('any signed body', () => {
  it('gets a modelled answer', patience, async () => {
    const bodies = fc.oneof(
      fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes)),
      fc.json().map((text) => Buffer.from(text)),
      fc.dictionary(members, anything).map((object) => Buffer.from(JSON.stringify(object))),
    )
    await fc.assert(
      fc.asyncProperty(which, apis, bodies, async (client, api, body) => {
        expectModelled(await clients[client]!.call(api, body))
      }),
      fuzzBounds(150),
    )
    expect(await listWorkers()).toEqual(pids)
  })
})

describe('a request with some members replaced', () => {
  it('gets a modelled answer, and decrypts to nothing but the truth', patience, async () => {
    const changes = fc.dictionary(members, anything, { minKeys: 1, maxKeys: 3 })
    await fc.assert(
      fc.asyncProperty(which, fc.boolean(), changes, changes, async (client, isEncrypt, outer, inner) => {
        const good = isEncrypt ? encryptBody(Buffer.from('x')) : decryptBody(sealed)
        const { requestMetadata } = good as { requestMetadata: object }
        const body = { ...good, requestMetadata: { ...requestMetadata, ...inner }, ...outer }
        const answer = await clients[client]!.call(`keys/foo/${isEncrypt ? 'encrypt' : 'decrypt'}`, body)
        expectModelled(answer)
        if (!isEncrypt && answer.status === 200) {
          expect(answer.body.plaintext).toBe(Buffer.from('fuzz').toString('base64'))
        }
      }),
      fuzzBounds(150),
    )
    expect(await listWorkers()).toEqual(pids)
  })
})

describe('a ciphertext with any bytes in one place', () => {
  it('never opens as something else', patience, async () => {
    const names = fc.constantFrom('ciphertext', 'initializationVector', 'authenticationTag', 'ciphertextMetadata')
    await fc.assert(
      fc.asyncProperty(which, names, fc.uint8Array({ maxLength: 40 }), async (client, name, bytes) => {
        const value = Buffer.from(bytes).toString('base64')
        const answer = await clients[client]!.call('keys/foo/decrypt', { ...decryptBody(sealed), [name]: value })
        expectModelled(answer)
        if (answer.status === 200) expect(value).toBe(sealed[name])
      }),
      fuzzBounds(100),
    )
  })
})

describe('any path', () => {
  it('names no API but the four', () => {
    const segment = fc.constantFrom('kms', 'xks', 'v1', 'keys', 'health', 'encrypt', '..', '', 'a', '%2f', 'foo?x=1')
    const paths = fc.oneof(
      fc.string({ unit: 'binary' }),
      fc.array(segment, { maxLength: 10 }).map((parts) => `/${parts.join('/')}`),
    )
    fc.assert(
      fc.property(paths, (target) => {
        const path = parseXksPath(target)
        if (path?.api === undefined) return
        const rest = path.api === 'health' ? 'health' : `keys/${path.externalKeyId}/${path.api}`
        expect(`${path.prefix}/kms/xks/v1/${rest}`).toBe(target)
        expect(path.prefix).toMatch(/^(\/[A-Za-z0-9_-]+)*$/)
      }),
      fuzzBounds(2000),
    )
  })

  it('gets a modelled answer, signed or not', patience, async () => {
    const paths = fc.array(fc.constantFrom('main', 'kms', 'xks', 'v1', 'keys', 'foo', 'encrypt', '..', '%41', ''), {
      maxLength: 8,
    })
    await fc.assert(
      fc.asyncProperty(which, paths, fc.boolean(), async (client, parts, signed) => {
        const answer = await clients[client]!.call(`/${parts.join('/')}`, '{}', { signed })
        expectModelled(answer)
        expect(answer.status).not.toBe(200)
      }),
      fuzzBounds(100),
    )
  })
})
