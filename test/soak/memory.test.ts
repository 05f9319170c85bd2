/**
 * Web servers with the provider keep their memory and their descriptors: through handshakes in the processes that shake hands, through reloads in the
 * process that starts them. What a server needs for itself it has after a warm-up.
 */
import { chmodSync, readdirSync, readFileSync } from 'node:fs'
import path from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { runOk } from '../support/command.ts'
import { type HksEndpoint, startHksEndpoint } from '../support/hks-endpoint.ts'
import { findFreePort } from '../support/nginx.ts'
import { buildProvider, writeOpensslConf } from '../support/provider.ts'
import { startVisits, visit } from '../support/tls-sites.ts'
import { type SiteOptions, startApache, startHaproxy, startNginxSite } from '../support/web-servers.ts'
import { amount, isSoak, patience } from './bounds.ts'

const template = readFileSync(path.join(import.meta.dirname, '../../deploy/openssl/openssl.cnf'), 'utf8').replace(
  'hsmgate-deadline-ms = 1000',
  'hsmgate-deadline-ms = 20000',
)
let endpoint: HksEndpoint
let site: Omit<SiteOptions, 'port'>

beforeAll(async () => {
  buildProvider()
  endpoint = await startHksEndpoint()
  // Servers become www-data.
  chmodSync(endpoint.folder, 0o755)
  chmodSync(endpoint.socketPath, 0o666)
  const key = endpoint.addKey('P-256')
  const certificate = path.join(endpoint.folder, 'crt.pem')
  const names = ['-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost', '-days', '2']
  await runOk('openssl', ['req', '-new', '-x509', '-key', key.private, ...names, '-out', certificate])
  const env = { OPENSSL_CONF: writeOpensslConf(endpoint.folder, template, endpoint.socketPath) }
  site = { pairs: [{ ...key, certificate }], env }
}, 600_000)
afterAll(() => endpoint?.[Symbol.asyncDispose]())

const childrenOf = (pid: number) =>
  readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ').filter(Boolean).map(Number)
/** Of the heap and the stacks, not of files that are mapped. */
const anonymousKiB = (pid: number) =>
  Number(/RssAnon:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1])
const descriptors = (pid: number) => readdirSync(`/proc/${pid}/fd`).length
const sum = (values: readonly number[]) => values.reduce((total, value) => total + value, 0)

async function shakeHands(port: number, count: number): Promise<void> {
  const visitors = startVisits(4, async () => {
    expect(await visit(port, site.pairs)).toMatchObject({ status: 200, isReused: false })
  })
  await visitors.more(count)
  await visitors.stop()
  expect(visitors.failures).toEqual([])
}

/** A soak shows its figures. */
function show(what: string, before: number, after: number): void {
  if (isSoak) console.log(`${what}: ${before} KiB before, ${after} KiB after`)
}

describe.each([
  ['NGINX', 1024, (options: SiteOptions) => startNginxSite(options)],
  // Its threads get memory of their own when they first need some.
  ['Apache event', 4096, (options: SiteOptions) => startApache('event', options)],
  ['HAProxy', 1024, (options: SiteOptions) => startHaproxy({ ...options, isAsync: true })],
] as const)('%s', (name, mostKiB, start) => {
  it('keeps its memory and descriptors through handshakes', patience, async () => {
    const port = await findFreePort()
    await using server = await start({ ...site, port })
    await shakeHands(port, amount(100, 2000))
    const workers = childrenOf(server.pid)
    const memory = () => sum(workers.map(anonymousKiB))
    const open = () => sum(workers.map(descriptors))
    const [memoryBefore, openBefore] = [memory(), open()]
    const from = endpoint.requests.length
    await shakeHands(port, amount(200, 10_000))
    expect(endpoint.requests.length - from).toBeGreaterThanOrEqual(amount(200, 10_000))
    // Apache may start more.
    expect(childrenOf(server.pid)).toEqual(expect.arrayContaining(workers))
    show(`${name}, handshakes`, memoryBefore, memory())
    // 10,000 handshakes that left 100 bytes each would be a megabyte.
    expect(memory() - memoryBefore).toBeLessThan(mostKiB)
    await expect.poll(open, { timeout: 20_000 }).toBeLessThanOrEqual(openBefore)
  })

  it('keeps its memory and descriptors through reloads', patience, async () => {
    const port = await findFreePort()
    await using server = await start({ ...site, port })
    const reload = async (times: number) => {
      for (let time = 0; time < times; time++) {
        // Whoever serves hears signals.
        await shakeHands(port, 1)
        await server.reload()
      }
    }
    await reload(amount(2, 50))
    const [memoryBefore, openBefore] = [anonymousKiB(server.pid), descriptors(server.pid)]
    const reloads = amount(4, 200)
    await reload(reloads)
    show(`${name}, reloads`, memoryBefore, anonymousKiB(server.pid))
    // HAProxy's master executes itself anew: it inherits descriptors, of which a few come and go, and no memory.
    if (name !== 'HAProxy') expect(anonymousKiB(server.pid) - memoryBefore).toBeLessThan(1024)
    await expect.poll(() => descriptors(server.pid), { timeout: 20_000 }).toBeLessThan(openBefore + reloads)
  })
})
