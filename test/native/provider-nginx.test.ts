/**
 * A stock NGINX with key references in place of keys: two certificates on one site, client certificates towards an upstream, reloads
 * and a gateway that comes and goes under load. The gateway is test/support/hks-endpoint.ts.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { createServer, get } from 'node:https'
import type { AddressInfo } from 'node:net'
import path from 'node:path'
import type { TLSSocket } from 'node:tls'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { runOk } from '../support/command.ts'
import { type HksEndpoint, type HksKey, startHksEndpoint } from '../support/hks-endpoint.ts'
import { checkNginx, findFreePort, type NginxOptions, startNginx } from '../support/nginx.ts'
import { buildProvider, writeOpensslConf } from '../support/provider.ts'
import { startVisits } from '../support/tls-sites.ts'

const template = readFileSync(path.join(import.meta.dirname, '../../deploy/openssl/openssl.cnf'), 'utf8')
let endpoint: HksEndpoint
let rsa: HksKey
let ec: HksKey
let env: Readonly<Record<string, string>>

beforeAll(async () => {
  buildProvider()
  endpoint = await startHksEndpoint()
  env = { OPENSSL_CONF: writeOpensslConf(endpoint.folder, template, endpoint.socketPath) }
  rsa = endpoint.addKey('rsa')
  ec = endpoint.addKey('P-256')
  for (const key of [rsa, ec]) {
    const names = ['-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost', '-days', '2']
    await runOk('openssl', ['req', '-new', '-x509', '-key', key.private, ...names, '-out', certificate(key)])
  }
}, 600_000)
afterAll(() => endpoint[Symbol.asyncDispose]())
beforeEach(() => {
  endpoint.requests.length = 0
  endpoint.hellos.length = 0
  endpoint.onRequest = () => 'sign'
})

const certificate = (key: HksKey) => path.join(endpoint.folder, `${key.name}.crt.pem`)
const pair = (key: HksKey, reference = key.reference) =>
  `ssl_certificate ${certificate(key)}; ssl_certificate_key ${reference};`
const site = (port: number, lines: string): NginxOptions => ({
  env,
  http: `ssl_protocols TLSv1.2 TLSv1.3; ssl_session_cache off; ssl_session_tickets off; keepalive_timeout 0;
  server { listen 127.0.0.1:${port} ssl; ${lines} location / { return 200 "$ssl_protocol $ssl_session_reused\\n"; } }`,
})

interface Fetched {
  readonly body: string
  readonly certificate: string
}

/** One request on a connection of its own. */
function fetch(port: number, ca: readonly HksKey[], tls: object = {}): Promise<Fetched> {
  return new Promise((resolve, reject) => {
    const options = {
      port,
      host: '127.0.0.1',
      servername: 'localhost',
      agent: false,
      ca: ca.map((key) => readFileSync(certificate(key))),
      ...tls,
    }
    get(options, (response) => {
      const peer = (response.socket as TLSSocket).getPeerX509Certificate()
      let body = ''
      response.on('data', (chunk) => {
        body += chunk
      })
      response.on('end', () => resolve({ body, certificate: peer?.publicKey.asymmetricKeyType ?? '' }))
      response.on('error', reject)
    }).on('error', reject)
  })
}

/** Clients that fetch without a pause until they are told to stop. */
const startLoad = (port: number, clients: number) =>
  startVisits(clients, async () => {
    expect((await fetch(port, [ec])).body).toBe('TLSv1.3 .\n')
  })

describe('nginx', () => {
  it('serves RSA and ECDSA from one site, one signature for each handshake', async () => {
    const port = await findFreePort()
    await using _nginx = await startNginx(port, site(port, pair(rsa) + pair(ec)))
    const offers = [
      ['TLSv1.2', 'rsa_pss_rsae_sha256', 'rsa'],
      ['TLSv1.2', 'rsa_pkcs1_sha256', 'rsa'],
      ['TLSv1.2', 'ecdsa_secp256r1_sha256', 'ec'],
      ['TLSv1.3', 'rsa_pss_rsae_sha256', 'rsa'],
      ['TLSv1.3', 'ecdsa_secp256r1_sha256', 'ec'],
    ] as const
    for (const [version, sigalgs, type] of offers) {
      const fetched = await fetch(port, [rsa, ec], { minVersion: version, maxVersion: version, sigalgs })
      expect(fetched).toEqual({ body: `${version} .\n`, certificate: type })
    }
    expect(endpoint.requests).toHaveLength(offers.length)
    expect(endpoint.hellos).toEqual([expect.objectContaining({ app: 'nginx' })])
  })

  it('checks its configuration without the gateway', async () => {
    const result = await checkNginx(site(1, pair(rsa) + pair(ec)))
    expect(result.stderr).toContain('test is successful')
    expect(endpoint.hellos).toEqual([])
  })

  it('does not start with the reference of another certificate, and says whose it is', async () => {
    const other = endpoint.addKey('P-256')
    const { status, stderr } = await checkNginx(site(1, pair(ec, other.reference)))
    expect(status).toBe(1)
    expect(stderr).toContain(
      `key reference belongs to another public key:reference ${other.keyId.toString('hex')}, certificate ${ec.keyId.toString('hex')}`,
    )
  })

  it.each([
    ['cut off', (text: string) => text.slice(0, 200), 'it is cut off: its last line is missing'],
    ['no base64', (text: string) => text.replace('\nM', '\n!'), 'it is not base64'],
    [
      'a megabyte long',
      (text: string) => text.replace('\nM', `\n${`${'A'.repeat(64)}\n`.repeat(16_384)}M`),
      'it is longer than 16 KiB',
    ],
    ['of another version', (text: string) => text.replace(/(?<=-\n.{4})..../, 'AgEC'), 'key reference not readable'],
  ])('does not start with a reference that is %s, and says so', async (_name, damage, reason) => {
    const place = path.join(endpoint.folder, 'damaged.pem')
    const damaged = damage(readFileSync(ec.reference, 'utf8'))
    expect(damaged).not.toBe(readFileSync(ec.reference, 'utf8'))
    writeFileSync(place, damaged)
    const { status, stderr } = await checkNginx(site(1, pair(ec, place)))
    expect(status).toBe(1)
    expect(stderr).toMatch(/cannot load certificate key[^\n]*hsmgate:[^:]*:key reference not readable/)
    expect(stderr).toContain(reason)
    expect(endpoint.hellos).toEqual([])
  })

  it.each([
    ['garbage', 'garbage of all kinds\n'.repeat(50_000)],
    ['one line', 'x'.repeat(1 << 20)],
    ['zeros', '\0'.repeat(1 << 20)],
  ])('does not start with a megabyte of %s in place of a reference', async (_name, content) => {
    const place = path.join(endpoint.folder, 'garbage.pem')
    writeFileSync(place, content)
    const { status, stderr } = await checkNginx(site(1, pair(ec, place)))
    expect(status).toBe(1)
    expect(stderr).toMatch(/cannot load certificate key[^\n]*No supported data to decode/)
  })

  it('fails handshakes with one clear line when the gateway denies them, and serves on', async () => {
    const port = await findFreePort()
    await using nginx = await startNginx(port, site(port, pair(ec)))
    endpoint.onRequest = () => ({ error: 3, text: 'not under this policy' })
    await expect(fetch(port, [ec])).rejects.toThrow(/alert internal error/)
    endpoint.onRequest = () => 'sign'
    expect((await fetch(port, [ec])).body).toBe('TLSv1.3 .\n')
    const lines = nginx
      .errorLog()
      .split('\n')
      .filter((line) => line.includes('hsmgate:'))
    expect(lines).toEqual([
      expect.stringContaining(`gateway denied the signature:${endpoint.socketPath}: not under this policy`),
    ])
  })

  it('reloads under load without a failed handshake, and each worker connects for itself', {
    timeout: 60_000,
  }, async () => {
    const port = await findFreePort()
    await using nginx = await startNginx(port, { ...site(port, pair(ec)), workers: 2 })
    const load = startLoad(port, 3)
    for (let round = 0; round < 10; round++) await nginx.reload()
    await load.stop()
    expect(load.failures).toEqual([])
    expect(load.served()).toBeGreaterThan(20)
    expect(endpoint.requests).toHaveLength(load.served())
    const pids = endpoint.hellos.map(({ pid }) => pid)
    expect(new Set(pids).size).toBe(pids.length)
    expect(pids).not.toContain(nginx.pid)
  })

  it('fails no handshake while the gateway restarts', { timeout: 60_000 }, async () => {
    const port = await findFreePort()
    const patient = { ...env, HSMGATE_DEADLINE_MS: '20000' }
    await using _nginx = await startNginx(port, { ...site(port, pair(ec)), env: patient, workers: 2 })
    const load = startLoad(port, 4)
    for (let round = 0; round < 5; round++) {
      await load.more(5)
      await endpoint.stop()
      await endpoint.start()
    }
    await load.stop()
    expect(load.failures).toEqual([])
    expect(load.served()).toBeGreaterThanOrEqual(25)
  })

  it('proves itself to an upstream with a key reference', async () => {
    const upstream = createServer(
      {
        key: readFileSync(ec.private),
        cert: readFileSync(certificate(ec)),
        ca: readFileSync(certificate(rsa)),
        requestCert: true,
        rejectUnauthorized: true,
      },
      (request, response) =>
        response.end((request.socket as TLSSocket).getPeerX509Certificate()?.publicKey.asymmetricKeyType),
    )
    await new Promise<void>((resolve) => upstream.listen(0, '127.0.0.1', resolve))
    const { port: upstreamPort } = upstream.address() as AddressInfo
    const port = await findFreePort()
    const proxy = `location / { proxy_pass https://127.0.0.1:${upstreamPort}; proxy_ssl_protocols TLSv1.3;
      proxy_ssl_certificate ${certificate(rsa)}; proxy_ssl_certificate_key ${rsa.reference}; }`
    const http = `ssl_protocols TLSv1.3; server { listen 127.0.0.1:${port} ssl; ${pair(ec)} ${proxy} }`
    await using _nginx = await startNginx(port, { env, http })
    expect((await fetch(port, [ec])).body).toBe('rsa')
    upstream.close()
    expect(endpoint.requests.map(({ keyId }) => keyId.equals(rsa.keyId))).toEqual([false, true])
  })
})
