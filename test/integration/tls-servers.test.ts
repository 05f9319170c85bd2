/**
 * Stock NGINX, Apache and HAProxy with key references in place of keys, in front of a real gateway on SoftHSM2: every handshake is
 * verified by the client, answered over HTTP, and stands once in the journal.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { TestGateway } from '../support/gateway.ts'
import { type GatewaySites, openGatewaySites } from '../support/gateway-sites.ts'
import { findFreePort } from '../support/nginx.ts'
import { recordsDuring } from '../support/offload.ts'
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

/** Offers of a client, the key that they pick, its type, and the signature that the client accepts alone, as the journal names it. */
const offers = [
  ['TLSv1.2', 'rsa_pkcs1_sha256', 'rsa2048', 'rsa', 'RSASSA_PKCS1_V1_5_SHA_256'],
  ['TLSv1.2', 'rsa_pss_rsae_sha256', 'rsa2048', 'rsa', 'RSASSA_PSS_SHA_256'],
  ['TLSv1.2', 'rsa_pss_rsae_sha512', 'rsa3072', 'rsa', 'RSASSA_PSS_SHA_512'],
  ['TLSv1.2', 'ecdsa_secp256r1_sha256', 'p256', 'ec', 'ECDSA_SHA_256'],
  ['TLSv1.2', 'ecdsa_secp384r1_sha384', 'p384', 'ec', 'ECDSA_SHA_384'],
  ['TLSv1.2', 'ecdsa_secp521r1_sha512', 'p521', 'ec', 'ECDSA_SHA_512'],
  ['TLSv1.2', 'ed25519', 'ed25519', 'ed25519', 'ED25519_SHA_512'],
  ['TLSv1.3', 'rsa_pss_rsae_sha256', 'rsa2048', 'rsa', 'RSASSA_PSS_SHA_256'],
  ['TLSv1.3', 'rsa_pss_rsae_sha384', 'rsa3072', 'rsa', 'RSASSA_PSS_SHA_384'],
  ['TLSv1.3', 'rsa_pss_rsae_sha512', 'rsa2048', 'rsa', 'RSASSA_PSS_SHA_512'],
  ['TLSv1.3', 'ecdsa_secp256r1_sha256', 'p256', 'ec', 'ECDSA_SHA_256'],
  ['TLSv1.3', 'ecdsa_secp384r1_sha384', 'p384', 'ec', 'ECDSA_SHA_384'],
  ['TLSv1.3', 'ecdsa_secp521r1_sha512', 'p521', 'ec', 'ECDSA_SHA_512'],
  ['TLSv1.3', 'ed25519', 'ed25519', 'ed25519', 'ED25519_SHA_512'],
] as const satisfies readonly (readonly [string, string, Name, string, string])[]
/** Under which of the policies that a binding has by default. */
const policies = { 'TLSv1.2': 'tls12-server-ecdhe', 'TLSv1.3': 'tls13-server' } as const

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
      for (const [version, sigalgs, , keyType, algorithm] of offers.filter(([, , picks]) => picks === name)) {
        const records = await recordsDuring(gateway, site.name, async () => {
          const visited = await visit(port, [site], { minVersion: version, maxVersion: version, sigalgs })
          expect(visited).toEqual({ status: 200, protocol: version, keyType, isReused: false })
        })
        expect(records).toEqual([
          expect.objectContaining({
            requestParameters: expect.objectContaining({ signingAlgorithm: algorithm }),
            additionalEventData: expect.objectContaining({ policy: policies[version] }),
            resources: [expect.objectContaining({ ARN: site.arn })],
          }),
        ])
        expect(records[0]).not.toHaveProperty('errorCode')
      }
    }
  })

  it('serves an RSA and an ECDSA certificate from one site', { timeout: 60_000 }, async () => {
    const port = await findFreePort()
    const pairs = [made.rsa2048, made.p256]
    await using _running = await start({ port, pairs, env: sites.env })
    // HAProxy chooses by the names of TLS 1.2; TLS 1.3 then signs with PSS.
    const likes = [
      [made.rsa2048, 'rsa', 'rsa_pss_rsae_sha256:rsa_pkcs1_sha256'],
      [made.p256, 'ec', 'ecdsa_secp256r1_sha256'],
    ] as const
    for (const [site, keyType, sigalgs] of likes) {
      const records = await recordsDuring(gateway, site.name, async () =>
        expect(await visit(port, pairs, { sigalgs })).toMatchObject({ status: 200, keyType }),
      )
      expect(records).toHaveLength(1)
    }
  })
})
