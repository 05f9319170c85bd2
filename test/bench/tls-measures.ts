/** One measurement of the TLS bench: a web server under load, or a program that signs. */
import { readFileSync } from 'node:fs'
import { findFreePort, startNginx } from '../support/nginx.ts'
import { nginxSite, startApache, startHaproxy } from '../support/web-servers.ts'
import { cpuSeconds, familyOf, runProgram } from './processes.ts'
import { type Kind, kinds, type Source, type Stage } from './tls-stage.ts'

export const serverNames = ['NGINX', 'Apache event', 'HAProxy', 'HAProxy async'] as const
export type ServerName = (typeof serverNames)[number]

export interface Contender extends AsyncDisposable {
  readonly server: ServerName
  readonly source: Source
  readonly port: number
  readonly pid: number
}

/** One site with both keys, on a port of its own. `workers`: of NGINX; HAProxy has one thread, Apache 16 in each process. */
export async function startContender(
  stage: Stage,
  server: ServerName,
  source: Source,
  workers: number,
): Promise<Contender> {
  const port = await findFreePort()
  const { env, pairs } = stage.sources.get(source)!
  const site = { port, env, pairs: kinds.map((kind) => pairs[kind]) }
  const start = () => {
    if (server === 'Apache event') return startApache('event', site)
    if (server === 'NGINX') {
      // libp11 opens the module again in each worker.
      const kept = Object.keys(env).map((name) => `env ${name};`)
      // A PKCS#11 URI has semicolons.
      const quoted = site.pairs.map(({ certificate, reference }) => ({ certificate, reference: `"${reference}"` }))
      const http = nginxSite({ port, pairs: quoted })
      return startNginx(port, { env, workers, main: kept.join(' '), http })
    }
    const isAsync = server === 'HAProxy async'
    // A thread blocks or goes on: with more of them the difference would be in the number of threads, too.
    return startHaproxy({ ...site, isAsync, more: '\nglobal\n  nbthread 1\n  maxconn 1000\n  maxpipes 1000\n' })
  }
  const running = await start()
  return {
    server,
    source,
    port,
    pid: running.pid,
    [Symbol.asyncDispose]: () => running[Symbol.asyncDispose](),
  }
}

export interface Load {
  readonly handshakes: number
  readonly failed: number
  readonly resumed: number
  readonly perSecond: number
  readonly p50Micros: number
  readonly p99Micros: number
  /** CPU time of one handshake: in the client, in the server's workers, in gateway, workers and relay. */
  readonly cpuMicros: number
  readonly workerMicros: number
  readonly signerMicros: number
  readonly negotiated: string
  readonly firstFailure: string
}

export interface LoadOrder {
  readonly kind: Kind
  readonly connections: number
  readonly seconds: number
  /** Offers sessions again, to see that none is resumed. */
  readonly offers?: boolean
}

/** HAProxy goes by the names of TLS 1.2 when it chooses between certificates; TLS 1.3 then signs with PSS. */
const offers = { 'RSA-2048': 'rsa_pss_rsae_sha256:rsa_pkcs1_sha256', 'P-256': 'ecdsa_secp256r1_sha256' } as const

export async function loadContender(stage: Stage, contender: Contender, order: LoadOrder): Promise<Load> {
  const signers = stage.signerPids(contender.source)
  const before = { worker: workerSeconds(contender.pid), signer: secondsOf(signers) }
  const args = {
    port: contender.port,
    connections: order.connections,
    seconds: order.seconds,
    sigalgs: offers[order.kind],
    offer: order.offers ? 1 : 0,
  }
  const words = Object.entries(args).flatMap(([name, value]) => [`--${name}`, String(value)])
  const load = await runProgram<Load>('handshakes', words)
  const perHandshake = (seconds: number) => (seconds * 1e6) / load.handshakes
  return {
    ...load,
    workerMicros: perHandshake(workerSeconds(contender.pid) - before.worker),
    signerMicros: perHandshake(secondsOf(signers) - before.signer),
  }
}

function secondsOf(pids: readonly number[]): number {
  return pids.flatMap((pid) => familyOf(pid)).reduce((sum, { pid }) => sum + cpuSeconds(pid), 0)
}

/** CPU seconds of all workers that a master has or had. */
function workerSeconds(master: number): number {
  const stat = readFileSync(`/proc/${master}/stat`, 'utf8')
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  const gone = (Number(fields[13]) + Number(fields[14])) / 100
  return familyOf(master).reduce((sum, { pid }) => (pid === master ? sum : sum + cpuSeconds(pid)), gone)
}

export interface Signing {
  readonly perSecond: number
  readonly p50Micros: number
  /** Absent for the module alone. */
  readonly p99Micros?: number
  readonly cpuMicros: number
}

export type Signer = Source | 'module'

/** Lets the code of gateway and relay be compiled, as it is where they run for months. */
export async function warmUpSigners(stage: Stage, seconds: number): Promise<void> {
  for (const source of ['gateway', 'relay'] as const) {
    const atOnce = [...kinds, ...kinds].map((kind) => measureSigning(stage, source, kind, { seconds }))
    await Promise.all(atOnce)
  }
}

/** One thread that signs again and again; with `everyMicros` it begins at this rhythm, as a server does, whose caches are cold in between. */
export function measureSigning(
  stage: Stage,
  signer: Signer,
  kind: Kind,
  { seconds, everyMicros = 0 }: { readonly seconds: number; readonly everyMicros?: number },
): Promise<Signing> {
  const rhythm = ['--seconds', String(seconds), '--every', String(everyMicros)]
  if (signer === 'module') {
    const { args, env } = stage.rawSigner(kind)
    return runProgram<Signing>('bench', [...args, ...rhythm], env)
  }
  const { env, pairs } = stage.sources.get(signer)!
  const key = pairs[kind].reference.replace('engine:pkcs11:', 'engine:')
  return runProgram<Signing>('sign', ['--key', key, ...rhythm], env)
}
