/** What the gateway side does about workers that crash, hang, fail and refuse the PIN; the workers are test/support/fault-worker.ts. */
import { existsSync, mkdtempSync, readFileSync, rmSync, utimesSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterEach, describe, expect, it } from 'vitest'
import { deadlineIn } from '../../src/call.ts'
import { GatewayError } from '../../src/error.ts'
import type { HsmEvents } from '../../src/hsm/events.ts'
import { probeVersion } from '../../src/hsm/frames.ts'
import { openHsm, type SupervisedHsm } from '../../src/hsm/hsm.ts'
import type { GenerateIntent, HsmKey } from '../../src/hsm/port.ts'
import type { FaultOrder } from '../support/fault-worker.ts'

const command = [process.execPath, fileURLToPath(new URL('../support/fault-worker.ts', import.meta.url))]
const id = (n: number) => Buffer.alloc(16, n)
const keyOf = (n: number): HsmKey => ({
  group: 'g',
  purpose: 'kms',
  spec: 'ECC_NIST_P256',
  construction: 'none',
  objectId: id(n),
})
const key = keyOf(1)
const intent: GenerateIntent = {
  group: 'g',
  spec: 'ECC_NIST_P256',
  usage: 'SIGN_VERIFY',
  purpose: 'kms',
  objectId: id(9),
  keyId: 'k',
  number: 1,
  residence: 'token',
}

interface Bench extends AsyncDisposable {
  readonly folder: string
  readonly events: { readonly name: string; readonly args: readonly unknown[] }[]
  hsm: SupervisedHsm
  sign(order: FaultOrder, timeoutMs?: number, which?: HsmKey): Promise<string>
  reopen(): Promise<void>
  journal(word: string): string[]
  write(file: 'pin' | 'module', content: string): void
  /** Resolves when the event has come (again) `count` times in all. */
  seen(name: keyof HsmEvents, count?: number): Promise<void>
  pids(role: 'serve' | 'manage'): number[]
}

const open: Bench[] = []
afterEach(async () => {
  for (const bench of open.splice(0)) await bench[Symbol.asyncDispose]()
})

async function openBench(
  options: { workers?: number; sessions?: number; pin?: string; module?: string } = {},
): Promise<Bench> {
  const { workers = 2, sessions = 4, pin = 'right', module = 'good' } = options
  const folder = mkdtempSync(path.join(os.tmpdir(), 'hsmgate-faults-'))
  const file = (name: string) => path.join(folder, name)
  writeFileSync(file('pin'), pin)
  writeFileSync(file('module'), module)
  writeFileSync(file('journal'), '')
  const events: Bench['events'] = []
  const waiters: (() => void)[] = []
  const observe = new Proxy({} as HsmEvents, {
    get:
      (_, name: string) =>
      (...args: unknown[]) => {
        events.push({ name, args })
        for (const wake of waiters.splice(0)) wake()
      },
    ownKeys: () => [],
  })
  const names: (keyof HsmEvents)[] = [
    'workerStarted',
    'workerReady',
    'workerDied',
    'workerReplaced',
    'workerLog',
    'pinRefused',
    'tokenTrouble',
    'capabilitiesKnown',
    'callRetried',
    'ckr',
    'quarantined',
    'breaker',
  ]
  const observers = Object.fromEntries(names.map((name) => [name, observe[name]]))
  const start = () =>
    openHsm({
      tokens: [
        {
          name: 't',
          module: file('module'),
          label: 'label',
          pinFile: file('pin'),
          profile: 'generic',
          env: { FAULT_FOLDER: folder },
          workers,
          sessions,
        },
      ],
      groups: [{ name: 'g', tokens: ['t'] }],
      stateDirectory: file('state'),
      observe: observers,
      workerCommand: command,
    })
  const bench: Bench = {
    folder,
    events,
    hsm: await start(),
    sign: async (order, timeoutMs = 5000, which = key) =>
      (await bench.hsm.sign(which, 'ECDSA', Buffer.from(JSON.stringify(order)), deadlineIn(timeoutMs))).toString(),
    async reopen() {
      await bench.hsm[Symbol.asyncDispose]()
      bench.hsm = await start()
    },
    journal: (word) =>
      readFileSync(file('journal'), 'utf8')
        .split('\n')
        .filter((line) => line.startsWith(`${word} `)),
    write: (name, content) => writeFileSync(file(name), content),
    async seen(name, count = 1) {
      while (events.filter((event) => event.name === name).length < count) {
        await new Promise<void>((resolve) => waiters.push(resolve))
      }
    },
    pids: (role) =>
      bench.hsm
        .groups()[0]!
        .workers.filter((worker) => worker.role === role && worker.state === 'ready')
        .map(({ pid }) => pid!),
    async [Symbol.asyncDispose]() {
      await bench.hsm[Symbol.asyncDispose]()
      rmSync(folder, { recursive: true, force: true })
    },
  }
  open.push(bench)
  return bench
}

const codeOf = (promise: Promise<unknown>): Promise<string> =>
  promise.then(
    () => 'ok',
    (error) => {
      expect(error).toBeInstanceOf(GatewayError)
      return (error as GatewayError).code
    },
  )

describe('start', () => {
  it('logs in manage first, the serve workers after it, and probes once for all restarts', async () => {
    const bench = await openBench()
    await bench.seen('workerReady', 3)
    expect(bench.journal('login')).toEqual(['login manage right', 'login serve right', 'login serve right'])
    expect(bench.hsm.groups()[0]).toMatchObject({
      ready: true,
      tokens: [{ name: 't', serial: '0001', pinRefused: false }],
    })
    expect(bench.hsm.capabilities('g').probe).toBe(probeVersion)
    await bench.reopen()
    expect(bench.hsm.groups()[0]!.ready).toBe(true)
    expect(bench.journal('probe')).toHaveLength(1)
  })

  it('drains its workers when it is closed', async () => {
    const bench = await openBench()
    await bench.seen('workerReady', 3)
    await bench.hsm[Symbol.asyncDispose]()
    expect(bench.journal('drain')).toHaveLength(3)
    await expect(codeOf(bench.sign({ do: 'answer' }))).resolves.toBe('KeyUnavailable')
  })

  it('reports a missing module and serves when it appears', async () => {
    const bench = await openBench()
    await bench.hsm[Symbol.asyncDispose]()
    const module = path.join(bench.folder, 'module')
    rmSync(module)
    await bench.reopen()
    const [group] = bench.hsm.groups()
    expect(group).toMatchObject({ ready: false })
    expect(group!.tokens[0]!.trouble).toContain(`${module} does not exist: install it or correct tokens.t.module`)
    // At once: a call that waited for its deadline would outlive the test.
    expect(await codeOf(bench.sign({ do: 'answer' }, 60_000))).toBe('KeyUnavailable')
    const ready = bench.events.filter(({ name }) => name === 'workerReady').length
    bench.write('module', 'good')
    await bench.seen('workerReady', ready + 2)
    expect(await codeOf(bench.sign({ do: 'answer' }))).toBe('ok')
    await bench.seen('workerReady', ready + 3)
    expect(bench.hsm.groups()[0]!.tokens[0]!.trouble).toBeUndefined()
  })

  it('reports a module that fails and one that crashes, with cause and remedy', async () => {
    const bench = await openBench({ module: 'broken' })
    expect(bench.hsm.groups()[0]!.tokens[0]!.trouble).toContain('CKR_DEVICE_ERROR: check tokens.t in the configuration')
    bench.write('module', 'fatal')
    await bench.reopen()
    expect(bench.hsm.groups()[0]!.tokens[0]!.trouble).toContain('SIGSEGV')
  })

  it('hands on what a worker writes to its standard error', async () => {
    const bench = await openBench()
    await bench.seen('workerLog')
    expect(bench.events.find(({ name }) => name === 'workerLog')!.args[1]).toBe('configured manage')
  })

  it('refuses a configuration whose groups and tokens do not fit together', async () => {
    const token = { name: 't', module: '/m', label: 'l', pinFile: '/p', profile: 'generic', workers: 1, sessions: 1 }
    const opening = (groups: { name: string; tokens: string[] }[]) =>
      openHsm({ tokens: [token], groups, stateDirectory: '/nowhere' })
    await expect(opening([])).rejects.toThrow('belongs to no group')
    await expect(opening([{ name: 'g', tokens: ['t', 'u'] }])).rejects.toThrow('token u is not configured')
  })
})

describe('a refused PIN', () => {
  it('is tried exactly once, also by replacements and restarts, until its file changes', async () => {
    const bench = await openBench({ pin: 'wrong-4711' })
    const [group] = bench.hsm.groups()
    expect(group!.tokens[0]).toMatchObject({ pinRefused: true })
    expect(group!.tokens[0]!.trouble).toContain('run hsmgate token retry-login t')
    expect(group!.tokens[0]!.trouble).toContain('CKR_PIN_INCORRECT')
    expect(JSON.stringify(bench.events)).not.toContain('4711')
    bench.hsm.replaceWorkers('test')
    await bench.reopen()
    await bench.reopen()
    expect(bench.hsm.groups()[0]!.tokens[0]).toMatchObject({ pinRefused: true })
    expect(bench.journal('login')).toEqual(['login manage wrong-4711'])
    const ready = bench.events.filter(({ name }) => name === 'workerReady').length
    bench.write('pin', 'right')
    await bench.seen('workerReady', ready + 3)
    expect(await codeOf(bench.sign({ do: 'answer' }))).toBe('ok')
    expect(bench.hsm.groups()[0]!.tokens[0]).toMatchObject({ pinRefused: false, trouble: undefined })
    expect(JSON.parse(readFileSync(path.join(bench.folder, 'state', 'pin-refused.json'), 'utf8')).refusals).toEqual([])
  })

  it('is tried once more on retryLogin', async () => {
    const bench = await openBench({ pin: 'wrong-4711' })
    await expect(bench.hsm.retryLogin('t')).rejects.toMatchObject({ code: 'KeyUnavailable' })
    expect(bench.journal('login')).toEqual(['login manage wrong-4711', 'login manage wrong-4711'])
    await expect(bench.hsm.retryLogin('nobody')).rejects.toMatchObject({ code: 'NotFound' })
  })

  it('leaves the workers that are logged in to serve', async () => {
    const bench = await openBench()
    await bench.seen('workerReady', 3)
    bench.write('pin', 'wrong-4711')
    await bench.seen('pinRefused')
    expect(bench.hsm.groups()[0]!).toMatchObject({ ready: true, tokens: [{ pinRefused: true }] })
    expect(await codeOf(bench.sign({ do: 'answer' }))).toBe('ok')
    expect(bench.journal('login').filter((line) => line.endsWith('wrong-4711'))).toHaveLength(1)
  })

  it('is latched before anything else happens, with no trace of the PIN', async () => {
    const bench = await openBench({ pin: 'wrong-4711' })
    const text = readFileSync(path.join(bench.folder, 'state', 'pin-refused.json'), 'utf8')
    expect(JSON.parse(text)).toMatchObject({
      refusals: [{ token: 'label:label', user: '', rv: 0xa0, pins: [{ bytes: 10 }, {}] }],
    })
    expect(text).not.toContain('4711')
  })
})

describe('a worker that dies', () => {
  it('costs no call: those in flight are sent once more elsewhere', async () => {
    const bench = await openBench()
    await bench.seen('workerReady', 3)
    const calls = Array.from({ length: 60 }, (_, i) => bench.sign({ do: 'slow', ms: 20, tag: `c${i}` }))
    for (const pid of bench.pids('serve').slice(0, 1)) process.kill(pid, 'SIGKILL')
    expect(await Promise.all(calls)).toHaveLength(60)
    expect(bench.events.some(({ name, args }) => name === 'callRetried' && args[2] === 'worker-died')).toBe(true)
    await bench.seen('workerReady', 4)
    expect(bench.hsm.groups()[0]!.workers.filter(({ state }) => state === 'ready')).toHaveLength(3)
    expect(bench.events.some(({ name }) => name === 'quarantined')).toBe(false)
  })

  it('is replaced when it is the only one, and the calls wait for the new one', async () => {
    const bench = await openBench({ workers: 1 })
    const [pid] = bench.pids('serve')
    const calls = Array.from({ length: 20 }, () => bench.sign({ do: 'slow', ms: 5 }))
    process.kill(pid!, 'SIGKILL')
    expect(new Set(await Promise.all(calls))).toEqual(new Set(bench.pids('serve').map(String)))
  })

  it('of a poison message takes at most one other with it, and the innocent travel on', async () => {
    const bench = await openBench()
    await bench.seen('workerReady', 3)
    const innocent = Array.from({ length: 12 }, (_, i) => bench.sign({ do: 'slow', ms: 10 }, 5000, keyOf(i + 10)))
    const poison = bench.sign({ do: 'crash', tag: 'poison' })
    expect(await codeOf(poison)).toBe('Quarantined')
    expect(await Promise.all(innocent.map(codeOf))).toEqual(innocent.map(() => 'ok'))
    expect(await codeOf(bench.sign({ do: 'crash', tag: 'poison' }))).toBe('Quarantined')
    expect(bench.journal('call').filter((line) => line.includes('poison'))).toHaveLength(2)
    expect(await codeOf(bench.sign({ do: 'answer' }, 5000, keyOf(2)))).toBe('ok')
  })

  it('leaves the outcome of a token object unknown, and no second one is made', async () => {
    const bench = await openBench()
    const order: FaultOrder = { do: 'crash', once: 'generate', tag: 'generate' }
    const making = bench.hsm.generate({ ...intent, keyId: JSON.stringify(order) }, deadlineIn(5000))
    await expect(making).rejects.toMatchObject({
      code: 'HsmFailure',
      detail: expect.stringContaining('outcome unknown'),
    })
    expect(bench.journal('call')).toHaveLength(1)
    expect(await codeOf(bench.hsm.generate(intent, deadlineIn(5000)))).toBe('ok')
  })

  it('takes its session objects with it', async () => {
    const bench = await openBench()
    await bench.seen('workerReady', 3)
    const { key: session } = await bench.hsm.generate({ ...intent, residence: 'session' }, deadlineIn(5000))
    const worker = bench.hsm.groups()[0]!.workers.find((state) => state.id === session.session!.worker)!
    expect(await bench.sign({ do: 'answer' }, 5000, session)).toBe(String(worker.pid))
    const call = codeOf(bench.sign({ do: 'crash' }, 5000, session))
    expect(await call).toBe('KeyUnavailable')
    expect(await codeOf(bench.sign({ do: 'answer' }, 5000, session))).toBe('KeyUnavailable')
  })

  it('is dropped when it breaks the frame protocol', async () => {
    const bench = await openBench()
    await bench.seen('workerReady', 3)
    expect(await codeOf(bench.sign({ do: 'garbage', once: 'garbage' }))).toBe('ok')
    await bench.seen('workerDied')
    expect(bench.events.find(({ name }) => name === 'workerDied')!.args[1]).toContain('broke the frame protocol')
  })
})

describe('a worker that hangs', () => {
  it('is passed by a second attempt within the deadline, then killed', async () => {
    const bench = await openBench()
    await bench.seen('workerReady', 3)
    expect(await codeOf(bench.sign({ do: 'hang', once: 'hang' }, 500))).toBe('ok')
    await bench.seen('workerDied')
    expect(bench.events.find(({ name }) => name === 'workerDied')!.args[1]).toContain('no answer to sign')
    await bench.seen('workerReady', 4)
  })

  it('costs at most two workers when the message is the reason', async () => {
    const bench = await openBench()
    await bench.seen('workerReady', 3)
    expect(await codeOf(bench.sign({ do: 'hang', tag: 'poison' }, 300))).toBe('DeadlineExceeded')
    await bench.seen('quarantined')
    expect(await codeOf(bench.sign({ do: 'hang', tag: 'poison' }, 300))).toBe('Quarantined')
    expect(bench.journal('call')).toHaveLength(2)
  })
})

describe('a failure', () => {
  const failing = (action: string, extra: Partial<FaultOrder> = {}) => ({ do: 'fail', action, ...extra }) as FaultOrder

  it('of the caller reaches the caller at once', async () => {
    const bench = await openBench()
    expect(await codeOf(bench.sign(failing('A', { code: 'ValidationFailed' })))).toBe('ValidationFailed')
    expect(await codeOf(bench.sign(failing('B', { code: 'HsmFailure' })))).toBe('HsmFailure')
    expect(bench.journal('call')).toHaveLength(2)
  })

  it('of a session (S) is tried once elsewhere', async () => {
    const bench = await openBench()
    await bench.seen('workerReady', 3)
    expect(await codeOf(bench.sign(failing('S', { once: 's' })))).toBe('ok')
    expect(await codeOf(bench.sign(failing('S', { rv: 5 })))).toBe('HsmFailure')
    const pids = bench.journal('call').map((line) => line.split(' ')[1])
    expect(pids).toHaveLength(4)
    expect(pids[0]).not.toBe(pids[1])
    expect(pids[2]).not.toBe(pids[3])
    expect(bench.events.filter(({ name }) => name === 'ckr').map(({ args }) => args)).toEqual([
      ['t', 'CKR_GENERAL_ERROR', 'C_Sign', 'S'],
      ['t', 'CKR_GENERAL_ERROR', 'C_Sign', 'S'],
    ])
  })

  it('of throttling (T) is tried again after a pause, five times at most', async () => {
    const bench = await openBench()
    expect(await codeOf(bench.sign(failing('T', { once: 't' })))).toBe('ok')
    expect(await codeOf(bench.sign(failing('T', { code: 'HsmBusy' })))).toBe('HsmBusy')
    expect(bench.journal('call')).toHaveLength(8)
  })

  it.each(['L', 'I'])(
    'that asks for a new login or module (%s) replaces the worker and costs no call',
    async (action) => {
      const bench = await openBench()
      await bench.seen('workerReady', 3)
      expect(await codeOf(bench.sign(failing(action, { once: 'l' })))).toBe('ok')
      await bench.seen('workerReady', 4)
      await bench.seen('workerDied')
      expect(bench.events.find(({ name }) => name === 'workerDied')!.args[2]).toBe(true)
    },
  )

  it('of the token (D) opens the breaker, and the call is tried when it closes', async () => {
    const bench = await openBench()
    expect(await codeOf(bench.sign(failing('D', { once: 'd' })))).toBe('ok')
    expect(bench.events.filter(({ name }) => name === 'breaker').map(({ args }) => args[1])).toEqual(['open', 'closed'])
  })

  it('of the token (D) is told at once to those who cannot wait for the breaker', async () => {
    const bench = await openBench()
    expect(await codeOf(bench.sign(failing('D', { code: 'KeyUnavailable', once: 'd' }), 200))).toBe('KeyUnavailable')
    expect(await codeOf(bench.sign({ do: 'answer' }, 200))).toBe('KeyUnavailable')
    expect(await codeOf(bench.sign({ do: 'answer' }, 5000))).toBe('ok')
    expect(bench.journal('call')).toHaveLength(2)
  })

  it('of the operator (O) is never tried again', async () => {
    const bench = await openBench()
    expect(await codeOf(bench.sign(failing('O', { code: 'KeyUnavailable' })))).toBe('KeyUnavailable')
    expect(bench.journal('call')).toHaveLength(1)
  })
})

describe('a group of two tokens', () => {
  it('serves from one when the other is in trouble', async () => {
    const bench = await openBench()
    const { folder } = bench
    const file = (name: string) => path.join(folder, name)
    writeFileSync(file('pin-b'), 'wrong')
    const token = (name: string, pin: string) => ({
      name,
      module: file('module'),
      serial: name,
      pinFile: file(pin),
      profile: 'generic',
      env: { FAULT_FOLDER: folder },
      workers: 1,
      sessions: 2,
    })
    await using hsm = await openHsm({
      tokens: [token('a', 'pin'), token('b', 'pin-b')],
      groups: [{ name: 'g', tokens: ['a', 'b'] }],
      stateDirectory: file('state-two'),
      workerCommand: command,
    })
    expect(hsm.groups()[0]).toMatchObject({ ready: true, tokens: [{ pinRefused: false }, { pinRefused: true }] })
    const sign = () => hsm.sign(key, 'ECDSA', Buffer.from('{}'), deadlineIn(5000)).then(String)
    const alone = hsm.groups()[0]!.workers.find(({ role, state }) => role === 'serve' && state === 'ready')!
    expect(new Set(await Promise.all(Array.from({ length: 10 }, sign)))).toEqual(new Set([String(alone.pid)]))
    writeFileSync(file('pin-b'), 'right')
    while (hsm.groups()[0]!.workers.filter(({ role, state }) => role === 'serve' && state === 'ready').length < 2)
      await sign()
    expect(new Set(await Promise.all(Array.from({ length: 10 }, sign))).size).toBe(2)
  })
})

describe('replacement', () => {
  it('moves traffic to warm workers and drains the old ones without failing a call', async () => {
    const bench = await openBench()
    await bench.seen('workerReady', 3)
    let running = true
    const codes: string[] = []
    const stream = async () => {
      while (running) codes.push(await codeOf(bench.sign({ do: 'slow', ms: 2 })))
    }
    const streams = [stream(), stream(), stream(), stream()]
    bench.hsm.replaceWorkers('test')
    await bench.seen('workerDied', 3)
    running = false
    await Promise.all(streams)
    expect(new Set(codes)).toEqual(new Set(['ok']))
    expect(bench.journal('login')).toHaveLength(6)
  })

  it('follows a change of the module file', async () => {
    const bench = await openBench()
    await bench.seen('workerReady', 3)
    utimesSync(path.join(bench.folder, 'module'), new Date(), new Date())
    await bench.seen('workerReady', 6)
    await expect.poll(() => bench.journal('probe')).toHaveLength(2)
  })
})

describe('destroy', () => {
  it('makes every worker forget the object before it goes', async () => {
    const bench = await openBench()
    await bench.seen('workerReady', 3)
    await bench.hsm.destroy(key, deadlineIn(5000))
    const lines = readFileSync(path.join(bench.folder, 'journal'), 'utf8')
      .split('\n')
      .filter((line) => /^(forget|destroy) /.test(line))
    expect(lines.slice(0, 3).sort()).toEqual(['forget manage', 'forget serve', 'forget serve'])
    expect(lines.slice(3)).toEqual(['destroy manage'])
  })
})

describe('overload', () => {
  it('refuses at once what cannot be met in time, and never sends it', async () => {
    const bench = await openBench({ workers: 1, sessions: 1 })
    await Promise.all([
      bench.sign({ do: 'slow', ms: 50 }),
      bench.sign({ do: 'slow', ms: 50 }),
      bench.sign({ do: 'slow', ms: 50 }),
    ])
    const codes = await Promise.all(Array.from({ length: 300 }, () => codeOf(bench.sign({ do: 'slow', ms: 50 }, 400))))
    expect(codes.filter((code) => code === 'ok').length).toBeGreaterThan(2)
    expect(codes.filter((code) => code === 'HsmBusy').length).toBeGreaterThan(10)
    expect(new Set(codes)).not.toContain('Quarantined')
    expect(bench.journal('call').length).toBeLessThan(150)
  })
})

describe('state', () => {
  it('leaves nothing but its two files', async () => {
    const bench = await openBench()
    expect(existsSync(path.join(bench.folder, 'state', 'capabilities.json'))).toBe(true)
    expect(existsSync(path.join(bench.folder, 'state', 'capabilities.json.new'))).toBe(false)
  })
})
