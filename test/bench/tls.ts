/**
 * `npm run bench:tls`: web servers that shake hands with keys from a file, from the module through libp11, from the gateway and through a
 * relay, side by side in one run; the same with a slow module; and the signature alone. Figures are for reading, the ratios hold on other
 * machines, too. Rounds are short and many, what is compared stands next to each other, and a comparison is the median of those of the
 * rounds: shared machines change their speed by half from one second to the next.
 */
import os from 'node:os'
import { parseArgs } from 'node:util'
import { formatTable, median, percent, type Row } from './tables.ts'
import {
  type Contender,
  type Load,
  loadContender,
  measureSigning,
  type ServerName,
  type Signer,
  type Signing,
  startContender,
  warmUpSigners,
} from './tls-measures.ts'
import { type Kind, kinds, openStage, type Source, type Stage } from './tls-stage.ts'

const usage = `npm run bench:tls -- [options]
  --only nginx,servers,latency,sign   parts to run (default: all)
  --quick                             one short round of each: shows that it runs, measures nothing
  --connections n                     handshakes at one time (16)
  --workers n                         NGINX worker processes (2)
  --profile folder                    CPU profiles of gateway and workers, for reading with Chrome or speedscope
  --rounds n, --seconds s             rounds of each measurement (9) and their length (0.3)
`
const { values } = parseArgs({
  options: {
    only: { type: 'string', default: 'nginx,servers,latency,sign' },
    quick: { type: 'boolean', default: false },
    connections: { type: 'string', default: '16' },
    workers: { type: 'string', default: '2' },
    profile: { type: 'string' },
    rounds: { type: 'string' },
    seconds: { type: 'string' },
    help: { type: 'boolean', default: false },
  },
})
const rounds = Number(values.rounds ?? (values.quick ? 1 : 9))
const roundSeconds = Number(values.seconds ?? 0.3)
/** Of the slow module: few handshakes in a second, whose figures differ by multiples. */
const latencyRounds = Math.min(rounds, 3)
const latencySeconds = 2 * roundSeconds
const connections = Number(values.connections)
const workers = Number(values.workers)
const parts = values.only.split(',')
const latenciesMs = [1, 5, 20]
/** Microseconds from one signature to the next: none, and as a server with so many handshakes. */
const rhythms = [0, 2000] as const
const warmUpSeconds = 1
const signerWarmUpSeconds = values.quick ? 0.5 : 4
const write = (text: string) => process.stdout.write(text)

const labels: Readonly<Record<Signer, string>> = {
  file: '(a) key file',
  libp11: '(b) libp11',
  gateway: '(c) gateway',
  relay: '(d) relay',
  module: 'module alone',
}

const allSources = ['file', 'libp11', 'gateway', 'relay'] as const satisfies readonly Source[]

interface Cell {
  readonly contender: Contender
  readonly kind: Kind
  readonly delayMs: number
  readonly loads: Load[]
}

const of = (cell: Cell | undefined, pick: (load: Load) => number) => median((cell?.loads ?? []).map(pick))
/** Of one cell over another in the same round. */
const ratioOf = (cell: Cell | undefined, to: Cell | undefined, pick: (load: Load) => number) =>
  median((cell?.loads ?? []).map((load, round) => pick(load) / (to?.loads[round] ? pick(to.loads[round]) : Number.NaN)))
const total = (cells: readonly Cell[], pick: (load: Load) => number) =>
  cells.reduce((sum, { loads }) => loads.reduce((inner, load) => inner + pick(load), sum), 0)

async function run(): Promise<void> {
  const startedMs = performance.now()
  const [cpu] = os.cpus()
  write(
    `hsmgate bench:tls: ${os.availableParallelism()} × ${cpu?.model}, load average ${os.loadavg()[0]?.toFixed(1)}; `,
  )
  write(`TLS 1.3, ${connections} connections, medians of ${rounds} rounds of ${roundSeconds} s\n`)
  await using stage = await openStage(values.profile)
  if (!stage.sources.has('libp11')) {
    write('\n(b) is left out: libp11 is missing; remedy: apt-get install libengine-pkcs11-openssl\n')
  }
  await warmUpSigners(stage, signerWarmUpSeconds)
  const cells: Cell[] = []
  if (parts.includes('nginx')) {
    const found = await measure(
      stage,
      'NGINX',
      allSources.filter((source) => stage.sources.has(source)),
    )
    cells.push(...found)
    write(`\nNGINX, ${workers} workers\n\n${formatHandshakes(found)}`)
  }
  if (parts.includes('servers')) {
    const found: Cell[] = []
    for (const server of ['Apache event', 'HAProxy', 'HAProxy async'] as const) {
      found.push(...(await measure(stage, server, ['file', 'gateway'])))
    }
    cells.push(...found)
    write(`\nApache (event) and HAProxy (one thread)\n\n${formatHandshakes(found)}`)
  }
  const signings = new Map<string, Signing[]>()
  if (parts.includes('sign')) {
    await measureSignatures(stage, signings)
    for (const everyMicros of rhythms) {
      write(`\nOne signature, EVP_DigestSign in one thread, ${describeRhythm(everyMicros)}, µs\n\n`)
      write(formatSignings(signings, everyMicros))
    }
  }
  if (parts.includes('latency')) {
    const found = await measureLatencies(stage)
    cells.push(...found)
    write(
      `\nWith a module that takes longer for each signature, P-256, medians of ${latencyRounds} rounds\n\n${formatLatencies(found)}`,
    )
  }
  write(legend)
  write(`\nTo reach\n\n${formatTargets(cells, signings)}`)
  const [failed, resumed] = [total(cells, (load) => load.failed), total(cells, (load) => load.resumed)]
  write(`\n${total(cells, (load) => load.handshakes)} handshakes, ${failed} failed, ${resumed} resumed; `)
  const failure = cells.flatMap(({ loads }) => loads).find(({ firstFailure }) => firstFailure !== '')?.firstFailure
  if (failure !== undefined) write(`the first failure: ${failure}; `)
  write(`load average at the end ${os.loadavg()[0]?.toFixed(1)}; `)
  write(`${((performance.now() - startedMs) / 1000).toFixed(0)} s\n`)
}

/** One server with several sources of keys; the rounds go through all of them in turn, so that whatever else runs falls on each. */
async function measure(stage: Stage, server: ServerName, sources: readonly Source[]): Promise<readonly Cell[]> {
  await using running = new AsyncDisposableStack()
  const cells: Cell[] = []
  const contenders: Contender[] = []
  for (const source of sources) contenders.push(running.use(await startContender(stage, server, source, workers)))
  for (const kind of kinds) {
    for (const contender of contenders) cells.push({ contender, kind, delayMs: 0, loads: [] })
  }
  await measureCells(stage, cells)
  return cells
}

async function measureCells(
  stage: Stage,
  cells: readonly Cell[],
  { count, seconds, warmUp }: { count: number; seconds: number; warmUp: boolean } = {
    count: rounds,
    seconds: roundSeconds,
    warmUp: true,
  },
): Promise<void> {
  for (const { contender, kind } of warmUp ? cells : []) {
    const proof = await loadContender(stage, contender, { kind, connections, seconds: warmUpSeconds, offers: true })
    const isExpected = proof.negotiated.startsWith('TLSv1.3') && proof.resumed === 0
    if (!isExpected) throw new Error(`${contender.server} with ${labels[contender.source]}: ${JSON.stringify(proof)}`)
  }
  for (let round = 0; round < count; round++) {
    for (const { contender, kind, loads } of cells) {
      loads.push(await loadContender(stage, contender, { kind, connections, seconds }))
    }
  }
}

async function measureLatencies(stage: Stage): Promise<readonly Cell[]> {
  await stage.delayModule()
  await warmUpSigners(stage, signerWarmUpSeconds)
  await using running = new AsyncDisposableStack()
  const order: readonly (readonly [ServerName, Source])[] = [
    ...(stage.sources.has('libp11') ? [['NGINX', 'libp11'] as const] : []),
    ['NGINX', 'gateway'],
    ['NGINX', 'relay'],
    ['Apache event', 'gateway'],
    ['HAProxy', 'gateway'],
    ['HAProxy async', 'gateway'],
  ]
  const contenders: Contender[] = []
  for (const [server, source] of order) {
    contenders.push(running.use(await startContender(stage, server, source, workers)))
  }
  const all: Cell[] = []
  for (const delayMs of latenciesMs) {
    stage.setDelay(delayMs)
    const cells = contenders.map((contender): Cell => ({ contender, kind: 'P-256', delayMs, loads: [] }))
    const isFirst = delayMs === latenciesMs[0]
    await measureCells(stage, cells, { count: latencyRounds, seconds: latencySeconds, warmUp: isFirst })
    all.push(...cells)
  }
  stage.setDelay(0)
  return all
}

const signers = ['file', 'libp11', 'module', 'gateway', 'relay'] as const satisfies readonly Signer[]

async function measureSignatures(stage: Stage, signings: Map<string, Signing[]>): Promise<void> {
  const available = signers.filter((signer) => signer === 'module' || stage.sources.has(signer))
  for (let round = 0; round < rounds; round++) {
    for (const everyMicros of rhythms) {
      for (const kind of kinds) {
        for (const signer of available) {
          const name = nameOf(kind, signer, everyMicros)
          const signing = await measureSigning(stage, signer, kind, { seconds: roundSeconds, everyMicros })
          signings.set(name, [...(signings.get(name) ?? []), signing])
        }
      }
    }
  }
}

const nameOf = (kind: Kind, signer: Signer, everyMicros: number) => `${kind} ${signer} ${everyMicros}`
const describeRhythm = (everyMicros: number) =>
  everyMicros === 0 ? 'one after the other' : `${1e6 / everyMicros} in a second`

function formatHandshakes(cells: readonly Cell[]): string {
  const rows = cells
    .toSorted((one, other) => kinds.indexOf(one.kind) - kinds.indexOf(other.kind))
    .map((cell): Row => {
      const file = findCell(cells, cell.contender.server, 'file', cell.kind)
      return [
        `${cell.contender.server}, ${cell.kind}`,
        labels[cell.contender.source],
        of(cell, ({ perSecond }) => perSecond),
        percent(ratioOf(cell, file, ({ perSecond }) => perSecond)),
        of(cell, ({ p50Micros }) => p50Micros) / 1000,
        of(cell, ({ p99Micros }) => p99Micros) / 1000,
        of(cell, ({ workerMicros }) => workerMicros),
        ratioOf(cell, file, ({ workerMicros }) => workerMicros),
        of(cell, ({ signerMicros }) => signerMicros),
        of(cell, ({ cpuMicros }) => cpuMicros),
        total([cell], ({ failed }) => failed),
        total([cell], ({ resumed }) => resumed),
      ].map(wholeCounts)
    })
  const head = ['server, key', 'signs', 'hs/s', 'of (a)', 'p50 ms', 'p99 ms', 'µs worker', 'to (a)', 'µs signer']
  return formatTable([...head, 'µs client', 'failed', 'resumed'], rows)
}

/** Counts, the last two columns, without decimals. */
const wholeCounts = (cell: string | number, column: number) => (column >= 10 ? String(cell) : cell)

function formatLatencies(cells: readonly Cell[]): string {
  const rows = cells.map(
    (cell): Row => [
      `${cell.contender.server}, ${labels[cell.contender.source]}`,
      `${cell.delayMs} ms`,
      of(cell, ({ perSecond }) => perSecond),
      of(cell, ({ p50Micros }) => p50Micros) / 1000,
      of(cell, ({ p99Micros }) => p99Micros) / 1000,
      of(cell, ({ workerMicros }) => workerMicros),
      String(total([cell], ({ failed }) => failed)),
    ],
  )
  return formatTable(['server', 'longer', 'hs/s', 'p50 ms', 'p99 ms', 'µs worker', 'failed'], rows)
}

type Signings = ReadonlyMap<string, readonly Signing[]>

/** Microseconds of the median signature above that of the module alone in the same round. */
function addedTo(signings: Signings, kind: Kind, signer: Signer, everyMicros: number): number {
  const module = signings.get(nameOf(kind, 'module', everyMicros)) ?? []
  const list = signings.get(nameOf(kind, signer, everyMicros)) ?? []
  return median(list.map(({ p50Micros }, round) => p50Micros - (module[round]?.p50Micros ?? Number.NaN)))
}

function formatSignings(signings: Signings, everyMicros: number): string {
  const rows = kinds.flatMap((kind) =>
    signers.map((signer): Row => {
      const list = signings.get(nameOf(kind, signer, everyMicros)) ?? []
      return [
        `${kind}, ${labels[signer]}`,
        median(list.map(({ perSecond }) => perSecond)),
        median(list.map(({ p50Micros }) => p50Micros)),
        median(list.map(({ p99Micros = Number.NaN }) => p99Micros)),
        signer === 'module' ? Number.NaN : addedTo(signings, kind, signer, everyMicros),
        median(list.map(({ cpuMicros }) => cpuMicros)),
      ]
    }),
  )
  return formatTable(['key, signs', '/s', 'p50', 'p99', 'p50 - module', 'CPU'], rows)
}

function findCell(cells: readonly Cell[], server: ServerName, source: Source, kind: Kind, delayMs = 0) {
  return cells.find(
    (cell) =>
      cell.contender.server === server &&
      cell.contender.source === source &&
      cell.kind === kind &&
      cell.delayMs === delayMs,
  )
}

function formatTargets(cells: readonly Cell[], signings: Signings): string {
  const perSecond = (load: Load) => load.perSecond
  const cpu = (load: Load) => load.workerMicros
  const nginx = (source: Source, kind: Kind) => findCell(cells, 'NGINX', source, kind)
  const p256 = [nginx('gateway', 'P-256'), nginx('file', 'P-256')] as const
  const rsa = [nginx('gateway', 'RSA-2048'), nginx('libp11', 'RSA-2048')] as const
  const haproxy = (server: ServerName) => findCell(cells, server, 'gateway', 'P-256', 5)
  const failed = total(cells, (load) => load.failed)
  const least = (name: string, value: number, limit: number): Row => [
    name,
    value,
    `>= ${limit}`,
    verdict(value, value >= limit),
  ]
  const most = (name: string, value: number, limit: number): Row => [
    name,
    value,
    `<= ${limit}`,
    verdict(value, value <= limit),
  ]
  const added = rhythms.flatMap((everyMicros) =>
    kinds.map((kind) => {
      const name = `${kind}, ${describeRhythm(everyMicros)}: p50 µs that provider and gateway add to the module`
      return most(name, addedTo(signings, kind, 'gateway', everyMicros), 120)
    }),
  )
  return formatTable(
    ['', 'figure', 'target', ''],
    [
      least('NGINX P-256: handshakes/s of (c) over (a)', ratioOf(...p256, perSecond), 0.85),
      most('NGINX P-256: worker CPU per handshake of (c) over (a)', ratioOf(...p256, cpu), 1.1),
      least('NGINX RSA-2048: handshakes/s of (c) over (b)', ratioOf(...rsa, perSecond), 1.2),
      ...added,
      least(
        'HAProxy at 5 ms: asynchronous over synchronous',
        ratioOf(haproxy('HAProxy async'), haproxy('HAProxy'), perSecond),
        5,
      ),
      ['failed handshakes', String(failed), '0', cells.length === 0 ? '-' : failed === 0 ? 'met' : 'MISSED'],
    ],
  )
}

const verdict = (value: number, isMet: boolean) => (Number.isFinite(value) ? (isMet ? 'met' : 'MISSED') : '-')

const legend = `
  (a)        the private key in a file: what everybody does
  (b)        OpenSSL's PKCS#11 engine of libp11 in the server, on the same token
  (c)        the provider, the gateway on this machine, the same token
  (d)        the provider, a relay, TLS 1.3 to the gateway, the same token
  hs/s       full handshakes in a second, each on a connection of its own with one request; everything shares this machine with the client
  p50, p99   from connect to the server's Finished, seen by the client
  µs worker  CPU time of one handshake in the server's workers (clock ticks of 10 ms); signer = in gateway, its workers and the relay; client = the load
  - module   p50 above that of the module alone, in C, with the same rhythm: between signatures that are far apart its code leaves the caches, too
  resumed    sessions taken up again; the warm-up offers each session again and fails if one is
`

if (values.help) write(usage)
else await run()
