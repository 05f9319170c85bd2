/** TLS and HTTP as the specification asks for them, and as attackers use them: one line of JSON answers whatever arrives. */
import { connect as connectHttp2 } from 'node:http2'
import path from 'node:path'
import { connect, type TLSSocket } from 'node:tls'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { run } from '../../support/command.ts'
import {
  createHttp2Client,
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

describe('TLS', () => {
  it.each([
    ['TLSv1.3', 'TLS_AES_256_GCM_SHA384'],
    ['TLSv1.3', 'TLS_CHACHA20_POLY1305_SHA256'],
    ['TLSv1.2', 'ECDHE-ECDSA-AES256-GCM-SHA384'],
  ] as const)('%s offers %s', async (version, ciphers) => {
    const socket = await open({ minVersion: version, maxVersion: version, ciphers })
    expect([socket.getProtocol(), socket.getCipher().name]).toEqual([version, ciphers])
    socket.destroy()
  })

  it('of before 1.2, and suites without forward secrecy, are refused', async () => {
    await expect(open({ minVersion: 'TLSv1.1', maxVersion: 'TLSv1.1', ciphers: 'ALL:@SECLEVEL=0' })).rejects.toThrow()
    await expect(open({ maxVersion: 'TLSv1.2', ciphers: 'AES256-GCM-SHA384:AES128-SHA' })).rejects.toThrow()
  })

  it('prefers HTTP/2 where the client knows it', async () => {
    const socket = await open({ ALPNProtocols: ['h2', 'http/1.1'] })
    expect(socket.alpnProtocol).toBe('h2')
    socket.destroy()
  })
})

describe('HTTP/2', () => {
  it('serves all four APIs, its authority being the host that is signed', async () => {
    using http2 = createHttp2Client(xks, store)
    expect(await http2.call('health', health)).toMatchObject({ status: 200, contentType: 'application/json' })
    expect(await http2.call('keys/foo/metadata', metadataOf('CreateKey'))).toMatchObject({ status: 200 })
    const { status, body } = await http2.call('keys/foo/encrypt', encryptBody(Buffer.from('x')))
    expect(status).toBe(200)
    expect(await http2.call('keys/foo/decrypt', decryptBody(body))).toMatchObject({
      status: 200,
      body: { plaintext: 'eA==' },
    })
  })

  it('answers many calls of one connection at once', async () => {
    using http2 = createHttp2Client(xks, store)
    const calls = Array.from({ length: 64 }, () => http2.call('keys/foo/encrypt', encryptBody(Buffer.from('x'))))
    const statuses = (await Promise.all(calls)).map(({ status }) => status)
    expect(new Set(statuses)).toEqual(new Set([200]))
  })

  it('refuses another authority than the signed one, and a second host', async () => {
    using http2 = createHttp2Client(xks, store)
    const sent = { headers: { host: 'elsewhere.example.com' } }
    expect(await http2.call('health', health, { sent })).toMatchObject({ status: 401 })
  })

  it('answers oversized headers without a body of another kind', async () => {
    const session = connectHttp2(xks.endpoint, { ca: xks.ca })
    try {
      const stream = session.request({
        ':method': 'POST',
        ':path': `${store.uriPath}/health`,
        filler: 'x'.repeat(40_000),
      })
      const ended = new Promise((resolve) => {
        stream.on('response', (headers) => resolve(headers[':status']))
        stream.on('error', () => resolve('refused'))
        stream.on('close', () => resolve('refused'))
      })
      stream.end()
      expect([400, 'refused']).toContain(await ended)
    } finally {
      session.destroy()
    }
    expect(await client.call('health', health)).toMatchObject({ status: 200 })
  })

  it('is what curl speaks when it may', async () => {
    const { stdout } = await run('/usr/bin/curl', [
      ...['--silent', '--http2', '--cacert', path.join(xks.tlsDirectory, 'ca.pem')],
      ...['--aws-sigv4', 'aws:amz:us-east-1:kms-xks-proxy'],
      ...['--user', `${store.credential.accessKeyId}:${store.credential.secretAccessKey}`],
      ...['--header', 'Content-Type: application/json', '--data', JSON.stringify(health)],
      ...['--write-out', '\\n%{http_code} %{http_version}', `${xks.endpoint}${store.uriPath}/health`],
    ])
    expect(stdout.toString()).toMatch(/ACTIVE.*\n200 2$/)
  })
})

describe('paths and methods', () => {
  it.each(['GET', 'PUT', 'DELETE', 'PATCH', 'OPTIONS'])('%s is not allowed on an API', async (method) => {
    for (const api of ['health', 'keys/foo/metadata', 'keys/foo/encrypt', 'keys/foo/decrypt']) {
      const answer = await client.call(api, method === 'GET' ? '' : health, { method, signed: false })
      expect([api, answer]).toMatchObject([api, { status: 405, contentType: 'application/json' }])
      expect(answer.body).toHaveProperty('errorName')
    }
  })

  it.each([
    '/',
    '/kms/xks/v1/health',
    '/main/kms/xks/v2/health',
    '/main/kms/xks/v1',
    '/main/kms/xks/v1/',
    '/main/kms/xks/v1/health/',
    '/main/kms/xks/v1/health?x=1',
    '/main//kms/xks/v1/health',
    '/other/kms/xks/v1/health',
    '/main/../main/kms/xks/v1/health',
    '/main/kms/xks/v1/keys',
    '/main/kms/xks/v1/keys/foo',
    '/main/kms/xks/v1/keys/foo/sign',
    `/${'x'.repeat(3000)}/kms/xks/v1/health`,
    '/%6dain/kms/xks/v1/health',
    '/main/kms/xks/v1/%68ealth',
    '/main/KMS/XKS/V1/HEALTH',
    '/%00',
    '/%',
  ])('%s is no path of the API, signed or not', async (target) => {
    for (const signed of [true, false]) {
      const answer = await client.call(target, health, { signed })
      expect(answer).toMatchObject({
        status: 404,
        contentType: 'application/json',
        body: { errorName: 'InvalidUriPathException' },
      })
    }
  })

  it('answer a load balancer that signs nothing', async () => {
    const answer = await client.call('/ping', '', { method: 'GET', signed: false })
    expect(answer).toMatchObject({ status: 200, body: { status: 'ok' } })
  })
})

describe('broken and hostile HTTP/1.1', () => {
  const line = () => `POST ${store.uriPath}/health HTTP/1.1\r\nHost: x\r\n`

  it.each([
    ['two lengths that differ', () => `${line()}Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}x`],
    [
      'length and chunks (request smuggling)',
      () => `${line()}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`,
    ],
    ['chunks spelt otherwise', () => `${line()}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n`],
    ['a space before the colon', () => `${line()}Content-Length : 2\r\n\r\n{}`],
    ['a folded header', () => `${line()}X-A: b\r\n c\r\nContent-Length: 2\r\n\r\n{}`],
    ['a bare line feed in a header', () => `${line()}X-A: b\nX-B: c\r\n\r\n`],
    ['a chunk size that is none', () => `${line()}Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n`],
    ['a negative length', () => `${line()}Content-Length: -1\r\n\r\n`],
    ['headers of 20 KiB', () => `${line()}X-Long: ${'x'.repeat(20_000)}\r\n\r\n`],
    ['another protocol', () => 'SSH-2.0-OpenSSH_9.2\r\n\r\n'],
    ['an unknown method', () => `BREW ${store.uriPath}/health HTTP/1.1\r\nHost: x\r\n\r\n`],
    ['bytes of no protocol', () => Buffer.from([0x16, 0x03, 0x01, 0x00, 0x00, 0x0d, 0x0a, 0x0d, 0x0a])],
  ])('with %s gets JSON and an ended connection', async (_what, make) => {
    const text = await exchange(make())
    expect(text).toMatch(/^HTTP\/1\.1 4\d\d /)
    const [head = '', body = ''] = text.split('\r\n\r\n')
    expect(head.toLowerCase()).toContain('content-type: application/json')
    expect(JSON.parse(body)).toMatchObject({ errorName: 'ValidationException' })
    expect(text.match(/HTTP\/1\.1 /g)).toHaveLength(1)
  })

  it('that hides a second request in the body of the first gets one answer', async () => {
    const hidden = `POST ${store.uriPath}/health HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n`
    const text = await exchange(`${line()}Content-Length: ${hidden.length}\r\nConnection: close\r\n\r\n${hidden}`)
    expect(text.match(/HTTP\/1\.1 /g)).toHaveLength(1)
    expect(text).toContain('AuthenticationFailedException')
  })

  it('that expects the unexpected, asks for a tunnel or an upgrade gets JSON', async () => {
    expect(await exchange(`${line()}Expect: the-moon\r\nContent-Length: 0\r\nConnection: close\r\n\r\n`)).toMatch(
      /^HTTP\/1\.1 417 [\s\S]*errorName/,
    )
    expect(await exchange('CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\n')).toMatch(/^HTTP\/1\.1 405 [\s\S]*errorName/)
    const upgrade = 'Connection: Upgrade, close\r\nUpgrade: websocket\r\nContent-Length: 0\r\n\r\n'
    expect(await exchange(`${line()}${upgrade}`)).toMatch(/^HTTP\/1\.1 4\d\d [\s\S]*errorName/)
  })

  it('without a Host is answered like any unsigned request', async () => {
    const text = await exchange(
      `POST ${store.uriPath}/health HTTP/1.1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n`,
    )
    expect(text).toMatch(/^HTTP\/1\.1 401 [\s\S]*AuthenticationFailedException/)
  })

  it('leaves the door open for others', async () => {
    expect(await client.call('health', health)).toMatchObject({ status: 200 })
  })
})

function open(options: object): Promise<TLSSocket> {
  const { hostname, port } = new URL(xks.endpoint)
  return new Promise((resolve, reject) => {
    const socket = connect({ host: hostname, port: Number(port), ca: xks.ca, ...options }, () => resolve(socket))
    socket.on('error', reject)
  })
}

/** What comes back until the other side ends the connection. */
async function exchange(bytes: string | Buffer): Promise<string> {
  const socket = await open({ ALPNProtocols: ['http/1.1'] })
  const chunks: Buffer[] = []
  const ended = new Promise<void>((resolve) => {
    socket.on('data', (chunk) => chunks.push(chunk))
    socket.on('close', () => resolve())
    socket.on('end', () => socket.end())
  })
  socket.write(bytes)
  await ended
  return Buffer.concat(chunks).toString('latin1')
}
