/**
 * Keys of TLS clients in front of a real gateway: programs that know nothing of hsmgate prove themselves to a server that asks for a
 * certificate. Every handshake is one record of the journal. Apache reads the file of its client's key without OpenSSL's decoders.
 */
import { createPublicKey } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { runOk } from '../support/command.ts'
import type { TestGateway } from '../support/gateway.ts'
import { type GatewaySites, openGatewaySites } from '../support/gateway-sites.ts'
import { findFreePort, startNginx } from '../support/nginx.ts'
import { recordsDuring } from '../support/offload.ts'
import { type TlsSite, type TlsSites, visit } from '../support/tls-sites.ts'
import { curlUpstream, startUpstream, type Upstream } from '../support/tls-upstream.ts'
import { nginxSite, startApache, startHaproxy, startNginxSite } from '../support/web-servers.ts'

let opened: GatewaySites
let gateway: TestGateway
let sites: TlsSites
/** What the proxies serve. */
let front: TlsSite
let client: TlsSite
let anyClient: TlsSite

beforeAll(async () => {
  opened = await openGatewaySites()
  ;({ gateway, sites } = opened)
  front = await sites.make('ECC_NIST_P256', { policies: 'tls13-server' })
  client = await sites.make('RSA_2048', { policies: 'tls13-client' })
  anyClient = await sites.make('ECC_NIST_P384', { policies: 'any' })
}, 600_000)
afterAll(() => opened?.[Symbol.asyncDispose]())

const recordsOf = (site: TlsSite, work: () => Promise<unknown>) => recordsDuring(gateway, site.name, work)
const signed = (app: string, policy = 'tls13-client') =>
  expect.objectContaining({ additionalEventData: expect.objectContaining({ app, policy }) })
const refused = (app: string) =>
  expect.objectContaining({
    errorCode: 'PolicyDenied',
    errorMessage: expect.stringMatching(/the policies of the token \(tls13-client\) do not allow a message/),
    additionalEventData: expect.objectContaining({ app }),
  })

/** One file: the certificate that `upstream` asks for, and the key. */
function clientPem({ clientCertificate }: Upstream, { reference }: { readonly reference: string }, name: string) {
  const place = path.join(sites.folder, name)
  writeFileSync(place, readFileSync(clientCertificate, 'utf8') + readFileSync(reference, 'utf8'), { mode: 0o600 })
  return place
}

describe('a key for clients of TLS 1.3', () => {
  it('proves curl to a server, and not in TLS 1.2', async () => {
    await using upstream = await startUpstream(client)
    const records = await recordsOf(client, async () => {
      const { stdout, stderr } = await curlUpstream(upstream, client, sites.env)
      expect([stdout.toString(), stderr]).toEqual(['rsa TLSv1.3', ''])
      const older = await curlUpstream(upstream, client, sites.env, '--tls-max', '1.2')
      expect(older.status).not.toBe(0)
      expect(older.stderr).toContain('gateway denied the signature')
    })
    expect(records).toEqual([signed('curl'), refused('curl')])
  })

  it('proves NGINX to its upstream, when it is told to use TLS 1.3', async () => {
    await using upstream = await startUpstream(client)
    const [port, proxyPort] = [await findFreePort(), await findFreePort()]
    const proxy = `server { listen 127.0.0.1:${proxyPort} ssl; ssl_certificate ${front.certificate}; ssl_certificate_key ${front.reference};
      proxy_ssl_session_reuse off; proxy_ssl_certificate ${upstream.clientCertificate}; proxy_ssl_certificate_key ${client.reference};
      location / { proxy_pass https://127.0.0.1:${upstream.port}; proxy_ssl_protocols TLSv1.3; }
      location /default { proxy_pass https://127.0.0.1:${upstream.port}; } }`
    const http = nginxSite({ port, pairs: [front], more: proxy })
    await using _nginx = await startNginx(port, { env: sites.env, http })
    const records = await recordsOf(client, async () => {
      expect(await visit(proxyPort, [front])).toMatchObject({ status: 200, keyType: 'ec' })
      expect(await visit(proxyPort, [front], { path: '/default' })).toMatchObject({ status: 502 })
    })
    expect(records).toEqual([signed('nginx'), refused('nginx')])
  })

  it('serves no site', async () => {
    const port = await findFreePort()
    await using _nginx = await startNginxSite({ port, pairs: [client], env: sites.env })
    const records = await recordsOf(client, () => expect(visit(port, [client])).rejects.toThrow(/alert internal error/))
    expect(records).toEqual([refused('nginx')])
  })
})

describe.each([
  ['HAProxy', false],
  ['HAProxy in asynchronous mode', true],
])('%s', (_name, isAsync) => {
  /** Sends `times` requests through a backend with a client's key: their answers, and what the journal has of them. */
  async function proxied(key: TlsSite, version: string, times: number) {
    await using upstream = await startUpstream(key)
    const pem = clientPem(upstream, key, `haproxy-${key.name}.pem`)
    const [port, proxyPort] = [await findFreePort(), await findFreePort()]
    const server = `ssl crt ${pem} ca-file ${upstream.certificate} verify required verifyhost localhost no-ssl-reuse`
    const more = `
frontend proxy
  bind 127.0.0.1:${proxyPort}
  default_backend upstream
backend upstream
  retries 0
  server upstream 127.0.0.1:${upstream.port} ${server} ssl-min-ver ${version} ssl-max-ver ${version}`
    await using _haproxy = await startHaproxy({ port, pairs: [front], env: sites.env, isAsync, more })
    const answers: string[] = []
    const records = await recordsOf(key, async () => {
      for (let time = 0; time < times; time++) {
        const response = await fetch(`http://127.0.0.1:${proxyPort}/`)
        answers.push(response.ok ? await response.text() : String(response.status))
      }
    })
    return { answers, records }
  }

  it('proves itself to its upstream', async () => {
    expect(await proxied(client, 'TLSv1.3', 3)).toEqual({
      answers: Array(3).fill('rsa TLSv1.3'),
      records: Array(3).fill(signed('haproxy')),
    })
  })

  it('proves itself in TLS 1.2 with a key for anything, and with no other', async () => {
    expect(await proxied(anyClient, 'TLSv1.2', 3)).toEqual({
      answers: Array(3).fill('ec TLSv1.2'),
      records: Array(3).fill(signed('haproxy', 'any')),
    })
    expect(await proxied(client, 'TLSv1.2', 1)).toEqual({ answers: ['503'], records: [refused('haproxy')] })
  })
})

describe('Apache', () => {
  /** One request through a proxy whose SSLProxyMachineCertificateFile is `pem`. */
  async function proxied(upstream: Upstream, pem: string) {
    const port = await findFreePort()
    const modules = ['proxy', 'proxy_http'].map(
      (name) => `LoadModule ${name}_module /usr/lib/apache2/modules/mod_${name}.so`,
    )
    const more = `LogLevel ssl:debug
      SSLProxyEngine on
      SSLProxyMachineCertificateFile ${pem}
      SSLProxyCACertificateFile ${upstream.certificate}
      SSLProxyVerify require
      SSLProxyCheckPeerName off
      ProxyPass /proxy https://127.0.0.1:${upstream.port}/`
    const site = { port, pairs: [front], env: sites.env, more, main: modules.join('\n') }
    await using apache = await startApache('event', site)
    const { status } = await visit(port, [front], { path: '/proxy' })
    return { status, log: apache.errorLog() }
  }

  it('proves itself with a private key in its file', async () => {
    // As Apache wants it: in the form before PKCS#8.
    const key = path.join(sites.folder, 'apache.key')
    await runOk('openssl', ['ecparam', '-name', 'prime256v1', '-genkey', '-noout', '-out', key])
    await using upstream = await startUpstream({ publicKey: createPublicKey(readFileSync(key)) })
    const { status, log } = await proxied(upstream, clientPem(upstream, { reference: key }, 'apache-key.pem'))
    expect(status).toBe(200)
    expect(log).toContain('AH02207: loaded 1 client certs for SSL proxy')
  })

  it('does not see a key reference there: it takes the certificate for an authority and proves nobody', async () => {
    await using upstream = await startUpstream(client)
    const records = await recordsOf(client, async () => {
      const { status, log } = await proxied(upstream, clientPem(upstream, client, 'apache-reference.pem'))
      expect(status).toBe(502)
      expect(log).toMatch(/AH10261: Trusting non-leaf certificate \[subject: CN=client /)
      expect(log).toContain('AH02206: no client certs found for SSL proxy')
      expect(log).toMatch(/AH02268: .* downstream server wanted client certificate but none are configured/)
    })
    expect(records).toEqual([])
  })
})
