/**
 * Two real gateways behind relays, as processes of their own: the second one is a copy of the first, its token and its state, made while it was stopped,
 * so that both have the same keys, tokens and relays. What they sign afterwards stands in a journal each.
 *
 *   await using gateways = await openTwoGateways()
 *   await gateways.first.kill()
 */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { completeDevelopmentTls } from '../../src/cli/development-ca.ts'
import { makeRelayKey, makeRelayRequest } from '../../src/relay/enrolment.ts'
import type { WrittenPlace } from '../../src/relay/place.ts'
import { type HsmgateProcess, startHsmgate } from './hsmgate-process.ts'
import { findFreePort } from './nginx.ts'
import { type BoundKey, bindKey, createTlsKey, type OffloadRecord, recordsOf } from './offload.ts'
import { copyServed, type ServedGateway, serveGateway } from './served-gateway.ts'
import { createTestToken, type TestToken } from './softhsm.ts'
import { openTlsSites, type TlsSite } from './tls-sites.ts'

export interface GatewayOfTwo {
  /** Of its listener for relays, unless it was started elsewhere. */
  readonly address: string
  readonly port: number
  /** State folder. */
  readonly directory: string
  /** At another address, through a program with arguments, when it is to run elsewhere. */
  start(options?: { readonly address?: string; readonly through?: readonly string[] }): Promise<void>
  /** SIGKILL; resolves when it has ended. */
  kill(): Promise<void>
  /** Answers what is open and ends. */
  stop(): Promise<void>
  /** Signatures that it made for a binding. */
  signed(key: Pick<BoundKey, 'name'>): readonly OffloadRecord[]
}

export interface RelayProcess extends HsmgateProcess {
  readonly socket: string
  /** The line that SIGUSR1 asks for. */
  status(): Promise<{ readonly again: number; readonly gateways: readonly Readonly<Record<string, number | string>>[] }>
}

export interface TwoGateways extends AsyncDisposable {
  readonly folder: string
  readonly first: GatewayOfTwo
  readonly second: GatewayOfTwo
  /** Bound to the relays, for a client of the protocol. */
  readonly key: BoundKey
  /** Bound to the relays, for a web server. */
  readonly site: TlsSite
  /** A relay in front of these addresses, once all of them can be reached. */
  startRelay(gateways: readonly WrittenPlace[], through?: readonly string[]): Promise<RelayProcess>
}

/** Time for a signature: `budgetMs`. */
export async function openTwoGateways(budgetMs: number): Promise<TwoGateways> {
  await using undo = new AsyncDisposableStack()
  const token = undo.use(await createTestToken())
  const folder = token.directory
  const file = (name: string) => path.join(folder, name)
  await completeDevelopmentTls(folder)
  const tls = { certificateFile: file('server.pem'), keyFile: file('server.key') }
  const configOf = (address: string, port: number) => ({
    listen: { kms: null, operator: { http: null }, relay: { address, port, tls } },
    offload: { maxBudgetMs: budgetMs },
  })

  const keyPem = makeRelayKey()
  const { request, digest } = await makeRelayRequest(keyPem, 'relay.key', 'web-host')
  const config = { listen: { kms: null, operator: { http: null } } }
  const served = undo.use(await serveGateway(token, { config }))
  const approval = { name: 'web-host', request, days: 2 }
  const { certificate } = await served.ask<{ certificate: string }>('tls-relay', 'approve', approval)
  writeFileSync(file('relay.key'), keyPem, { mode: 0o600 })
  writeFileSync(file('relay.crt'), certificate)
  const binding = { relays: [digest] }
  const key = await bindKey(served, await createTlsKey(served, 'ECC_NIST_P256'), binding)
  const sites = undo.use(openTlsSites(served, file('unused.sock')))
  const site = await sites.make('ECC_NIST_P256', binding)
  served.kill('SIGTERM')
  await served.ended
  const copy = undo.use(await copyServed(token))

  const open = (each: TestToken, port: number) =>
    undo.use(createGateway(each, port, (address) => configOf(address, port)))
  const first = open(token, await findFreePort())
  const second = open(copy, await findFreePort())
  let relays = 0
  const kept = undo.move()
  return {
    folder,
    first,
    second,
    key,
    site,
    async startRelay(gateways, through) {
      const places = gateways.map(({ address, serverName }) => ({ address, serverName }))
      const socket = file(`relay-${++relays}.sock`)
      const config = file(`relay-${relays}.json`)
      const files = { certificateFile: file('relay.crt'), keyFile: file('relay.key'), caFile: file('ca.pem') }
      writeFileSync(config, JSON.stringify({ socket, gateways: places, ...files, maxBudgetMs: budgetMs }))
      const running = startHsmgate(['relay', 'run', '--config', config], {}, through)
      await running.output(new RegExp(`(?:a gateway can be reached[\\s\\S]*){${gateways.length}}`))
      let asked = 0
      return {
        ...running,
        socket,
        async status() {
          running.kill('SIGUSR1')
          const lines = new RegExp(`(?:"relay status"[\\s\\S]*?){${asked++}}(\\{[^\\n]*"relay status"[^\\n]*)\\n`)
          return JSON.parse((await running.output(lines))[1] as string)
        },
      }
    },
    [Symbol.asyncDispose]: () => kept.disposeAsync(),
  }
}

function createGateway(
  token: TestToken,
  port: number,
  configOf: (address: string) => Readonly<Record<string, unknown>>,
): GatewayOfTwo & AsyncDisposable {
  const directory = path.join(token.directory, 'state')
  let running: ServedGateway | undefined
  const end = async (signal: NodeJS.Signals) => {
    running?.kill(signal)
    await running?.ended
    running = undefined
  }
  return {
    address: `127.0.0.1:${port}`,
    port,
    directory,
    async start({ address = '127.0.0.1', through = [] } = {}) {
      running = await serveGateway(token, { config: configOf(address), through })
    },
    kill: () => end('SIGKILL'),
    stop: () => end('SIGTERM'),
    signed({ name }) {
      const folder = path.join(directory, 'audit')
      const files = readdirSync(folder).filter((each) => each.endsWith('.jsonl'))
      const lines = files.flatMap((each) => readFileSync(path.join(folder, each), 'utf8').trim().split('\n'))
      return recordsOf(
        lines.map((line) => JSON.parse(line)),
        name,
      ).filter(({ errorCode }) => errorCode === undefined)
    },
    async [Symbol.asyncDispose]() {
      await running?.[Symbol.asyncDispose]()
    },
  }
}
