/**
 * A module that crashes, hangs, drops sessions, forgets the login and throttles, under load: real workers on SoftHSM2 behind the shim.
 * The clients' deadlines are those of the doors; none of them may see a failure while another worker can serve.
 */
import { createHash, createPublicKey, randomBytes, randomUUID, verify } from 'node:crypto'
import { copyFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest'
import { deadlineIn } from '../../src/call.ts'
import { GatewayError } from '../../src/error.ts'
import type { HsmEvents } from '../../src/hsm/events.ts'
import { openHsm, type SupervisedHsm } from '../../src/hsm/hsm.ts'
import type { GeneratedKey, GenerateIntent, KeySpec, KeyUsage } from '../../src/hsm/port.ts'
import { createShimmedToken, type ShimmedToken } from '../support/shim.ts'

const kmsDeadlineMs = 5000
// Some cases wait for processes that start after a back-off.
vi.setConfig({ testTimeout: 90_000, hookTimeout: 90_000 })
const inTime = () => deadlineIn(20_000)
const pinIncorrect = 0xa0

interface Bench extends AsyncDisposable {
  readonly token: ShimmedToken
  readonly pinFile: string
  readonly signing: GeneratedKey
  readonly sealing: GeneratedKey
  /** Workers that served, then ended and were not meant to. */
  readonly deaths: string[]
  readonly retries: string[]
  readonly quarantined: string[]
  hsm: SupervisedHsm
  reopen(): Promise<void>
  /** No rules, two warm workers, nothing counted. */
  reset(renews: boolean): Promise<void>
  serving(): number
  pids(role?: 'serve' | 'manage'): number[]
}

/** One for all cases of a `describe`; with `renews` each case starts with workers that nothing has happened to. */
function shareBench({ renews = false } = {}): () => Bench {
  let bench: Bench | undefined
  beforeAll(async () => {
    bench = await openBench()
  })
  afterEach(() => bench?.reset(renews))
  afterAll(() => bench?.[Symbol.asyncDispose]())
  return () => bench!
}

async function openBench({ sessions = 2 }: { readonly sessions?: number } = {}): Promise<Bench> {
  const token = await createShimmedToken()
  const pinFile = path.join(token.directory, 'pin')
  copyFileSync(token.pinFile, pinFile)
  const ready = new Set<string>()
  const deaths: string[] = []
  const retries: string[] = []
  const quarantined: string[] = []
  const observe: Partial<HsmEvents> = {
    workerReady: ({ id }) => void ready.add(id),
    workerDied({ id, role }, reason, expected) {
      if (!expected && ready.has(id)) deaths.push(`${role} ${reason}`)
    },
    callRetried: (_group, operation, reason) => void retries.push(`${operation} ${reason}`),
    quarantined: (_group, operation) => void quarantined.push(operation),
  }
  const start = () =>
    openHsm({
      tokens: [
        {
          name: 't',
          module: token.module,
          label: token.label,
          pinFile,
          profile: 'softhsm',
          env: token.env,
          workers: 2,
          sessions,
        },
      ],
      groups: [{ name: 'g', tokens: ['t'] }],
      stateDirectory: path.join(token.directory, 'state'),
      observe,
    })
  await using opening = new AsyncDisposableStack()
  opening.use(token)
  const hsm = opening.use(await start())
  const bench: Bench = {
    token,
    pinFile,
    signing: await hsm.generate(intentOf('ECC_NIST_P256', 'SIGN_VERIFY'), inTime()),
    sealing: await hsm.generate(intentOf('SYMMETRIC_DEFAULT', 'ENCRYPT_DECRYPT'), inTime()),
    deaths,
    retries,
    quarantined,
    hsm,
    async reopen() {
      await bench.hsm[Symbol.asyncDispose]()
      bench.hsm = await start()
    },
    async reset(renews) {
      token.clear()
      if (renews) {
        const before = bench.pids()
        bench.hsm.replaceWorkers('the next case')
        await until(() => bench.pids().every((pid) => !before.includes(pid)))
      }
      await until(() => bench.serving() === 2)
      for (const list of [deaths, retries, quarantined]) list.length = 0
    },
    serving: () =>
      bench.hsm.groups()[0]!.workers.filter(({ role, state }) => role === 'serve' && state === 'ready').length,
    pids: (of) =>
      bench.hsm
        .groups()[0]!
        .workers.filter(({ role }) => of === undefined || role === of)
        .map(({ pid }) => pid!),
    async [Symbol.asyncDispose]() {
      token.clear()
      await bench.hsm[Symbol.asyncDispose]()
      await token[Symbol.asyncDispose]()
    },
  }
  await until(() => bench.serving() === 2)
  opening.move()
  return bench
}

function intentOf(spec: KeySpec, usage: KeyUsage): GenerateIntent {
  const objectId = Buffer.from(randomUUID().replaceAll('-', ''), 'hex')
  return { group: 'g', spec, usage, purpose: 'kms', objectId, keyId: randomUUID(), number: 1, residence: 'token' }
}

const digestOf = (message: Buffer) => createHash('sha256').update(message).digest()

function isValid(publicKey: Uint8Array, message: Buffer, signature: Buffer): boolean {
  const key = createPublicKey({ key: Buffer.from(publicKey), format: 'der', type: 'spki' })
  return verify('sha256', message, { key, dsaEncoding: 'ieee-p1363' }, signature)
}

async function until(condition: () => boolean): Promise<void> {
  await vi.waitUntil(condition, { timeout: 60_000, interval: 10 })
}

interface Load {
  readonly failures: string[]
  done(): number
  /** Resolves when so many more calls are done. */
  more(calls: number): Promise<void>
  stop(): Promise<void>
}

/** Eight clients, one call each at a time: half sign, half seal and open. Every answer is checked. */
function startLoad({ hsm, signing, sealing }: Bench, timeoutMs = kmsDeadlineMs): Load {
  const message = randomBytes(100)
  const failures: string[] = []
  let running = true
  let done = 0

  async function signOnce(): Promise<void> {
    const signature = await hsm.sign(signing.key, 'ECDSA', digestOf(message), deadlineIn(timeoutMs))
    if (!isValid(signing.publicKey!, message, signature)) failures.push('a signature that does not hold')
  }
  async function sealOnce(): Promise<void> {
    const data = Buffer.from('plain')
    const sealed = await hsm.encrypt(sealing.key, 'SEAL', { data }, deadlineIn(timeoutMs))
    const plain = await hsm.decrypt(sealing.key, 'SEAL', { data: sealed }, deadlineIn(timeoutMs))
    if (plain.toString() !== 'plain') failures.push('a plaintext that is another')
  }
  const clients = Array.from({ length: 8 }, async (_, i) => {
    while (running) {
      try {
        await (i % 2 === 0 ? signOnce() : sealOnce())
      } catch (error) {
        failures.push(error instanceof GatewayError ? `${error.code}: ${error.detail}` : String(error))
        await new Promise((resolve) => setTimeout(resolve, 10))
      }
      done++
    }
  })
  return {
    failures,
    done: () => done,
    async more(calls) {
      const enough = done + calls
      await until(() => done >= enough)
    },
    async stop() {
      running = false
      await Promise.all(clients)
    },
  }
}

/** Lets the rules loose in the middle of a load, and stops when the fault has come, is over and two workers serve again. */
async function underLoad(
  bench: Bench,
  rules: readonly string[],
  isOver: () => boolean,
  timeoutMs?: number,
): Promise<readonly string[]> {
  const load = startLoad(bench, timeoutMs)
  await load.more(50)
  bench.token.rules(rules)
  await until(() => rules.every((_, rule) => bench.token.hits(rule) > 0))
  await until(isOver)
  await load.more(100)
  bench.token.clear()
  await until(() => bench.serving() === 2)
  await load.more(50)
  await load.stop()
  return load.failures
}

describe('a crash in the module', () => {
  const benchOf = shareBench()

  it.each(['C_Sign', 'C_SignInit', 'C_Encrypt', 'C_Decrypt'])(
    'in %s fails no call while another worker serves',
    async (call) => {
      const bench = benchOf()
      const failures = await underLoad(bench, [`${call} to=1 scope=all crash`], () => bench.deaths.length === 1)
      expect(failures).toEqual([])
      expect(bench.deaths).toEqual(['serve ended by SIGSEGV'])
      expect(bench.quarantined).toEqual([])
    },
  )

  it('in the manage worker disturbs no one who uses keys', async () => {
    const bench = benchOf()
    const load = startLoad(bench)
    bench.token.rules([`C_GenerateKeyPair in=${bench.pids('manage')[0]} crash`])
    const made = bench.hsm.generate(intentOf('ECC_NIST_P256', 'SIGN_VERIFY'), inTime())
    await expect(made).rejects.toMatchObject({ code: 'HsmFailure' }) // whether it was made is unknown
    const next = await bench.hsm.generate(intentOf('ECC_NIST_P256', 'SIGN_VERIFY'), inTime())
    expect(next.publicKey).not.toBeNull()
    await load.stop()
    expect(load.failures).toEqual([])
  })
})

describe('a hang in the module', () => {
  const benchOf = shareBench({ renews: true })

  it('of one session fails no call and costs its worker', async () => {
    const bench = benchOf()
    const failures = await underLoad(bench, ['C_Sign to=1 scope=all hang'], () => bench.deaths.length === 1)
    expect(failures).toEqual([])
    expect(bench.deaths).toEqual([expect.stringMatching(/^serve no answer to sign within \d+ ms$/)])
  })

  it('of all sessions of a worker fails no call', async () => {
    const bench = benchOf()
    const failures = await underLoad(bench, ['C_Sign in=one hang'], () => bench.deaths.length === 1)
    expect(failures).toEqual([])
    expect(bench.deaths).toHaveLength(1)
    expect(bench.quarantined).toEqual([])
  })

  it('of every function of a worker fails no call, even of clients in a hurry', async () => {
    const bench = benchOf()
    const failures = await underLoad(
      bench,
      ['C_Sign,C_SignInit,C_EncryptInit,C_DecryptInit in=one hang'],
      () => bench.deaths.length === 1,
      2500,
    )
    expect(failures).toEqual([])
    expect(bench.deaths).toHaveLength(1)
  })
})

describe('lost state of the module', () => {
  const benchOf = shareBench({ renews: true })

  it.each([
    ['sessions closed beneath their users', ['C_Sign from=3 to=30 every=3 drop', 'C_Encrypt to=30 every=3 drop']],
    ['all sessions of a worker closed, and its login with them', ['C_SignInit to=1 scope=all drop=all']],
    ['a login lost before a signature', ['C_SignInit to=1 scope=all logout']],
    ['a login lost before a derivation or an encryption', ['C_EncryptInit to=1 scope=all logout']],
    ['handles that are all invalid', ['C_SignInit to=1 scope=all stale', 'C_DecryptInit to=1 scope=all stale']],
  ])('fails no call: %s', async (_what, rules) => {
    const bench = benchOf()
    expect(await underLoad(bench, rules, () => true)).toEqual([])
    expect(bench.quarantined).toEqual([])
  })

  it('fails no call: sessions that cannot be opened again', async () => {
    const bench = benchOf()
    const rules = ['C_Sign to=1 scope=all drop=all', 'C_OpenSession in=one to=20 rv=CKR_SESSION_COUNT']
    expect(await underLoad(bench, rules, () => true)).toEqual([])
  })

  it('fails no call when all workers lose their login at once', async () => {
    const bench = benchOf()
    const before = bench.pids('serve')
    const load = startLoad(bench, 15_000)
    await load.more(20)
    bench.token.rules(before.map((pid) => `C_SignInit in=${pid} to=1 logout`))
    await until(() => before.every((_, rule) => bench.token.hits(rule) > 0))
    await until(() => bench.pids('serve').every((pid) => !before.includes(pid)))
    await load.more(50)
    await load.stop()
    expect(load.failures).toEqual([])
  })

  it('leaves a worker with the sessions that the token has', async () => {
    await using bench = await openBench({ sessions: 4 })
    bench.token.rules(['C_OpenSession sessions=2']) // one of them holds the login
    await bench.reopen()
    const load = startLoad(bench)
    await load.more(100)
    await load.stop()
    expect(load.failures).toEqual([])
    expect(bench.deaths).toEqual([])
  })
})

describe('return values of a module in trouble', () => {
  const benchOf = shareBench()

  it.each([
    ['CKR_DEVICE_ERROR'],
    ['CKR_GENERAL_ERROR'],
    ['CKR_FUNCTION_FAILED'],
    ['CKR_HOST_MEMORY'],
    ['CKR_DEVICE_MEMORY'],
    ['CKR_TOKEN_RESOURCE_EXCEEDED'],
    ['CKR_OPERATION_ACTIVE'],
    ['CKR_SESSION_CLOSED'],
    ['CKR_USER_NOT_LOGGED_IN'],
    ['CKR_KEY_HANDLE_INVALID'],
    ['CKR_CRYPTOKI_NOT_INITIALIZED'],
    ['0x80000123'],
  ])('%s from one worker fails no call while another serves', async (rv) => {
    const bench = benchOf()
    const failures = await underLoad(bench, [`C_Sign,C_Encrypt in=one to=40 rv=${rv} after`], () => true)
    expect(failures).toEqual([])
  })

  it('that throttle one call in five are waited out', async () => {
    const bench = benchOf()
    const failures = await underLoad(
      bench,
      ['C_Sign,C_Encrypt chance=0.2 rv=CKR_TOKEN_RESOURCE_EXCEEDED after'],
      () => bench.token.hits(0) >= 60,
    )
    expect(failures).toEqual([])
    expect(bench.retries.length).toBeGreaterThanOrEqual(60)
    expect(bench.deaths).toEqual([])
  })

  it('never let a falsified ciphertext out of encryptThenVerify', async () => {
    const { hsm, token, sealing } = benchOf()
    token.rules(['C_Encrypt to=1 scope=all flip'])
    const data = Buffer.from('plain')
    const sealed = await hsm.encryptThenVerify(sealing.key, 'SEAL', { data }, inTime())
    expect(token.hits(0)).toBe(1)
    expect((await hsm.decrypt(sealing.key, 'SEAL', { data: sealed }, inTime())).toString()).toBe('plain')
  })
})

describe('a login that is lost', () => {
  it('for signatures alone, by one worker, fails no call, even when the other one dies', async () => {
    await using bench = await openBench()
    const [forgetful, other] = bench.pids('serve')
    const load = startLoad(bench)
    await load.more(50)
    bench.token.rules([`C_Sign in=${forgetful} rv=CKR_USER_NOT_LOGGED_IN after`])
    process.kill(other!, 'SIGKILL')
    await until(() => bench.pids('serve').every((pid) => pid !== forgetful && pid !== other))
    await load.more(50)
    await load.stop()
    expect(load.failures).toEqual([])
    expect(bench.token.hits(0)).toBeGreaterThan(0)
  })
})

describe('replacement of workers', () => {
  const benchOf = shareBench()

  it('fails no call when the old ones hang at their end', async () => {
    const bench = benchOf()
    const load = startLoad(bench)
    const before = bench.pids()
    bench.token.rules(before.map((pid) => `C_Finalize in=${pid} hang`))
    bench.hsm.replaceWorkers('to see their end')
    await until(() => bench.pids().every((pid) => !before.includes(pid)))
    await load.more(50)
    await load.stop()
    expect(load.failures).toEqual([])
    expect(bench.token.hits(0)).toBe(1)
  })

  it('fails no call when the new ones start slowly, or not at once', async () => {
    const bench = benchOf()
    const load = startLoad(bench)
    const before = bench.pids()
    bench.token.rules([
      'C_Initialize delay=300',
      'C_Login to=2 scope=all rv=CKR_DEVICE_ERROR',
      'C_OpenSession to=1 scope=all rv=CKR_SESSION_COUNT',
      'C_FindObjectsInit to=1 scope=all crash',
    ])
    bench.hsm.replaceWorkers('to see their start')
    await until(() => bench.pids().every((pid) => !before.includes(pid)))
    await load.more(50)
    await load.stop()
    expect(load.failures).toEqual([])
    expect([0, 1, 2, 3].map((rule) => bench.token.hits(rule) > 0)).toEqual([true, true, true, true])
  })
})

describe('a poison message', () => {
  const poison = Buffer.alloc(32, 'poison')

  it.each(['crash', 'hang'])('that makes the module %s costs two workers at most', async (action) => {
    await using bench = await openBench()
    const { hsm, token } = bench
    const other = await hsm.generate(intentOf('ECC_NIST_P256', 'SIGN_VERIFY'), inTime())
    const load = startLoad(bench, 15_000)
    await load.more(20)
    token.rules([`C_Sign input=poisonpoison ${action}`])
    const refused = await hsm
      .sign(other.key, 'ECDSA', poison, deadlineIn(kmsDeadlineMs))
      .catch((error: GatewayError) => error.code)
    expect(refused).toBe('Quarantined')
    await until(() => bench.quarantined.length === 1)
    await expect(hsm.sign(other.key, 'ECDSA', poison, inTime())).rejects.toMatchObject({ code: 'Quarantined' })
    expect(token.hits(0)).toBe(2)
    await until(() => bench.serving() === 2)
    await load.more(50)
    await load.stop()
    expect(load.failures).toEqual([])
    expect(bench.deaths).toHaveLength(2)
  })
})

describe('a wrong PIN', () => {
  const logins = ({ token }: Bench) => token.events().filter(({ call, action }) => call === 'C_Login' && !action)
  const refusals = (bench: Bench) => logins(bench).filter(({ rv }) => rv === pinIncorrect)

  it('reaches the module exactly once, whoever starts again', async () => {
    await using bench = await openBench()
    const right = logins(bench).length
    await bench.hsm[Symbol.asyncDispose]()
    writeFileSync(bench.pinFile, 'wrong PIN')
    await bench.reopen()
    expect(bench.hsm.groups()[0]).toMatchObject({ ready: false, tokens: [{ pinRefused: true }] })
    for (let i = 0; i < 3; i++) {
      bench.hsm.replaceWorkers('once more')
      await expect(bench.hsm.random('g', 8, deadlineIn(200))).rejects.toMatchObject({ code: 'KeyUnavailable' })
      await bench.reopen()
    }
    expect(refusals(bench)).toHaveLength(1)
    expect(logins(bench)).toHaveLength(right + 1)
    copyFileSync(bench.token.pinFile, bench.pinFile)
    await until(() => bench.serving() === 2)
    expect(await bench.hsm.random('g', 8, inTime())).toHaveLength(8)
    expect(refusals(bench)).toHaveLength(1)
  })

  it('that comes while others serve reaches the module once, and they serve on', async () => {
    await using bench = await openBench()
    const load = startLoad(bench)
    writeFileSync(bench.pinFile, 'wrong PIN')
    await until(() => bench.hsm.groups()[0]!.tokens[0]!.pinRefused)
    bench.hsm.replaceWorkers('once more')
    bench.token.rules(['C_Sign to=1 scope=all crash'])
    await until(() => bench.deaths.length === 1)
    await load.more(100)
    expect(refusals(bench)).toHaveLength(1)
    expect(bench.serving()).toBe(1)
    copyFileSync(bench.token.pinFile, bench.pinFile)
    await until(() => bench.serving() === 2)
    await load.more(50)
    await load.stop()
    expect(load.failures).toEqual([])
    expect(refusals(bench)).toHaveLength(1)
  })

  it('on which the module dies reaches it twice at most, whoever starts again', async () => {
    await using bench = await openBench()
    const load = startLoad(bench)
    const before = bench.token.count('C_Login')
    writeFileSync(bench.pinFile, 'wrong PIN')
    bench.token.rules(['C_Login after crash'])
    await until(() => bench.hsm.groups()[0]!.tokens[0]!.pinRefused)
    bench.hsm.replaceWorkers('once more')
    await load.more(100)
    await load.stop()
    expect(load.failures).toEqual([])
    await bench.reopen()
    expect(bench.hsm.groups()[0]!.tokens[0]!.trouble).toContain('not tried again')
    expect(bench.token.count('C_Login') - before).toBe(2)
    bench.token.clear()
    copyFileSync(bench.token.pinFile, bench.pinFile)
    await until(() => bench.serving() === 2)
  })
})
