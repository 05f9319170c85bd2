/**
 * What the provider does when the gateway fails: every way of failing ends inside the deadline with one clear reason on the OpenSSL error
 * queue, and what another endpoint or moment can still do is done. Times are bounds with room for a busy machine.
 */
import { randomBytes } from 'node:crypto'
import { chmodSync } from 'node:fs'
import path from 'node:path'
import { beforeAll, describe, expect, it } from 'vitest'
import { errorNumbers } from '../../src/transport/offload/frames.ts'
import { type Answer, type HksEndpoint, type HksKey, startHksEndpoint } from '../support/hks-endpoint.ts'
import { buildProvider, runDriver } from '../support/provider.ts'
import { startSyslog } from '../support/syslog.ts'

interface Attempt {
  readonly ms: number
  /** `ok`, or the error. */
  readonly said: string
}

/** Modes of files hold for root, too, once it has lost the capability to pass over them. */
const withoutPrivilege =
  process.getuid?.() === 0 ? ['setpriv', '--bounding-set=-dac_override,-dac_read_search'] : ['env']

beforeAll(buildProvider, 600_000)

/** So many signatures, one after the other, in one process. */
async function burst(
  key: HksKey,
  count: number,
  endpoints: string,
  env: Readonly<Record<string, string>> = {},
  prefix: readonly string[] = [],
): Promise<readonly Attempt[]> {
  const { status, stdout, stderr } = await runDriver(['burst', key.reference, String(count)], {
    endpoints,
    env: { HSMGATE_DEADLINE_MS: '1000', ...env },
    kind: prefix.length === 0 ? 'asan' : 'plain',
    prefix,
  })
  expect(stderr).toBe('')
  expect(status).toBe(0)
  return stdout
    .toString()
    .trim()
    .split('\n')
    .map((line) => {
      const [ms = '', ...said] = line.split(' ')
      return { ms: Number(ms), said: said.join(' ') }
    })
}

const said = (attempts: readonly Attempt[]) => attempts.map((attempt) => attempt.said)
const oks = (count: number) => Array<string>(count).fill('ok')
const frame = (bodyBytes: number, type: number, body: Buffer, version = 1): Buffer => {
  const head = Buffer.alloc(16)
  head.writeUInt32BE(bodyBytes, 0)
  head[4] = version
  head[5] = type
  return Buffer.concat([head, body])
}

describe('an answer of the gateway', () => {
  const reasons = [
    [errorNumbers.badRequest, 'gateway failed'],
    [errorNumbers.unauthenticated, 'gateway refused the token'],
    [errorNumbers.policyDenied, 'gateway denied the signature'],
    [errorNumbers.keyNotFound, 'gateway does not know the key'],
    [errorNumbers.unsupported, 'gateway does not support the operation'],
    [errorNumbers.deadline, 'deadline exceeded'],
    [errorNumbers.internal, 'gateway failed'],
    [4711, 'gateway failed'],
  ] as const
  it.each(reasons)('with code %i is final and says: %s', async (code, reason) => {
    await using endpoint = await startHksEndpoint()
    const key = endpoint.addKey('P-256')
    endpoint.onRequest = () => ({ error: code, text: 'in its own words' })
    const [attempt] = await burst(key, 1, endpoint.socketPath)
    expect(attempt?.said).toContain(reason)
    expect(attempt?.said).toContain(`${endpoint.socketPath}: in its own words`)
    expect(endpoint.requests).toHaveLength(1)
  })

  it('that is BUSY is asked for once more', async () => {
    await using endpoint = await startHksEndpoint()
    const key = endpoint.addKey('P-256')
    endpoint.onRequest = (_request, at) => (at === 0 || at > 1 ? { error: errorNumbers.busy } : 'sign')
    const [first, second] = await burst(key, 2, endpoint.socketPath)
    expect(first?.said).toBe('ok')
    expect(second?.said).toContain('gateway busy')
    expect(endpoint.requests).toHaveLength(4)
    const [lost, repeated, other] = endpoint.requests.map(({ traceId }) => traceId?.toString('hex'))
    expect(lost).toMatch(/^[0-9a-f]{32}$/)
    expect(repeated).toBe(lost)
    expect(other).not.toBe(lost)
  })

  it('without an HSM is waited for until the deadline, and from then on asked for once more', async () => {
    await using endpoint = await startHksEndpoint()
    const key = endpoint.addKey('P-256')
    endpoint.onRequest = (_request, at) => (at < 6 ? { error: errorNumbers.hsm } : 'sign')
    const [waited] = await burst(key, 1, endpoint.socketPath, { HSMGATE_DEADLINE_MS: '20000' })
    expect(waited?.said).toBe('ok')
    expect(endpoint.requests).toHaveLength(7)
    expect(new Set(endpoint.requests.map(({ traceId }) => traceId?.toString('hex'))).size).toBe(1)

    endpoint.onRequest = () => ({ error: errorNumbers.hsm })
    endpoint.requests.length = 0
    const [vain, again] = await burst(key, 2, endpoint.socketPath, { HSMGATE_DEADLINE_MS: '1000' })
    expect([vain?.said, again?.said]).toEqual([
      expect.stringContaining('HSM failed'),
      expect.stringContaining('HSM failed'),
    ])
    const traceIds = endpoint.requests.map(({ traceId }) => traceId?.toString('hex'))
    expect(traceIds.filter((each) => each === traceIds[0]).length).toBeGreaterThan(2)
    expect(traceIds.filter((each) => each !== traceIds[0])).toHaveLength(2)
  })

  const broken: readonly (readonly [string, Answer])[] = [
    ['of another version', { bytes: frame(8, 4, Buffer.alloc(8), 2) }],
    ['of no known type', { bytes: frame(8, 77, Buffer.alloc(8)) }],
    ['that only a client may send', { bytes: frame(8, 3, Buffer.alloc(8)) }],
    ['longer than a frame may be', { bytes: frame(0xffffffff, 4, Buffer.alloc(64)) }],
    ['longer than a signature of the key', { signature: Buffer.alloc(200) }],
    ['without content', { bytes: frame(0, 4, Buffer.alloc(0)) }],
    ['that is noise', { bytes: Buffer.from('HTTP/1.1 400 Bad Request\r\n\r\n') }],
  ]
  it.each(broken)('%s breaks the protocol and is asked for once more', async (_name, answer) => {
    await using endpoint = await startHksEndpoint()
    const key = endpoint.addKey('P-256')
    endpoint.onRequest = () => answer
    const [attempt] = await burst(key, 1, endpoint.socketPath)
    expect(attempt?.said).toContain('gateway broke the protocol')
    expect(endpoint.connections.accepted).toBe(2)
    expect(endpoint.requests).toHaveLength(2)
  })

  it('that is cut off is a lost connection, asked for once more', async () => {
    await using endpoint = await startHksEndpoint()
    const key = endpoint.addKey('P-256')
    endpoint.onRequest = () => ({ bytes: frame(70, 4, Buffer.alloc(30)), thenClose: true })
    const [attempt] = await burst(key, 1, endpoint.socketPath)
    expect(attempt?.said).toContain('connection lost')
    expect(endpoint.requests).toHaveLength(2)
  })

  it('to a request that nobody waits for any more is dropped', async () => {
    await using endpoint = await startHksEndpoint()
    const key = endpoint.addKey('P-256')
    endpoint.onRequest = () => 'strayFirst'
    expect(said(await burst(key, 2, endpoint.socketPath))).toEqual(oks(2))
    expect(endpoint.connections.accepted).toBe(1)
  })
})

describe('a greeting', () => {
  it.each([
    ['no common version', { error: errorNumbers.unsupported }, 'gateway does not support the operation'],
    ['a refusal', { error: errorNumbers.unauthenticated }, 'gateway refused the token'],
    ['noise', { bytes: Buffer.from('220 mail.example ESMTP service ready\r\n') }, 'gateway broke the protocol'],
    ['a welcome of another version', { bytes: frame(4, 2, Buffer.from([1, 0, 1, 2])) }, 'gateway broke the protocol'],
  ] as const)('that is %s ends the operation with its reason', async (_name, greeting, reason) => {
    await using endpoint = await startHksEndpoint()
    const key = endpoint.addKey('P-256')
    endpoint.onHello = () => greeting
    const [attempt] = await burst(key, 1, endpoint.socketPath)
    expect(attempt?.said).toContain(reason)
    expect(endpoint.requests).toHaveLength(0)
  })

  it.each(['close', 'goaway'] as const)('that is %s is waited out', async (greeting) => {
    await using endpoint = await startHksEndpoint()
    const key = endpoint.addKey('P-256')
    endpoint.onHello = (_hello, connection) => (connection < 4 ? greeting : 'welcome')
    expect(said(await burst(key, 1, endpoint.socketPath))).toEqual(oks(1))
    expect(endpoint.connections.accepted).toBe(5)
  })

  it('carries the token of the reference, the program and its process', async () => {
    await using endpoint = await startHksEndpoint()
    const key = endpoint.addKey('P-256')
    await burst(key, 1, endpoint.socketPath)
    expect(endpoint.hellos).toEqual([
      expect.objectContaining({ app: 'driver', minVersion: 1, maxVersion: 1, tokens: [key.token] }),
    ])
    expect(endpoint.hellos[0]?.pid).toBeGreaterThan(1)
  })

  it('without a token leaves the decision to the peer', async () => {
    await using endpoint = await startHksEndpoint()
    const key = endpoint.addKey('P-256', { withoutToken: true })
    expect(said(await burst(key, 1, endpoint.socketPath))).toEqual(oks(1))
    expect(endpoint.hellos[0]?.tokens).toEqual([])
    expect(endpoint.requests[0]?.tokenIndex).toBe(0xffff)
  })
})

describe('a connection', () => {
  it('leads into the abstract namespace, too, where no folder is in the way (unix(7))', async () => {
    const name = `hsmgate-${process.pid}-${randomBytes(8).toString('hex')}`
    await using endpoint = await startHksEndpoint({ socketPath: `\0${name}` })
    const key = endpoint.addKey('P-256')
    expect(said(await burst(key, 3, `@${name}`))).toEqual(oks(3))
    expect(endpoint.connections.accepted).toBe(1)
    await endpoint.stop()
    const [attempt] = await burst(key, 1, `@${name}`, { HSMGATE_DEADLINE_MS: '200' })
    expect(attempt?.said).toContain('all endpoints down')
  })

  it('serves one operation after the other', async () => {
    await using endpoint = await startHksEndpoint()
    const key = endpoint.addKey('P-256')
    expect(said(await burst(key, 20, endpoint.socketPath))).toEqual(oks(20))
    expect(endpoint.connections.accepted).toBe(1)
    expect(endpoint.requests.map(({ requestId }) => requestId)).toEqual(Array.from({ length: 20 }, (_, at) => at + 1))
  })

  it('that says GOAWAY finishes what is under way and is left', async () => {
    await using endpoint = await startHksEndpoint()
    const key = endpoint.addKey('P-256')
    endpoint.onRequest = (_request, at) => (at === 1 ? 'goaway' : 'sign')
    expect(said(await burst(key, 4, endpoint.socketPath))).toEqual(oks(4))
    expect(endpoint.requests.map(({ connection }) => connection)).toEqual([0, 0, 1, 1])
  })

  it('on which the gateway is shutting down is left without a failure', async () => {
    await using endpoint = await startHksEndpoint()
    const key = endpoint.addKey('P-256')
    endpoint.onRequest = ({ connection }) => (connection < 3 ? { error: errorNumbers.shuttingDown } : 'sign')
    expect(said(await burst(key, 2, endpoint.socketPath))).toEqual(oks(2))
    expect(endpoint.requests.map(({ connection }) => connection)).toEqual([0, 1, 2, 3, 3])
  })

  it('that ended while it was idle costs nothing', async () => {
    await using endpoint = await startHksEndpoint()
    const key = endpoint.addKey('P-256')
    endpoint.onRequest = () => 'signAndClose'
    expect(said(await burst(key, 10, endpoint.socketPath))).toEqual(oks(10))
    // a request may have crossed the end of its connection; it is the same one that comes again
    expect(new Set(endpoint.requests.map(({ traceId }) => traceId?.toString('hex'))).size).toBe(10)
  })

  it('knows of each token what the gateway knows, also after a message that was too long to send', async () => {
    await using endpoint = await startHksEndpoint()
    endpoint.welcome = { ...endpoint.welcome, maxInputBytes: 4096 }
    const keys = [endpoint.addKey('P-256'), endpoint.addKey('P-384')]
    const args = ['refused', ...keys.map(({ reference }) => reference)]
    const { status, stderr } = await runDriver(args, { endpoints: endpoint.socketPath, kind: 'asan' })
    expect([status, stderr]).toEqual([0, ''])
    const [first, second] = keys.map(({ token }) => token)
    expect(endpoint.requests.map(({ token }) => token)).toEqual([first, second, first])
    expect(endpoint.connections.accepted).toBe(1)
  })

  it('lost amid an operation is replaced once', async () => {
    await using endpoint = await startHksEndpoint()
    const key = endpoint.addKey('P-256')
    endpoint.onRequest = ({ connection }) => (connection === 0 ? 'close' : 'sign')
    expect(said(await burst(key, 1, endpoint.socketPath))).toEqual(oks(1))
    expect(endpoint.requests).toHaveLength(2)
  })
})

describe('the deadline', () => {
  it('leaves time for a second attempt', async () => {
    await using endpoint = await startHksEndpoint()
    const key = endpoint.addKey('P-256')
    endpoint.onRequest = (_request, at) => (at === 0 ? 'silence' : 'sign')
    const [attempt] = await burst(key, 1, endpoint.socketPath, { HSMGATE_DEADLINE_MS: '2000' })
    expect(attempt?.said).toBe('ok')
    const [first, second] = endpoint.requests.map(({ budgetMs }) => budgetMs)
    expect(first).toBeLessThanOrEqual(1200)
    expect(first).toBeGreaterThan(1000)
    expect(second).toBeLessThanOrEqual(800)
    expect(second).toBeGreaterThan(400)
  })

  it('holds when the gateway never answers', async () => {
    await using endpoint = await startHksEndpoint()
    const key = endpoint.addKey('P-256')
    endpoint.onRequest = () => 'silence'
    const [attempt] = await burst(key, 1, endpoint.socketPath, { HSMGATE_DEADLINE_MS: '500' })
    expect(attempt?.said).toContain('deadline exceeded')
    expect(attempt?.ms).toBeGreaterThanOrEqual(499)
    expect(attempt?.ms).toBeLessThan(1500)
  })

  it('holds when the gateway never greets', async () => {
    await using endpoint = await startHksEndpoint()
    const key = endpoint.addKey('P-256')
    endpoint.onHello = () => 'silence'
    const [attempt] = await burst(key, 1, endpoint.socketPath, { HSMGATE_DEADLINE_MS: '500' })
    expect(attempt?.said).toContain('deadline exceeded')
    expect(attempt?.ms).toBeLessThan(1500)
  })

  it('is never longer than the gateway would work', async () => {
    await using endpoint = await startHksEndpoint()
    const key = endpoint.addKey('P-256')
    endpoint.welcome = { ...endpoint.welcome, maxBudgetMs: 200 }
    await burst(key, 1, endpoint.socketPath)
    expect(endpoint.requests[0]?.budgetMs).toBe(200)
  })
})

describe('a gateway that is not there', () => {
  it('fails after the deadline, and at once when the breaker is open', async () => {
    await using endpoint = await startHksEndpoint()
    const key = endpoint.addKey('P-256')
    await endpoint.stop()
    const attempts = await burst(key, 6, endpoint.socketPath, { HSMGATE_DEADLINE_MS: '300' })
    for (const attempt of attempts) expect(attempt.said).toContain('all endpoints down')
    for (const attempt of attempts.slice(0, 3)) expect(attempt.ms).toBeGreaterThanOrEqual(200)
    const fast = attempts.slice(3).reduce((sum, { ms }) => sum + ms, 0)
    expect(fast).toBeLessThan(300)
  })

  it('and comes back inside the deadline fails nobody', async () => {
    await using endpoint = await startHksEndpoint()
    const key = endpoint.addKey('P-256')
    const { promise: halfway, resolve } = Promise.withResolvers<void>()
    endpoint.onRequest = (_request, at) => {
      if (at === 10) resolve()
      return at === 10 ? 'silence' : 'sign'
    }
    const attempts = burst(key, 20, endpoint.socketPath, { HSMGATE_DEADLINE_MS: '20000' })
    await halfway
    await endpoint.stop()
    await endpoint.start()
    expect(said(await attempts)).toEqual(oks(20))
  })

  it('is tried again once the breaker lets one through', async () => {
    await using endpoint = await startHksEndpoint()
    const key = endpoint.addKey('P-256')
    endpoint.onHello = (_hello, connection) => (connection < 3 ? 'silence' : 'welcome')
    // Three unanswered connections open the breaker for 250 ms; whoever asks then is refused at once, until one probe gets through.
    const attempts = await burst(key, 20_000, endpoint.socketPath, { HSMGATE_DEADLINE_MS: '100', UNTIL_OK: '1' })
    expect(attempts.at(-1)?.said).toBe('ok')
    expect(attempts.length).toBeGreaterThan(10)
    expect(endpoint.connections.accepted).toBe(4)
  })

  it('for whose socket there is no right says so at once', async () => {
    await using endpoint = await startHksEndpoint()
    const key = endpoint.addKey('P-256')
    chmodSync(endpoint.socketPath, 0)
    const [attempt] = await burst(key, 1, endpoint.socketPath, {}, withoutPrivilege)
    expect(attempt?.said).toContain(`no permission for the signing socket:${endpoint.socketPath}`)
    expect(attempt?.ms).toBeLessThan(500)
  })
})

describe('several endpoints', () => {
  async function startPair(): Promise<readonly [HksEndpoint, HksEndpoint, HksKey, string]> {
    const first = await startHksEndpoint()
    const second = await startHksEndpoint()
    const key = first.addKey('P-256')
    second.shareKey(key)
    return [first, second, key, `${first.socketPath} ${second.socketPath}`]
  }

  it('are asked in their order', async () => {
    const [first, second, key, endpoints] = await startPair()
    await using _first = first
    await using _second = second
    expect(said(await burst(key, 5, endpoints))).toEqual(oks(5))
    expect([first.requests.length, second.requests.length]).toEqual([5, 0])
  })

  it('replace one that is not there without waiting', async () => {
    const [first, second, key, endpoints] = await startPair()
    await using _first = first
    await using _second = second
    await first.stop()
    expect(said(await burst(key, 5, endpoints))).toEqual(oks(5))
    expect(second.requests).toHaveLength(5)
  })

  it('replace one that is busy or silent within the deadline', async () => {
    const [first, second, key, endpoints] = await startPair()
    await using _first = first
    await using _second = second
    first.onRequest = (_request, at) => (at === 0 ? { error: errorNumbers.busy } : 'silence')
    expect(said(await burst(key, 2, endpoints))).toEqual(oks(2))
    expect([first.requests.length, second.requests.length]).toEqual([2, 2])
  })

  it('serve the references that name them', async () => {
    const [first, second] = await startPair()
    await using _first = first
    await using _second = second
    const key = second.addKey('P-256', { endpoint: 'backup' })
    const endpoints = `${first.socketPath} backup=${second.socketPath}`
    expect(said(await burst(key, 1, endpoints))).toEqual(oks(1))
    expect(first.connections.accepted).toBe(0)
    const [unknown] = await burst(key, 1, first.socketPath)
    expect(unknown?.said).toContain('endpoint of the key reference not configured:backup')
  })
})

describe('the log', () => {
  it('has one line a second of signatures that failed, with their number', async () => {
    await using endpoint = await startHksEndpoint()
    const key = endpoint.addKey('P-256')
    const HSMGATE_LOG = path.join(endpoint.folder, 'log')
    await using syslog = await startSyslog(HSMGATE_LOG)
    const refusal: Answer = { error: errorNumbers.policyDenied, text: 'not this' }
    // biome-ignore lint/suspicious/noThenProperty: what follows the pause, after which a second line may be written
    const later: Answer = { afterMs: 1100, then: refusal }
    endpoint.onRequest = (_request, at) => (at === 0 ? 'sign' : at === 4 ? later : refusal)
    await burst(key, 5, endpoint.socketPath, { HSMGATE_LOG, HSMGATE_DEADLINE_MS: '20000' })
    await expect.poll(() => syslog.lines, { timeout: 20_000 }).toHaveLength(2)
    const said = `gateway denied the signature: ${endpoint.socketPath}: not this`
    const [first = '', second = ''] = syslog.lines
    expect(first).toMatch(/^<27>driver\[\d+\]: hsmgate: /)
    expect(first.slice(first.indexOf('hsmgate: '))).toBe(`hsmgate: ${said}`)
    expect(second.slice(second.indexOf('hsmgate: '))).toBe(`hsmgate: ${said} (2 more before)`)
  })

  it('that nobody reads holds up nothing', async () => {
    await using endpoint = await startHksEndpoint()
    const key = endpoint.addKey('P-256', { endpoint: 'elsewhere' })
    const HSMGATE_LOG = path.join(endpoint.folder, 'log')
    const lost = await burst(key, 2, endpoint.socketPath, { HSMGATE_LOG })
    for (const { said } of lost) expect(said).toContain('endpoint of the key reference not configured:elsewhere')
    await using syslog = await startSyslog(HSMGATE_LOG)
    await burst(key, 1, endpoint.socketPath, { HSMGATE_LOG })
    await expect.poll(() => syslog.lines).toEqual([expect.stringMatching(/not configured: elsewhere$/)])
  })
})
