/**
 * Stock NGINX, Apache and HAProxy with key references in place of keys, in front of a real gateway on SoftHSM2: every handshake is
 * verified by the client, answered over HTTP, and stands once in the journal.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { TestGateway } from '../support/gateway.ts'
import { type GatewaySites, openGatewaySites } from '../support/gateway-sites.ts'
import { findFreePort } from '../support/nginx.ts'
import { offloadRecords } from '../support/offload.ts'
import { type TlsSite, type TlsSites, visit } from '../support/tls-sites.ts'
import { type SiteOptions, startApache, startHaproxy, startNginxSite } from '../support/web-servers.ts'

const specs = {
  rsa2048: 'RSA_2048',
  rsa3072: 'RSA_3072',
  p256: 'ECC_NIST_P256',
  p384: 'ECC_NIST_P384',
  p521: 'ECC_NIST_P521',
  ed25519: 'ECC_NIST_EDWARDS25519',
} as const
type Name = keyof typeof specs

let opened: GatewaySites
let gateway: TestGateway
let sites: TlsSites
const made = {} as Record<Name, TlsSite>

beforeAll(async () => {
  opened = await openGatewaySites()
  ;({ gateway, sites } = opened)
  for (const name of Object.keys(specs) as Name[]) made[name] = await sites.make(specs[name])
}, 600_000)
afterAll(() => opened?.[Symbol.asyncDispose]())

/** Offers of a client, and the key that they pick. */
const offers = [
  ['TLSv1.2', 'rsa_pkcs1_sha256', 'rsa2048', 'rsa'],
  ['TLSv1.2', 'rsa_pss_rsae_sha256', 'rsa2048', 'rsa'],
  ['TLSv1.2', 'rsa_pss_rsae_sha512', 'rsa3072', 'rsa'],
  ['TLSv1.2', 'ecdsa_secp256r1_sha256', 'p256', 'ec'],
  ['TLSv1.2', 'ecdsa_secp384r1_sha384', 'p384', 'ec'],
  ['TLSv1.2', 'ecdsa_secp521r1_sha512', 'p521', 'ec'],
  ['TLSv1.2', 'ed25519', 'ed25519', 'ed25519'],
  ['TLSv1.3', 'rsa_pss_rsae_sha256', 'rsa2048', 'rsa'],
  ['TLSv1.3', 'rsa_pss_rsae_sha384', 'rsa3072', 'rsa'],
  ['TLSv1.3', 'rsa_pss_rsae_sha512', 'rsa2048', 'rsa'],
  ['TLSv1.3', 'ecdsa_secp256r1_sha256', 'p256', 'ec'],
  ['TLSv1.3', 'ecdsa_secp384r1_sha384', 'p384', 'ec'],
  ['TLSv1.3', 'ecdsa_secp521r1_sha512', 'p521', 'ec'],
  ['TLSv1.3', 'ed25519', 'ed25519', 'ed25519'],
] as const satisfies readonly (readonly [string, string, Name, string])[]

describe.each([
  ['nginx', (site: SiteOptions) => startNginxSite(site)],
  ['Apache event', (site: SiteOptions) => startApache('event', site)],
  ['Apache prefork', (site: SiteOptions) => startApache('prefork', site)],
  ['HAProxy', (site: SiteOptions) => startHaproxy(site)],
  ['HAProxy in asynchronous mode', (site: SiteOptions) => startHaproxy({ ...site, isAsync: true })],
] as const)('%s', (_server, start) => {
  it('shakes hands with every kind of key, one signature each', { timeout: 120_000 }, async () => {
    for (const name of Object.keys(specs) as Name[]) {
      const site = made[name]
      const port = await findFreePort()
      await using _running = await start({ port, pairs: [site], env: sites.env })
      for (const [version, sigalgs, , keyType] of offers.filter(([, , picks]) => picks === name)) {
        const before = (await offloadRecords(gateway, site.name)).length
        const visited = await visit(port, [site], { minVersion: version, maxVersion: version, sigalgs })
        expect(visited).toEqual({ status: 204, protocol: version, keyType, isReused: false })
        const records = (await offloadRecords(gateway, site.name)).slice(before)
        expect(records).toHaveLength(1)
        expect(records[0]?.errorCode).toBeUndefined()
        expect(records[0]?.resources[0]?.ARN).toBe(site.arn)
      }
    }
  })

  it('serves an RSA and an ECDSA certificate from one site', { timeout: 60_000 }, async () => {
    const port = await findFreePort()
    const pairs = [made.rsa2048, made.p256]
    await using _running = await start({ port, pairs, env: sites.env })
    // HAProxy chooses by the names of TLS 1.2; TLS 1.3 then signs with PSS.
    const rsa = await visit(port, pairs, { sigalgs: 'rsa_pss_rsae_sha256:rsa_pkcs1_sha256' })
    const ec = await visit(port, pairs, { sigalgs: 'ecdsa_secp256r1_sha256' })
    expect([rsa.keyType, ec.keyType]).toEqual(['rsa', 'ec'])
  })
})
