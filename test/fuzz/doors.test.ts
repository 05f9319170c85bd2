/**
 * A whole gateway on SoftHSM2, given anything: signed garbage, almost valid calls, broken HTTP on raw sockets, garbage on the operator
 * socket. Every byte sequence gets a modelled answer, never a 500, a hang, a dead worker or a dead gateway.
 */
import { Agent, request as httpRequest } from 'node:http'
import { connect } from 'node:net'
import { buffer } from 'node:stream/consumers'
import { CreateKeyCommand, EncryptCommand, type KeySpec, type KeyUsageType } from '@aws-sdk/client-kms'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { signRequest } from '../../src/authenticate/sign-request.ts'
import type { GroupState } from '../../src/hsm/port.ts'
import { createOperations } from '../../src/transport/kms/operations/registry.ts'
import { startGateway, type TestGateway, testRegion } from '../support/gateway.ts'
import { fuzzBounds, patience } from './bounds.ts'

const hangMs = 20_000
const names = [...createOperations({} as never).keys()]
/** Operations that would leave the keys of the others useless: they get a key of their own. */
const destructive = /^(Disable|Enable|Schedule|Cancel|Delete|Import|Put|Rotate|Revoke|Retire|Update|Create(?!Key))/

const agent = new Agent({ keepAlive: true })
let gateway: TestGateway
let keyIds: string[]
let victim: string
let ciphertext: string
let pids: readonly (number | undefined)[]

const listWorkers = async () => {
  const { groups } = await gateway.ask<{ groups: readonly GroupState[] }>('token', 'list')
  return groups.flatMap(({ workers }) => workers).map(({ pid }) => pid)
}

beforeAll(async () => {
  gateway = await startGateway()
  const kms = gateway.client()
  const make = async (KeySpec: KeySpec, KeyUsage: KeyUsageType) =>
    (await kms.send(new CreateKeyCommand({ KeySpec, KeyUsage }))).KeyMetadata!.KeyId!
  keyIds = [
    await make('SYMMETRIC_DEFAULT', 'ENCRYPT_DECRYPT'),
    await make('RSA_2048', 'ENCRYPT_DECRYPT'),
    await make('ECC_NIST_P256', 'SIGN_VERIFY'),
    await make('HMAC_256', 'GENERATE_VERIFY_MAC'),
  ]
  victim = await make('SYMMETRIC_DEFAULT', 'ENCRYPT_DECRYPT')
  const sealed = await kms.send(new EncryptCommand({ KeyId: keyIds[0], Plaintext: Buffer.from('fuzz') }))
  ciphertext = Buffer.from(sealed.CiphertextBlob!).toString('base64')
  pids = await listWorkers()
}, 120_000)

afterAll(async () => {
  agent.destroy()
  await gateway[Symbol.asyncDispose]()
})

interface Answer {
  readonly status: number
  readonly text: string
}

/** A signature over exactly these bytes, whatever they are. */
async function send(body: Buffer, headers: Readonly<Record<string, string>>, target = '/'): Promise<Answer> {
  const { host } = new URL(gateway.endpoint)
  const { accessKeyId, secretAccessKey } = gateway.credentials
  const identity = { accessKeyId, secret: Buffer.from(secretAccessKey), region: testRegion, service: 'kms' }
  const signed = signRequest({ method: 'POST', target, headers: { host, ...headers }, body }, identity, Date.now())
  return ask({ headers: { ...signed, 'content-length': String(body.length) }, path: target }, body)
}

function ask(
  options: { headers?: Record<string, string>; path: string; socketPath?: string },
  body: Buffer,
): Promise<Answer> {
  const { hostname, port } = new URL(gateway.endpoint)
  const place = options.socketPath === undefined ? { host: hostname, port } : {}
  return new Promise((resolve, reject) => {
    const signal = AbortSignal.timeout(hangMs)
    const asking = httpRequest(
      { ...place, ...options, method: 'POST', agent: options.socketPath === undefined && agent, signal },
      (response) => {
        buffer(response).then((text) => resolve({ status: response.statusCode ?? 0, text: text.toString() }), reject)
      },
    )
    asking.on('error', reject).end(body)
  })
}

function expectModelled({ status, text }: Answer): void {
  if (status === 200) {
    if (text !== '') JSON.parse(text)
    return
  }
  expect([status, text]).toEqual([expect.toSatisfy((code: number) => code >= 400 && code < 500), expect.any(String)])
  const answer = JSON.parse(text) as { __type: string; message?: string }
  expect(answer.__type).toMatch(/^[A-Za-z]+$/)
  expect(text).not.toMatch(/node:|\.ts:\d|at [A-Z]\w+\.|undefined/)
}

const json = { 'content-type': 'application/x-amz-json-1.1' }
const members = `
  KeyId Plaintext CiphertextBlob EncryptionContext EncryptionAlgorithm GrantTokens DryRun KeySpec KeyUsage NumberOfBytes
  Message MessageType SigningAlgorithm Signature Mac MacAlgorithm AliasName TargetKeyId Limit Marker Policy PolicyName
  Tags TagKeys Description PendingWindowInDays Origin MultiRegion SourceKeyId DestinationKeyId SourceEncryptionContext
  DestinationEncryptionContext GranteePrincipal Operations Constraints KeyPairSpec Recipient PublicKey
  KeyAgreementAlgorithm ImportToken EncryptedKeyMaterial GrantId RetiringPrincipal WrappingAlgorithm WrappingKeySpec
  ValidTo ExpirationModel CustomKeyStoreId __proto__
`
  .trim()
  .split(/\s+/)
const words = [
  '',
  '\ud800',
  '\u0000',
  ...`
    SYMMETRIC_DEFAULT RSAES_OAEP_SHA_256 RSAES_OAEP_SHA_1 RSASSA_PSS_SHA_256 ECDSA_SHA_256 HMAC_SHA_256 AES_256
    ENCRYPT_DECRYPT SIGN_VERIFY RAW DIGEST ECC_NIST_P256 alias/x alias/aws/x default ECDH
    arn:aws:kms:us-east-1:000000000000:key/none arn:aws:iam::000000000000:root
  `
    .trim()
    .split(/\s+/),
]
const base64 = fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes).toString('base64'))

function plausible(ids: readonly string[]): fc.Arbitrary<unknown> {
  const damaged = fc.tuple(fc.nat(), fc.nat(255)).map(([place, value]) => {
    const bytes = Buffer.from(ciphertext, 'base64')
    bytes[place % bytes.length] = value
    return bytes.toString('base64')
  })
  const leaf = fc.oneof(
    { arbitrary: fc.constantFrom(...ids), weight: 4 },
    { arbitrary: fc.constantFrom(...words), weight: 4 },
    { arbitrary: damaged, weight: 1 },
    { arbitrary: base64, weight: 2 },
    { arbitrary: fc.oneof(fc.integer(), fc.double(), fc.boolean(), fc.constant(null)), weight: 2 },
    { arbitrary: fc.string({ unit: 'binary', maxLength: 60 }), weight: 1 },
  )
  return fc.oneof(
    { arbitrary: leaf, weight: 6 },
    { arbitrary: fc.array(leaf, { maxLength: 3 }), weight: 1 },
    {
      arbitrary: fc.dictionary(fc.oneof(fc.constantFrom(...members), fc.string({ maxLength: 8 })), leaf, {
        maxKeys: 4,
      }),
      weight: 1,
    },
  )
}

/** A call that succeeds, for the operations that the module has work with. */
function rightInput(name: string): Record<string, unknown> | undefined {
  const [symmetric, rsa, ec, hmac] = keyIds
  const text = Buffer.from('fuzz').toString('base64')
  const inputs: Readonly<Record<string, Record<string, unknown>>> = {
    Encrypt: { KeyId: symmetric, Plaintext: text, EncryptionContext: { app: 'fuzz' } },
    Decrypt: { CiphertextBlob: ciphertext, KeyId: symmetric },
    ReEncrypt: { CiphertextBlob: ciphertext, DestinationKeyId: symmetric },
    GenerateDataKey: { KeyId: symmetric, KeySpec: 'AES_256' },
    GenerateDataKeyWithoutPlaintext: { KeyId: symmetric, NumberOfBytes: 32 },
    GenerateDataKeyPair: { KeyId: symmetric, KeyPairSpec: 'ECC_NIST_P256' },
    GenerateRandom: { NumberOfBytes: 32 },
    GenerateMac: { KeyId: hmac, MacAlgorithm: 'HMAC_SHA_256', Message: text },
    VerifyMac: { KeyId: hmac, MacAlgorithm: 'HMAC_SHA_256', Message: text, Mac: text },
    Sign: { KeyId: ec, SigningAlgorithm: 'ECDSA_SHA_256', Message: text, MessageType: 'RAW' },
    Verify: { KeyId: ec, SigningAlgorithm: 'ECDSA_SHA_256', Message: text, Signature: text },
    GetPublicKey: { KeyId: rsa },
    DescribeKey: { KeyId: symmetric },
    ListAliases: { KeyId: symmetric, Limit: 5 },
    ListKeys: { Limit: 2 },
    CreateAlias: { AliasName: 'alias/x', TargetKeyId: victim },
    UpdateAlias: { AliasName: 'alias/x', TargetKeyId: victim },
    DeleteAlias: { AliasName: 'alias/x' },
    TagResource: { KeyId: symmetric, Tags: [{ TagKey: 'a', TagValue: 'b' }] },
    PutKeyPolicy: { KeyId: victim, PolicyName: 'default', Policy: '{}' },
    CreateGrant: { KeyId: victim, GranteePrincipal: 'arn:aws:iam::000000000000:root', Operations: ['Encrypt'] },
    DisableKey: { KeyId: victim },
    EnableKey: { KeyId: victim },
    ScheduleKeyDeletion: { KeyId: victim, PendingWindowInDays: 7 },
    CancelKeyDeletion: { KeyId: victim },
    UpdateKeyDescription: { KeyId: victim, Description: 'x' },
  }
  return inputs[name]
}

describe('the KMS door', () => {
  it('knows all operations that are tried', () => {
    expect(names.length).toBeGreaterThan(40)
  })

  it('answers any signed body for any operation', patience, async () => {
    const body = fc.oneof(
      fc.uint8Array({ maxLength: 400 }).map((bytes) => Buffer.from(bytes)),
      fc.string({ unit: 'binary', maxLength: 200 }).map((text) => Buffer.from(text)),
      fc.json().map((text) => Buffer.from(text)),
      fc.json().map((text) => Buffer.from(text.slice(0, -1))),
      fc.nat(5000).map((depth) => Buffer.from('['.repeat(depth))),
      fc.nat(100_000).map((depth) => Buffer.from('['.repeat(depth) + ']'.repeat(depth))),
      fc.nat(5000).map((depth) => Buffer.from('{"KeyId":'.repeat(depth))),
    )
    await fc.assert(
      fc.asyncProperty(fc.constantFrom(...names, 'Nope', ''), body, async (name, bytes) => {
        expectModelled(await send(bytes, { ...json, 'x-amz-target': `TrentService.${name}` }))
      }),
      fuzzBounds(150),
    )
  })

  it('answers calls that are almost right', patience, async () => {
    // Random members, or a right call with some members taken away, replaced or added.
    const call = fc.constantFrom(...names).chain((name) => {
      const ids = destructive.test(name) ? [victim, 'alias/x'] : [...keyIds, 'alias/x']
      const noise = fc.dictionary(fc.constantFrom(...members), plausible(ids), { maxKeys: 6 })
      const right = rightInput(name)
      if (right === undefined) return fc.tuple(fc.constant(name), noise)
      const some = fc.subarray(Object.keys(right), { minLength: Math.max(0, Object.keys(right).length - 1) })
      const few = fc.dictionary(fc.constantFrom(...Object.keys(right), ...members), plausible(ids), { maxKeys: 2 })
      const damaged = fc
        .tuple(some, few)
        .map(([kept, more]) => ({ ...Object.fromEntries(kept.map((member) => [member, right[member]])), ...more }))
      return fc.tuple(fc.constant(name), fc.oneof({ arbitrary: damaged, weight: 3 }, { arbitrary: noise, weight: 1 }))
    })
    await fc.assert(
      fc.asyncProperty(fc.array(call, { minLength: 1, maxLength: 8 }), async (calls) => {
        const answers = calls.map(([name, input]) =>
          send(Buffer.from(JSON.stringify(input)), { ...json, 'x-amz-target': `TrentService.${name}` }),
        )
        for (const answer of await Promise.all(answers)) expectModelled(answer)
      }),
      fuzzBounds(80),
    )
  })

  it('answers any headers, signed or not', patience, async () => {
    const value = fc.oneof(fc.stringMatching(/^[!-~]{0,80}$/), fc.stringMatching(/^[\x20-\x7e]{0,300}$/))
    const name = fc.oneof(
      fc.constantFrom(
        'authorization',
        'x-amz-date',
        'date',
        'x-amz-target',
        'x-amz-security-token',
        'content-type',
        'x-amz-content-sha256',
        'x-forwarded-for',
        'user-agent',
        'accept-encoding',
        'content-encoding',
        'expect',
        'te',
        'range',
        'cookie',
      ),
      fc.stringMatching(/^x-[a-z-]{1,20}$/),
    )
    const headers = fc.dictionary(name, value, { maxKeys: 6 })
    const target = fc.oneof(fc.constant('/'), fc.stringMatching(/^\/[!-~]{0,60}$/))
    await fc.assert(
      fc.asyncProperty(headers, target, fc.boolean(), async (extra, path, signed) => {
        const body = Buffer.from('{}')
        const all = { ...json, 'x-amz-target': 'TrentService.ListKeys', ...extra }
        const answer = signed ? send(body, all, path) : ask({ headers: { ...all, 'content-length': '2' }, path }, body)
        expectModelled(await answer)
      }),
      fuzzBounds(200),
    )
  })

  it('answers or ends raw connections, whatever comes', patience, async () => {
    const { hostname, port } = new URL(gateway.endpoint)
    const line = fc.oneof(
      fc.constantFrom(
        'POST / HTTP/1.1',
        'GET / HTTP/1.1',
        'POST / HTTP/1.0',
        'POST / HTTP/9.9',
        'PRI * HTTP/2.0',
        'CONNECT x:1 HTTP/1.1',
        'OPTIONS * HTTP/1.1',
        'Host: x',
        'Host: x',
        'Content-Length: 5',
        'Content-Length: -1',
        'Content-Length: 99999999999999999999',
        'Content-Length: 5, 6',
        'Transfer-Encoding: chunked',
        'Transfer-Encoding: gzip, chunked',
        'Transfer-Encoding: x',
        'Connection: close',
        'Connection: Upgrade',
        'Upgrade: websocket',
        'Upgrade: h2c',
        'Expect: 100-continue',
        'Expect: x',
        'X-Amz-Target: TrentService.ListKeys',
        ' folded',
        'x'.repeat(20_000),
        '',
        '',
        '5',
        '0',
        'ffffffffffffffff',
        '{"Limit":1}',
      ),
      fc.string({ unit: 'binary-ascii', maxLength: 40 }),
    )
    const conversation = fc.oneof(
      fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes)),
      fc
        .tuple(
          fc.constantFrom('POST / HTTP/1.1', 'POST / HTTP/1.1', ''),
          fc.array(line, { maxLength: 12 }),
          fc.constantFrom('\r\n', '\n', '\r'),
        )
        .map(([first, lines, end]) => Buffer.from([first, ...lines, '', ''].join(end))),
    )
    await fc.assert(
      fc.asyncProperty(conversation, async (bytes) => {
        const answer = await converse({ host: hostname, port: Number(port) }, bytes)
        for (const [, status] of answer.matchAll(/^HTTP\/1\.1 (\d{3}) /gm)) {
          expect([answer, Number(status)]).toEqual([answer, expect.toSatisfy((code: number) => code < 500)])
        }
      }),
      fuzzBounds(300),
    )
  })
})

/** Sends, ends its side, and takes what comes until the gateway ends the other. @throws when it does not. */
function converse(place: { host: string; port: number }, bytes: Buffer): Promise<string> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = []
    const timer = setTimeout(() => {
      socket.destroy()
      reject(new Error(`the connection hangs after ${JSON.stringify(bytes.toString('latin1'))}`))
    }, hangMs)
    const socket = connect(place, () => socket.end(bytes))
    socket.on('data', (chunk) => chunks.push(chunk))
    // A reset is an end: the gateway need not read what follows a request that it refused.
    socket.on('error', () => {})
    socket.on('close', () => {
      clearTimeout(timer)
      resolve(Buffer.concat(chunks).toString('latin1'))
    })
  })
}

describe('the operator socket', () => {
  it('answers any command and any body', patience, async () => {
    const socketPath = gateway.gateway.endpoints.operatorSocket
    const command = fc.oneof(
      fc
        .constantFrom(
          'principal/create',
          'principal/list',
          'principal/delete',
          'principal-policy/put',
          'principal-policy/get',
          'principal-key/list',
          'principal-key/delete',
          'key/list',
          'key/show',
          'token/list',
          'clock/show',
          'audit/checkpoint',
        )
        .map((name) => `/v1/${name}`),
      fc.stringMatching(/^\/[!-~]{0,40}$/),
    )
    const member = fc.constantFrom(
      'name',
      'account',
      'region',
      'policyName',
      'document',
      'accessKeyId',
      'key',
      'after',
      'limit',
      '__proto__',
    )
    const body = fc.oneof(
      fc.dictionary(member, fc.jsonValue({ maxDepth: 1 }), { maxKeys: 5 }).map((value) => JSON.stringify(value)),
      fc
        .dictionary(member, fc.constantFrom('000000000000', 'alice', '{}', 'alias/x'), { maxKeys: 5 })
        .map((value) => JSON.stringify(value)),
      fc.string({ unit: 'binary', maxLength: 100 }),
    )
    const type = fc.constantFrom('application/json', 'text/plain', 'x')
    await fc.assert(
      fc.asyncProperty(command, body, type, async (path, text, contentType) => {
        const { status, text: answer } = await ask(
          { path, socketPath, headers: { 'content-type': contentType } },
          Buffer.from(text),
        )
        expect([path, status, answer]).toEqual([path, expect.toSatisfy((code: number) => code < 500), answer])
        JSON.parse(answer)
      }),
      fuzzBounds(200),
    )
  })
})

describe('the gateway after all of that', () => {
  it('has the same workers and works', patience, async () => {
    expect(await listWorkers()).toEqual(pids)
    const { CiphertextBlob } = await gateway
      .client()
      .send(new EncryptCommand({ KeyId: keyIds[0], Plaintext: Buffer.from('still there') }))
    expect(CiphertextBlob).toBeDefined()
  })
})
