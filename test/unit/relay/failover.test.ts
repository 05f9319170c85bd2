/** What a relay does when gateways refuse, are late, leave, die or speak nonsense: nobody notices while another one can do it in time. */
import { randomBytes } from 'node:crypto'
import { mkdtempSync, readFileSync } from 'node:fs'
import { createServer as createTcpServer, type Socket } from 'node:net'
import path from 'node:path'
import { createServer as createTlsServer } from 'node:tls'
import { afterAll, describe, expect, it } from 'vitest'
import { encodeResult, encodeWelcome } from '../../../src/transport/offload/frame-encoding.ts'
import { errorNumbers } from '../../../src/transport/offload/frames.ts'
import type { HksAnswer, HksClient } from '../../support/hks-client.ts'
import { generousWelcome } from '../../support/hks-endpoint.ts'
import type { TestRelay, TestRelayOptions } from '../../support/relay.ts'
import { openRelayFixture } from '../../support/relay-fixture.ts'
import { makeRelayPki, type RelayGateway, type RelayPki } from '../../support/relay-gateway.ts'
import { startTcpFront } from '../../support/tcp-front.ts'

const fixture = await openRelayFixture()
const { pki, request, startGateway, connectTo, isSigned } = fixture
afterAll(fixture.close)

const relayTo = (gateways: readonly { readonly address: string }[], more: Partial<TestRelayOptions> = {}) =>
  fixture.relayTo(gateways, { ...more, config: { maxBudgetMs: loadBudgetMs, ...more.config } })

/** Both gateways are up: else a test of two would be one of one. */
async function relayToBoth(a: RelayGateway, b: RelayGateway, more?: Partial<TestRelayOptions>): Promise<TestRelay> {
  const relay = await relayTo([a, b], more)
  await expect.poll(() => relay.relay.status().gateways.map(({ connections }) => connections)).toEqual([2, 2])
  return relay
}

/** Generous: a machine that is busy with other tests must not look like a gateway that failed. */
const loadBudgetMs = 5000

interface Load {
  readonly answers: HksAnswer[]
  /** Lets what is open finish; all that ended other than by a good signature. */
  stop(): Promise<readonly unknown[]>
  /** Resolves after so many more answers. */
  more(count: number): Promise<void>
}

/** Each client asks for one signature after another. */
async function startLoad(relay: TestRelay, clientCount = 8): Promise<Load> {
  const clients = await Promise.all(Array.from({ length: clientCount }, () => connectTo(relay)))
  const answers: HksAnswer[] = []
  const lost: unknown[] = []
  let isOver = false
  let waits: { readonly at: number; readonly resolve: () => void }[] = []
  const run = async (client: HksClient) => {
    while (!isOver) {
      answers.push(await client.sign(request, loadBudgetMs))
      for (const { at, resolve } of waits) if (answers.length >= at) resolve()
      waits = waits.filter(({ at }) => answers.length < at)
    }
  }
  const runs = clients.map((client) => run(client).catch((cause) => lost.push(cause)))
  return {
    answers,
    async stop() {
      isOver = true
      await Promise.all(runs)
      for (const client of clients) client.socket.destroy()
      return [...answers.filter((answer) => !isSigned(answer)), ...lost]
    },
    more: (count) => new Promise((resolve) => waits.push({ at: answers.length + count, resolve })),
  }
}

describe('a relay with two gateways', () => {
  it('uses both', async () => {
    await using a = await startGateway()
    await using b = await startGateway()
    await using relay = await relayToBoth(a, b)
    const load = await startLoad(relay)
    await load.more(100)
    expect(await load.stop()).toEqual([])
    expect(Math.min(a.asked.length, b.asked.length)).toBeGreaterThan(10)
  })

  it.each(['busy', 'hsm', 'shuttingDown'] as const)('asks the other one when one answers %s', async (error) => {
    await using a = await startGateway()
    await using b = await startGateway()
    a.onSign = () => ({ error })
    await using relay = await relayToBoth(a, b)
    await using client = await connectTo(relay)
    for (let round = 0; round < 10; round++) expect(isSigned(await client.sign(request))).toBe(true)
    expect(a.asked.length).toBeGreaterThan(0)
    const traces = b.asked.map(({ request }) => request.traceId?.toString('hex'))
    for (const { request } of a.asked) expect(traces).toContain(request.traceId?.toString('hex'))
  })

  it('passes the refusal on when both refuse, and asks each once', async () => {
    await using a = await startGateway()
    await using b = await startGateway()
    a.onSign = () => ({ error: 'hsm' })
    b.onSign = () => ({ error: 'busy' })
    await using relay = await relayToBoth(a, b)
    await using client = await connectTo(relay)
    expect(await client.sign(request)).toMatchObject({ ok: false, retryable: true, text: 'as the test wants' })
    expect([a.asked.length, b.asked.length]).toEqual([1, 1])
  })

  it.each(['unauthenticated', 'policyDenied', 'keyNotFound', 'unsupported', 'badRequest', 'internal'] as const)(
    'does not ask the other one when one answers %s',
    async (error) => {
      await using a = await startGateway()
      await using b = await startGateway()
      a.onSign = () => ({ error })
      b.onSign = a.onSign
      await using relay = await relayToBoth(a, b)
      await using client = await connectTo(relay)
      expect(await client.sign(request)).toMatchObject({ ok: false, code: errorNumbers[error] })
      expect(a.asked.length + b.asked.length).toBe(1)
    },
  )

  it('asks a gateway that keeps failing only now and then', async () => {
    await using a = await startGateway()
    await using b = await startGateway()
    a.onSign = () => ({ error: 'hsm' })
    await using relay = await relayToBoth(a, b)
    await using client = await connectTo(relay)
    for (let round = 0; round < 100; round++) expect(isSigned(await client.sign(request))).toBe(true)
    expect(a.asked.length).toBeLessThan(40)
    expect(relay.noted).toContain(`rests ${a.address}`)
  })

  it('asks the other one when one is silent, within the share of the time', async () => {
    await using a = await startGateway()
    await using b = await startGateway()
    a.onSign = () => 'silence'
    await using relay = await relayToBoth(a, b, { config: { attemptPercent: 20 } })
    await using client = await connectTo(relay)
    const answers: HksAnswer[] = []
    for (let round = 0; round < 4; round++) answers.push(await client.sign(request, 500))
    expect(answers.every(isSigned)).toBe(true)
    expect(a.asked.length).toBeGreaterThan(0)
    // what is left of the budget goes along
    const second = b.asked.find(({ request }) =>
      request.traceId?.equals(a.asked[0]?.request.traceId ?? Buffer.alloc(0)),
    )
    expect(second?.budgetMs).toBeLessThanOrEqual(400)
    expect(relay.relay.status().gateways[0]?.late).toBe(a.asked.length)
  })

  it('takes the late answer when it comes first', async () => {
    await using a = await startGateway()
    await using b = await startGateway()
    a.onSign = () => ({ afterMs: 150 })
    b.onSign = () => 'silence'
    await using relay = await relayToBoth(a, b, { config: { attemptPercent: 10 } })
    await using client = await connectTo(relay)
    for (let round = 0; round < 3; round++) expect(isSigned(await client.sign(request, 1000))).toBe(true)
  })

  it('leaves one that is stopped alone until it moves, and ends its connections', async () => {
    await using a = await startGateway()
    await using b = await startGateway()
    await using path = await startTcpFront(a.port)
    const timing = { pingIntervalMs: 200, pongTimeoutMs: 1000 }
    await using relay = await relayTo([path, b], { timing, config: { attemptPercent: 10 } })
    await expect.poll(() => relay.relay.status().gateways.map(({ connections }) => connections)).toEqual([2, 2])
    const load = await startLoad(relay)
    await load.more(50)
    path.freeze()
    await load.more(400)
    await expect
      .poll(() => relay.noted.some((line) => line.startsWith(`down ${path.address}`)), { timeout: 10_000 })
      .toBe(true)
    expect(await load.stop()).toEqual([])
    expect(relay.noted).toContain(`lost ${path.address}: it does not answer`)
    // not one attempt for each signature: those under way when it stopped, and one or the other after
    expect(relay.relay.status().gateways[0]?.late).toBeLessThan(40)
  })

  it('loses nothing when one is killed under load, and uses it again when it is back', async () => {
    await using a = await startGateway()
    await using b = await startGateway()
    for (const gateway of [a, b]) gateway.onSign = () => ({ afterMs: 2 })
    await using relay = await relayToBoth(a, b)
    const load = await startLoad(relay, 16)
    for (let round = 0; round < 3; round++) {
      await load.more(100)
      await a.kill()
      await load.more(100)
      await a.start()
      await expect.poll(() => relay.relay.status().gateways[0]?.connections, { timeout: 5000 }).toBe(2)
      const before = a.asked.length
      await load.more(100)
      expect(a.asked.length).toBeGreaterThan(before)
    }
    expect(await load.stop()).toEqual([])
    expect(relay.relay.status().gateways[0]?.lost).toBeGreaterThan(0)
  })

  it('moves on when one takes leave under load, before its connections end', async () => {
    await using a = await startGateway()
    await using b = await startGateway()
    for (const gateway of [a, b]) gateway.onSign = () => ({ afterMs: 2 })
    await using relay = await relayToBoth(a, b)
    const load = await startLoad(relay, 16)
    for (const gateway of [a, b, a, b]) {
      await load.more(100)
      await gateway.leave()
      await gateway.start()
      await expect
        .poll(() => relay.relay.status().gateways.map(({ connections }) => connections), { timeout: 5000 })
        .toEqual([2, 2])
    }
    expect(await load.stop()).toEqual([])
    expect(relay.noted.filter((line) => line.startsWith('lost'))).toEqual([])
    expect(relay.relay.status().gateways.map(({ lost }) => lost)).toEqual([0, 0])
  })
})

describe('a relay with one gateway', () => {
  it('waits for it while it restarts under load', async () => {
    await using gateway = await startGateway()
    await using relay = await relayTo([gateway])
    const load = await startLoad(relay)
    for (const stop of [() => gateway.kill(), () => gateway.leave()]) {
      await load.more(100)
      await stop()
      await expect.poll(() => relay.relay.status().waiting).toBeGreaterThan(0)
      await gateway.start()
      await load.more(50)
    }
    expect(await load.stop()).toEqual([])
  })

  it('keeps many requests under way when the gateway is far', async () => {
    await using gateway = await startGateway()
    await using path = await startTcpFront(gateway.port, { delayMs: 100 })
    await using relay = await relayTo([path])
    const load = await startLoad(relay, 50)
    await load.more(100)
    expect(await load.stop()).toEqual([])
    expect(relay.relay.status().gateways[0]).toMatchObject({ late: 0, lost: 0 })
    expect(relay.relay.status().gateways[0]?.connections).toBe(2)
  })

  it('answers DEADLINE in time when the gateway is silent', async () => {
    await using gateway = await startGateway()
    gateway.onSign = () => 'silence'
    await using relay = await relayTo([gateway])
    await using client = await connectTo(relay)
    const begunMs = performance.now()
    expect(await client.sign(request, 300)).toMatchObject({ ok: false, code: errorNumbers.deadline, retryable: false })
    expect(performance.now() - begunMs).toBeGreaterThan(250)
    expect(gateway.asked).toHaveLength(1)
  })

  it('refuses at once when the gateway has been away for a while', async () => {
    await using gateway = await startGateway()
    await using relay = await relayTo([gateway])
    await using client = await connectTo(relay)
    await gateway.kill()
    await expect.poll(() => relay.noted.some((line) => line.startsWith('down'))).toBe(true)
    await expect
      .poll(async () => (await client.sign(request, 5000)) as unknown, { timeout: 10_000 })
      .toMatchObject({ ok: false, code: errorNumbers.hsm, retryable: true, text: 'no gateway can be reached' })
    await gateway.start()
    await expect.poll(async () => isSigned(await client.sign(request)), { timeout: 5000 }).toBe(true)
  })

  it('asks again when its connection is cut, but not without end', async () => {
    await using gateway = await startGateway()
    await using relay = await relayTo([gateway], { config: { connections: 1 } })
    await using client = await connectTo(relay)
    let kills = 0
    gateway.onSign = () => {
      kills++
      gateway.kill().then(() => gateway.start())
      return 'silence'
    }
    expect(await client.sign(request, 1000)).toMatchObject({ ok: false, retryable: true })
    expect(kills).toBe(3)
  })

  it('drains: what is open is answered before it ends', async () => {
    await using gateway = await startGateway()
    gateway.onSign = () => ({ afterMs: 100 })
    const relay = await relayTo([gateway])
    await using client = await connectTo(relay)
    const answer = client.sign(request)
    await expect.poll(() => gateway.asked.length).toBe(1)
    await relay[Symbol.asyncDispose]()
    expect(isSigned(await answer)).toBe(true)
    await client.goaway
    await client.closed
    await expect.poll(() => gateway.connections).toBe(0)
  })
})

describe('a gateway that a relay does not trust, or that does not trust it', () => {
  const connectLine = (relay: TestRelay) => relay.noted.find((line) => line.startsWith('connect'))

  it('is not used when its certificate is of another authority', async () => {
    await using gateway = await startGateway()
    const caFile = path.join(mkdtempSync(path.join(pki.folder, 'other-')), 'ca.pem')
    const other = await makeRelayPki(path.dirname(caFile))
    await using relay = await relayTo([gateway], { caFile: other.server.caFile, isUnreached: true })
    await expect.poll(() => connectLine(relay)).toMatch(/UNABLE_TO_VERIFY_LEAF_SIGNATURE/)
    expect(gateway.asked).toHaveLength(0)
  })

  it('is not used when its certificate names another host', async () => {
    await using gateway = await startGateway()
    const config = { gateways: [{ address: gateway.address, serverName: 'gateway.example' }] }
    await using relay = await relayTo([gateway], { config, isUnreached: true })
    await expect.poll(() => connectLine(relay)).toMatch(/ERR_TLS_CERT_ALTNAME_INVALID/)
  })

  it.each([
    [
      'of an authority that it does not know',
      async () => (await otherPki()).issue('stranger'),
      /does not take the certificate/,
    ],
    ['that has expired', () => pki.issue('late', { endsInMs: -86_400_000 }), /expired/],
  ])('refuses a certificate %s', async (_, issue, expected) => {
    const { certificateFile, keyFile } = await issue()
    await using gateway = await startGateway()
    const starting = relayTo([gateway], { files: { certificateFile, keyFile }, isUnreached: true })
    const detail = await starting.then(
      async (relay) => {
        await expect.poll(() => connectLine(relay)).toBeDefined()
        await relay[Symbol.asyncDispose]()
        return connectLine(relay)
      },
      (problem: Error) => problem.message,
    )
    expect(detail).toMatch(expected)
    expect(gateway.connections).toBe(0)
  })

  async function otherPki(): Promise<RelayPki> {
    return makeRelayPki(mkdtempSync(path.join(pki.folder, 'other-')))
  }
})

describe('a gateway that speaks nonsense', () => {
  /** Beside a good one, whose answers are all that clients see. */
  async function expectGoodAnswers(bad: number): Promise<TestRelay['noted']> {
    await using good = await startGateway()
    await using relay = await relayTo([{ address: `127.0.0.1:${bad}` }, good])
    await expect.poll(() => relay.noted).toContain(`up ${good.address}`)
    await using client = await connectTo(relay)
    for (let round = 0; round < 20; round++) expect(isSigned(await client.sign(request))).toBe(true)
    await expect.poll(() => relay.noted.length).toBeGreaterThan(1)
    return relay.noted
  }

  it.each([
    ['bytes of another protocol', () => Buffer.from('HTTP/1.1 400 Bad Request\r\n\r\n')],
    ['a frame that is too long', () => Buffer.from('ffffffff010200000000000000000000', 'hex')],
    ['a greeting that does not parse', () => Buffer.from('00000003010200000000000000000000ffffff', 'hex')],
    ['an answer before its greeting', () => encodeResult(1, 0, Buffer.alloc(70))],
    ['a greeting twice', () => Buffer.concat([encodeWelcome(generousWelcome), encodeWelcome(generousWelcome)])],
    ['limits that allow nothing', () => encodeWelcome({ ...generousWelcome, maxInFlight: 0 })],
    [
      'good greetings, then random bytes',
      () => Buffer.concat([encodeWelcome(generousWelcome), Buffer.alloc(64, 0xa5), randomBytes(1000)]),
    ],
    [
      'answers that nobody asked for, then nothing',
      () => Buffer.concat([encodeWelcome(generousWelcome), encodeResult(77, 0, Buffer.alloc(70))]),
    ],
  ])('as %s is got round', async (_, bytes) => {
    const { cert, key: serverKey } = pki.server
    const tls = { cert, key: serverKey, ca: pki.clientCa, requestCert: true }
    const sockets = new Set<Socket>()
    const server = createTlsServer(tls, (socket) => {
      sockets.add(socket.on('error', () => {}))
      socket.once('data', () => socket.write(bytes()))
    })
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    try {
      const { port } = server.address() as { port: number }
      const noted = await expectGoodAnswers(port)
      expect(noted.some((line) => line.includes(`:${port}`))).toBe(true)
    } finally {
      for (const socket of sockets) socket.destroy()
      server.close()
    }
  })

  it('without TLS is got round', async () => {
    const sockets = new Set<Socket>()
    const server = createTcpServer((socket) => {
      sockets.add(socket.on('error', () => {}))
      socket.write(readFileSync(import.meta.filename).subarray(0, 500))
    })
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    try {
      await expectGoodAnswers((server.address() as { port: number }).port)
    } finally {
      for (const socket of sockets) socket.destroy()
      server.close()
    }
  })
})
