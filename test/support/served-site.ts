/**
 * A site whose key is in a shimmed token behind a gateway process of its own, and crowds of clients that shake hands with its web servers.
 * The signing socket lies in a folder of its own, which www-data may enter. Web servers try for `deadlineMs` to have a handshake signed.
 */
import { chmodSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { buildProvider } from './provider.ts'
import { isAlive, type ServedGateway, type ServeOptions, serveGateway } from './served-gateway.ts'
import { createShimmedToken, type ShimmedToken } from './shim.ts'
import { openTlsSites, startVisitors, type TlsSite, type TlsSites } from './tls-sites.ts'

export interface ServedSite extends AsyncDisposable {
  readonly token: ShimmedToken
  readonly site: TlsSite
  readonly sites: TlsSites
  /** The last one that was started here; `handOver` leaves its successor. */
  readonly gateway: ServedGateway
  /** Stops the gateway; resolves when it has ended. */
  stop(): Promise<void>
  start(): Promise<void>
  /** SIGUSR2; resolves when the old process has ended. */
  handOver(): Promise<void>
}

/** Five seconds, or what a machine needs that takes long to start a gateway; a first start takes longer than those after it. */
const deadlineMs = 5000
const startsInDeadline = 2
/** Of the provider. */
const longestDeadlineMs = 60_000

export async function openServedSite(): Promise<ServedSite> {
  buildProvider()
  await using undo = new AsyncDisposableStack()
  const token = undo.use(await createShimmedToken())
  const folder = mkdtempSync(path.join(tmpdir(), 'hsmgate-sign-'))
  undo.defer(() => rmSync(folder, { recursive: true, force: true }))
  chmodSync(folder, 0o755)
  const socket = path.join(folder, 'sign.sock')
  const config: ServeOptions['config'] = {
    listen: { kms: null, operator: { http: null }, offload: { socket, mode: '0666' } },
    offload: { maxBudgetMs: deadlineMs },
  }
  const begunMs = performance.now()
  let gateway = await serveGateway(token, { config })
  const startMs = performance.now() - begunMs
  let pid = gateway.pid
  let handOvers = 0
  const end = async () => {
    if (isAlive(pid)) process.kill(pid, 'SIGTERM')
    while (isAlive(pid)) await new Promise((resolve) => setTimeout(resolve, 10))
    await gateway.ended
  }
  undo.defer(end)
  const waitMs = Math.min(Math.max(deadlineMs, Math.round(startsInDeadline * startMs)), longestDeadlineMs)
  const sites = undo.use(openTlsSites(gateway, socket, waitMs))
  const site = await sites.make('ECC_NIST_P256')
  const kept = undo.move()
  return {
    token,
    site,
    sites,
    get gateway() {
      return gateway
    },
    stop: end,
    async start() {
      gateway = await serveGateway(token, { config })
      pid = gateway.pid
      handOvers = 0
    },
    async handOver() {
      const before = pid
      process.kill(before, 'SIGUSR2')
      // Successors write into the output of the first one.
      const all = `(?:process \\d+ takes over[\\s\\S]*){${handOvers++}}`
      pid = Number((await gateway.output(new RegExp(`${all}process (\\d+) takes over`)))[1])
      while (isAlive(before)) await new Promise((resolve) => setTimeout(resolve, 10))
    },
    [Symbol.asyncDispose]: () => kept.disposeAsync(),
  }
}

/** Visitors of several servers at once; the names of the servers are those of `ports`. */
export function startCrowd<N extends string>(ports: Readonly<Record<N, number>>, site: TlsSite, clients: number) {
  const names = Object.keys(ports) as N[]
  const visitors = names.map((name) => startVisitors(ports[name], site, clients))
  const byServer = <T>(of: (each: (typeof visitors)[number]) => T) =>
    Object.fromEntries(names.map((name, at) => [name, of(visitors[at]!)])) as Record<N, T>
  return {
    /** Resolves when each server, or each one named, has served so many more or has failed. */
    async more(count: number, ...only: readonly N[]): Promise<void> {
      const asked = visitors.filter((_, at) => only.length === 0 || only.includes(names[at]!))
      await Promise.all(asked.map((each) => each.more(count)))
    },
    /** Ends the visits; what failed at each server. */
    async stop(): Promise<Record<N, readonly unknown[]>> {
      await Promise.all(visitors.map((each) => each.stop()))
      return byServer(({ failures }) => failures)
    },
    served: () => byServer((each) => each.served()),
  }
}
