/**
 * Clients of other TLS libraries in front of a stock NGINX whose keys of every kind are in SoftHSM2: full handshakes of TLS 1.2 and 1.3, in which
 * the client verifies the certificate, and of which the journal has one signature each.
 */
import { mkdirSync } from 'node:fs'
import path from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { startGateway, type TestGateway } from '../support/gateway.ts'
import { type Authority, createAuthority, createSites, type NamedSite, serveSites } from '../support/named-sites.ts'
import { offloadRecords } from '../support/offload.ts'
import { buildProvider } from '../support/provider.ts'
import {
  servedOver,
  type Target,
  type TlsClient,
  type TlsLibraryName,
  type TlsVersion,
  tlsLibraries,
} from '../support/tls-clients.ts'
import { openTlsSites, type TlsSites } from '../support/tls-sites.ts'

/** How the journal names what a scheme of RFC 8446, section 4.2.3, asks for. */
const signedAs = {
  rsa_pkcs1_sha256: 'RSASSA_PKCS1_V1_5_SHA_256',
  rsa_pss_rsae_sha256: 'RSASSA_PSS_SHA_256',
  rsa_pss_rsae_sha384: 'RSASSA_PSS_SHA_384',
  rsa_pss_rsae_sha512: 'RSASSA_PSS_SHA_512',
  ecdsa_secp256r1_sha256: 'ECDSA_SHA_256',
  ecdsa_secp384r1_sha384: 'ECDSA_SHA_384',
  ecdsa_secp521r1_sha512: 'ECDSA_SHA_512',
  ed25519: 'ED25519_SHA_512',
} as const
type Scheme = keyof typeof signedAs

interface Kind {
  readonly spec: string
  readonly 'TLSv1.2': readonly Scheme[]
  readonly 'TLSv1.3': readonly Scheme[]
}

const rsa = (spec: string): Kind => ({
  spec,
  'TLSv1.2': ['rsa_pss_rsae_sha256', 'rsa_pkcs1_sha256'],
  'TLSv1.3': ['rsa_pss_rsae_sha256', 'rsa_pss_rsae_sha384', 'rsa_pss_rsae_sha512'],
})
const other = (spec: string, scheme: Scheme): Kind => ({ spec, 'TLSv1.2': [scheme], 'TLSv1.3': [scheme] })
const kinds = {
  rsa2048: rsa('RSA_2048'),
  rsa3072: rsa('RSA_3072'),
  rsa4096: rsa('RSA_4096'),
  p256: other('ECC_NIST_P256', 'ecdsa_secp256r1_sha256'),
  p384: other('ECC_NIST_P384', 'ecdsa_secp384r1_sha384'),
  p521: other('ECC_NIST_P521', 'ecdsa_secp521r1_sha512'),
  ed25519: other('ECC_NIST_EDWARDS25519', 'ed25519'),
} satisfies Record<string, Kind>
type KindName = keyof typeof kinds
const kindNames = Object.keys(kinds) as KindName[]
const versions = ['TLSv1.2', 'TLSv1.3'] as const

/** What a client that offers all it knows makes NGINX sign with: its first choice. In TLS 1.2 that hash goes with any curve. */
function firstChoice(kind: KindName, version: TlsVersion): Scheme {
  const [first] = kinds[kind][version]
  return version === 'TLSv1.2' && first?.startsWith('ecdsa') ? 'ecdsa_secp256r1_sha256' : (first as Scheme)
}

/** What clients of Debian 12 cannot do, and how they say it. */
const limits: readonly { readonly library: TlsLibraryName; readonly kind: KindName; readonly says: RegExp }[] = [
  { library: 'NSS', kind: 'ed25519', says: /SSL_ERROR_NO_CYPHER_OVERLAP/ },
]

/** What clients say of a certificate of another authority, and of one for another name. */
const refusals: Readonly<Record<TlsLibraryName, readonly [RegExp, RegExp]>> = {
  GnuTLS: [/issuer is unknown/, /name in the certificate does not match/],
  NSS: [/SEC_ERROR_UNKNOWN_ISSUER/, /SSL_ERROR_BAD_CERT_DOMAIN/],
  OpenSSL: [/unable to get local issuer certificate/, /hostname mismatch/],
  curl: [/unable to get local issuer certificate/, /no alternative certificate subject name matches/],
  Node: [/unable to verify the first certificate/, /does not match certificate's altnames/],
  Python: [/unable to get local issuer certificate/, /Hostname mismatch/],
  Go: [/signed by unknown authority/, /certificate is valid for .*, not /],
  Java: [/unable to find valid certification path/, /No subject alternative DNS name matching/],
}

const names = Object.keys(tlsLibraries) as TlsLibraryName[]
const here = names.filter((name) => tlsLibraries[name].isHere)
const hostOf = (library: string, kind: string) => `${library.toLowerCase()}.${kind}.example`
const strange = 'other-authority.example'
const misnamed = 'other-name.example'

const undo = new AsyncDisposableStack()
const clients = {} as Record<TlsLibraryName, TlsClient>
const sites = new Map<string, NamedSite>()
let gateway: TestGateway
let port: number

beforeAll(async () => {
  buildProvider()
  gateway = undo.use(await startGateway({ config: { listen: { kms: null, operator: { http: null }, offload: {} } } }))
  const all = undo.use(openTlsSites(gateway, gateway.gateway.endpoints.offload[0] as string))
  const authority = await createAuthority(all, 'authority')
  await Promise.all([openClients(all, authority), openSites(all, authority)])
}, 600_000)
afterAll(async () => {
  await undo.disposeAsync()
})

async function openClients({ folder }: TlsSites, { certificate }: Authority): Promise<void> {
  for (const name of here) {
    const place = path.join(folder, name)
    mkdirSync(place)
    clients[name] = undo.use(await tlsLibraries[name].open(place, certificate))
  }
}

/** One for each client and kind of key, and two that nobody should trust. */
async function openSites(all: TlsSites, authority: Authority): Promise<void> {
  const stranger = await createAuthority(all, 'stranger')
  const made = [
    ...(await createSites(gateway, all, stranger, 'ECC_NIST_P256', [strange])),
    ...(await createSites(gateway, all, authority, 'ECC_NIST_P256', [misnamed], ['a-name.example'])),
  ]
  for (const kind of kindNames) {
    const hosts = here.map((library) => hostOf(library, kind))
    made.push(...(await createSites(gateway, all, authority, kinds[kind].spec, hosts)))
  }
  for (const site of made) sites.set(site.host, site)
  const served = await serveSites(all, made, servedOver)
  undo.use(served.nginx)
  port = served.port
}

describe.each(names)('%s', { concurrent: true }, (library) => {
  const { isHere, choosesScheme, tellsScheme } = tlsLibraries[library]
  const cannot = limits.filter((limit) => limit.library === library)
  const can = kindNames.filter((kind) => !cannot.some((limit) => limit.kind === kind))

  /** A visit, and what it adds to the journal. */
  async function visit(kind: KindName, target: Pick<Target, 'version' | 'scheme'>) {
    const { host, name } = sites.get(hostOf(library, kind)) as NamedSite
    const before = (await offloadRecords(gateway, name)).length
    const [seen] = await Promise.allSettled([clients[library].visit({ port, name: host, ...target })])
    const records = (await offloadRecords(gateway, name)).slice(before)
    return { seen, records }
  }

  it.skipIf(!isHere).each(can)('shakes hands with %s under TLS 1.2 and 1.3, one signature each', async (kind) => {
    for (const version of versions) {
      for (const scheme of choosesScheme ? kinds[kind][version] : [undefined]) {
        const { seen, records } = await visit(kind, { version, scheme })
        expect(seen).toEqual({
          status: 'fulfilled',
          value: { status: 200, protocol: version, ...(tellsScheme ? { scheme } : {}) },
        })
        expect(records).toEqual([
          expect.objectContaining({
            eventName: 'Sign',
            requestParameters: expect.objectContaining({
              signingAlgorithm: signedAs[scheme ?? firstChoice(kind, version)],
            }),
            additionalEventData: expect.objectContaining({
              app: 'nginx',
              policy: version === 'TLSv1.3' ? 'tls13-server' : 'tls12-server-ecdhe',
            }),
            resources: [expect.objectContaining({ ARN: sites.get(hostOf(library, kind))?.arn })],
          }),
        ])
        expect(records[0]).not.toHaveProperty('errorCode')
      }
    }
  })

  it.skipIf(!isHere).each(cannot)('has no $kind: nothing is signed', async ({ kind, says }) => {
    for (const version of versions) {
      const { seen, records } = await visit(kind, { version, scheme: kinds[kind][version][0] })
      expect(seen).toEqual({
        status: 'rejected',
        reason: expect.objectContaining({ message: expect.stringMatching(says) }),
      })
      expect(records).toEqual([])
    }
  })

  it.skipIf(!isHere)('trusts no certificate of another authority or for another name', async () => {
    const [ofAuthority, ofName] = refusals[library]
    const target = { port, version: 'TLSv1.3', scheme: 'ecdsa_secp256r1_sha256' } as const
    await expect(clients[library].visit({ ...target, name: strange })).rejects.toThrow(ofAuthority)
    await expect(clients[library].visit({ ...target, name: misnamed })).rejects.toThrow(ofName)
  })
})
