/**
 * What sites have beside a key reference: two hundred names on one port, keys of two kinds for one name, stapled OCSP answers, HTTP/2, and
 * clients whose ciphers and versions ask for what the gateway never does. One server of each kind, in front of one gateway.
 */
import { execFileSync } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { run, runOk } from '../support/command.ts'
import { type CountedSocket, startCountedSocket } from '../support/counted-socket.ts'
import { startGateway, type TestGateway } from '../support/gateway.ts'
import { checkNginx, findFreePort } from '../support/nginx.ts'
import { type OffloadRecord, offloadRecords } from '../support/offload.ts'
import { buildProvider } from '../support/provider.ts'
import {
  makeSiteAuthority,
  type OcspResponder,
  type SiteAuthority,
  startOcspResponder,
} from '../support/site-authority.ts'
import { askingFor, type KeyKind, makeSiteHosts, type SiteHost } from '../support/site-hosts.ts'
import { openTlsSites, type TlsSites, visit } from '../support/tls-sites.ts'
import {
  type HostsServer,
  startApacheHosts,
  startHaproxyHosts,
  startNginxHosts,
  type VirtualHosts,
} from '../support/virtual-hosts.ts'
import { findProgram } from '../support/web-servers.ts'

const listen = { kms: null, operator: { http: null }, offload: { mode: '0666' } }
/** Most connections of one process of a server. */
const pool = 4
const patience = { timeout: 120_000 }

let gateway: TestGateway
let sites: TlsSites
let authority: SiteAuthority
let responder: OcspResponder
/** Half of them in the module. */
let many: readonly SiteHost[]
let dual: SiteHost
let rsaInModule: SiteHost
let rsaInFile: SiteHost
let stapledFromFile: SiteHost
let stapledFromResponder: SiteHost

beforeAll(async () => {
  buildProvider()
  gateway = await startGateway({ config: { listen } })
  // www-data's way to the socket
  execFileSync('chmod', ['-R', 'a+X', gateway.token.directory])
  sites = openTlsSites(gateway, gateway.gateway.endpoints.offload[0] as string)
  authority = await makeSiteAuthority(sites.folder)
  responder = await startOcspResponder(authority)
  const hosts = await makeSiteHosts(gateway, sites, authority)
  dual = await hosts.inModule('dual.example', ['rsa', 'ec'])
  rsaInModule = await hosts.inModule('rsa.example', ['rsa'])
  rsaInFile = await hosts.inFiles('file.example', ['rsa'])
  const stapled = await hosts.inModule('stapled.example', ['ec'])
  const answer = path.join(sites.folder, 'stapled.ocsp')
  writeFileSync(answer, await authority.answerFor(stapled.pairs[0]!.certificate))
  stapledFromFile = { ...stapled, staple: { file: answer } }
  stapledFromResponder = { ...(await hosts.inModule('asked.example', ['ec'])), staple: { url: responder.url } }
  const places = [
    [hosts.inModule, 'ec'],
    [hosts.inFiles, 'rsa'],
    [hosts.inModule, 'rsa'],
    [hosts.inFiles, 'ec'],
  ] as const
  const made = []
  for (let number = 0; number < 200; number++) {
    const [make, kind] = places[number % places.length]!
    made.push(await make(`shop-${number}.example`, [kind]))
  }
  many = made
}, 600_000)
afterAll(async () => {
  await responder?.[Symbol.asyncDispose]()
  sites?.[Symbol.dispose]()
  await gateway?.[Symbol.asyncDispose]()
})

/** What clients are told; HAProxy looks for another key first. */
const refusal = /alert (decrypt error|internal error|handshake failure)/

const signed = { ec: 'ECDSA_SHA_256', rsa: 'RSASSA_PSS_SHA_256' } as const

/** What `work` adds to the journal: the binding, the key and the algorithm of each record, and its error. */
async function recordsOf(work: () => Promise<unknown>) {
  const before = (await offloadRecords(gateway)).length
  await work()
  return (await offloadRecords(gateway)).slice(before).map((record: OffloadRecord) => ({
    binding: record.requestParameters.binding,
    arn: record.resources[0]?.ARN,
    algorithm: record.requestParameters.signingAlgorithm,
    errorCode: record.errorCode,
  }))
}

/** The record of one handshake that was signed with the key of this kind, or with the only one. */
function signatureOf({ bindings, kinds }: SiteHost, kind: KeyKind = kinds[0]!) {
  const { name, arn } = bindings[kinds.indexOf(kind)]!
  return { binding: name, arn, algorithm: signed[kind], errorCode: undefined }
}

describe.each([
  ['nginx', (all: VirtualHosts) => startNginxHosts(all)],
  ['Apache event', (all: VirtualHosts) => startApacheHosts(all)],
  ['HAProxy in asynchronous mode', (all: VirtualHosts, folder: string) => startHaproxyHosts(all, folder)],
] as const)('%s', (kind, start) => {
  let front: CountedSocket
  let server: HostsServer
  let port: number
  let oldPort: number
  let stapled: readonly SiteHost[]

  beforeAll(async () => {
    const folder = path.join(sites.folder, kind.replaceAll(' ', '-'))
    mkdirSync(folder)
    execFileSync('chmod', ['755', folder])
    front = await startCountedSocket(path.join(folder, 'sign.sock'), gateway.gateway.endpoints.offload[0] as string)
    const env = { ...sites.env, HSMGATE_ENDPOINTS: front.socket, HSMGATE_POOL: String(pool) }
    port = await findFreePort()
    oldPort = await findFreePort()
    stapled = [stapledFromFile, stapledFromResponder].filter(
      ({ staple }) => kind === 'nginx' || (kind === 'Apache event') === 'url' in staple!,
    )
    const hosts = [rsaInFile, rsaInModule, dual, ...stapled, ...many]
    server = await start({ port, hosts, oldPort, oldHosts: [rsaInFile, dual], env }, folder)
  }, 120_000)
  afterAll(async () => {
    await server?.[Symbol.asyncDispose]()
    await front?.[Symbol.asyncDispose]()
  })

  const call = (host: SiteHost, tls: object = {}, at = port) => visit(at, [authority], { ...askingFor(host), ...tls })

  it('asks no gateway when it starts or checks its configuration', patience, async () => {
    expect(await server.check()).toMatchObject({ status: 0 })
    expect(front.accepted).toBe(0)
  })

  it('answers for two hundred names with the certificate of each', patience, async () => {
    const records = await recordsOf(async () => {
      const rest = [...many]
      const client = async () => {
        for (let host = rest.pop(); host !== undefined; host = rest.pop()) {
          const visited = { status: 200, protocol: 'TLSv1.3', keyType: host.kinds[0], isReused: false }
          expect(await call(host)).toEqual(visited)
        }
      }
      await Promise.all(Array.from({ length: 8 }, client))
    })
    const expected = many.filter(({ bindings }) => bindings.length > 0).map((host) => signatureOf(host))
    expect(expected).toHaveLength(100)
    const byBinding = (a: { binding: unknown }, b: { binding: unknown }) =>
      String(a.binding) < String(b.binding) ? -1 : 1
    expect(records.sort(byBinding)).toEqual(expected.sort(byBinding))
    // Connections are kept, whatever binding asks.
    expect(Math.max(...front.most.values())).toBeLessThanOrEqual(pool)
    expect(front.accepted).toBeLessThanOrEqual(pool * front.most.size)
  })

  it('has a key of each kind for one name, as the client likes', patience, async () => {
    const likes = [
      ['rsa', 'rsa_pss_rsae_sha256:rsa_pkcs1_sha256'],
      ['ec', 'ecdsa_secp256r1_sha256'],
    ] as const
    for (const [keyType, sigalgs] of likes) {
      for (const version of ['TLSv1.2', 'TLSv1.3']) {
        const records = await recordsOf(async () => {
          const visited = await call(dual, { sigalgs, minVersion: version, maxVersion: version })
          expect(visited).toEqual({ status: 200, protocol: version, keyType, isReused: false })
        })
        expect(records).toEqual([signatureOf(dual, keyType)])
      }
    }
  })

  it('staples OCSP answers', patience, async () => {
    for (const host of stapled) {
      const { name } = host
      const request = `GET / HTTP/1.1\r\nHost: ${name}\r\nConnection: close\r\n\r\n`
      const names = ['-servername', name, '-verify_return_error', '-CAfile', authority.certificate]
      const ask = async () => {
        const words = ['s_client', '-connect', `127.0.0.1:${port}`, ...names, '-status', '-ign_eof']
        const said = (await runOk('openssl', words, { input: Buffer.from(request) })).toString()
        expect(said).toMatch(/^Peer signature type: ECDSA$/m)
        expect(said).toMatch(/^HTTP\/1\.1 200/m)
        return said
      }
      let handshakes = 0
      const asked = responder.asked
      const records = await recordsOf(async () => {
        // NGINX asks its responder when it is first asked.
        await expect
          .poll(
            async () => {
              handshakes++
              return await ask()
            },
            { timeout: 60_000, interval: 50 },
          )
          .toMatch(/OCSP Response Status: successful[\s\S]*Cert Status: good/)
      })
      expect(responder.asked > asked).toBe('url' in host.staple!)
      expect(records).toEqual(Array(handshakes).fill(signatureOf(host)))
    }
  })

  it('carries a hundred requests over one connection of HTTP/2', patience, async () => {
    const { name } = dual
    const words = ['--cacert', authority.certificate, '--resolve', `${name}:${port}:127.0.0.1`, '--http2', '--silent']
    const parallel = ['--parallel', '--parallel-max', '100', '--output', '/dev/null']
    const format = '%{http_version} %{http_code} %{num_connects}\n'
    const records = await recordsOf(async () => {
      const url = `https://${name}:${port}/[1-100]`
      const lines = (await runOk('curl', [...words, ...parallel, '--write-out', format, url]))
        .toString()
        .trim()
        .split('\n')
      expect(lines.sort()).toEqual([...Array(99).fill('2 200 0'), '2 200 1'])
    })
    expect(records).toEqual([signatureOf(dual, 'ec')])
  })

  it('refuses RSA key exchange for a key in the module', patience, async () => {
    const exchange = { ciphers: 'AES128-GCM-SHA256', maxVersion: 'TLSv1.2' }
    const asked = front.accepted
    const records = await recordsOf(async () => {
      expect(await call(rsaInFile, exchange)).toMatchObject({ status: 200, protocol: 'TLSv1.2' })
      for (const host of [rsaInModule, dual]) await expect(call(host, exchange)).rejects.toThrow(refusal)
      // Forward secrecy is on offer, too, but NGINX and Apache let the client choose.
      const first = { ...exchange, ciphers: `${exchange.ciphers}:ECDHE-RSA-AES128-GCM-SHA256` }
      if (!kind.startsWith('HAProxy')) await expect(call(rsaInModule, first)).rejects.toThrow(refusal)
    })
    expect(records).toEqual([])
    expect(front.accepted).toBe(asked)
    const serves = await recordsOf(async () => expect(await call(rsaInModule)).toMatchObject({ status: 200 }))
    expect(serves).toEqual([signatureOf(rsaInModule)])
  })

  it('refuses TLS 1.0 and 1.1, and signs nothing for it where it is switched on', patience, async () => {
    const asked = front.accepted
    const records = await recordsOf(async () => {
      for (const version of ['TLSv1', 'TLSv1.1']) {
        const old = { ciphers: 'ALL:@SECLEVEL=0', minVersion: version, maxVersion: version }
        await expect(call(rsaInModule, old)).rejects.toThrow(/alert protocol version/)
        expect(await call(rsaInFile, old, oldPort)).toMatchObject({ status: 200, protocol: version })
        for (const ciphers of ['aRSA+kEECDH:@SECLEVEL=0', 'aECDSA:@SECLEVEL=0', 'kRSA:@SECLEVEL=0']) {
          await expect(call(dual, { ...old, ciphers }, oldPort)).rejects.toThrow(refusal)
        }
      }
    })
    expect(records).toEqual([])
    expect(front.accepted).toBe(asked)
    const serves = await recordsOf(async () => {
      const visited = await call(dual, { maxVersion: 'TLSv1.2' }, oldPort)
      expect(visited).toMatchObject({ status: 200, protocol: 'TLSv1.2' })
    })
    expect(serves).toHaveLength(1)
  })
})

describe('NGINX of Debian 12', () => {
  it('knows no HTTP/3', async ({ skip }) => {
    const { stderr: version } = await run(findProgram('nginx'), ['-v'])
    skip(!version.includes('nginx/1.22.'), 'another NGINX')
    const { status, stderr } = await checkNginx({ http: `server { listen 127.0.0.1:${await findFreePort()} quic; }` })
    expect(status).toBe(1)
    expect(stderr).toContain('invalid parameter "quic"')
  })
})
