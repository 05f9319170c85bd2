/** The listener for relays of a real gateway: TLS 1.3 with client certificates, and what a relay may ask for. */
import { generateKeyPairSync, randomBytes, verify } from 'node:crypto'
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { type ConnectionOptions, connect as connectTls } from 'node:tls'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { errorNumbers, featureBits } from '../../src/transport/offload/frames.ts'
import { runOk } from '../support/command.ts'
import { startGateway, type TestGateway } from '../support/gateway.ts'
import { certificateVerify, greet, type HksOptions } from '../support/hks-client.ts'
import { bindKey, createTlsKey, offloadRecords } from '../support/offload.ts'

interface RelayIdentity {
  readonly digest: string
  readonly cert: string
  readonly key: string
}

let folder: string
let gateway: TestGateway
let relay: RelayIdentity
let port: number
const message = certificateVerify('server', randomBytes(32))
const openssl = (...words: string[]) => runOk('/usr/bin/openssl', words, { cwd: folder })
const read = (name: string) => readFile(path.join(folder, name), 'utf8')

beforeAll(async () => {
  folder = await mkdtemp(path.join(os.tmpdir(), 'hsmgate-relay-'))
  await mkdir(folder, { recursive: true })
  await openssl(
    'req',
    '-x509',
    '-newkey',
    'ec',
    '-pkeyopt',
    'ec_paramgen_curve:P-256',
    '-nodes',
    '-days',
    '2',
    '-subj',
    '/CN=gateway',
    '-addext',
    'subjectAltName=IP:127.0.0.1',
    '-keyout',
    'server.key',
    '-out',
    'server.pem',
  )
  const tls = { certificateFile: path.join(folder, 'server.pem'), keyFile: path.join(folder, 'server.key') }
  gateway = await startGateway({
    config: {
      listen: {
        kms: { address: '127.0.0.1', port: 0 },
        operator: { http: null },
        relay: { address: '127.0.0.1', port: 0, tls },
      },
    },
  })
  port = Number(/^tls:\/\/127\.0\.0\.1:(\d+)$/.exec(gateway.gateway.endpoints.offload.at(-1) ?? '')?.[1])
  relay = await approve('web-host')
})
afterAll(async () => {
  await gateway?.[Symbol.asyncDispose]()
  await rm(folder, { recursive: true, force: true })
})

async function approve(name: string): Promise<RelayIdentity> {
  await openssl(
    'req',
    '-new',
    '-newkey',
    'ec',
    '-pkeyopt',
    'ec_paramgen_curve:P-256',
    '-nodes',
    '-subj',
    `/CN=${name}`,
    '-keyout',
    `${name}.key`,
    '-out',
    `${name}.csr`,
  )
  const request = await read(`${name}.csr`)
  const { digest, certificate } = await gateway.ask<{ digest: string; certificate: string }>('tls-relay', 'approve', {
    name,
    request,
    days: 30,
  })
  return { digest, cert: certificate, key: await read(`${name}.key`) }
}

async function connectRelay(identity: Partial<RelayIdentity>, options: HksOptions, tls: ConnectionOptions = {}) {
  const { cert, key } = identity
  const socket = connectTls({ host: '127.0.0.1', port, ca: await read('server.pem'), ...{ cert, key }, ...tls })
  return greet(socket, options)
}

async function boundKey(relays: readonly string[]) {
  return bindKey(gateway, await createTlsKey(gateway, 'ECC_NIST_P256'), { relays, users: [65_534] })
}

describe('a relay', () => {
  it('signs with tokens that are bound to it; what it reports of its clients is evidence in the record', async () => {
    const key = await boundKey([relay.digest])
    await using client = await connectRelay(relay, { tokens: [key.token], app: 'hsmgate relay' })
    expect(client.welcome).toMatchObject({ features: featureBits.relayEvidence, maxInFlight: 1024 })
    const reported = { uid: 33, pid: 815, app: 'nginx' }
    const answer = await client.sign({ keyId: key.spkiDigest, input: message, reported })
    expect(answer.ok && verify('sha256', message, key.publicKey, answer.signature)).toBe(true)
    const [record, ...more] = await offloadRecords(gateway, key.name)
    expect(more).toEqual([])
    expect(record).toMatchObject({
      sourceIPAddress: '127.0.0.1',
      tlsDetails: { tlsVersion: 'TLSv1.3' },
      additionalEventData: { app: 'hsmgate relay', relay: relay.digest, reported, policy: 'tls13-server' },
    })
  })

  it('adds tokens as its clients bring them', async () => {
    const keys = [await boundKey([relay.digest]), await boundKey([relay.digest])]
    await using client = await connectRelay(relay, {})
    for (const [tokenIndex, key] of keys.entries()) {
      const request = { keyId: key.spkiDigest, input: message, tokenIndex }
      expect(await client.sign({ ...request, newToken: key.token })).toMatchObject({ ok: true })
      expect(await client.sign(request)).toMatchObject({ ok: true })
    }
  })

  it('signs nothing with a token that is bound to no relay, or to another', async () => {
    const other = await approve('other-host')
    for (const relays of [[], [other.digest]]) {
      const key = await boundKey(relays)
      await using client = await connectRelay(relay, { tokens: [key.token] })
      expect(await client.sign({ keyId: key.spkiDigest, input: message, reported: { uid: 65_534 } })).toMatchObject({
        ok: false,
        code: errorNumbers.unauthenticated,
      })
      const [record] = await offloadRecords(gateway, key.name)
      expect(record).toMatchObject({
        errorCode: 'PeerRefused',
        errorMessage: 'the token is not bound to this relay',
        additionalEventData: { relay: relay.digest },
      })
    }
  })

  it('signs nothing any more once it is revoked, on the connection that is open', async () => {
    const gone = await approve('gone-host')
    const key = await boundKey([gone.digest])
    await using client = await connectRelay(gone, { tokens: [key.token] })
    const request = { keyId: key.spkiDigest, input: message }
    expect(await client.sign(request)).toMatchObject({ ok: true })
    await gateway.ask('tls-relay', 'revoke', { name: 'gone-host' })
    expect(await client.sign(request)).toMatchObject({ ok: false, code: errorNumbers.unauthenticated })
    expect((await offloadRecords(gateway, key.name)).at(-1)).toMatchObject({
      errorCode: 'PeerRefused',
      errorMessage: 'the relay is not approved, or not any more',
    })
  })

  it('signs nothing any more once its certificate has expired, and loses the connection that is open', async () => {
    const key = await boundKey([relay.digest])
    await using client = await connectRelay(relay, { tokens: [key.token] })
    const request = { keyId: key.spkiDigest, input: message }
    expect(await client.sign(request)).toMatchObject({ ok: true })
    vi.useFakeTimers({ toFake: ['Date'], now: Date.now() + 31 * 86_400_000 })
    try {
      const refused = {
        ok: false,
        code: errorNumbers.unauthenticated,
        text: 'the certificate of the relay has expired',
      }
      // of those that are on their way at that moment the first is refused, the others are not looked at
      client.socket.cork()
      const answers = [client.sign(request), client.sign(request), client.sign(request)]
      client.socket.uncork()
      const [first, ...others] = await Promise.all(answers)
      expect(first).toMatchObject(refused)
      for (const other of others) expect(other).toMatchObject({ ok: false, code: errorNumbers.shuttingDown })
      await Promise.all([client.goaway, client.closed])
      await expect(connectRelay(relay, { tokens: [key.token] })).rejects.toThrow()
    } finally {
      vi.useRealTimers()
    }
    const [signed, expired, ...more] = await offloadRecords(gateway, key.name)
    expect(signed?.errorCode).toBeUndefined()
    expect(expired).toMatchObject({
      errorCode: 'PeerExpired',
      errorMessage: 'the certificate of the relay has expired',
      additionalEventData: { relay: relay.digest },
    })
    expect(more).toEqual([])
    const { text } = await gateway.gateway.observer.metrics()
    expect(text).toMatch(/hsmgate_offload_connections_closed_total\{peer="relay",reason="expired"\} 1/)
  })

  it('is told so between its requests, when it sends none', async () => {
    await using client = await connectRelay(relay, {})
    vi.useFakeTimers({ toFake: ['Date'], now: Date.now() + 31 * 86_400_000 })
    try {
      await client.ping()
      await Promise.all([client.goaway, client.closed])
    } finally {
      vi.useRealTimers()
    }
  })
})

describe('the listener for relays', () => {
  it('lets nobody in without a certificate, or with one of another authority', async () => {
    const key = await boundKey([relay.digest])
    const options = { tokens: [key.token] }
    await expect(connectRelay({}, options)).rejects.toThrow()
    const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
    await writeFile(path.join(folder, 'own.key'), privateKey.export({ format: 'pem', type: 'pkcs8' }))
    await openssl('req', '-x509', '-key', 'own.key', '-days', '2', '-subj', '/CN=web-host', '-out', 'own.pem')
    await expect(connectRelay({ cert: await read('own.pem'), key: await read('own.key') }, options)).rejects.toThrow()
    expect(await offloadRecords(gateway, key.name)).toEqual([])
    const { text } = await gateway.gateway.observer.metrics()
    expect(text).toMatch(/hsmgate_offload_strangers_total\{peer="relay"\} [2-9]/)
  })

  it('speaks nothing older than TLS 1.3', async () => {
    await expect(connectRelay(relay, {}, { maxVersion: 'TLSv1.2' })).rejects.toThrow()
    await using client = await connectRelay(relay, {})
    await client.ping()
  })
})

it('shows how long the certificates of relays and the one that they are shown are good for', async () => {
  const { text } = await gateway.gateway.observer.metrics()
  const daysLeft = (pattern: RegExp) => Number(pattern.exec(text)?.[1]) / 86_400
  expect(daysLeft(/^hsmgate_relay_certificate_expires_seconds\{relay="web-host"\} (.+)$/m)).toBeCloseTo(30, 0)
  expect(daysLeft(/^hsmgate_relay_door_certificate_expires_seconds (.+)$/m)).toBeCloseTo(2, 0)
  expect(text).toMatch(/^hsmgate_offload_connections\{peer="relay"\} \d+$/m)
})
