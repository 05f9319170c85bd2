/** The door's manners towards its connections, with a pipeline that signs at a word. What calls mean is tested on a whole gateway. */
import { createHash } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { type AddressInfo, connect, type Socket } from 'node:net'
import os from 'node:os'
import path from 'node:path'
import { connect as connectTls } from 'node:tls'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import type { TlsBinding } from '../../../../src/authenticate/tls-bindings.ts'
import { completeDevelopmentTls } from '../../../../src/cli/development-ca.ts'
import { GatewayError } from '../../../../src/error.ts'
import { loadAddon } from '../../../../src/hsm/worker/addon.ts'
import type { Call, Outcome } from '../../../../src/pipeline.ts'
import { encodeHello, encodePing, encodeRequest } from '../../../../src/transport/offload/frame-encoding.ts'
import { errorNumbers } from '../../../../src/transport/offload/frames.ts'
import { createOffloadDoor, type OffloadDoor, type OffloadLimits } from '../../../../src/transport/offload/offload.ts'
import { completeRequest, connectHks, type HksClient } from '../../../support/hks-client.ts'
import { makeRelayPki, type RelayPki } from '../../../support/relay-gateway.ts'

const token = Buffer.alloc(32, 1)
const keyId = Buffer.alloc(32, 2)
const input = Buffer.from('whatever')
const signature = Buffer.alloc(64, 3)
const binding: TlsBinding = Object.freeze({
  account: '000000000000',
  region: 'us-east-1',
  name: 'web',
  keyId: 'k',
  spkiDigest: keyId,
  policies: ['any'] as const,
  users: 'any' as const,
  relays: [],
  revision: 1,
})

let folder: string
let stack: AsyncDisposableStack
let waiting: { readonly call: Call; readonly answer: (outcome: Outcome) => void }[]
let log: string[]
let unauthenticated: (string | undefined)[]
/** Calls are answered at once, or when the test says so. */
let answersAtOnce: boolean
let unread: { readonly isUnread: boolean; readonly read: () => Promise<void> }

beforeEach(() => {
  folder = mkdtempSync(path.join(os.tmpdir(), 'hsmgate-door-'))
  stack = new AsyncDisposableStack()
  waiting = []
  log = []
  unauthenticated = []
  answersAtOnce = true
  unread = { isUnread: false, read: async () => {} }
})
afterEach(async () => {
  vi.useRealTimers()
  for (const { answer } of waiting) answer({ ok: true, output: signature })
  await stack.disposeAsync()
  rmSync(folder, { recursive: true, force: true })
})

interface OpenDoor {
  readonly door: OffloadDoor
  readonly file: string
  client(tokens?: readonly Buffer[]): Promise<HksClient>
  raw(): Promise<Socket & { readonly over: Promise<void>; readonly received: () => Buffer }>
}

async function openDoor(limits: Partial<OffloadLimits> = {}): Promise<OpenDoor> {
  const file = path.join(folder, 'sign.sock')
  const door = stack.use(
    createOffloadDoor({
      pipeline: async (call) => {
        try {
          await call.authenticate()
        } catch (error) {
          unauthenticated.push((error as GatewayError).detail)
          return { ok: false, error: error as GatewayError, authenticated: false }
        }
        if (answersAtOnce) return { ok: true, output: signature }
        return new Promise((answer) => {
          waiting.push({ call, answer })
        })
      },
      bindings: {
        find: (presented) => (presented.equals(token) && !unread.isUnread ? binding : undefined),
        get isUnread() {
          return unread.isUnread
        },
        whenRead: () => unread.read(),
      },
      signer: {
        keyArn: () => 'arn',
        find: () => Promise.reject(new Error('not asked')),
        spkiDigest: () => keyId,
        sign: () => Promise.reject(new Error('not asked')),
      },
      partition: 'aws',
      peerCredentials: loadAddon().peerCredentials,
      isRelayApproved: () => false,
      events: {
        connectionOpened: (kind) => log.push(`opened ${kind}`),
        connectionClosed: (_kind, reason) => log.push(`closed ${reason}`),
        protocolBroken: (_kind, detail) => log.push(`broken ${detail}`),
        refused: (_kind, code) => log.push(`refused ${code}`),
        peerRefused: (_kind, detail) => log.push(`stranger ${detail}`),
        peerExpired: (_kind, detail) => log.push(`expired ${detail}`),
      },
      limits,
    }),
  )
  await door.openLocal((server) => new Promise((resolve) => server.listen(file, resolve)))
  return {
    door,
    file,
    async client(tokens = [token]) {
      return stack.use(await connectHks(file, { tokens }))
    },
    async raw() {
      const socket = connect(file)
      const chunks: Buffer[] = []
      socket.on('data', (chunk) => chunks.push(chunk)).on('error', () => {})
      const over = new Promise<void>((resolve) => socket.once('close', () => resolve()))
      stack.defer(() => void socket.destroy())
      await new Promise((resolve) => socket.once('connect', resolve))
      return Object.assign(socket, { over, received: () => Buffer.concat(chunks) })
    },
  }
}

const until = (condition: () => boolean) => vi.waitFor(() => expect(condition()).toBe(true), { timeout: 5000 })
const hello = (tokens: readonly Buffer[] = []) =>
  encodeHello({ minVersion: 1, maxVersion: 1, app: 'test', pid: 1, providerVersion: '0', tokens })
const request = (id: number) => encodeRequest(id, 0, completeRequest({ keyId, input }))

describe('a connection to the signing socket', () => {
  it('answers every request by its id, in the order in which the answers come', async () => {
    const { client } = await openDoor()
    answersAtOnce = false
    const one = await client()
    const answers = [one.sign({ keyId, input }), one.sign({ keyId, input }), one.sign({ keyId, input })]
    await until(() => waiting.length === 3)
    for (const [index, { answer }] of [...waiting.entries()].reverse())
      answer({ ok: true, output: Buffer.alloc(8, index) })
    const signatures = await Promise.all(answers)
    expect(signatures.map((answer) => answer.ok && answer.signature[0])).toEqual([0, 1, 2])
  })

  it('answers a ping while requests are open', async () => {
    const { client } = await openDoor()
    answersAtOnce = false
    const one = await client()
    const answer = one.sign({ keyId, input })
    await one.ping()
    await until(() => waiting.length === 1)
    waiting[0]!.answer({ ok: true, output: signature })
    expect(await answer).toMatchObject({ ok: true, signature })
  })

  it('takes a token with a request and knows it from then on', async () => {
    const { client } = await openDoor()
    const one = await client([])
    const first = await one.sign({ keyId, input, newToken: token, tokenIndex: 0 })
    const second = await one.sign({ keyId, input, tokenIndex: 0 })
    expect([first.ok, second.ok]).toEqual([true, true])
  })

  it('refuses a token at a wrong index, an index without token, and a relay’s report, and goes on', async () => {
    const { client } = await openDoor()
    const one = await client()
    const { badRequest } = errorNumbers
    const wrong = [{ newToken: token, tokenIndex: 5 }, { tokenIndex: 1 }, { reported: { uid: 0 } }]
    for (const each of wrong) {
      expect(await one.sign({ keyId, input, ...each })).toMatchObject({ ok: false, code: badRequest, retryable: false })
    }
    expect(await one.sign({ keyId, input })).toMatchObject({ ok: true })
  })

  it('refuses a token that nobody knows', async () => {
    const { client } = await openDoor()
    const one = await client([Buffer.alloc(32, 9)])
    const answer = await one.sign({ keyId, input })
    expect(answer).toMatchObject({ ok: false, code: errorNumbers.unauthenticated, retryable: false })
  })

  it('waits for bindings that are being read, and is asked for again when they cannot be', async () => {
    const { client } = await openDoor()
    await using hks = await client()
    const { promise, resolve } = Promise.withResolvers<void>()
    unread = { isUnread: true, read: () => promise }
    const waits = hks.sign({ keyId, input })
    await hks.ping()
    unread = { isUnread: false, read: async () => {} }
    resolve()
    expect(await waits).toMatchObject({ ok: true })
    unread = { isUnread: true, read: () => Promise.reject(new GatewayError('CatalogUnavailable')) }
    expect(await hks.sign({ keyId, input })).toMatchObject({ ok: false, retryable: true })
  })

  it('is BUSY beyond the open requests that it announced', async () => {
    const { client } = await openDoor({ maxInFlight: 2 })
    answersAtOnce = false
    const one = await client()
    expect(one.welcome.maxInFlight).toBe(2)
    const open = [one.sign({ keyId, input }), one.sign({ keyId, input })]
    expect(await one.sign({ keyId, input })).toMatchObject({ ok: false, code: errorNumbers.busy, retryable: true })
    await until(() => waiting.length === 2)
    for (const { answer } of waiting) answer({ ok: true, output: signature })
    expect((await Promise.all(open)).every(({ ok }) => ok)).toBe(true)
  })

  it('gives a call the smaller of the caller’s budget and its own', async () => {
    const { client } = await openDoor({ maxBudgetMs: 500 })
    answersAtOnce = false
    const one = await client()
    const asked = performance.now()
    const answers = [one.sign({ keyId, input }, 100), one.sign({ keyId, input }, 60_000), one.sign({ keyId, input }, 0)]
    await until(() => waiting.length === 3)
    const late = performance.now() - asked
    for (const [index, budget] of [100, 500, 500].entries()) {
      const { atMs } = waiting[index]!.call.deadline
      expect(atMs).toBeGreaterThanOrEqual(asked + budget)
      expect(atMs).toBeLessThanOrEqual(asked + budget + late)
    }
    for (const { answer } of waiting) answer({ ok: true, output: signature })
    await Promise.all(answers)
  })

  it('says in an error what the call ended with', async () => {
    const { client } = await openDoor()
    answersAtOnce = false
    const one = await client()
    const answer = one.sign({ keyId, input })
    await until(() => waiting.length === 1)
    waiting[0]!.answer({ ok: false, error: new GatewayError('DeadlineExceeded'), authenticated: true })
    expect(await answer).toMatchObject({ ok: false, code: errorNumbers.deadline, retryable: false })
  })

  it.each([
    ['before HELLO', () => request(1)],
    ['PING before HELLO', () => encodePing(1)],
    ['a second HELLO', () => Buffer.concat([hello(), hello()])],
    ['an id that is open', () => Buffer.concat([hello([token]), request(1), request(1)])],
    ['another version', () => Buffer.from('000000000206000000000001000000000000', 'hex')],
    ['an oversize frame', () => Buffer.from('7fffffff010300000000000100000000', 'hex')],
    ['HTTP', () => Buffer.from('GET / HTTP/1.1\r\nHost: localhost\r\n\r\n')],
  ])('ends without an answer to %s, and others go on', async (_what, bytes) => {
    const { client, raw } = await openDoor()
    answersAtOnce = false
    const other = await client()
    const socket = await raw()
    socket.write(bytes())
    await socket.over
    expect(log.filter((line) => line.startsWith('broken'))).toHaveLength(1)
    await other.ping()
  })

  it('forgets a client that leaves in the middle of a frame', async () => {
    const { raw, door } = await openDoor()
    const socket = await raw()
    socket.write(Buffer.concat([hello([token]), request(1).subarray(0, 40)]))
    await until(() => socket.received().length > 0)
    socket.end()
    await socket.over
    await until(() => door.connections === 0)
    expect(log.filter((line) => line.startsWith('broken'))).toEqual([])
  })

  it('tells a greeting without a common version, or one that does not parse, why it ends', async () => {
    const { file } = await openDoor()
    await expect(connectHks(file, { minVersion: 2, maxVersion: 9 })).rejects.toThrow('5: no common version')
    await expect(connectHks(file, { app: 'line\nbreak' })).rejects.toThrow('1: app has control characters')
  })

  it('forgets answers for a client that has gone', async () => {
    const { client, door } = await openDoor()
    answersAtOnce = false
    const one = await client()
    one.sign({ keyId, input }).catch(() => {})
    await until(() => waiting.length === 1)
    await one[Symbol.asyncDispose]()
    await until(() => door.connections === 0)
    waiting[0]!.answer({ ok: true, output: signature })
    const other = await client()
    await other.ping()
  })

  it('ends when its answers are not read', async () => {
    const { raw } = await openDoor()
    const socket = await raw()
    socket.pause()
    socket.write(hello())
    const pings = Buffer.concat(Array.from({ length: 4096 }, (_, index) => encodePing(index)))
    const flood = () => {
      if (!socket.destroyed) socket.write(pings, flood)
    }
    flood()
    await until(() => log.includes('closed unread'))
    socket.resume()
    await socket.over
  })
})

describe('the sweep of the signing socket', () => {
  /** The sweep's clock alone is turned; sockets go on in real time. */
  async function openWithClock(limits: Partial<OffloadLimits>) {
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval', 'performance'] })
    return openDoor(limits)
  }
  const limits = { frameTimeoutMs: 2000, strangerIdleMs: 5000, idleMs: 60_000 }

  it('ends a connection that does not greet', async () => {
    const { raw } = await openWithClock(limits)
    const socket = await raw()
    await until(() => log.includes('opened local'))
    vi.advanceTimersByTime(4000)
    await socket.over
    expect(log).toContain('closed slow')
  })

  it('ends a connection that sends a frame byte by byte for too long', async () => {
    const { raw } = await openWithClock(limits)
    const socket = await raw()
    socket.write(hello())
    await until(() => socket.received().length > 0)
    socket.write(Buffer.from([0, 0]))
    for (let elapsed = 0; elapsed < 6 && !log.includes('closed slow'); elapsed++) {
      await new Promise((resolve) => setImmediate(resolve))
      socket.write(Buffer.from([0]))
      vi.advanceTimersByTime(1000)
    }
    await until(() => log.includes('closed slow'))
    await socket.over
  })

  it('ends a silent connection, one that presented a valid token much later', async () => {
    const { client, door } = await openWithClock(limits)
    const known = await client([token])
    const stranger = await client([])
    expect([known.welcome.idleMs, stranger.welcome.idleMs]).toEqual([60_000, 5000])
    vi.advanceTimersByTime(7000)
    await stranger.closed
    await until(() => door.connections === 1)
    await known.ping()
    vi.advanceTimersByTime(62_000)
    await known.closed
    await until(() => log.filter((line) => line === 'closed idle').length === 2)
  })

  it('keeps a connection with an open request, however long that takes', async () => {
    const { client } = await openWithClock(limits)
    answersAtOnce = false
    const one = await client()
    const answer = one.sign({ keyId, input })
    await until(() => waiting.length === 1)
    vi.advanceTimersByTime(100_000)
    waiting[0]!.answer({ ok: true, output: signature })
    expect(await answer).toMatchObject({ ok: true })
  })
})

describe('a full signing socket', () => {
  it('makes room by ending the oldest idle connection that never presented a valid token', async () => {
    const { client } = await openDoor({ maxConnections: 3 })
    const known = await client([token])
    const strangers = [await client([]), await client([])]
    const newcomer = await client([token])
    await strangers[0]!.closed
    await Promise.all([known.ping(), strangers[1]!.ping(), newcomer.ping()])
    expect(log).toContain('closed crowded')
  })

  it('refuses newcomers when all who are there have presented a valid token', async () => {
    const { client, file } = await openDoor({ maxConnections: 2 })
    const known = [await client([token]), await client([token])]
    await expect(connectHks(file, { tokens: [token] })).rejects.toThrow('the connection is over')
    await Promise.all(known.map((one) => one.ping()))
    expect(log).toContain('stranger too many connections')
  })
})

describe('a signing socket that closes', () => {
  it('says so, answers what is open, takes nothing new, then ends', async () => {
    const { client, door } = await openDoor()
    answersAtOnce = false
    const [busy, idle] = [await client(), await client()]
    const answer = busy.sign({ keyId, input })
    await until(() => waiting.length === 1)
    const closing = door.close()
    await Promise.all([busy.goaway, idle.goaway, idle.closed])
    const refused = await busy.sign({ keyId, input })
    expect(refused).toMatchObject({ ok: false, code: errorNumbers.shuttingDown, retryable: true })
    waiting[0]!.answer({ ok: true, output: signature })
    expect(await answer).toMatchObject({ ok: true, signature })
    await busy.closed
    await closing
    expect(door.connections).toBe(0)
  })

  it('lets nobody in any more', async () => {
    const { door, file } = await openDoor()
    await door.close()
    await expect(connectHks(file)).rejects.toThrow()
  })

  it('does not wait for ever for what is open', async () => {
    const { client, door } = await openDoor({ drainTimeoutMs: 20 })
    answersAtOnce = false
    const one = await client()
    one.sign({ keyId, input }).catch(() => {})
    await until(() => waiting.length === 1)
    await door.close()
    await one.closed
    expect(log).toContain('closed stopped')
  })
})

describe('a token that nobody knows', () => {
  it('is refused, and the operator learns which token it was and who came with it', async () => {
    const { client } = await openDoor()
    const unknown = Buffer.alloc(32, 7)
    const one = await client([unknown])
    expect(await one.sign({ keyId, input })).toMatchObject({ code: errorNumbers.unauthenticated })
    const digits = createHash('sha256').update(unknown).digest('hex').slice(0, 8)
    const who = `process ${process.pid} of uid ${process.getuid?.()}`
    expect(unauthenticated).toEqual([`token ${digits}.., presented by ${who}`])
  })
})

describe('what a token does not permit', () => {
  it('goes into the journal so often in a second and then is refused without a record, what it permits is signed', async () => {
    const { client } = await openDoor({ maxInFlight: 1000 })
    const one = await client()
    const other = Buffer.alloc(32, 9)
    const asked = Array.from({ length: 250 }, () => one.sign({ keyId: other, input }))
    const refused = (await Promise.all(asked)).filter((answer) => !answer.ok)
    // the pipeline of this test signs whatever comes to it, which the real one does not; one second may end meanwhile
    expect(refused.length).toBeGreaterThanOrEqual(50)
    expect(refused.length).toBeLessThanOrEqual(150)
    for (const answer of refused) expect(answer).toMatchObject({ code: errorNumbers.policyDenied, retryable: false })
    expect(await one.sign({ keyId, input })).toMatchObject({ ok: true })
  })
})

describe('the listener for relays', () => {
  async function openStrangers(limits: Partial<OffloadLimits>, count: number) {
    const { door } = await openDoor(limits)
    await completeDevelopmentTls(folder)
    const read = (name: string) => readFileSync(path.join(folder, name))
    const tls = { cert: read('server.pem'), key: read('server.key'), ca: read('ca.pem') }
    const server = await door.openRelay(tls, (each) => new Promise((resolve) => each.listen(0, '127.0.0.1', resolve)))
    const { port } = server.address() as AddressInfo
    const strangers = Array.from({ length: count }, () => {
      const socket = connect(port, '127.0.0.1').on('error', () => {})
      stack.defer(() => void socket.destroy())
      return socket.resume()
    })
    return { door, strangers }
  }

  it('bounds those who connect and greet nobody, before it spends anything on their handshakes', async () => {
    const { strangers } = await openStrangers({ maxConnections: 2 }, 5)
    await until(() => strangers.filter(({ closed }) => closed).length === 3)
  })

  it('gives nobody more time for a handshake than it should take, and can be closed meanwhile', async () => {
    const { door, strangers } = await openStrangers({ frameTimeoutMs: 300 }, 2)
    await until(() => strangers.every(({ connecting }) => !connecting))
    await door.close()
    await until(() => strangers.every(({ closed }) => closed))
    expect(log).toContain('stranger TLS handshake timeout')
  })

  it.each([
    ['CERT_HAS_EXPIRED', (pki: RelayPki) => pki.issue('late', { endsInMs: -86_400_000 })],
    [
      'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
      async () => (await makeRelayPki(mkdtempSync(path.join(folder, 'other-')))).issue('x'),
    ],
  ])('says what is wrong with a certificate: %s', async (problem, issue) => {
    const { door } = await openDoor()
    const pki = await makeRelayPki(folder)
    const tls = { cert: pki.server.cert, key: pki.server.key, ca: pki.clientCa }
    const server = await door.openRelay(tls, (each) => new Promise((resolve) => each.listen(0, '127.0.0.1', resolve)))
    const { certificateFile, keyFile } = await issue(pki)
    const [cert, key, ca] = [certificateFile, keyFile, pki.server.caFile].map((file) => readFileSync(file))
    const { port } = server.address() as AddressInfo
    const socket = connectTls({ port, host: '127.0.0.1', cert, key, ca }).on('error', () => {})
    stack.defer(() => void socket.destroy())
    await until(() => log.length > 0)
    expect(log).toEqual([`stranger ${problem}`])
  })
})
