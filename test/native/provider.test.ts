/**
 * The provider inside an application (test/native/provider/driver.c): every kind of key from load to unload, threads, forks, paused jobs, and
 * no way out for a private key. Under sanitizers, so that leaks and races fail here too.
 */
import { writeFileSync } from 'node:fs'
import path from 'node:path'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { inputKinds } from '../../src/transport/offload/frames.ts'
import { run } from '../support/command.ts'
import { type HksEndpoint, type HksKey, startHksEndpoint } from '../support/hks-endpoint.ts'
import { buildProvider, type DriverOptions, providerModule, runDriver, stackWarning } from '../support/provider.ts'

const kinds = ['rsa', 'P-256', 'P-384', 'P-521', 'ed25519'] as const
let endpoint: HksEndpoint
const keys = new Map<string, HksKey>()
const slow = 120_000

beforeAll(async () => {
  buildProvider()
  endpoint = await startHksEndpoint()
  for (const kind of kinds) keys.set(kind, endpoint.addKey(kind))
}, 600_000)
afterAll(() => endpoint[Symbol.asyncDispose]())
beforeEach(() => {
  endpoint.requests.length = 0
  endpoint.hellos.length = 0
  endpoint.onRequest = () => 'sign'
})

const referenceOf = (kind: string) => keys.get(kind)?.reference ?? ''

async function driver(args: readonly string[], options: Partial<DriverOptions> = {}): Promise<string> {
  const { status, stdout, stderr } = await runDriver(args, { endpoints: endpoint.socketPath, ...options })
  expect(stderr.replaceAll(stackWarning, '')).toBe('')
  expect(status).toBe(0)
  return stdout.toString()
}

describe('the provider', () => {
  it('exports one symbol, needs libcrypto and libc alone, and stays mapped', async () => {
    const symbols = await run('nm', ['--dynamic', '--defined-only', providerModule])
    expect(symbols.stdout.toString().trim().split('\n')).toEqual([expect.stringMatching(/ T OSSL_provider_init$/)])
    const dynamic = (await run('readelf', ['--dynamic', '--wide', providerModule])).stdout.toString()
    expect(dynamic.match(/(?<=NEEDED.*\[).*(?=\])/g)).toEqual(['libcrypto.so.3', 'libc.so.6'])
    expect(dynamic).toMatch(/Flags: NOW NODELETE/)
  })

  describe.each(kinds)('with a key of kind %s', (kind) => {
    it('loads, matches, signs and unloads again and again without a leak', { timeout: slow }, async () => {
      await driver(['loops', referenceOf(kind), '4'], { kind: 'asan' })
      const { token } = keys.get(kind) ?? {}
      expect(endpoint.requests.length).toBeGreaterThan(0)
      for (const request of endpoint.requests) expect(request.token).toEqual(token)
    })

    it('is loaded, compared and tried out by libssl without a connection', async () => {
      const { accepted } = endpoint.connections
      await driver(['probes', referenceOf(kind)], { kind: 'asan' })
      expect(endpoint.connections.accepted).toBe(accepted)
    })

    it('lets no private key out by any way that OpenSSL has', async () => {
      await driver(['private', referenceOf(kind)], { kind: 'asan' })
      expect(endpoint.requests).toEqual([])
      expect(endpoint.hellos).toEqual([])
    })
  })

  it('sends messages whole and only those that fit into no frame as digests', async () => {
    await driver(['loops', referenceOf('P-256'), '1'])
    const sent = endpoint.requests.map(({ inputKind, input }) => [inputKind, input.length])
    expect(sent).toEqual([
      [inputKinds.message, 3],
      [inputKinds.message, 0],
      [inputKinds.message, 100],
      [inputKinds.message, 101],
      [inputKinds.digest, 48],
      [inputKinds.digest, 48],
      [inputKinds.digest, 32],
    ])
  })

  it.each(['asan', 'tsan'] as const)(
    'signs in many threads (%s) on no more connections than it may have',
    {
      timeout: slow,
    },
    async (kind) => {
      const { accepted } = endpoint.connections
      await driver(['threads', referenceOf('P-256'), '8', '25'], {
        kind,
        env: { HSMGATE_POOL: '3', HSMGATE_DEADLINE_MS: '20000' },
      })
      expect(endpoint.requests).toHaveLength(200)
      expect(endpoint.connections.accepted - accepted).toBeLessThanOrEqual(3)
    },
  )

  it.each(['plain', 'asan'] as const)('connects anew in every process after a fork (%s)', async (kind) => {
    const waiting = path.join(endpoint.folder, `waiting-${kind}`)
    const { promise: childSigned, resolve } = Promise.withResolvers<void>()
    endpoint.onRequest = (_request, at) => {
      if (at === 2) writeFileSync(waiting, '')
      if (at === 3) resolve()
      return at === 2 ? { once: childSigned } : 'sign'
    }
    await driver(['fork', referenceOf('P-256'), waiting], { kind, env: { HSMGATE_DEADLINE_MS: '20000' } })
    expect(endpoint.requests).toHaveLength(6)
    const pids = endpoint.hellos.map(({ pid }) => pid)
    expect(pids).toHaveLength(4)
    expect(new Set(pids).size).toBe(4)
    const [parent, child, thread, childAmid, childOfThread, parentAgain] = endpoint.requests.map(
      ({ connection }) => connection,
    )
    expect([thread, parentAgain]).toEqual([parent, parent])
    expect(new Set([parent, child, childAmid, childOfThread]).size).toBe(4)
  })
})

describe('the provider in jobs that pause', () => {
  const longDeadline = { HSMGATE_DEADLINE_MS: '20000' }

  /** Answers none of the first so many requests until all of them wait: proves that they are under way at once. */
  function answerTogether(count: number): void {
    const { promise, resolve } = Promise.withResolvers<void>()
    endpoint.onRequest = (_request, at) => {
      if (at === count - 1) resolve()
      return at < count ? { once: promise } : 'sign'
    }
  }

  /** The last one that they wait for, and whoever comes after it, may be answered before they pause. */
  async function jobs(args: readonly string[], env: Readonly<Record<string, string>>) {
    const said = await driver(['async', referenceOf('P-256'), ...args], { kind: 'asan', env })
    const [, paused, signed] = /^(\d+) paused, (\d+) signed\n$/.exec(said) ?? []
    return { paused: Number(paused), signed: Number(signed) }
  }

  it('has all jobs of one thread under way at once and leaves no descriptor behind', { timeout: slow }, async () => {
    answerTogether(16)
    const { paused, signed } = await jobs(['16', '0'], longDeadline)
    expect(paused).toBeGreaterThanOrEqual(15)
    expect(signed).toBe(32)
    expect(endpoint.requests).toHaveLength(32)
  })

  it('gives back what a job held that its application gave up', { timeout: slow }, async () => {
    answerTogether(12)
    const env = { ...longDeadline, HSMGATE_POOL: '12' }
    const { paused, signed } = await jobs(['16', '4'], env)
    expect(paused).toBeGreaterThanOrEqual(11)
    expect(signed).toBe(20)
  })

  it('ends a pause at the deadline', { timeout: slow }, async () => {
    endpoint.onRequest = () => 'silence'
    expect(await driver(['async', referenceOf('P-256'), '3', '0'], { env: { HSMGATE_DEADLINE_MS: '300' } })).toBe(
      '3 paused, 0 signed\n',
    )
  })

  it('blocks when it is told to', async () => {
    expect(await driver(['async', referenceOf('P-256'), '2', '0'], { env: { HSMGATE_ASYNC: 'off' } })).toBe(
      '0 paused, 4 signed\n',
    )
  })
})

describe('damaged key reference files', () => {
  it('break nothing', { timeout: slow }, async () => {
    for (const kind of ['rsa', 'ed25519']) {
      const keysLeft = Number(await driver(['fuzz', referenceOf(kind), '300', '5'], { kind: 'asan' }))
      expect(keysLeft).toBeLessThan(150)
    }
    expect(endpoint.hellos).toEqual([])
  })
})

describe('settings that are not valid', () => {
  it.each([
    ['HSMGATE_DEADLINE_MS', 'soon', 'hsmgate-deadline-ms is a number from 10 to 60000'],
    ['HSMGATE_DEADLINE_MS', '9', 'hsmgate-deadline-ms is a number from 10 to 60000'],
    ['HSMGATE_POOL', '0', 'hsmgate-pool is a number from 1 to 1024'],
    ['HSMGATE_POOL', '-1', 'hsmgate-pool is a number from 1 to 1024'],
    ['HSMGATE_ASYNC', 'perhaps', 'hsmgate-async is on or off'],
    ['HSMGATE_LOG', 'dev/log', 'hsmgate-log: a socket is an absolute path or @name'],
    ['HSMGATE_LOG', '', 'hsmgate-log: a socket is an absolute path or @name'],
    ['HSMGATE_ENDPOINTS', ' , ', 'hsmgate-endpoints is empty'],
    ['HSMGATE_ENDPOINTS', 'run/sign.sock', 'a socket is an absolute path or @name'],
    ['HSMGATE_ENDPOINTS', `/${'x'.repeat(108)}`, 'a socket is an absolute path or @name'],
    ['HSMGATE_ENDPOINTS', '/a /b /c /d /e /f /g /h /i', 'hsmgate-endpoints: at most 8'],
  ])('keep the provider from loading: %s=%s', async (name, value, reason) => {
    const { status, stderr } = await runDriver(['burst', referenceOf('P-256'), '1'], {
      kind: 'asan',
      endpoints: endpoint.socketPath,
      env: { [name]: value },
    })
    expect(status).toBe(1)
    expect(stderr).toContain(reason)
  })
})
