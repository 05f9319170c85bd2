/**
 * Speed: the raw module, the HTTP ceiling and the gateway, one short round after the other, so that whatever else the machine does
 * falls on all three. Medians of the rounds.
 */
import path from 'node:path'
import { createAsk, encodeRequest, type Identity, writeRequests } from './client.ts'
import { type BenchKeys, type BenchOperation, createBenchKeys } from './operations.ts'
import { cpuSeconds, familyOf, prepareProgram, type Running, runProgram } from './processes.ts'
import { formatTable, median, percent, type Row } from './tables.ts'

export interface SpeedOptions {
  readonly operations: readonly BenchOperation[]
  readonly connections: readonly number[]
  readonly rounds: number
  readonly seconds: number
}

export interface Bench {
  readonly directory: string
  readonly identity: Identity
  readonly gateway: Running
  readonly ceiling: Running
}

interface Load {
  readonly requests: number
  readonly perSecond: number
  readonly p50Micros: number
  readonly p99Micros: number
  readonly cpuMicros: number
}

interface Raw {
  readonly perSecond: number
  readonly p50Micros: number
  readonly cpuMicros: number
}

/** Sessions of the gateway's workers on SoftHSM, as `hsmgate dev` sets them up. */
const workers = 2
const sessionsPerWorker = 2
const requestsPerFile = 64
/** Both servers run for months: they are measured with their code compiled. The gateway has more of it. */
const warmUpSeconds = { ceiling: 1, gateway: 6 }

/** Rates and CPU time of one operation at one number of connections, a value for each round. */
interface Cell {
  readonly operation: BenchOperation
  readonly connections: number
  readonly raw: Raw[]
  readonly http: (Load & { readonly serverMicros: number })[]
  readonly gateway: (Load & { readonly coreMicros: number; readonly workerMicros: number })[]
}

export async function measureSpeed(bench: Bench, options: SpeedOptions): Promise<readonly Cell[]> {
  const ask = createAsk(bench.identity, bench.gateway.port)
  const keys = await createBenchKeys(ask)
  const cells = options.operations.flatMap((operation) =>
    options.connections.map((connections): Cell => ({ operation, connections, raw: [], http: [], gateway: [] })),
  )
  const file = path.join(bench.directory, 'requests')
  for (let round = 0; round <= options.rounds; round++) {
    const isWarmUp = round === 0
    for (const operation of options.operations) {
      const inputs: object[] = []
      for (let i = 0; i < requestsPerFile; i++) inputs.push(await operation.input(keys[operation.key], ask))
      const requests = inputs.map((input) => encodeRequest(bench.identity, operation.target, input))
      await writeRequests(file, requests)
      const mine = cells.filter((cell) => cell.operation === operation)
      if (isWarmUp) {
        await load(bench.ceiling.port, file, 64, warmUpSeconds.ceiling)
        await load(bench.gateway.port, file, 64, warmUpSeconds.gateway)
        continue
      }
      const rawBySessions = new Map<number, Raw>()
      for (const cell of mine) {
        const { connections } = cell
        const sessions = Math.min(connections, workers * sessionsPerWorker)
        const raw = rawBySessions.get(sessions) ?? (await runRaw(bench, operation, keys, sessions, options.seconds))
        rawBySessions.set(sessions, raw)
        cell.raw.push(raw)
        cell.http.push(await loadCeiling(bench, file, connections, options.seconds))
        cell.gateway.push(await loadGateway(bench, file, connections, options.seconds))
      }
    }
  }
  return cells
}

function load(port: number, file: string, connections: number, seconds: number): Promise<Load> {
  const order = { port, requests: file, connections, seconds }
  return runProgram<Load>('load', argumentsOf(order))
}

async function loadCeiling({ ceiling }: Bench, file: string, connections: number, seconds: number) {
  const before = cpuSeconds(ceiling.pid)
  const result = await load(ceiling.port, file, connections, seconds)
  return { ...result, serverMicros: ((cpuSeconds(ceiling.pid) - before) * 1e6) / result.requests }
}

async function loadGateway(bench: Bench, file: string, connections: number, seconds: number) {
  const family = familyOf(bench.gateway.pid)
  const cpu = (role: string) =>
    family.filter((member) => member.role === role).reduce((sum, { pid }) => sum + cpuSeconds(pid), 0)
  const before = { core: cpu('gateway'), worker: cpu('worker') }
  const result = await load(bench.gateway.port, file, connections, seconds)
  const coreMicros = ((cpu('gateway') - before.core) * 1e6) / result.requests
  const workerMicros = ((cpu('worker') - before.worker) * 1e6) / result.requests
  return { ...result, coreMicros, workerMicros }
}

/** As many processes and sessions as the gateway has; they begin together. The key is the gateway's own object. */
async function runRaw(
  { directory }: Bench,
  { raw: [op, bytes], key }: BenchOperation,
  keys: BenchKeys,
  sessions: number,
  seconds: number,
): Promise<Raw> {
  const processes = sessions < workers * sessionsPerWorker ? 1 : workers
  const order = {
    module: '/usr/lib/softhsm/libsofthsm2.so',
    label: 'hsmgate',
    'pin-file': path.join(directory, 'softhsm/pin'),
    op,
    bytes,
    sessions: Math.ceil(sessions / processes),
    seconds,
    key: `hsmgate:${keys[key]}:1`,
    wait: 1,
  }
  const env = { SOFTHSM2_CONF: path.join(directory, 'softhsm/softhsm2.conf') }
  const prepared: Awaited<ReturnType<typeof prepareProgram<Raw>>>[] = []
  // One after the other: SoftHSM now and then misses a token that another process reads at the same moment.
  for (let i = 0; i < processes; i++) prepared.push(await prepareProgram<Raw>('bench', argumentsOf(order), env))
  for (const { go } of prepared) go()
  const results = await Promise.all(prepared.map(({ result }) => result))
  return {
    perSecond: results.reduce((sum, { perSecond }) => sum + perSecond, 0),
    p50Micros: median(results.map(({ p50Micros }) => p50Micros)),
    cpuMicros: median(results.map(({ cpuMicros }) => cpuMicros)),
  }
}

function argumentsOf(order: Readonly<Record<string, string | number>>): string[] {
  return Object.entries(order).flatMap(([name, value]) => [`--${name}`, String(value)])
}

export function formatSpeed(cells: readonly Cell[]): string {
  const rows = cells.map((cell): Row => {
    const { hsm, http, gateway, combined } = ratesOf(cell)
    const of = <T>(list: readonly T[], pick: (item: T) => number) => median(list.map(pick))
    const share = gateway / combined
    const { targetShare, name } = cell.operation
    return [
      name,
      cell.connections,
      hsm,
      http,
      combined,
      gateway,
      percent(share),
      percent(targetShare),
      share >= targetShare ? 'met' : 'MISSED',
      of(cell.gateway, ({ p50Micros }) => p50Micros),
      of(cell.gateway, ({ p99Micros }) => p99Micros),
      of(cell.raw, ({ cpuMicros }) => cpuMicros),
      of(cell.http, ({ serverMicros }) => serverMicros),
      of(cell.gateway, ({ coreMicros }) => coreMicros),
      of(cell.gateway, ({ workerMicros }) => workerMicros),
      of(cell.gateway, ({ cpuMicros }) => cpuMicros),
    ]
  })
  const head = ['operation', 'conn', 'HSM/s', 'HTTP/s', 'ceiling/s', 'gateway/s', 'share', 'target', '', 'p50 µs']
  return formatTable([...head, 'p99 µs', 'µs HSM', 'µs HTTP', 'µs core', 'µs work', 'µs load'], rows)
}

export const speedLegend = `
  HSM/s      the PKCS#11 module alone, in C, on the gateway's own keys: at 1 connection one session, else all ${workers * sessionsPerWorker} in ${workers} processes
  HTTP/s     a fastify that reads the same requests, hashes the body, verifies the signature and answers a constant
  ceiling/s  1 / (1/HSM + 1/HTTP); both share this machine with the load, as the gateway does
  gateway/s  hsmgate serve, answering the same bytes; share = gateway / ceiling, the figure of merit
  p50, p99   microseconds from request to answer, seen by the client
  µs ...     CPU time of one call: HSM = in the module alone, HTTP = of that fastify, core = gateway process, work = its workers (module included), load = the client
`

function ratesOf(cell: Cell) {
  const rate = (list: readonly { readonly perSecond: number }[]) => median(list.map(({ perSecond }) => perSecond))
  const hsm = rate(cell.raw)
  const http = rate(cell.http)
  return { hsm, http, gateway: rate(cell.gateway), combined: 1 / (1 / hsm + 1 / http) }
}

/** What the gateway adds to one call of the module: medians of Sign at one connection. */
export function formatAddedLatency(cells: readonly Cell[]): string {
  const rows = cells
    .filter(({ connections, operation }) => connections === 1 && operation.target === 'Sign')
    .map(({ operation, raw, http, gateway }): Row => {
      const p50 = (list: readonly { readonly p50Micros: number }[]) => median(list.map(({ p50Micros }) => p50Micros))
      const added = p50(gateway) - p50(raw)
      return [operation.name, p50(raw), p50(http), p50(gateway), added, 400, added <= 400 ? 'met' : 'MISSED']
    })
  if (rows.length === 0) return ''
  return `\nAdded latency at 1 connection, p50 in µs: gateway minus the raw module call\n\n${formatTable(
    ['operation', 'module', 'HTTP', 'gateway', 'added', 'limit', ''],
    rows,
  )}`
}
