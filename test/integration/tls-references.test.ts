/**
 * Key reference files as people make them, in stock NGINX, Apache and HAProxy: what is harmless serves, what is broken keeps a server from
 * starting, with the reason where the server writes reasons. Keys are software keys behind test/support/hks-endpoint.ts.
 */
import { chmodSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { runOk } from '../support/command.ts'
import { type HksEndpoint, type HksKey, startHksEndpoint } from '../support/hks-endpoint.ts'
import { findFreePort } from '../support/nginx.ts'
import { buildProvider, writeOpensslConf } from '../support/provider.ts'
import { isAlive } from '../support/served-gateway.ts'
import { visit } from '../support/tls-sites.ts'
import { type SiteOptions, startApache, startHaproxy, startNginxSite } from '../support/web-servers.ts'

const template = readFileSync(path.join(import.meta.dirname, '../../deploy/openssl/openssl.cnf'), 'utf8')
const patience = { timeout: 60_000 }
let endpoint: HksEndpoint
let env: Readonly<Record<string, string>>
let own: HksKey
let other: HksKey
let certificate: string

beforeAll(async () => {
  buildProvider()
  endpoint = await startHksEndpoint()
  // Servers become www-data.
  chmodSync(endpoint.folder, 0o755)
  chmodSync(endpoint.socketPath, 0o666)
  env = { OPENSSL_CONF: writeOpensslConf(endpoint.folder, template, endpoint.socketPath) }
  own = endpoint.addKey('P-256')
  other = endpoint.addKey('P-256')
  certificate = path.join(endpoint.folder, 'crt.pem')
  const names = ['-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost', '-days', '2']
  await runOk('openssl', ['req', '-new', '-x509', '-key', own.private, ...names, '-out', certificate])
}, 600_000)
afterAll(() => endpoint?.[Symbol.asyncDispose]())

const text = ({ reference }: HksKey) => readFileSync(reference, 'utf8')
const chain = () => readFileSync(certificate, 'utf8')

function pairOf(reference: string) {
  const place = path.join(mkdtempSync(path.join(endpoint.folder, 'ref-')), 'site.ref.pem')
  writeFileSync(place, reference, { mode: 0o600 })
  return { certificate, reference: place }
}

describe.each([
  ['NGINX', (site: SiteOptions) => startNginxSite(site)],
  ['Apache', (site: SiteOptions) => startApache('event', site)],
  ['HAProxy', (site: SiteOptions) => startHaproxy(site)],
] as const)('%s', (name, start) => {
  const harmless: readonly (readonly [string, () => string])[] = [
    ['with CRLF', () => text(own).replaceAll('\n', '\r\n')],
    ['with text before and after it', () => `of the shop\n\n${text(own)}\nuntil 2030\n`],
    ['behind the certificates', () => chain() + text(own)],
    ['before the certificates', () => text(own) + chain()],
    ['twice: the first one counts, as of private keys', () => text(own) + text(other)],
    ['behind a megabyte of garbage', () => `${'garbage of all kinds\n'.repeat(50_000)}${text(own)}`],
  ]
  it.each(harmless)('serves with a reference %s', patience, async (_what, content) => {
    const port = await findFreePort()
    await using _server = await start({ port, pairs: [pairOf(content())], env })
    const before = endpoint.requests.length
    expect(await visit(port, [{ certificate }])).toMatchObject({ status: 200, keyType: 'ec' })
    expect(endpoint.requests.slice(before).map(({ keyId }) => keyId)).toEqual([own.keyId])
  })

  // HAProxy keeps what OpenSSL says to itself.
  const isTold = name !== 'HAProxy'
  const broken: readonly (readonly [string, () => string, RegExp])[] = [
    [
      'of another certificate',
      () => text(other),
      name === 'NGINX'
        ? /key reference belongs to another public key/
        : / do not match$|inconsistencies between private key/m,
    ],
    ['that is cut off', () => text(own).slice(0, 200), isTold ? /its last line is missing/ : /unable to load/],
    ['that is no base64', () => text(own).replace('\nM', '\n!'), isTold ? /it is not base64/ : /unable to load/],
    [
      'of another version',
      () => text(own).replace(/(?<=-\n.{4})..../, 'AgEC'),
      // Of Apache's own attempts the error queue is full by then.
      name === 'NGINX' ? /its version is not 1/ : /Private key not found|No Private Key found/,
    ],
    [
      'that is a megabyte of garbage',
      () => 'garbage of all kinds\n'.repeat(50_000),
      isTold ? /No supported data to decode/ : /No Private Key found/,
    ],
  ]
  it.each(broken)('does not start with a reference %s, and says so', patience, async (_what, content, reason) => {
    const { accepted } = endpoint.connections
    expect(await ending({ port: await findFreePort(), pairs: [pairOf(content())], env })).toMatch(reason)
    expect(endpoint.connections.accepted).toBe(accepted)
  })

  /** What the server says when it ends by itself: some listen before they look at keys. */
  async function ending(site: SiteOptions): Promise<string> {
    try {
      await using server = await start(site)
      await expect.poll(() => isAlive(server.pid), { timeout: 20_000 }).toBe(false)
      return server.errorLog()
    } catch (cause) {
      return (cause as Error).message
    }
  }
})
