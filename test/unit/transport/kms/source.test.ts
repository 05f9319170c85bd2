import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { request as httpRequest } from 'node:http'
import { request as httpsRequest } from 'node:https'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { connect } from 'node:tls'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Source } from '../../../../src/call.ts'
import { createListener, type ListenerOptions } from '../../../../src/transport/kms/listener.ts'
import { runOk } from '../../../support/command.ts'

let folder: string
let tls: { readonly cert: Buffer; readonly key: Buffer }

beforeAll(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'hsmgate-kms-tls-'))
  const [cert, key] = [path.join(folder, 'cert.pem'), path.join(folder, 'key.pem')]
  const kind = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '1']
  const names = ['-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost']
  await runOk('openssl', ['req', '-x509', ...kind, ...names, '-keyout', key, '-out', cert])
  tls = { cert: await readFile(cert), key: await readFile(key) }
})

afterAll(async () => {
  await rm(folder, { recursive: true, force: true })
})

/** Where the listener says that a request came from. */
async function sourceOf(options: Partial<ListenerOptions>, headers: Record<string, string> = {}): Promise<Source> {
  const seen = Promise.withResolvers<Source>()
  await using listener = createListener({
    answer: async ({ source }) => {
      seen.resolve(source)
      return { status: 200, contentType: 'text/plain', body: '' }
    },
    ...options,
  })
  const { port } = await listener.listen({ host: '127.0.0.1', port: 0 })
  const send = options.tls === undefined ? httpRequest : httpsRequest
  const client = send({
    host: '127.0.0.1',
    port,
    servername: 'localhost',
    ca: tls.cert,
    method: 'POST',
    headers,
    agent: false,
  })
  const answered = new Promise((resolve, reject) => {
    client.on('error', reject).on('response', (response) => response.resume().on('end', resolve))
  })
  client.end()
  await answered
  return seen.promise
}

describe('the source of a request', () => {
  it('is the peer and its user agent', async () => {
    expect(await sourceOf({}, { 'user-agent': 'sdk/1' })).toEqual({ ip: '127.0.0.1', userAgent: 'sdk/1' })
  })

  it('names the TLS version, cipher suite and host that the client used', async () => {
    expect(await sourceOf({ tls }, { host: 'localhost:1' })).toEqual({
      ip: '127.0.0.1',
      userAgent: '',
      tls: { version: 'TLSv1.3', cipherSuite: expect.stringMatching(/^TLS_/), host: 'localhost:1' },
    })
  })

  it('is not what a stranger claims in X-Forwarded-For', async () => {
    const headers = { 'x-forwarded-for': '192.0.2.7' }
    expect((await sourceOf({}, headers)).ip).toBe('127.0.0.1')
    expect((await sourceOf({ trustedProxies: ['10.0.0.0/8'] }, headers)).ip).toBe('127.0.0.1')
    expect((await sourceOf({ trustedProxies: ['127.0.0.1'] }, headers)).ip).toBe('192.0.2.7')
  })

  it('never is a connection below TLS 1.2', async () => {
    await using listener = createListener({
      answer: async () => ({ status: 200, contentType: 'text/plain', body: '' }),
      tls,
    })
    const { port } = await listener.listen({ host: '127.0.0.1', port: 0 })
    const failure = await new Promise<NodeJS.ErrnoException | undefined>((resolve) => {
      const socket = connect({
        port,
        host: '127.0.0.1',
        servername: 'localhost',
        ca: tls.cert,
        minVersion: 'TLSv1.1',
        maxVersion: 'TLSv1.1',
        ciphers: 'DEFAULT:@SECLEVEL=0',
      })
      socket.once('error', resolve).once('secureConnect', () => {
        socket.destroy()
        resolve(undefined)
      })
    })
    expect(failure?.code).toMatch(/PROTOCOL_VERSION|ECONNRESET/)
  })
})
