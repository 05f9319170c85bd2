/** The client against HTTPS servers that answer as each test says. */
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { createServer, type Server } from 'node:https'
import { type AddressInfo, createServer as createTcpServer } from 'node:net'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { deadlineIn } from '../../../src/call.ts'
import { createProxyClient, type ProxyClient } from '../../../src/stores/proxy-client.ts'
import { createCertificates } from '../../support/custom-key-stores.ts'

let certificates: Awaited<ReturnType<typeof createCertificates>>
let server: Server
let client: ProxyClient
let answer: (request: IncomingMessage, response: ServerResponse, body: string) => void
let requests: { readonly method: string; readonly url: string; readonly headers: IncomingMessage['headers'] }[]
let connections: number
let secret: Buffer

const metadata = { kmsRequestId: 'r', kmsOperation: 'KmsHealthCheck' }
const healthy = JSON.stringify({
  xksProxyFleetSize: 1,
  xksProxyVendor: 'v',
  xksProxyModel: 'm',
  ekmVendor: 'e',
  ekmFleetDetails: [{ id: '1', model: 'm', healthStatus: 'ACTIVE' }],
})
const say = (status: number, text: string) => (_: IncomingMessage, response: ServerResponse) => {
  response.writeHead(status, { 'content-type': 'application/json' }).end(text)
}
const health = (limitMs = 10_000) => client.health(metadata, deadlineIn(limitMs))
const kind = (name: string) => expect.objectContaining({ kind: name })

const address = (endpoint: string) => ({
  connectivity: 'PUBLIC_ENDPOINT' as const,
  endpoint,
  path: '/a/kms/xks/v1',
  accessKeyId: 'ABCDEFGHIJKLMNOPQRST',
})
function open(
  endpoint: string,
  more: { readonly isStrict?: boolean; readonly ca?: string; readonly timeoutMs?: number } = {},
) {
  secret = Buffer.from('A'.repeat(43))
  const transport = { isStrict: false, timeoutMs: 1000, ca: certificates.ca, ...more }
  return createProxyClient(address(endpoint), secret, 'us-east-1', transport)
}

beforeAll(async () => {
  certificates = await createCertificates()
})

afterAll(() => certificates[Symbol.asyncDispose]())

beforeEach(async () => {
  requests = []
  connections = 0
  answer = say(200, healthy)
  server = createServer({
    cert: readFileSync(`${certificates.directory}/server.pem`),
    key: readFileSync(`${certificates.directory}/server.key`),
  })
  server.on('secureConnection', () => connections++)
  server.on('request', (request: IncomingMessage, response: ServerResponse) => {
    let body = ''
    request.setEncoding('utf8').on('data', (text: string) => (body += text))
    request.on('end', () => {
      requests.push({ method: request.method as string, url: request.url as string, headers: request.headers })
      answer(request, response, body)
    })
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  client = open(`https://localhost:${(server.address() as AddressInfo).port}`)
})

afterEach(async () => {
  client[Symbol.dispose]()
  server.closeAllConnections()
  if (server.listening) {
    server.close()
    await once(server, 'close')
  }
})

describe('the client of a proxy', () => {
  it('signs host and date for kms-xks-proxy, and keeps its connection', async () => {
    await health()
    await health()
    expect(connections).toBe(1)
    expect(requests[0]).toMatchObject({ method: 'POST', url: '/a/kms/xks/v1/health' })
    expect(requests[0]?.headers.authorization).toMatch(
      /^AWS4-HMAC-SHA256 Credential=ABCDEFGHIJKLMNOPQRST\/\d{8}\/us-east-1\/kms-xks-proxy\/aws4_request, SignedHeaders=host;x-amz-date, Signature=[0-9a-f]{64}$/,
    )
  })

  it('tries once more when the network failed, and only then', async () => {
    answer = (request, response, body) => {
      if (requests.length === 1) request.socket.destroy()
      else say(200, healthy)(request, response)
      expect(body).toBe(JSON.stringify({ requestMetadata: metadata }))
    }
    await health()
    expect(requests).toHaveLength(2)

    answer = say(500, '{"errorName":"InternalException"}')
    await expect(health()).rejects.toEqual(kind('Internal'))
    expect(requests).toHaveLength(3)
  })

  it('gives up a request after its time, and a second one', async () => {
    client[Symbol.dispose]()
    client = open(`https://localhost:${(server.address() as AddressInfo).port}`, { timeoutMs: 100 })
    answer = () => {}
    await expect(health()).rejects.toEqual(kind('TimedOut'))
    // connecting may have taken the time of the first
    expect(requests.length).toBeLessThanOrEqual(2)
  })

  it('asks nobody when the call has no time left', async () => {
    await expect(health(0)).rejects.toEqual(kind('TimedOut'))
    expect(requests).toHaveLength(0)
  })

  it('reads no more of an answer than any answer can be', async () => {
    answer = (_, response) => {
      response.writeHead(200)
      const fill = () => {
        while (response.write(Buffer.alloc(16_384, 0x20)));
      }
      response.on('drain', fill).on('error', () => {})
      fill()
    }
    await expect(health()).rejects.toEqual(kind('Malformed'))
  })

  it('takes an answer that is no HTTP for malformed, and an end without answer for the network', async () => {
    answer = (request) => request.socket.end('garbage\r\n\r\n')
    await expect(health()).rejects.toEqual(kind('Malformed'))
    answer = (request) => request.socket.destroy()
    await expect(health()).rejects.toEqual(kind('Unreachable'))
  })

  it('trusts no certificate of its own accord, nor one for another name', async () => {
    const { port } = server.address() as AddressInfo
    using untrusting = open(`https://localhost:${port}`, { ca: '' })
    await expect(untrusting.health(metadata, deadlineIn(5000))).rejects.toEqual(kind('Tls'))
    using named = open(`https://hsmgate.localhost:${port}`)
    const failure = await named.health(metadata, deadlineIn(5000)).catch((cause) => cause)
    expect(['Tls', 'Unreachable']).toContain(failure.kind)
  })

  it('takes a server without TLS for one with wrong TLS', async () => {
    const plain = createTcpServer((socket) =>
      socket
        .resume()
        .on('error', () => {})
        .end('HTTP/1.1 400 Bad Request\r\n\r\n'),
    )
    plain.listen(0, '127.0.0.1')
    await once(plain, 'listening')
    using other = open(`https://localhost:${(plain.address() as AddressInfo).port}`)
    await expect(other.health(metadata, deadlineIn(5000))).rejects.toEqual(kind('Tls'))
    plain.close()
    await once(plain, 'close')
  })

  it('when strict, reaches no address', async () => {
    using strict = open('https://127.0.0.1', { isStrict: true })
    await expect(strict.health(metadata, deadlineIn(5000))).rejects.toEqual(kind('Unreachable'))
  })

  it('fails at once after several failures running, and tries again soon', async () => {
    const { port } = server.address() as AddressInfo
    server.closeAllConnections()
    server.close()
    await once(server, 'close')
    for (let count = 0; count < 5; count++) await expect(health()).rejects.toEqual(kind('Unreachable'))
    server.listen(port, '127.0.0.1')
    await once(server, 'listening')
    // spared, although it would answer
    await expect(health()).rejects.toEqual(kind('Unreachable'))
    expect(requests).toHaveLength(0)
    await expect
      .poll(
        () =>
          health().then(
            () => 'ok',
            () => 'no',
          ),
        { timeout: 10_000 },
      )
      .toBe('ok')
  })

  it('wipes its secret when it is closed', () => {
    client[Symbol.dispose]()
    expect(secret.every((byte) => byte === 0)).toBe(true)
  })
})
