/**
 * SoftHSM2 tokens behind the shim (native/shim): processes that open `module` with `env` meet the faults that `rules` asks for, and
 * `count` and `events` tell what reached the module in all of them together. The grammar of rules is in native/README.md.
 *
 *   await using token = await createShimmedToken()
 *   token.rules(['C_Sign to=2 scope=all crash'])
 */
import { readFileSync, renameSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { createTestToken, type TestToken } from './softhsm.ts'

export interface ShimEvent {
  /** On the monotonic clock of the machine. */
  readonly atMs: number
  readonly pid: number
  readonly call: string
  /** CK_RV that the caller got; absent where the call never came back. */
  readonly rv?: number
  /** Only where a rule acted: what it did, and its place in the list given to `rules`. */
  readonly action?: string
  readonly rule?: number
}

export interface ShimmedToken extends TestToken {
  /** Replaces all rules, from the next call in every process on; each line starts counting anew. */
  rules(lines: readonly string[]): void
  clear(): void
  /** Calls so far, of all processes, whatever came of them. */
  count(call: string): number
  /** Times the rule acted, of the list given last, by its place in it. */
  hits(rule: number): number
  /** The calls that change sessions, login or objects, and every act of a rule. @throws when the shim found fault with the rules. */
  events(): readonly ShimEvent[]
}

const shimModule = path.join(import.meta.dirname, '../../native/build/hsmgate-shim.so')

/** A `Counter` of native/shim/counters.h. */
const counter = { bytes: 96, calls: 8, hits: 16, name: 64 }

export async function createShimmedToken({ label }: { readonly label?: string } = {}): Promise<ShimmedToken> {
  const token = await createTestToken(label)
  const rulesFile = path.join(token.directory, 'rules')
  const log = path.join(token.directory, 'shim.log')
  const env = {
    ...token.env,
    HSMGATE_SHIM_MODULE: token.module,
    HSMGATE_SHIM_RULES: rulesFile,
    HSMGATE_SHIM_LOG: log,
  }
  let version = 0
  let bytes = 0

  function rules(lines: readonly string[]): void {
    version++
    const text = lines.map((line, index) => `${line} id=${version}.${index}\n`).join('')
    // Ever longer, because a clock tick is longer than two writes and file numbers come back.
    bytes = Math.max(text.length, bytes + 1)
    writeFileSync(`${rulesFile}.new`, text.padEnd(bytes, '\n'), { mode: 0o600 })
    renameSync(`${rulesFile}.new`, rulesFile)
  }

  function find(name: string, field: number): number {
    const table = read(`${rulesFile}.counters`)
    for (let at = 0; at + counter.bytes <= table.length; at += counter.bytes) {
      const end = table.indexOf(0, at + counter.name)
      if (table.toString('latin1', at + counter.name, end) === name) return Number(table.readBigUInt64LE(at + field))
    }
    return 0
  }

  function events(): readonly ShimEvent[] {
    const all = read(log).toString('utf8').split('\n').filter(Boolean)
    return all.map((line) => {
      const { trouble, rule, ...event } = JSON.parse(line)
      if (trouble !== undefined) throw new Error(`shim: ${trouble}`)
      return rule === undefined ? event : { ...event, rule: Number(rule.split('.')[1]) }
    })
  }

  rules([])
  return {
    ...token,
    module: shimModule,
    env,
    rules,
    clear: () => rules([]),
    count: (call) => find(call, counter.calls),
    hits: (rule) => find(`${version}.${rule}`, counter.hits),
    events,
  }
}

/** Empty until the first process has opened the module. */
function read(file: string): Buffer {
  try {
    return readFileSync(file)
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return Buffer.alloc(0)
    throw cause
  }
}
