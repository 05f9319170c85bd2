/**
 * What a key reference is good for in front of a real gateway, with programs that know nothing of hsmgate: handshakes that its policies allow,
 * for the users that it names, until it is revoked. Everything else is refused, and the journal says why.
 */
import { createHash, randomBytes, verify } from 'node:crypto'
import { chmodSync, copyFileSync, readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { run } from '../support/command.ts'
import type { TestGateway } from '../support/gateway.ts'
import { type GatewaySites, openGatewaySites } from '../support/gateway-sites.ts'
import { findFreePort } from '../support/nginx.ts'
import { recordsDuring } from '../support/offload.ts'
import { providerModule } from '../support/provider.ts'
import { type TlsSite, type TlsSites, visit } from '../support/tls-sites.ts'
import { curlUpstream, startUpstream } from '../support/tls-upstream.ts'
import { startNginxSite } from '../support/web-servers.ts'

const isRoot = process.getuid?.() === 0
const stranger = 65_534
let opened: GatewaySites
let gateway: TestGateway
let sites: TlsSites

beforeAll(async () => {
  opened = await openGatewaySites()
  ;({ gateway, sites } = opened)
}, 600_000)
afterAll(() => opened?.[Symbol.asyncDispose]())

const file = (name: string, content?: string | Buffer) => {
  const place = path.join(sites.folder, name)
  if (content !== undefined) writeFileSync(place, content)
  return place
}
const withProvider = (program: string, args: readonly string[], env = sites.env) =>
  run(program, args, { env: { PATH: process.env.PATH ?? '', ...env } })
const openssl = (...args: string[]) => withProvider('openssl', args)

const recordsOf = (site: TlsSite, work: () => Promise<unknown>) => recordsDuring(gateway, site.name, work)

describe('a stolen key reference', () => {
  it.runIf(isRoot)('signs nothing for another user', async () => {
    const site = await sites.make('ECC_NIST_P256', { policies: 'any', users: [0] })
    const [stolen, module] = [file('stolen.pem', readFileSync(site.reference)), file('hsmgate.so')]
    copyFileSync(providerModule, module)
    for (const place of [stolen, module]) chmodSync(place, 0o755)
    const OPENSSL_CONF = file(
      'thief.cnf',
      readFileSync(sites.env.OPENSSL_CONF!, 'utf8').replace(providerModule, module),
    )
    const data = file('message', randomBytes(40))
    const sign = ['openssl', 'dgst', '-sha256', '-sign', stolen, data]
    const as = (uid: number) => [`--reuid=${uid}`, `--regid=${uid}`, '--clear-groups', ...sign]

    const own = await withProvider('setpriv', as(0), { OPENSSL_CONF })
    expect(verify('sha256', readFileSync(data), site.publicKey, own.stdout)).toBe(true)
    const records = await recordsOf(site, async () => {
      const { status, stdout, stderr } = await withProvider('setpriv', as(stranger), { OPENSSL_CONF })
      expect(status).not.toBe(0)
      expect(stdout).toHaveLength(0)
      expect(stderr).toContain('gateway refused the token')
    })
    expect(records).toEqual([
      expect.objectContaining({
        errorCode: 'PeerRefused',
        errorMessage: 'the token is not bound to this user',
        additionalEventData: expect.objectContaining({ uid: stranger, app: 'openssl' }),
      }),
    ])
  })

  it('signs nothing once it is revoked', async () => {
    const site = await sites.make('ECC_NIST_P256', { policies: 'any' })
    const sign = () => openssl('dgst', '-sha256', '-sign', site.reference, file('message', 'x'))
    expect((await sign()).status).toBe(0)
    const port = await findFreePort()
    await using _nginx = await startNginxSite({ port, pairs: [site], env: sites.env })
    expect(await visit(port, [site])).toMatchObject({ status: 200 })

    await gateway.ask('tls', 'revoke', { name: site.name })
    const { status, stdout, stderr } = await sign()
    expect([status, stdout.length]).toEqual([1, 0])
    expect(stderr).toContain('gateway refused the token')
    await expect(visit(port, [site])).rejects.toThrow(/alert internal error/)
    // Nobody's token is nobody's record: it is counted.
    const { text } = await gateway.gateway.observer.metrics()
    expect(text).toMatch(/hsmgate_offload_refused_total\{peer="local",code="Unauthenticated"\} 2/)
  })
})

describe('a key for servers of TLS 1.3', () => {
  let site: TlsSite
  beforeAll(async () => {
    site = await sites.make('ECC_NIST_P256', { policies: 'tls13-server' })
  })
  const refused = (what: string, app = 'openssl') => [
    expect.objectContaining({
      errorCode: 'PolicyDenied',
      errorMessage: expect.stringMatching(`the policies of the token \\(tls13-server\\) do not allow ${what}`),
      additionalEventData: expect.objectContaining({ app, uid: process.getuid?.() }),
      resources: [expect.objectContaining({ ARN: site.arn })],
    }),
  ]
  const jwt = ['{"alg":"ES256"}', '{"sub":"admin"}'].map((part) => Buffer.from(part).toString('base64url')).join('.')
  const documents = [
    ['certificate request', 'a message', () => ['req', '-new', '-key', site.reference, '-subj', '/CN=x']],
    ['certificate', 'a message', () => ['req', '-new', '-x509', '-key', site.reference, '-subj', '/CN=x']],
    [
      'CMS message',
      'a message',
      () => ['cms', '-sign', '-in', file('data', 'x'), '-signer', site.certificate, '-inkey', site.reference],
    ],
    ['JSON Web Token', 'a message', () => ['dgst', '-sha256', '-sign', site.reference, file('jwt', jwt)]],
    [
      'digest',
      'a digest',
      () => {
        const digest = file('digest', createHash('sha256').update(jwt).digest())
        return ['pkeyutl', '-sign', '-inkey', site.reference, '-pkeyopt', 'digest:sha256', '-in', digest]
      },
    ],
  ] as const

  it.each(documents)('signs no %s', async (_name, what, args) => {
    const records = await recordsOf(site, async () => {
      const { status, stdout, stderr } = await openssl(...args())
      expect(status).not.toBe(0)
      expect(stderr).toContain('gateway denied the signature')
      expect(stdout.toString()).not.toContain('BEGIN')
    })
    expect(records).toEqual(refused(what))
  })

  it('signs its handshakes, and none of TLS 1.2', async () => {
    const port = await findFreePort()
    await using _nginx = await startNginxSite({ port, pairs: [site], env: sites.env })
    const [good, ...more] = await recordsOf(site, () => visit(port, [site]))
    expect(good).toMatchObject({ additionalEventData: { policy: 'tls13-server', app: 'nginx' } })
    expect([good?.errorCode, more]).toEqual([undefined, []])
    const records = await recordsOf(site, () =>
      expect(visit(port, [site], { maxVersion: 'TLSv1.2' })).rejects.toThrow(/alert internal error/),
    )
    expect(records).toEqual(refused('a message', 'nginx'))
  })

  it('proves nobody as a client', async () => {
    await using server = await startUpstream(site)
    const records = await recordsOf(site, async () => {
      const { status, stderr } = await curlUpstream(server, site, sites.env, '--tlsv1.3')
      expect(status).not.toBe(0)
      expect(stderr).toContain('gateway denied the signature')
    })
    expect(records).toEqual(refused('a message', 'curl'))
  })
})
