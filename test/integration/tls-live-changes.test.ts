/**
 * What web servers change of themselves while clients shake hands with them: log files, processes, certificates and keys. No visit fails,
 * and each one has its signature in the journal, once, by the key of the certificate that it was shown.
 */
import { existsSync, readdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { TestGateway } from '../support/gateway.ts'
import { type GatewaySites, openGatewaySites } from '../support/gateway-sites.ts'
import { findFreePort, startNginx } from '../support/nginx.ts'
import { offloadRecords } from '../support/offload.ts'
import { isAlive } from '../support/served-gateway.ts'
import { createShimmedToken, type ShimmedToken } from '../support/shim.ts'
import { makeKeyFileSite, startVisits, type TlsSite, type TlsSites, visit } from '../support/tls-sites.ts'
import { type Haproxy, nginxSite, startApache, startHaproxy } from '../support/web-servers.ts'

const patience = { timeout: 120_000 }
const poll = { timeout: 60_000, interval: 20 }
type Pair = Pick<TlsSite, 'certificate' | 'reference'>
let token: ShimmedToken
let opened: GatewaySites
let gateway: TestGateway
let sites: TlsSites

beforeAll(async () => {
  token = await createShimmedToken()
  opened = await openGatewaySites({ token })
  ;({ gateway, sites } = opened)
}, 600_000)
afterAll(async () => {
  await opened?.[Symbol.asyncDispose]()
  await token?.[Symbol.asyncDispose]()
})

/** Visitors who accept any of `pairs`, and how many were shown a certificate with a key of each type. */
function startCountedVisits(port: number, pairs: readonly Pair[], clients: number) {
  const shown: Record<string, number> = {}
  const visits = startVisits(clients, async () => {
    const { status, isReused, keyType } = await visit(port, pairs)
    if (status !== 200 || isReused) throw new Error(`${status} ${isReused}`)
    shown[keyType] = (shown[keyType] ?? 0) + 1
  })
  return { ...visits, shown }
}

const signatures = async ({ name }: TlsSite) => {
  const records = await offloadRecords(gateway, name)
  expect(records.filter(({ errorCode }) => errorCode !== undefined)).toEqual([])
  return records
}

describe('NGINX', () => {
  it('reopens its logs and leaves out no visit', patience, async () => {
    const site = await sites.make('ECC_NIST_P256')
    const port = await findFreePort()
    const log = path.join(sites.folder, 'access.log')
    const http = nginxSite({ port, pairs: [site], server: `access_log ${log};` })
    await using nginx = await startNginx(port, { env: sites.env, http, workers: 2 })
    const lines = (name: string) => readFileSync(path.join(sites.folder, name), 'utf8').match(/" 200 /g)?.length ?? 0
    const visitors = startCountedVisits(port, [site], 2)
    try {
      for (let time = 1; time <= 20; time++) {
        await visitors.more(10)
        renameSync(log, `${log}.${time}`)
        process.kill(nginx.pid, 'SIGUSR1')
        await expect.poll(() => existsSync(log) && lines('access.log'), poll).toBeGreaterThan(0)
      }
    } finally {
      await visitors.stop()
    }
    expect(visitors.failures).toEqual([])
    const names = readdirSync(sites.folder).filter((name) => name.startsWith('access.log'))
    expect(names).toHaveLength(21)
    const logged = () => names.map(lines).reduce((sum, count) => sum + count)
    await expect.poll(logged, poll).toBe(visitors.served())
    expect(await signatures(site)).toHaveLength(visitors.served())
  })
})

describe.each(['event', 'prefork'] as const)('Apache %s', (mpm) => {
  it('replaces its processes every hundred connections', patience, async () => {
    const site = await sites.make('ECC_NIST_P256')
    const port = await findFreePort()
    const main = `MaxConnectionsPerChild 100
      ${mpm === 'prefork' ? 'StartServers 1\nMinSpareServers 1\nMaxSpareServers 1' : ''}`
    await using apache = await startApache(mpm, { port, pairs: [site], env: sites.env, main })
    const visitors = startCountedVisits(port, [site], 3)
    const replaced = async () => {
      const pids = (await signatures(site)).map(({ additionalEventData }) => additionalEventData.pid as number)
      return [...new Set(pids)].filter((pid) => !isAlive(pid))
    }
    try {
      do await visitors.more(100)
      while (visitors.failures.length === 0 && (await replaced()).length < 4)
    } finally {
      await visitors.stop()
    }
    expect(visitors.failures).toEqual([])
    expect(await signatures(site)).toHaveLength(visitors.served())
    expect(apache.errorLog()).not.toMatch(/exit signal/)
  })
})

describe.each([
  ['HAProxy', false],
  ['HAProxy in asynchronous mode', true],
])('the runtime API of %s', (_name, isAsync) => {
  const set = ({ ask, pem }: Haproxy, ...files: readonly string[]) =>
    ask(`set ssl cert ${pem} <<\n${files.map((file) => readFileSync(file, 'utf8')).join('')}`)
  const commit = ({ ask, pem }: Haproxy) => ask(`commit ssl cert ${pem}`)
  const abort = async ({ ask, pem }: Haproxy) =>
    expect(await ask(`abort ssl cert ${pem}`)).toContain('Transaction aborted')
  /** Keys of different types, which tell the certificates apart; the last one is a file. */
  const makePairs = async () =>
    [
      await sites.make('ECC_NIST_P256'),
      await sites.make('RSA_2048'),
      await makeKeyFileSite(path.join(sites.folder, `file-${isAsync}`), 'ed25519'),
    ] as const

  it('puts key references in place of a key file, of one another and back', patience, async () => {
    const [first, second, inFile] = await makePairs()
    const port = await findFreePort()
    await using haproxy = await startHaproxy({ port, pairs: [inFile], env: sites.env, isAsync })
    // Handshakes wait for their signatures while the keys change.
    token.rules(['C_Sign delay=uniform:0:20'])
    const visitors = startCountedVisits(port, [first, second, inFile], 3)
    const changes = [first, second, inFile, second, first, inFile, first, second, first, second]
    try {
      await visitors.more(10)
      for (const next of changes) {
        expect(await set(haproxy, next.certificate, next.reference)).toContain('Transaction created')
        expect(await commit(haproxy)).toContain('Success!')
        // Whoever comes now is shown the new certificate.
        expect(await visit(port, [next])).toMatchObject({ status: 200 })
        await visitors.more(10)
      }
    } finally {
      token.clear()
      await visitors.stop()
    }
    expect(visitors.failures).toEqual([])
    const { shown } = visitors
    const times = (pair: Pair) => changes.filter((next) => next === pair).length
    expect(await signatures(first)).toHaveLength(shown.ec! + times(first))
    expect(await signatures(second)).toHaveLength(shown.rsa! + times(second))
    expect(shown.ed25519).toBeGreaterThanOrEqual(10)
    expect(haproxy.errorLog()).not.toContain('exited with code')
  })

  it('leaves a site as it is when a reference is damaged', patience, async () => {
    const [first, second] = await makePairs()
    const port = await findFreePort()
    await using haproxy = await startHaproxy({ port, pairs: [first], env: sites.env, isAsync })
    const damaged = path.join(sites.folder, `damaged-${isAsync}.pem`)
    writeFileSync(damaged, readFileSync(second.reference, 'utf8').replace(/^M/m, 'N'))
    const visitors = startCountedVisits(port, [first, second], 2)
    try {
      for (let time = 0; time < 10; time++) {
        await visitors.more(3)
        await set(haproxy, second.certificate, damaged)
        expect(await commit(haproxy)).toContain('must contain at least a certificate and a private key')
        await abort(haproxy)
      }
    } finally {
      await visitors.stop()
    }
    expect(visitors.failures).toEqual([])
    expect(await signatures(first)).toHaveLength(visitors.served())
  })

  // Once, and with nobody there: HAProxy leaves OpenSSL's error on the queue of its thread, where the next one to look takes it for his own.
  it('leaves a site as it is when a reference is another certificate’s', patience, async () => {
    const [first, second] = await makePairs()
    const port = await findFreePort()
    await using haproxy = await startHaproxy({ port, pairs: [first], env: sites.env, isAsync })
    expect(await set(haproxy, second.certificate, first.reference)).toContain('Transaction created')
    expect(await commit(haproxy)).toContain('inconsistencies between private key and certificate')
    await abort(haproxy)
    for (let time = 0; time < 4; time++) expect(await visit(port, [first])).toMatchObject({ status: 200 })
    // A key that stands behind another block is not found while there is such an error.
    await set(haproxy, second.reference, second.certificate)
    expect(await commit(haproxy)).toContain('Success!')
    expect(await visit(port, [second])).toMatchObject({ status: 200 })
  })
})
