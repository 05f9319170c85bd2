/**
 * The processes of a web server that shake hands: who they are to the gateway, and what they have of the key. The key of these tests is known, because it
 * was made outside of the module and put into it.
 */
import { execFileSync } from 'node:child_process'
import { generateKeyPairSync, type JsonWebKey, type KeyObject } from 'node:crypto'
import {
  chmodSync,
  closeSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { encodeReferencePem } from '../../src/tls-reference.ts'
import { runOk } from '../support/command.ts'
import { startGateway, type TestGateway } from '../support/gateway.ts'
import { findFreePort, startNginx } from '../support/nginx.ts'
import { bindKey, offloadRecords } from '../support/offload.ts'
import { buildProvider } from '../support/provider.ts'
import { openTlsSites, type TlsSite, type TlsSites, visit } from '../support/tls-sites.ts'
import {
  nginxSite,
  type SiteOptions,
  startApache,
  startHaproxy,
  startNginxSite,
  type WebServer,
} from '../support/web-servers.ts'

const patience = { timeout: 120_000 }
let gateway: TestGateway
let sites: TlsSites
/** As Debian's HAProxy has one: the signing socket is at the usual path inside of it. */
let chroot: string
const socketInside = '/run/hsmgate/sign.sock'

beforeAll(async () => {
  buildProvider()
  const loopback = { address: '127.0.0.1', port: 0 }
  chroot = mkdtempSync(path.join(tmpdir(), 'hsmgate-chroot-'))
  mkdirSync(path.join(chroot, path.dirname(socketInside)), { recursive: true })
  chmodSync(chroot, 0o755)
  const offload = { mode: '0666', moreSockets: [path.join(chroot, socketInside)] }
  gateway = await startGateway({ config: { listen: { kms: loopback, operator: { http: null }, offload } } })
  // www-data's way to the socket
  execFileSync('chmod', ['-R', 'a+X', gateway.token.directory])
  sites = openTlsSites(gateway, gateway.gateway.endpoints.offload[0] as string)
}, 600_000)
afterAll(async () => {
  sites?.[Symbol.dispose]()
  await gateway?.[Symbol.asyncDispose]()
  if (chroot !== undefined) rmSync(chroot, { recursive: true, force: true })
})

const childrenOf = (pid: number) =>
  readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ').filter(Boolean).map(Number)

describe.runIf(process.getuid?.() === 0).each([
  [
    'NGINX',
    ({ port, pairs, env }: Parameters<typeof startHaproxy>[0]) =>
      startNginx(port, { user: 'www-data', env, http: nginxSite({ port, pairs }) }),
  ],
  ['Apache event', (options: Parameters<typeof startApache>[1]) => startApache('event', options)],
  ['Apache prefork', (options: Parameters<typeof startApache>[1]) => startApache('prefork', options)],
  ['HAProxy', (options: Parameters<typeof startHaproxy>[0]) => startHaproxy(options)],
])(
  'a worker of %s that root started',
  (_name, start: (options: Parameters<typeof startHaproxy>[0]) => Promise<WebServer>) => {
    it('is the user that it became to the gateway', patience, async () => {
      const uid = Number((await runOk('id', ['-u', 'www-data'])).toString())
      const [own, roots] = [
        await sites.make('ECC_NIST_P256', { users: [uid] }),
        await sites.make('ECC_NIST_P256', { users: [0] }),
      ]
      for (const site of [own, roots]) {
        const port = await findFreePort()
        await using server = await start({ port, pairs: [site], env: sites.env })
        if (site === own) expect(await visit(port, [site])).toMatchObject({ status: 200 })
        else await expect(visit(port, [site])).rejects.toThrow()
        const [record, ...more] = await offloadRecords(gateway, site.name)
        expect(more).toEqual([])
        expect(record?.additionalEventData).toMatchObject({ uid })
        expect(childrenOf(server.pid)).toContain(record?.additionalEventData.pid)
        expect(record?.errorCode).toBe(site === own ? undefined : 'PeerRefused')
      }
    })
  },
)

describe.runIf(process.getuid?.() === 0).each([
  ['HAProxy', false],
  ['HAProxy in asynchronous mode', true],
])('a worker of %s in a chroot', (_name, isAsync) => {
  it('finds the gateway at a socket inside of it, after a reload too', patience, async () => {
    const site = await sites.make('ECC_NIST_P256')
    const start = async (env: SiteOptions['env']) => {
      const port = await findFreePort()
      const more = `\nglobal\n  chroot ${chroot}`
      return { port, server: await startHaproxy({ port, pairs: [site], env: { ...sites.env, ...env }, isAsync, more }) }
    }
    const inside = await start({ HSMGATE_ENDPOINTS: socketInside })
    await using server = inside.server
    expect(await visit(inside.port, [site])).toMatchObject({ status: 200 })
    await server.reload()
    expect(await visit(inside.port, [site])).toMatchObject({ status: 200 })
    expect(await offloadRecords(gateway, site.name)).toHaveLength(2)
    // The path of the gateway's own socket leads nowhere from there.
    const lost = await start({ HSMGATE_DEADLINE_MS: '200' })
    await using _lost = lost.server
    await expect(visit(lost.port, [site])).rejects.toThrow()
    expect(await offloadRecords(gateway, site.name)).toHaveLength(2)
  })
})

/** Whether a process has a number anywhere in its memory: sixteen bytes of it, as libraries for big numbers write it or as protocols do. */
function memoryHolds(pid: number, numbers: readonly Buffer[]): boolean {
  const needles = numbers.flatMap((number) => [number.subarray(4, 20), Buffer.from(number).reverse().subarray(4, 20)])
  const memory = openSync(`/proc/${pid}/mem`, 'r')
  try {
    for (const [, from = '', to = ''] of readFileSync(`/proc/${pid}/maps`, 'utf8').matchAll(/^(\w+)-(\w+) r.*$/gm)) {
      const region = Buffer.alloc(Number.parseInt(to, 16) - Number.parseInt(from, 16))
      try {
        readSync(memory, region, 0, region.length, BigInt(`0x${from}`))
      } catch {
        continue // what the kernel shows to nobody, as [vvar]
      }
      if (needles.some((needle) => region.includes(needle))) return true
    }
    return false
  } finally {
    closeSync(memory)
  }
}

describe.each([
  ['rsa:2048', () => generateKeyPairSync('rsa', { modulusLength: 2048 }), ['d', 'p', 'q', 'dp', 'dq', 'qi'], 'n'],
  ['EC:P-256', () => generateKeyPairSync('ec', { namedCurve: 'P-256' }), ['d'], 'x'],
] as const)('the memory of NGINX with a key of type %s', (kind, generate, secretNames, publicName) => {
  const label = kind.startsWith('rsa') ? 'aa01' : 'aa02'
  let privateKey: KeyObject
  const members = (names: readonly (keyof JsonWebKey)[]) => {
    const jwk = privateKey.export({ format: 'jwk' })
    return names.map((name) => Buffer.from(jwk[name] as string, 'base64url'))
  }
  const file = (name: string, content: string) => {
    const place = path.join(sites.folder, name)
    writeFileSync(place, content, { mode: 0o600 })
    return place
  }

  /** As an operator brings a key into a token. */
  async function importKey(label: string): Promise<{ keyId: string; arn: string }> {
    const { token } = gateway
    const pkcs8 = file(`${label}.key`, privateKey.export({ format: 'pem', type: 'pkcs8' }).toString())
    const pin = readFileSync(token.pinFile, 'utf8').trim()
    const words = ['--import', pkcs8, '--token', token.label, '--label', label, '--id', label, '--pin', pin]
    await runOk('softhsm2-util', words, { env: { PATH: process.env.PATH ?? '', ...token.env } })
    return gateway.ask('key', 'adopt', { purpose: 'tls', label })
  }

  async function visitAll(
    server: WebServer,
    port: number,
    site: Pick<TlsSite, 'certificate'>,
  ): Promise<readonly number[]> {
    for (const maxVersion of ['TLSv1.3', 'TLSv1.2'])
      expect(await visit(port, [site], { maxVersion })).toMatchObject({ status: 200 })
    return [server.pid, ...childrenOf(server.pid)]
  }

  it('holds no private number, nor the PIN, nor the token of another binding, in any process', patience, async () => {
    privateKey = generate().privateKey
    const adopted = await importKey(label)
    const [binding, other] = [await bindKey(gateway, adopted), await bindKey(gateway, adopted)]
    const { certificate } = await gateway.ask<{ certificate: string }>('tls', 'self-signed', {
      key: adopted.keyId,
      san: 'localhost',
      days: 2,
    })
    const publicKey = binding.publicKey.export({ type: 'spki', format: 'der' })
    const site = {
      certificate: file(`${label}.crt`, certificate),
      reference: file(`${label}.ref`, encodeReferencePem({ publicKey, token: binding.token })),
    }
    const pin = Buffer.from(readFileSync(gateway.token.pinFile, 'utf8').trim())
    const port = await findFreePort()
    await using nginx = await startNginxSite({ port, pairs: [site], env: sites.env })
    const processes = await visitAll(nginx, port, site)
    expect(processes).toHaveLength(2)
    const secrets = [...members(secretNames), pin, other.token]
    for (const pid of processes) {
      expect(memoryHolds(pid, secrets)).toBe(false)
      // What is looked for is found where it is: the public number, and the token of its reference.
      for (const each of [...members([publicName]), binding.token]) expect(memoryHolds(pid, [each])).toBe(true)
    }
    expect(await offloadRecords(gateway, binding.name)).toHaveLength(2)
  })

  it('holds them when the key is in a file', patience, async () => {
    const site = {
      certificate: path.join(sites.folder, `${label}.crt`),
      reference: path.join(sites.folder, `${label}.key`),
    }
    const port = await findFreePort()
    await using nginx = await startNginxSite({ port, pairs: [site], env: {} })
    for (const pid of await visitAll(nginx, port, site)) {
      for (const secret of members(secretNames)) expect(memoryHolds(pid, [secret])).toBe(true)
    }
  })
})
