/**
 * The processes that a bench runs: the gateway as its user starts it, the HTTP ceiling, the raw module. Each is a child of its own, started
 * with a time limit, ended with its owner, and read for CPU time and resident memory through /proc.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync, readFileSync } from 'node:fs'
import { readFile, writeFile } from 'node:fs/promises'
import path from 'node:path'

const root = path.resolve(import.meta.dirname, '../..')
const startTimeoutMs = 60_000
/** USER_HZ, in which /proc counts CPU time: 100 on every Linux that Node runs on. */
const ticksPerSecond = 100

export interface Running extends AsyncDisposable {
  readonly pid: number
  readonly port: number
  /** Of the XKS door. */
  readonly xksPort?: number
  /** From spawn until it said that it is ready. */
  readonly startMs: number
}

async function start(program: string, args: readonly string[], env: NodeJS.ProcessEnv = {}): Promise<Running> {
  const startedMs = performance.now()
  const child = spawn(program, args, { cwd: root, env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'pipe'] })
  const exited = once(child, 'exit')
  let complaint = ''
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    complaint = (complaint + text).slice(-4000)
  })
  const timer = setTimeout(() => child.kill('SIGKILL'), startTimeoutMs)
  try {
    const answer = await firstJson(child)
    const { endpoints, port } = answer as { endpoints?: { kms: string; xks?: string }; port?: number }
    return {
      pid: child.pid as number,
      port: port ?? Number(new URL(endpoints?.kms as string).port),
      ...(endpoints?.xks === undefined ? {} : { xksPort: Number(new URL(endpoints.xks).port) }),
      startMs: performance.now() - startedMs,
      async [Symbol.asyncDispose]() {
        child.kill('SIGTERM')
        const kill = setTimeout(() => child.kill('SIGKILL'), 20_000)
        await exited
        clearTimeout(kill)
      },
    }
  } catch (cause) {
    child.kill('SIGKILL')
    throw new Error(`${path.basename(program)} ${args[0]} did not start: ${complaint}`, { cause })
  } finally {
    clearTimeout(timer)
  }
}

/** The first whole JSON value on standard output. */
async function firstJson(child: ChildProcess): Promise<unknown> {
  let text = ''
  for await (const chunk of child.stdout as NodeJS.ReadableStream) {
    text += chunk
    try {
      return JSON.parse(text)
    } catch {
      // not whole yet
    } finally {
      child.stdout?.resume()
    }
  }
  throw new Error('ended before it was ready')
}

const hsmgate = path.join(root, 'hsmgate')

/** What `npm start` runs: makes token, catalog and administrator when they are missing, proves itself. */
export function startDevelopment(directory: string): Promise<Running> {
  const ports = ['--kms-port', '0', '--operator-port', '0']
  return start(hsmgate, ['dev', '--directory', directory, ...ports, '--json'])
}

/** `hsmgate serve` on a development folder. `profileTo`: folder for CPU profiles of gateway and workers. */
export async function startServe(directory: string, profileTo?: string): Promise<Running> {
  const file = path.join(directory, 'config.json')
  const config = JSON.parse(await readFile(file, 'utf8'))
  config.listen.kms.port = 0
  config.listen.xks.port = 0
  config.listen.operator.http.port = 0
  const flags = profileTo === undefined ? {} : { NODE_OPTIONS: `--cpu-prof --cpu-prof-dir=${path.resolve(profileTo)}` }
  Object.assign(config.tokens.softhsm.env, flags)
  const benchFile = path.join(directory, 'bench.json')
  await writeFile(benchFile, JSON.stringify(config))
  return start(hsmgate, ['--config', benchFile, 'serve', '--json'], flags)
}

/** `order` goes to it in the environment. */
export function startHttpCeiling(order: object, file = 'http-ceiling.ts'): Promise<Running> {
  const program = path.join(import.meta.dirname, file)
  return start(process.execPath, [program], { HSMGATE_BENCH_ORDER: JSON.stringify(order) })
}

/** Of `make -C native bench`. */
export type NativeProgram = 'bench' | 'load' | 'handshakes' | 'sign'

/** Runs a native program of the bench to its end; its last line is JSON. */
export async function runProgram<T>(name: NativeProgram, args: readonly string[], env: NodeJS.ProcessEnv = {}) {
  const prepared = await prepareProgram<T>(name, args, env, false)
  return prepared.result
}

/** A native program that stands ready; `go` lets it begin. */
export async function prepareProgram<T>(
  name: NativeProgram,
  args: readonly string[],
  env: NodeJS.ProcessEnv = {},
  waits = true,
): Promise<{ go(): void; readonly result: Promise<T> }> {
  const program = path.join(root, 'native/build', name)
  const child = spawn(program, args, { env: { ...process.env, ...env }, stdio: ['pipe', 'pipe', 'pipe'] })
  let output = ''
  let complaint = ''
  child.stderr.setEncoding('utf8').on('data', (text: string) => (complaint += text))
  const ready = Promise.withResolvers<void>()
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    output += text
    if (output.startsWith('ready\n')) ready.resolve()
  })
  const result = once(child, 'close').then(([status]) => {
    if (status === 0) return JSON.parse(output.trim().split('\n').at(-1) as string) as T
    const error = new Error(`${name} ${args.join(' ')}: ${complaint.trim()}`)
    ready.reject(error)
    throw error
  })
  // Whoever waits hears of it; nobody may.
  for (const promise of [result, ready.promise]) promise.catch(() => {})
  if (waits) await ready.promise
  return { go: () => child.stdin.end('\n'), result }
}

/** A process and its children, as they are now. */
export function familyOf(pid: number): readonly { readonly pid: number; readonly role: string }[] {
  const family = [{ pid, role: 'gateway' }]
  for (const task of readdirSync(`/proc/${pid}/task`)) {
    const children = readFileSync(`/proc/${pid}/task/${task}/children`, 'utf8').trim()
    for (const child of children === '' ? [] : children.split(' ')) family.push({ pid: Number(child), role: 'worker' })
  }
  return family
}

/** CPU seconds that a process has used, user and kernel. */
export function cpuSeconds(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  return (Number(fields[11]) + Number(fields[12])) / ticksPerSecond
}

/** Resident memory in MiB: whole, and with pages shared between processes divided among them. */
export function residentMegabytes(pid: number): { readonly rss: number; readonly pss: number } {
  const rollup = readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8')
  const read = (name: string) => Number(new RegExp(`^${name}: +(\\d+) kB`, 'm').exec(rollup)?.[1]) / 1024
  return { rss: read('Rss'), pss: read('Pss') }
}
