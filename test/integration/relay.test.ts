/** `hsmgate relay` as a process of its own in front of a real gateway: enrolled, approved, run, renewed; what its clients and the audit see. */
import { randomBytes, verify, X509Certificate } from 'node:crypto'
import { chmodSync, copyFileSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { completeDevelopmentTls } from '../../src/cli/development-ca.ts'
import { enrolmentFiles } from '../../src/relay/enrolment.ts'
import { errorNumbers } from '../../src/transport/offload/frames.ts'
import { runOk } from '../support/command.ts'
import { startGateway, type TestGateway } from '../support/gateway.ts'
import { certificateVerify, connectHks } from '../support/hks-client.ts'
import { type HsmgateProcess, runHsmgateProcess, startHsmgate } from '../support/hsmgate-process.ts'
import { findFreePort } from '../support/nginx.ts'
import { type BindOptions, type BoundKey, bindKey, createTlsKey, offloadRecords } from '../support/offload.ts'
import { buildProvider } from '../support/provider.ts'
import { makeRelayPki, makeSoftKey, startRelayGateway, withServerCertificate } from '../support/relay-gateway.ts'
import { isAlive } from '../support/served-gateway.ts'
import { openTlsSites, type TlsSite, type TlsSites, visit } from '../support/tls-sites.ts'
import { type SiteOptions, startApache, startHaproxy, startNginxSite } from '../support/web-servers.ts'

interface Enrolled {
  readonly folder: string
  readonly config: string
  readonly socket: string
  readonly digest: string
}

const dayMs = 86_400_000
const patience = { timeout: 60_000 }
const activation = path.resolve(import.meta.dirname, '../support/socket-activation.py')
const message = certificateVerify('server', randomBytes(32))
let folder: string
let gateway: TestGateway
let address: string
let enrolled: Enrolled
let relay: HsmgateProcess

beforeAll(async () => {
  folder = mkdtempSync(path.join(tmpdir(), 'hsmgate-relay-'))
  await completeDevelopmentTls(folder)
  const tls = { certificateFile: path.join(folder, 'server.pem'), keyFile: path.join(folder, 'server.key') }
  gateway = await startGateway({
    config: {
      listen: {
        kms: { address: '127.0.0.1', port: 0 },
        operator: { http: null },
        relay: { address: '127.0.0.1', port: 0, tls },
      },
    },
  })
  address = /^tls:\/\/(.*)$/.exec(gateway.gateway.endpoints.offload.at(-1) ?? '')?.[1] ?? ''
  enrolled = await enroll('web-host')
  relay = await startRelayProcess(enrolled)
}, 120_000)
afterAll(async () => {
  await relay?.[Symbol.asyncDispose]()
  await gateway?.[Symbol.asyncDispose]()
  rmSync(folder, { recursive: true, force: true })
})

/** What the operators of both sides do, by the words of the documentation. */
async function enroll(name: string): Promise<Enrolled> {
  const out = path.join(folder, name)
  const { code, err } = await runHsmgateProcess(['relay', 'enroll', '--gateway', address, '--out', out, '--name', name])
  if (code !== 0) throw new Error(err)
  const digest = await approve(name)
  copyFileSync(path.join(folder, 'ca.pem'), path.join(out, enrolmentFiles.ca))
  const config = path.join(out, enrolmentFiles.config)
  const socket = path.join(out, 'sign.sock')
  writeFileSync(
    config,
    JSON.stringify({ ...JSON.parse(readFileSync(config, 'utf8')), socket, maxBudgetMs: 5000, mode: '0666' }),
  )
  // workers of web servers are other users
  for (const each of [folder, out]) chmodSync(each, 0o755)
  return { folder: out, config, socket, digest }
}

async function approve(name: string, days = 30): Promise<string> {
  const place = (file: keyof typeof enrolmentFiles) => path.join(folder, name, enrolmentFiles[file])
  const request = readFileSync(place('request'), 'utf8')
  const { digest, certificate } = await gateway.ask<{ digest: string; certificate: string }>('tls-relay', 'approve', {
    name,
    request,
    days,
  })
  writeFileSync(place('certificate'), certificate)
  return digest
}

async function startRelayProcess({ config }: Enrolled): Promise<HsmgateProcess> {
  const running = startHsmgate(['relay', 'run', '--config', config, '--json'])
  await running.output(/"ready": true/)
  await running.output(/a gateway can be reached/)
  return running
}

async function boundKey(options: BindOptions): Promise<BoundKey> {
  return bindKey(gateway, await createTlsKey(gateway, 'ECC_NIST_P256'), options)
}

async function askOnce(socket: string, key: BoundKey) {
  await using client = await connectHks(socket, { tokens: [key.token], app: 'nginx' })
  return await client.sign({ keyId: key.spkiDigest, input: message })
}

async function isSigned(socket: string, key: BoundKey): Promise<boolean> {
  const answer = await askOnce(socket, key)
  return answer.ok && verify('sha256', message, key.publicKey, answer.signature)
}

describe('hsmgate relay enroll', () => {
  it('makes a key that only its user can read, and keeps it when it is asked again', async () => {
    const out = path.join(folder, 'twice')
    const words = [
      'relay',
      'enroll',
      '--gateway',
      'gw:1',
      '--gateway',
      '[::1]:2',
      '--out',
      out,
      '--name',
      'twice',
      '--json',
    ]
    const first = JSON.parse((await runHsmgateProcess(words)).out)
    const file = (name: keyof typeof enrolmentFiles) => path.join(out, enrolmentFiles[name])
    const key = readFileSync(file('key'))
    expect(statSync(file('key')).mode & 0o777).toBe(0o600)
    expect(statSync(file('request')).mode & 0o777).toBe(0o644)
    expect(first.files).toEqual([file('key'), file('config'), file('request')])
    const again = JSON.parse((await runHsmgateProcess(words)).out)
    expect(again).toEqual({ ...first, files: [file('request')] })
    expect(readFileSync(file('key'))).toEqual(key)
    const text = await runOk('/usr/bin/openssl', ['req', '-in', file('request'), '-noout', '-verify', '-text'])
    expect(text.toString()).toMatch(/Subject: CN = twice[\s\S]*NIST CURVE: P-256/)
  })

  it('refuses addresses and names that are none', async () => {
    const out = path.join(folder, 'never')
    const words = ['relay', 'enroll', '--out', out, '--gateway', 'nowhere']
    expect(await runHsmgateProcess(words)).toMatchObject({ code: 1, err: /no address of a gateway/ })
    const named = ['relay', 'enroll', '--out', out, '--gateway', 'gw:1', '--name', 'a b']
    expect(await runHsmgateProcess(named)).toMatchObject({ code: 1, err: /no name for a relay/ })
  })
})

describe('hsmgate relay', () => {
  it('brings signatures from the gateway, whose journal names the relay and whom it served', async () => {
    const key = await boundKey({ relays: ['web-host'] })
    expect(await isSigned(enrolled.socket, key)).toBe(true)
    const records = await offloadRecords(gateway, key.name)
    expect(records).toHaveLength(1)
    expect(records[0]).toMatchObject({
      eventName: 'Sign',
      additionalEventData: {
        app: 'hsmgate-relay',
        relay: enrolled.digest,
        relaySubject: 'CN=web-host',
        reported: { uid: process.getuid?.(), pid: process.pid, app: 'nginx' },
      },
    })
  })

  it.each([
    ['no relay', { users: [65_534] }],
    ['another relay', { relays: ['ab'.repeat(32)] }],
  ])('gets nothing for a token that is bound to %s', async (_, options: BindOptions) => {
    const key = await boundKey(options)
    expect(await askOnce(enrolled.socket, key)).toMatchObject({ ok: false, code: errorNumbers.unauthenticated })
    const [record] = await offloadRecords(gateway, key.name)
    expect(record).toMatchObject({
      errorMessage: 'the token is not bound to this relay',
      additionalEventData: { relay: enrolled.digest },
    })
  })

  it('gets nothing once it is revoked', async () => {
    const gone = await enroll('gone-host')
    await using running = await startRelayProcess(gone)
    const key = await boundKey({ relays: ['gone-host'] })
    expect(await isSigned(gone.socket, key)).toBe(true)
    await gateway.ask('tls-relay', 'revoke', { name: 'gone-host' })
    expect(await askOnce(gone.socket, key)).toMatchObject({ ok: false, code: errorNumbers.unauthenticated })
    running.kill('SIGTERM')
    expect((await running.ended).code).toBe(0)
  })

  it('gets what the policies of the token allow, and no more', async () => {
    const key = await boundKey({ relays: ['web-host'], policies: 'tls13-server' })
    await using client = await connectHks(enrolled.socket, { tokens: [key.token] })
    const input = certificateVerify('client', randomBytes(32))
    expect(await client.sign({ keyId: key.spkiDigest, input })).toMatchObject({
      ok: false,
      code: errorNumbers.policyDenied,
      retryable: false,
    })
  })

  it('is checked before it runs', async () => {
    const found = await runHsmgateProcess(['relay', 'check', '--config', enrolled.config, '--json'])
    expect(found.code).toBe(0)
    expect(JSON.parse(found.out)).toMatchObject({ digest: enrolled.digest, gateways: [{ gateway: address }] })
    const closed = `127.0.0.1:${await findFreePort()}`
    const config = path.join(enrolled.folder, 'closed.json')
    const document = JSON.parse(readFileSync(enrolled.config, 'utf8'))
    writeFileSync(config, JSON.stringify({ ...document, gateways: [{ address }, { address: closed }] }))
    const other = await runHsmgateProcess(['relay', 'check', '--config', config])
    expect(other).toMatchObject({ code: 1, err: new RegExp(`${closed}: ECONNREFUSED`) })
    expect(other.out).toContain('takes the certificate')
  })

  it('takes over a renewed certificate at SIGHUP, and keeps the old one when the new one is no good', async () => {
    const host = await enroll('renewed-host')
    await using running = await startRelayProcess(host)
    const key = await boundKey({ relays: ['renewed-host'] })
    const certificate = path.join(host.folder, enrolmentFiles.certificate)
    const before = readFileSync(certificate, 'utf8')
    await approve('renewed-host', 10)
    running.kill('SIGHUP')
    await running.output(/"renewed"/)
    await running.output(/expires soon/)
    expect(new X509Certificate(readFileSync(certificate)).serialNumber).not.toBe(
      new X509Certificate(before).serialNumber,
    )
    expect(await isSigned(host.socket, key)).toBe(true)

    writeFileSync(certificate, readFileSync(path.join(folder, 'ca.pem')))
    running.kill('SIGHUP')
    await running.output(/not renewed; the relay goes on as before/)
    expect(await isSigned(host.socket, key)).toBe(true)
  })

  it('warns of certificates that end soon, its own and those of gateways, and says when they have', async () => {
    const pki = await withServerCertificate(await makeRelayPki(mkdtempSync(path.join(folder, 'brief-'))), 2 * dayMs)
    await using soft = await startRelayGateway(pki, makeSoftKey())
    const { certificateFile, keyFile } = await pki.issue('brief')
    const config = path.join(pki.folder, 'relay.json')
    const { caFile } = pki.server
    const gateways = [{ address: soft.address }]
    const document = { socket: path.join(pki.folder, 'sign.sock'), gateways, certificateFile, keyFile, caFile }
    writeFileSync(config, JSON.stringify(document))
    await using running = startHsmgate(['relay', 'run', '--config', config])
    await running.output(
      /"gateway":"[^"]+","validUntil":"[^"]+","daysLeft":1,"msg":"the certificate of a gateway expires soon"/,
    )
    // a process may take longer to start than the rest of a certificate's life
    await pki.issue('brief', { endsInMs: 4000 })
    running.kill('SIGHUP')
    await running.output(/"the certificate of the relay expires soon"/)
    running.kill('SIGUSR1')
    const [line] = await running.output(/^.*"relay status".*$/m)
    expect(JSON.parse(line)).toMatchObject({ daysLeft: 0, gateways: [{ validUntil: expect.stringMatching(/Z$/) }] })

    await running.output(/"the certificate of the relay has expired"/)
    // the gateway notices at the next PING, and TLS from then on
    await running.output(/a gateway takes leave of a connection/)
    await running.output(/it does not take the certificate of this relay/)
    await expect.poll(() => soft.connections).toBe(0)
  })

  it('writes its counters to the log at SIGUSR1', async () => {
    const key = await boundKey({ relays: ['web-host'] })
    expect(await isSigned(enrolled.socket, key)).toBe(true)
    relay.kill('SIGUSR1')
    const [line] = await relay.output(/^.*"relay status".*$/m)
    const status = JSON.parse(line)
    expect(status.signatures).toBeGreaterThan(0)
    expect(status.gateways).toMatchObject([{ gateway: address, connections: 2 }])
    expect(line).not.toContain(key.token.toString('hex'))
  })

  it('says nothing secret', async () => {
    const key = await boundKey({ relays: ['web-host'] })
    await askOnce(enrolled.socket, key)
    relay.kill('SIGUSR1')
    const host = await enroll('quiet-host')
    await using running = await startRelayProcess(host)
    running.kill('SIGTERM')
    const { out, err } = await running.ended
    for (const secret of [key.token.toString('hex'), key.token.toString('base64'), 'PRIVATE KEY']) {
      expect(out + err).not.toContain(secret)
    }
  })

  it('takes a socket that is there before it, so that whoever connects while it restarts waits', patience, async () => {
    const host = await enroll('socket-host')
    const key = await boundKey({ relays: ['socket-host'] })
    const through = ['python3', activation, host.socket, 'offload']
    await using running = startHsmgate(['relay', 'run', '--config', host.config], {}, through)
    try {
      await running.output(/hsmgate relays/)
      expect(await isSigned(host.socket, key)).toBe(true)
      const [, first] = await running.output(/activated (\d+)/)
      process.kill(Number(first), 'SIGTERM')
      await expect.poll(() => isAlive(Number(first)), { timeout: 20_000 }).toBe(false)
      // the next one is not there yet: the connection waits in the kernel
      expect(await isSigned(host.socket, key)).toBe(true)
      const [, second] = await running.output(/activated \d+[\s\S]*activated (\d+)/)
      expect(second).not.toBe(first)
    } finally {
      // it ends the relay, which ends its output
      running.kill('SIGTERM')
      await running.ended
    }
  })
})

describe('TLS programs behind a relay', () => {
  let sites: TlsSites
  let site: TlsSite

  beforeAll(async () => {
    buildProvider()
    sites = openTlsSites(gateway, enrolled.socket)
    site = await sites.make('ECC_NIST_P256', { relays: ['web-host'], policies: 'any' })
  }, 120_000)
  afterAll(() => sites?.[Symbol.dispose]())

  it('sign with openssl dgst', async () => {
    const input = randomBytes(100)
    const words = ['dgst', '-sha256', '-sign', site.reference]
    const signature = await runOk('/usr/bin/openssl', words, { env: sites.env, input })
    expect(verify('sha256', input, site.publicKey, signature)).toBe(true)
  })

  const servers = [
    ['NGINX', (site: SiteOptions) => startNginxSite(site)],
    ['Apache', (site: SiteOptions) => startApache('event', site)],
    ['HAProxy', (site: SiteOptions) => startHaproxy(site)],
    ['HAProxy that does not wait', (site: SiteOptions) => startHaproxy({ ...site, isAsync: true })],
  ] as const

  it.each(servers)('shake hands: %s, one record for each handshake', patience, async (_, start) => {
    const port = await findFreePort()
    await using _server = await start({ port, pairs: [site], env: sites.env })
    const before = (await offloadRecords(gateway, site.name)).length
    const handshake = { status: 200, protocol: 'TLSv1.3', keyType: 'ec', isReused: false }
    for (let visits = 0; visits < 5; visits++) expect(await visit(port, [site])).toMatchObject(handshake)
    const records = (await offloadRecords(gateway, site.name)).slice(before)
    expect(records).toHaveLength(5)
    expect(records[0]).toMatchObject({ additionalEventData: { relay: enrolled.digest } })
  })
})
