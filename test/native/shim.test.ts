/** The shim in front of SoftHSM2: each kind of rule does what native/README.md says. Calls come from processes of their own. */
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import path from 'node:path'
import { createInterface } from 'node:readline'
import { afterAll, afterEach, describe, expect, it } from 'vitest'
import { createShimmedToken, type ShimmedToken } from '../support/shim.ts'
import type { Order } from './shim-process.ts'

const CKR = {
  ok: 0,
  functionFailed: 6,
  deviceError: 0x30,
  keyHandleInvalid: 0x60,
  sessionCount: 0xb1,
  sessionHandleInvalid: 0xb3,
  signatureInvalid: 0xc0,
  signatureLenRange: 0xc1,
  pinIncorrect: 0xa0,
  userNotLoggedIn: 0x101,
}

interface Caller {
  readonly pid: number
  readonly opened: { readonly sessions?: number; readonly call?: string; readonly rv?: number }
  ask(order: Order): Promise<number[]>
  /** Sends the order and waits for the end of the process instead of an answer. */
  askForEnd(order: Order): Promise<number | string>
  kill(): Promise<void>
}

const callers: Caller[] = []

async function openCaller(token: ShimmedToken, sessions = 2, env: Record<string, string> = {}): Promise<Caller> {
  const names = { MODULE: token.module, LABEL: token.label, PIN_FILE: token.pinFile, SESSIONS: String(sessions) }
  const child = spawn(process.execPath, [path.join(import.meta.dirname, 'shim-process.ts')], {
    env: { ...process.env, ...token.env, ...names, ...env },
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  child.stdin.on('error', () => {})
  const exit = once(child, 'exit').then(([code, signal]) => (signal ?? code) as number | string)
  const answers = createInterface(child.stdout)[Symbol.asyncIterator]()
  const send = (order: Order) => child.stdin.write(`${JSON.stringify(order)}\n`)
  const receive = async () => {
    const { value, done } = await answers.next()
    if (done) throw new Error(`the process ended: ${await exit}`)
    return JSON.parse(value)
  }
  const caller: Caller = {
    pid: child.pid!,
    opened: await receive(),
    ask(order) {
      send(order)
      return receive()
    },
    askForEnd(order) {
      send(order)
      return exit
    },
    async kill() {
      child.kill('SIGKILL')
      await exit
    },
  }
  callers.push(caller)
  return caller
}

const token = await createShimmedToken()
afterAll(() => token[Symbol.asyncDispose]())
afterEach(async () => {
  for (const caller of callers.splice(0)) await caller.kill()
  token.clear()
})

const times = <T>(count: number, value: T): T[] => new Array(count).fill(value)

describe('the shim without rules', () => {
  it('passes every call on, and counts it across processes', async () => {
    const before = token.count('C_Login')
    const signed = token.count('C_Sign')
    const [first, second] = [await openCaller(token), await openCaller(token)]
    expect(await first.ask({ op: 'sign', count: 5 })).toEqual(times(5, CKR.ok))
    expect(await second.ask({ op: 'sign' })).toEqual([CKR.ok])
    expect(token.count('C_Login') - before).toBe(2)
    expect(token.count('C_Sign') - signed).toBe(6)
    const pids = [first.pid, second.pid]
    const logins = token.events().filter(({ call, pid }) => call === 'C_Login' && pids.includes(pid))
    expect(logins.map(({ pid, rv }) => ({ pid, rv }))).toEqual(pids.map((pid) => ({ pid, rv: CKR.ok })))
  })

  it('is a whole module to an application that is not ours', () => {
    const env = { ...process.env, ...token.env }
    const tool = spawnSync('pkcs11-tool', ['--module', token.module, '--list-slots'], { env, encoding: 'utf8' })
    expect(tool.stdout).toContain(`token label        : ${token.label}`)
    expect(tool.status).toBe(0)
  })

  it('says so when there is no module to pass calls on to', async () => {
    const env = { HSMGATE_SHIM_MODULE: '/nonexistent.so', HSMGATE_SHIM_LOG: '', HSMGATE_SHIM_RULES: '' }
    const caller = await openCaller(token, 1, env)
    expect(caller.opened).toEqual({ call: 'C_GetFunctionList', rv: 5 })
  })
})

describe('conditions', () => {
  it('choose calls by number', async () => {
    const caller = await openCaller(token, 1)
    token.rules(['C_Sign from=2 to=5 every=2 rv=CKR_FUNCTION_FAILED after'])
    const failed = CKR.functionFailed
    expect(await caller.ask({ op: 'sign', count: 7 })).toEqual([0, 0, failed, 0, failed, 0, 0])
    expect(token.hits(0)).toBe(2)
  })

  it('count for each process, or for all together', async () => {
    const [first, second] = [await openCaller(token, 1), await openCaller(token, 1)]
    token.rules(['C_Sign to=2 rv=0x30 after', 'C_GenerateRandom to=2 scope=all rv=0x30'])
    for (const caller of [first, second]) {
      expect(await caller.ask({ op: 'sign', count: 3 })).toEqual([CKR.deviceError, CKR.deviceError, 0])
    }
    expect(await first.ask({ op: 'random' })).toEqual([CKR.deviceError])
    expect(await second.ask({ op: 'random', count: 2 })).toEqual([CKR.deviceError, 0])
    expect(await first.ask({ op: 'random' })).toEqual([0])
  })

  it('single out one process', async () => {
    const [first, second] = [await openCaller(token), await openCaller(token)]
    token.rules(['C_Sign in=one rv=CKR_DEVICE_ERROR after', `C_GenerateRandom in=${second.pid} rv=CKR_DEVICE_ERROR`])
    expect(await first.ask({ op: 'sign', count: 2 })).toEqual(times(2, CKR.deviceError))
    expect(await second.ask({ op: 'sign', count: 2 })).toEqual(times(2, CKR.ok))
    expect(await first.ask({ op: 'random' })).toEqual([CKR.ok])
    expect(await second.ask({ op: 'random' })).toEqual([CKR.deviceError])
  })

  it('look at the input and at the label of the key', async () => {
    const caller = await openCaller(token)
    token.rules(['C_Sign input=hex:706f69736f6e rv=0x30 after'])
    expect(await caller.ask({ op: 'sign', input: 'some poison in it' })).toEqual([CKR.deviceError])
    expect(await caller.ask({ op: 'sign', input: 'nothing in it' })).toEqual([CKR.ok])
    token.rules(['C_SignInit label=signing rv=0x30'])
    expect(await caller.ask({ op: 'sign' })).toEqual([CKR.deviceError])
    token.rules(['C_SignInit label=other rv=0x30'])
    expect(await caller.ask({ op: 'sign' })).toEqual([CKR.ok])
  })

  it('draw lots that fall the same for the same seed', async () => {
    const caller = await openCaller(token)
    const draw = async (seed: number) => {
      token.rules([`C_GenerateRandom chance=0.3 seed=${seed} rv=0x30`])
      const lots: number[] = []
      for (let i = 0; i < 5; i++) lots.push(...(await caller.ask({ op: 'random', count: 20 })))
      expect(lots.filter(Boolean).length).toBe(token.hits(0))
      return token.hits(0)
    }
    const hits = await draw(7)
    expect(hits).toBeGreaterThan(15)
    expect(hits).toBeLessThan(45)
    expect(await draw(7)).toBe(hits)
  })

  it('let a rate pass and refuse what is beyond it', async () => {
    const caller = await openCaller(token, 2)
    token.rules(['C_GenerateRandom over=20 scope=all rv=CKR_FUNCTION_FAILED'])
    const answers = await caller.ask({ op: 'random', count: 60 })
    // 60 calls are done in a fraction of a second: the first is served, most are not.
    expect(answers).toContain(CKR.ok)
    expect(answers.filter((rv) => rv === CKR.functionFailed).length).toBeGreaterThan(0)
  })
})

describe('actions', () => {
  it('delay calls by as much as they say, or by chance', async () => {
    const caller = await openCaller(token, 1)
    token.rules(['C_GenerateRandom delay=40'])
    const startedAtMs = performance.now()
    expect(await caller.ask({ op: 'random', count: 3 })).toEqual(times(3, CKR.ok))
    expect(performance.now() - startedAtMs).toBeGreaterThanOrEqual(120)
    token.rules([
      'C_GenerateRandom delay=uniform:1:2',
      'C_GenerateRandom delay=exponential:1',
      'C_GenerateRandom delay=lognormal:1:0.3',
    ])
    expect(await caller.ask({ op: 'random', count: 4 })).toEqual(times(4, CKR.ok))
    expect([0, 1, 2].map((rule) => token.hits(rule))).toEqual([4, 4, 4])
  })

  it('hang one call and leave the others alone', async () => {
    const caller = await openCaller(token, 2)
    token.rules(['C_Sign to=1 hang'])
    void caller.ask({ op: 'sign' }).catch(() => {})
    await expect.poll(() => token.hits(0)).toBe(1)
    expect(token.events().at(-1)).toMatchObject({ call: 'C_Sign', action: 'hang', pid: caller.pid })
    await caller.kill()
    token.rules(['C_Sign to=1 hang=50'])
    const other = await openCaller(token)
    expect(await other.ask({ op: 'sign' })).toEqual([CKR.ok])
    expect(token.hits(0)).toBe(1)
  })

  it('crash as often as they say, over all processes, with SIGSEGV and no core file', async () => {
    token.rules(['C_Sign to=2 scope=all crash'])
    for (let i = 0; i < 2; i++) {
      const caller = await openCaller(token)
      expect(await caller.askForEnd({ op: 'sign' })).toBe('SIGSEGV')
      expect(token.events().at(-1)).toMatchObject({ call: 'C_Sign', action: 'crash', pid: caller.pid })
    }
    const survivor = await openCaller(token)
    expect(await survivor.ask({ op: 'sign' })).toEqual([CKR.ok])
    expect(existsSync(path.join(process.cwd(), 'core'))).toBe(false)
  })

  it('close sessions beneath the caller', async () => {
    const caller = await openCaller(token, 1)
    token.rules(['C_GenerateRandom to=1 drop'])
    const opened = token.count('C_OpenSession')
    expect(await caller.ask({ op: 'random' })).toEqual([CKR.ok]) // the pool opened another one
    expect(token.count('C_OpenSession') - opened).toBe(1)
    token.rules(['C_GenerateRandom drop'])
    expect(await caller.ask({ op: 'random' })).toEqual([CKR.sessionHandleInvalid])
    // The key went with the session that had made it.
    expect(await caller.ask({ op: 'sign' })).toEqual([CKR.keyHandleInvalid])
    token.rules(['C_GenerateRandom to=1 drop=all'])
    expect(await caller.ask({ op: 'random' })).toEqual([CKR.ok])
    // With the last session the login is gone too.
    expect(await caller.ask({ op: 'createKey' })).toEqual([CKR.userNotLoggedIn])
  })

  it('log the user out', async () => {
    const caller = await openCaller(token)
    token.rules(['C_GenerateRandom to=1 logout'])
    expect(await caller.ask({ op: 'random' })).toEqual([CKR.ok])
    expect(await caller.ask({ op: 'createKey' })).toEqual([CKR.userNotLoggedIn])
  })

  it('make handles stale, for good', async () => {
    const caller = await openCaller(token)
    token.rules(['C_SignInit to=1 stale'])
    expect(await caller.ask({ op: 'sign' })).toEqual([CKR.keyHandleInvalid])
    expect(await caller.ask({ op: 'sign' })).toEqual([CKR.keyHandleInvalid])
    expect(await caller.ask({ op: 'createKey' })).toEqual([CKR.ok])
  })

  it('cap the sessions of a process', async () => {
    token.rules(['C_OpenSession sessions=3'])
    const caller = await openCaller(token, 8)
    expect(caller.opened).toEqual({ sessions: 2 }) // and the anchor
    const answers = token.events().filter(({ call, pid }) => call === 'C_OpenSession' && pid === caller.pid)
    expect(answers.filter(({ rv, action }) => action === undefined && rv === CKR.sessionCount)).toHaveLength(6)
  })

  it('answer in the place of the module, or after it has done its work', async () => {
    const caller = await openCaller(token)
    token.rules(['C_GenerateKeyPair to=1 rv=CKR_DEVICE_ERROR after', 'C_GenerateKeyPair log'])
    expect(await caller.ask({ op: 'createKey' })).toEqual([CKR.deviceError])
    expect(token.hits(1)).toBe(1)
    expect(await caller.ask({ op: 'createKey' })).toEqual([CKR.ok])
    token.rules(['C_Login rv=CKR_PIN_INCORRECT'])
    const refused = await openCaller(token)
    expect(refused.opened).toEqual({ call: 'C_Login', rv: CKR.pinIncorrect })
    const logins = token.events().filter(({ call, pid }) => call === 'C_Login' && pid === refused.pid)
    expect(logins.map(({ action, rv }) => [action, rv])).toEqual([
      ['rv', CKR.pinIncorrect],
      [undefined, CKR.pinIncorrect],
    ])
  })

  it('cut outputs short and falsify them', async () => {
    const caller = await openCaller(token)
    expect(await caller.ask({ op: 'signVerify' })).toEqual([CKR.ok])
    token.rules(['C_Sign short=4'])
    expect(await caller.ask({ op: 'signVerify' })).toEqual([CKR.signatureLenRange])
    token.rules(['C_Sign flip'])
    expect(await caller.ask({ op: 'signVerify' })).toEqual([CKR.signatureInvalid])
  })
})

describe('a file of rules with a mistake', () => {
  it.each([
    ['a function that is not there', 'C_Sing crash'],
    ['no action', 'C_Sign to=1'],
    ['two actions', 'C_Sign crash hang'],
    ['an unknown word', 'C_Sign sometimes crash'],
    ['an unknown return value', 'C_Sign rv=CKR_NO_SUCH'],
    ['a value that is no number', 'C_Sign from=x crash'],
  ])('is refused as a whole: %s', async (_what, line) => {
    await using own = await createShimmedToken()
    const caller = await openCaller(own)
    own.rules(['C_Sign rv=0x30 after'])
    expect(await caller.ask({ op: 'sign' })).toEqual([CKR.deviceError])
    own.rules(['C_Sign rv=0x31 after', line])
    expect(await caller.ask({ op: 'sign' })).toEqual([CKR.deviceError])
    expect(() => own.events()).toThrow(/rules stay as they were: line 2: /)
    await caller.kill()
  })
})

describe('under threads', () => {
  it('has no data race while rules change', { timeout: 300_000 }, () => {
    const made = spawnSync('make', ['--silent', '--directory=native', 'shim-tsan'], { encoding: 'utf8' })
    expect(made.stderr).toBe('')
    expect(made.stdout).toBe('2400 rounds\n')
    expect(made.status).toBe(0)
  })
})
