/**
 * Web servers behind a relay with two real gateways: one is killed and comes back, then the other, then both; then the gateways are far away,
 * behind lines that stall and lose. No handshake fails while one gateway lives, and the journals tell of each.
 */
import { randomBytes, verify } from 'node:crypto'
import { mkdtempSync } from 'node:fs'
import path from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { verifyJournal } from '../../src/audit/verify.ts'
import { errorNumbers } from '../../src/transport/offload/frames.ts'
import { certificateVerify, connectHks } from '../support/hks-client.ts'
import { canStartLossyLine, startLossyLine } from '../support/lossy-line.ts'
import { findFreePort, type Nginx, startNginx } from '../support/nginx.ts'
import { buildProvider } from '../support/provider.ts'
import { startTcpFront } from '../support/tcp-front.ts'
import { makeKeyFileSite, startVisitors, startVisits, visit, writeSiteConf } from '../support/tls-sites.ts'
import { type GatewayOfTwo, openTwoGateways, type RelayProcess, type TwoGateways } from '../support/two-gateways.ts'
import { nginxSite } from '../support/web-servers.ts'

/** Much: a machine that is busy with other tests must not look like a gateway that failed. */
const budgetMs = 10_000
const message = certificateVerify('server', randomBytes(32))
const patience = { timeout: 180_000 }
const resources = new AsyncDisposableStack()
let gateways: TwoGateways
let relay: RelayProcess

beforeAll(async () => {
  buildProvider()
  gateways = resources.use(await openTwoGateways(budgetMs))
  const { first, second } = gateways
  await Promise.all([first.start(), second.start()])
  relay = resources.use(await gateways.startRelay([first, second]))
}, 120_000)
afterAll(() => resources.disposeAsync())

/** An NGINX whose site waits for so long to have a handshake signed by this relay. */
async function startSite(
  { socket }: RelayProcess,
  { deadlineMs = budgetMs, workers = 1, more = '' } = {},
): Promise<Nginx & { readonly port: number }> {
  const port = await findFreePort()
  const conf = writeSiteConf(mkdtempSync(path.join(gateways.folder, 'conf-')), socket, deadlineMs)
  const http = nginxSite({ port, pairs: [gateways.site], more })
  return { ...(await startNginx(port, { env: { OPENSSL_CONF: conf }, workers, http })), port }
}

interface Signed {
  readonly traceId: string
  readonly askedMs: number
  readonly answeredMs: number
}

/** Clients of the protocol with a connection each, and visitors of a site. */
async function startLoad({ socket }: RelayProcess, port: number, { clients = 4, visitors = 2 } = {}) {
  const signed: Signed[] = []
  const { key, site } = gateways
  const connections = await Promise.all(
    Array.from({ length: clients }, () => connectHks(socket, { tokens: [key.token] })),
  )
  const signers = connections.map((client) =>
    startVisits(1, async () => {
      const traceId = randomBytes(16)
      const askedMs = performance.now()
      const answer = await client.sign({ keyId: key.spkiDigest, input: message, traceId }, budgetMs)
      const isGood = answer.ok && verify('sha256', message, key.publicKey, answer.signature)
      if (!isGood) throw new Error(JSON.stringify(answer))
      signed.push({ traceId: traceId.toString('hex'), askedMs, answeredMs: performance.now() })
      await new Promise((resolve) => setTimeout(resolve, load.pauseMs))
    }),
  )
  const visits = startVisitors(port, site, visitors)
  const all = [...signers, visits]
  const load = {
    signed,
    /** Of each client between its signatures. */
    pauseMs: 0,
    visits: visits.served,
    /** Resolves when each client has had so many more signatures, and the site so many more visits. */
    async more(count: number): Promise<void> {
      await Promise.all(all.map((each) => each.more(count)))
    },
    /** What failed. */
    async stop(): Promise<readonly unknown[]> {
      await Promise.all(all.map((each) => each.stop()))
      for (const { socket } of connections) socket.destroy()
      return all.flatMap(({ failures }) => failures)
    },
  }
  return load
}

/** Connections of the relay to a gateway. */
const connectionsTo =
  ({ address }: GatewayOfTwo) =>
  async () =>
    (await relay.status()).gateways.find(({ gateway }) => gateway === address)?.connections

it(
  'fails no handshake while one of two gateways lives; each is in one journal, or died on its way there',
  patience,
  async () => {
    const { first, second, key, site } = gateways
    await using server = await startSite(relay)
    const deaths: number[] = []
    const load = await startLoad(relay, server.port)
    try {
      for (const gateway of [first, second]) {
        await load.more(25)
        deaths.push(performance.now())
        await gateway.kill()
        await load.more(50)
        // it has to find a processor
        load.pauseMs = 5
        await gateway.start()
        load.pauseMs = 0
        await expect.poll(connectionsTo(gateway), { timeout: 20_000 }).toBe(2)
      }
      await load.more(25)
    } finally {
      expect(await load.stop()).toEqual([])
    }
    const { gateways: status } = await relay.status()
    for (const { signatures, connects } of status) {
      expect(signatures).toBeGreaterThan(50)
      expect(connects).toBeGreaterThanOrEqual(4)
    }

    const journals = [first, second]
    const tracesOf = (gateway: GatewayOfTwo, bound: typeof key) =>
      gateway.signed(bound).map(({ additionalEventData }) => String(additionalEventData.traceId))
    for (const [bound, count] of [
      [key, load.signed.length],
      [site, load.visits()],
    ] as const) {
      const traces = journals.map((gateway) => tracesOf(gateway, bound))
      for (const each of traces) expect(new Set(each).size).toBe(each.length)
      expect(new Set(traces.flat()).size).toBe(count)
    }
    // a gateway may die between the record and the answer: then the other one has a record of the same signature
    const [inFirst, inSecond] = journals.map((gateway) => new Set(tracesOf(gateway, key)))
    const undisturbed = load.signed.filter(
      ({ askedMs, answeredMs }) => !deaths.some((deathMs) => askedMs <= deathMs && deathMs <= answeredMs),
    )
    expect(load.signed.length - undisturbed.length).toBeLessThanOrEqual(8)
    for (const { traceId } of undisturbed) expect(inFirst?.has(traceId)).not.toBe(inSecond?.has(traceId))
  },
)

it(
  'says in time that both gateways are lost; sites with keys in files live on, and the others when gateways are back',
  patience,
  async () => {
    const { first, second, key, site } = gateways
    const fileSite = await makeKeyFileSite(path.join(gateways.folder, 'file'))
    const filePort = await findFreePort()
    // one process serves both
    await using server = await startSite(relay, {
      deadlineMs: 1000,
      more: `server { listen 127.0.0.1:${filePort} ssl; ssl_certificate ${fileSite.certificate};
      ssl_certificate_key ${fileSite.reference}; location / { return 200; } }`,
    })
    expect(await visit(server.port, [site])).toMatchObject({ status: 200 })
    await Promise.all([first.kill(), second.kill()])

    await using client = await connectHks(relay.socket, { tokens: [key.token] })
    const request = { keyId: key.spkiDigest, input: message }
    const refusal = { ok: false, code: errorNumbers.hsm, retryable: true, text: 'no gateway can be reached' }
    expect(await client.sign(request, 1500)).toMatchObject(refusal)
    // after a moment nobody waits any more
    const refused = await client.sign(request, 60_000)
    expect(refused).toMatchObject(refusal)
    expect(refused.micros).toBeLessThan(30_000_000)

    const lost = startVisits(1, async () => {
      await expect(visit(server.port, [site])).rejects.toThrow()
    })
    const living = startVisitors(filePort, fileSite, 1)
    await lost.more(5)
    await living.more(50)
    await Promise.all([lost.stop(), living.stop()])
    expect([...lost.failures, ...living.failures]).toEqual([])
    expect(server.errorLog()).toMatch(/hsmgate.*no gateway can be reached/)

    await Promise.all([first.start(), second.start()])
    await expect.poll(() => visit(server.port, [site]).catch(() => undefined), { timeout: 20_000 }).toBeDefined()
    await using waiting = await startSite(relay)
    const load = await startLoad(relay, waiting.port)
    await load.more(25)
    expect(await load.stop()).toEqual([])
  },
)

/** Between the relay and gateways so far away one signature at a time would be five in a second. */
const farMs = 100
const farClients = { clients: 50, visitors: 8 }
/** Of health checks, which come every two seconds. */
const checksMs = 5000

async function expectGoodService(far: RelayProcess): Promise<void> {
  await using server = await startSite(far, { workers: 8 })
  const load = await startLoad(far, server.port, farClients)
  const begunMs = performance.now()
  await load.more(10)
  const tookMs = performance.now() - begunMs
  while (performance.now() - begunMs < checksMs) await load.more(1)
  expect(await load.stop()).toEqual([])

  const { gateways: status } = await far.status()
  const connections = 2 * status.length
  expect(tookMs).toBeLessThan(((10 * farClients.clients) / connections) * 2 * farMs * 0.5)
  for (const each of status) {
    expect(each).toMatchObject({ connects: 2, connections: 2, lost: 0, late: 0, refused: 0 })
    expect(each.pingMs).toBeGreaterThanOrEqual(2 * farMs - 1)
  }
}

// each with a gateway of its own
describe.concurrent('a relay far from its gateway signs many handshakes at a time and does not take it for dead', () => {
  it('over a line of 200 ms that stalls now and then', patience, async () => {
    await using front = await startTcpFront(gateways.second.port, { delayMs: farMs, stallEvery: 100, stallMs: 400 })
    await using far = await gateways.startRelay([front])
    await expectGoodService(far)
    expect(front.stalls).toBeGreaterThan(0)
  })

  it.skipIf(!canStartLossyLine())('over a line of 200 ms that loses one packet in a hundred', patience, async () => {
    const { first } = gateways
    await first.stop()
    await using line = await startLossyLine(farMs, 100)
    await first.start({ address: line.nearAddress, through: line.near })
    const place = { address: `${line.nearAddress}:${first.port}`, serverName: 'localhost' }
    await using far = await gateways.startRelay([place], line.far)
    await expectGoodService(far)
    const { carried, lost } = await line.end()
    expect(lost).toBeGreaterThan(carried / 200)
  })
})

it('leaves two whole journals', patience, async () => {
  for (const { directory, stop } of [gateways.first, gateways.second]) {
    await stop()
    expect((await verifyJournal(path.join(directory, 'audit'))).problems).toEqual([])
  }
})
