/**
 * `npm run bench:xks`: the XKS door over HTTPS, beside its two ceilings, and at the rate that AWS KMS allows a key store. Load by h2load (Debian:
 * nghttp2-client), requests signed beforehand, everything on loopback and in a temporary folder. Figures are for reading; ratios hold anywhere.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { buffer } from 'node:stream/consumers'
import { parseArgs } from 'node:util'
import { signRequest } from '../../src/authenticate/sign-request.ts'
import { askSocket } from '../../src/cli/operator-client.ts'
import { cpuSeconds, familyOf, runProgram, startDevelopment, startHttpCeiling, startServe } from './processes.ts'
import { formatTable, median, percent, type Row } from './tables.ts'

const { values } = parseArgs({
  options: {
    connections: { type: 'string', default: '1,16,64' },
    seconds: { type: 'string', default: '3' },
    rounds: { type: 'string', default: '3' },
    /** Requests in a second: the default quota of an external key store. */
    rate: { type: 'string', default: '1800' },
    /** Folder for CPU profiles of gateway and workers, for reading with Chrome or speedscope. */
    profile: { type: 'string' },
  },
})
const seconds = Number(values.seconds)
const rounds = Number(values.rounds)
const region = 'us-east-1'
/** AWS KMS gives up after this. */
const patienceMicros = 250_000
const targetShare = 0.7
const targetP99Ms = 20
const write = (text: string) => process.stdout.write(text)

interface Identity {
  readonly accessKeyId: string
  readonly secretAccessKey: string
}

interface Order {
  readonly name: string
  readonly path: string
  readonly body: Buffer
  /** Operations of native/build/bench that the module does for one call. */
  readonly raw: readonly string[]
}

interface Load {
  readonly perSecond: number
  readonly p50: number
  readonly p99: number
  readonly longest: number
  readonly late: number
  readonly failed: number
}

async function run(): Promise<void> {
  if (!existsSync('/usr/bin/h2load')) throw new Error('h2load is missing; remedy: apt-get install nghttp2-client')
  const [cpu] = os.cpus()
  write(`hsmgate bench:xks: Node ${process.version}, ${os.availableParallelism()} × ${cpu?.model}, load average `)
  write(`${os.loadavg()[0]?.toFixed(1)}\n`)
  await using stack = new AsyncDisposableStack()
  const home = await mkdtemp(path.join(os.tmpdir(), 'hsmgate-bench-'))
  stack.defer(() => rm(home, { recursive: true, force: true }))
  const directory = path.join(home, 'state')
  await (await startDevelopment(directory))[Symbol.asyncDispose]()
  const gateway = stack.use(await startServe(directory, values.profile))
  const socket = path.join(directory, 'run/operator.sock')
  const made = await askSocket<{ credential: Identity }>(socket, 'xks-store', 'create', { store: 'bench' })
  await askSocket(socket, 'xks-key', 'create', { store: 'bench', id: 'key' })
  const identity = made.credential
  const tls = {
    certificateFile: path.join(directory, 'tls/server.pem'),
    keyFile: path.join(directory, 'tls/server.key'),
  }
  const base = '/bench/kms/xks/v1/keys/key'
  const encrypted = await callOnce(gateway.xksPort as number, identity, `${base}/encrypt`, encryptBody(), directory)
  const orders: readonly Order[] = [
    { name: 'Encrypt with CDIV', path: `${base}/encrypt`, body: encryptBody(), raw: ['gcm-encrypt', 'gcm-decrypt'] },
    { name: 'Decrypt', path: `${base}/decrypt`, body: decryptBody(encrypted), raw: ['gcm-decrypt'] },
  ]
  const answer = JSON.stringify(encrypted)
  const ceiling = stack.use(await startHttpCeiling({ ...identity, ...tls, region, answer }, 'https-ceiling.ts'))

  const rows: Row[] = []
  for (const order of orders) {
    for (const port of [ceiling.port, gateway.xksPort as number]) await load(home, port, identity, order, 16, 4)
    const hsm = await rateOfModule(directory, order)
    for (const connections of values.connections.split(',').map(Number)) {
      const http: Load[] = []
      const ours: Load[] = []
      let cpuMicros = 0
      for (let round = 0; round < rounds; round++) {
        http.push(await load(home, ceiling.port, identity, order, connections, seconds))
        const before = cpuOf(gateway.pid)
        ours.push(await load(home, gateway.xksPort as number, identity, order, connections, seconds))
        cpuMicros += ((cpuOf(gateway.pid) - before) * 1e6) / (ours.at(-1)!.perSecond * seconds) / rounds
      }
      const of = (list: readonly Load[], pick: (one: Load) => number) => median(list.map(pick))
      const module = hsm(connections)
      const httpRate = of(http, ({ perSecond }) => perSecond)
      const combined = 1 / (1 / module + 1 / httpRate)
      const rate = of(ours, ({ perSecond }) => perSecond)
      rows.push([
        order.name,
        connections,
        module,
        httpRate,
        combined,
        rate,
        percent(rate / combined),
        percent(targetShare),
        rate / combined >= targetShare ? 'met' : 'MISSED',
        of(ours, ({ p50 }) => p50) / 1000,
        of(ours, ({ p99 }) => p99) / 1000,
        cpuMicros,
        ours.reduce((sum, { failed }) => sum + failed, 0),
      ])
    }
  }
  write(`\nMost that it serves, medians of ${rounds} rounds of ${seconds} s\n\n`)
  const head = ['operation', 'conn', 'HSM/s', 'HTTPS/s', 'ceiling/s', 'gateway/s', 'share', 'target', '']
  write(formatTable([...head, 'p50 ms', 'p99 ms', 'µs CPU', 'failed'], rows))

  const fixed: Row[] = []
  for (const order of orders) {
    const one = await load(home, gateway.xksPort as number, identity, order, 64, 10, Number(values.rate))
    const isMet = one.p99 / 1000 <= targetP99Ms && one.late === 0 && one.failed === 0
    fixed.push([
      order.name,
      one.perSecond,
      one.p50 / 1000,
      one.p99 / 1000,
      one.longest / 1000,
      percent(one.late),
      one.failed,
      isMet ? 'met' : 'MISSED',
    ])
  }
  write(
    `\nAt ${values.rate} requests a second over 64 connections, 10 s; to reach: p99 <= ${targetP99Ms} ms, none late\n\n`,
  )
  write(formatTable(['operation', 'served/s', 'p50 ms', 'p99 ms', 'longest ms', '> 250 ms', 'failed', ''], fixed))
  write(`
  HSM/s      the PKCS#11 module alone, in C: one encryption and one decryption for Encrypt with CDIV; one session at 1 connection, else four
  HTTPS/s    a fastify with the same TLS that reads the same requests, verifies the signature and answers a constant
  ceiling/s  1 / (1/HSM + 1/HTTPS); all of it shares this machine with the load
  µs CPU     CPU time of one call in the gateway and its workers
  load average at the end ${os.loadavg()[0]?.toFixed(1)}
`)
}

const metadata = {
  requestMetadata: {
    awsPrincipalArn: 'arn:aws:iam::123456789012:user/Alice',
    kmsKeyArn: 'arn:aws:kms:us-east-2:123456789012:/key/1234abcd-12ab-34cd-56ef-1234567890ab',
    kmsOperation: 'Encrypt',
    kmsRequestId: '4112f4d6-db54-4af4-ae30-c55a22a8dfae',
  },
}
/** What AWS KMS sends: a data key under its own layer of encryption, and a context of some hundred bytes. */
const aad = Buffer.alloc(300, 7).toString('base64')

function encryptBody(): Buffer {
  const plaintext = Buffer.alloc(96, 1).toString('base64')
  const more = { ciphertextDataIntegrityValueAlgorithm: 'SHA_256', additionalAuthenticatedData: aad }
  return Buffer.from(JSON.stringify({ ...metadata, plaintext, encryptionAlgorithm: 'AES_GCM', ...more }))
}

function decryptBody(encrypted: Readonly<Record<string, unknown>>): Buffer {
  const { ciphertextDataIntegrityValue: _, ...sealed } = encrypted
  return Buffer.from(
    JSON.stringify({ ...metadata, ...sealed, encryptionAlgorithm: 'AES_GCM', additionalAuthenticatedData: aad }),
  )
}

function headersOf(port: number, { accessKeyId, secretAccessKey }: Identity, target: string, body: Buffer) {
  const headers = { host: `127.0.0.1:${port}`, 'content-type': 'application/json' }
  const identity = { accessKeyId, secret: Buffer.from(secretAccessKey), region, service: 'kms-xks-proxy' }
  return signRequest({ method: 'POST', target, headers, body }, identity, Date.now())
}

async function callOnce(port: number, identity: Identity, target: string, body: Buffer, directory: string) {
  const { request } = await import('node:https')
  const ca = await readFile(path.join(directory, 'tls/ca.pem'))
  const headers = { ...headersOf(port, identity, target, body), 'content-length': String(body.length) }
  const asking = request({ host: '127.0.0.1', port, path: target, method: 'POST', ca, headers }).end(body)
  const [response] = (await once(asking, 'response')) as [import('node:http').IncomingMessage]
  const text = (await buffer(response)).toString()
  if (response.statusCode !== 200) throw new Error(`${target}: ${response.statusCode} ${text}`)
  return JSON.parse(text) as Record<string, unknown>
}

/** h2load over HTTP/1.1 with keep-alive; at most `rate` requests a second when it is given. Its log has one line for each answer. */
async function load(
  home: string,
  port: number,
  identity: Identity,
  order: Order,
  connections: number,
  forSeconds: number,
  rate?: number,
): Promise<Load> {
  const bodyFile = path.join(home, 'body')
  const logFile = path.join(home, 'log')
  await writeFile(bodyFile, order.body)
  await rm(logFile, { force: true })
  const headers = Object.entries(headersOf(port, identity, order.path, order.body))
    .filter(([name]) => name !== 'host')
    .flatMap(([name, value]) => ['-H', `${name}: ${value}`])
  const args = [
    ...['--h1', '-t', '1', '-m', '1', '-c', String(connections), '-D', String(forSeconds), `--log-file=${logFile}`],
    ...(rate === undefined ? [] : ['--rps', String(rate / connections)]),
    ...headers,
    ...['-d', bodyFile, `https://127.0.0.1:${port}${order.path}`],
  ]
  const child = spawn('/usr/bin/h2load', args, {
    stdio: ['ignore', 'pipe', 'inherit'],
    timeout: (forSeconds + 30) * 1000,
  })
  const [output, [status]] = await Promise.all([buffer(child.stdout), once(child, 'close')])
  if (status !== 0) throw new Error(`h2load ended with ${status}: ${output}`)
  const lines = (await readFile(logFile, 'utf8')).trim().split('\n')
  const answers = lines.map((line) => line.split('\t').map(Number) as [number, number, number])
  const good = answers.filter(([, code]) => code === 200)
  const micros = good.map(([, , took]) => took).sort((a, b) => a - b)
  if (micros.length === 0) throw new Error(`no answer was good: ${output}`)
  const at = (share: number) => micros[Math.min(micros.length - 1, Math.floor(micros.length * share))] as number
  return {
    perSecond: good.length / forSeconds,
    p50: at(0.5),
    p99: at(0.99),
    longest: micros.at(-1) as number,
    late: micros.filter((took) => took > patienceMicros).length / micros.length,
    failed: answers.length - good.length,
  }
}

/** The module alone, by connections: its operations for one call, one after the other. */
async function rateOfModule(directory: string, { raw }: Order): Promise<(connections: number) => number> {
  const measure = async (sessions: number): Promise<number> => {
    const rates: number[] = []
    for (const op of raw) {
      const order = {
        module: '/usr/lib/softhsm/libsofthsm2.so',
        label: 'hsmgate',
        'pin-file': path.join(directory, 'softhsm/pin'),
        op,
        bytes: 96,
        sessions,
        seconds: 1,
      }
      const args = Object.entries(order).flatMap(([name, value]) => [`--${name}`, String(value)])
      const env = { SOFTHSM2_CONF: path.join(directory, 'softhsm/softhsm2.conf') }
      rates.push((await runProgram<{ perSecond: number }>('bench', args, env)).perSecond)
    }
    return 1 / rates.reduce((sum, rate) => sum + 1 / rate, 0)
  }
  const [alone, together] = [await measure(1), await measure(4)]
  return (connections) => (connections === 1 ? alone : together)
}

function cpuOf(pid: number): number {
  return familyOf(pid).reduce((sum, member) => sum + cpuSeconds(member.pid), 0)
}

await run()
