/** A relay between local clients and gateways with software keys: what it forwards and what it limits. */
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { statSync } from 'node:fs'
import { connect } from 'node:net'
import { afterAll, describe, expect, it } from 'vitest'
import { encodeHello, encodeRequest } from '../../../src/transport/offload/frame-encoding.ts'
import { errorNumbers, hashAlgorithms, signatureAlgorithms } from '../../../src/transport/offload/frames.ts'
import { completeRequest } from '../../support/hks-client.ts'
import { openRelayFixture } from '../../support/relay-fixture.ts'

const { files, key, request, startGateway, relayTo, connectTo, isSigned, close } = await openRelayFixture()
afterAll(close)

describe('a relay', () => {
  it('has a gateway sign, and says who asked', async () => {
    await using gateway = await startGateway()
    await using relay = await relayTo([gateway])
    await using client = await connectTo(relay, { app: 'nginx' })
    const answer = await client.sign(request)
    expect(isSigned(answer)).toBe(true)
    const [asked] = gateway.asked
    expect(asked?.peer).toMatchObject({ kind: 'relay', spkiDigest: files.digest, subject: 'CN=web-host' })
    expect(asked?.request.reported).toEqual({ uid: process.getuid?.(), pid: process.pid, app: 'nginx' })
    expect(asked?.app).toBe('hsmgate-relay')
  })

  it('passes every field on, and the answer of the gateway back', async () => {
    await using gateway = await startGateway()
    gateway.onSign = () => ({ error: 'policyDenied' })
    await using relay = await relayTo([gateway])
    await using client = await connectTo(relay)
    const pss = {
      algorithm: signatureAlgorithms.rsaPss,
      hash: hashAlgorithms.sha384,
      mgfHash: hashAlgorithms.sha384,
      saltBytes: 48,
      traceId: randomBytes(16),
    }
    const answer = await client.sign({ ...request, ...pss }, 700)
    expect(answer).toMatchObject({
      ok: false,
      code: errorNumbers.policyDenied,
      retryable: false,
      text: 'as the test wants',
    })
    expect(gateway.asked).toHaveLength(1)
    const { newToken, reported, ...fields } = completeRequest(request)
    expect(gateway.asked[0]?.request).toMatchObject({ ...fields, ...pss })
  })

  it('sends each token once over a connection, whoever presents it', async () => {
    await using gateway = await startGateway()
    await using relay = await relayTo([gateway], { config: { connections: 1 } })
    for (let round = 0; round < 3; round++) {
      await using client = await connectTo(relay)
      expect(isSigned(await client.sign(request))).toBe(true)
    }
    expect(gateway.asked.map(({ request }) => request.tokenIndex)).toEqual([0, 0, 0])
    expect(gateway.asked.map(({ request }) => request.newToken !== undefined)).toEqual([true, false, false])
  })

  it('passes on that a gateway does not know a token', async () => {
    await using gateway = await startGateway()
    await using relay = await relayTo([gateway])
    await using client = await connectTo(relay, { tokens: [randomBytes(32)] })
    expect(await client.sign(request)).toMatchObject({ ok: false, code: errorNumbers.unauthenticated })
  })

  it('takes another connection when the table of tokens of one is full', async () => {
    await using gateway = await startGateway()
    await using relay = await relayTo([gateway], { config: { connections: 1 } })
    await using client = await connectTo(relay, { tokens: [] })
    for (let index = 0; index < 1023; index++) {
      await client.sign({ ...request, newToken: randomBytes(32), tokenIndex: index })
    }
    expect(relay.relay.status().gateways[0]?.connects).toBe(1)
    await using known = await connectTo(relay)
    for (let round = 0; round < 5; round++) expect(isSigned(await known.sign(request))).toBe(true)
    expect(relay.relay.status().gateways[0]).toMatchObject({ connects: 2, lost: 0 })
  })

  it('serves a thousand connections over two', async () => {
    await using gateway = await startGateway()
    await using relay = await relayTo([gateway])
    const clients = await Promise.all(Array.from({ length: 1000 }, () => connectTo(relay)))
    try {
      const answers = await Promise.all(clients.map((client) => client.sign(request, 10_000)))
      expect(answers.filter((answer) => !answer.ok)).toEqual([])
      expect(gateway.connections).toBe(2)
      expect(relay.relay.status()).toMatchObject({ localConnections: 1000, requests: 1000, signatures: 1000 })
    } finally {
      for (const client of clients) client.socket.destroy()
    }
  })

  it('keeps to the open requests that a gateway announced; others wait', async () => {
    await using gateway = await startGateway({ limits: { maxInFlight: 2 } })
    let open = 0
    let most = 0
    gateway.onSign = () => {
      most = Math.max(most, ++open)
      setTimeout(() => open--, 4)
      return { afterMs: 5 }
    }
    await using relay = await relayTo([gateway])
    await using client = await connectTo(relay)
    const answers = await Promise.all(Array.from({ length: 40 }, () => client.sign(request)))
    expect(answers.every(isSigned)).toBe(true)
    expect(most).toBeLessThanOrEqual(4)
  })

  it('is BUSY when it has too much to do', async () => {
    await using gateway = await startGateway()
    gateway.onSign = () => 'silence'
    await using relay = await relayTo([gateway], { config: { maxPending: 3 } })
    await using client = await connectTo(relay)
    const answers = await Promise.all(Array.from({ length: 5 }, () => client.sign(request, 100)))
    const codes = answers.map((answer) => (answer.ok ? 0 : answer.code))
    expect(codes).toEqual([8, 8, 8, 6, 6])
  })

  it('refuses a message that the gateway would end the connection for', async () => {
    await using gateway = await startGateway({ limits: { maxInputBytes: 1000, maxBodyBytes: 1400 } })
    await using relay = await relayTo([gateway], { config: { connections: 1 } })
    await using client = await connectTo(relay)
    const long = await client.sign({ ...request, input: Buffer.alloc(1001) })
    expect(long).toMatchObject({ ok: false, code: errorNumbers.badRequest, retryable: false })
    expect(isSigned(await client.sign(request))).toBe(true)
    expect(relay.relay.status().gateways[0]).toMatchObject({ connects: 1, lost: 0, requests: 1 })
  })

  it('serves only the users that it is told, when it is told any', async () => {
    await using gateway = await startGateway()
    const uid = process.getuid?.() ?? 0
    await using own = await relayTo([gateway], { config: { users: [uid] } })
    await using mine = await connectTo(own)
    expect(isSigned(await mine.sign(request))).toBe(true)
    await using others = await relayTo([gateway], { config: { users: [uid + 1] } })
    await using stranger = await connectTo(others)
    expect(await stranger.sign(request)).toMatchObject({
      ok: false,
      code: errorNumbers.unauthenticated,
      retryable: false,
    })
    expect(gateway.asked).toHaveLength(1)
  })

  it('makes its socket with the mode that it is told', async () => {
    await using gateway = await startGateway()
    await using relay = await relayTo([gateway], { config: { mode: '0666' } })
    expect(statSync(relay.socket).mode & 0o777).toBe(0o666)
  })
})

describe('a bad client of a relay', () => {
  const hello = () =>
    encodeHello({ minVersion: 1, maxVersion: 1, app: 'bad', pid: 1, providerVersion: '0', tokens: [key.token] })

  it.each([
    ['another protocol', Buffer.from('GET / HTTP/1.1\r\n\r\n')],
    ['a request before its greeting', encodeRequest(1, 0, completeRequest(request))],
    ['a frame that is too long', Buffer.concat([hello(), Buffer.from('00010000010300000000000100000000', 'hex')])],
  ])('that sends %s loses its connection, and nobody else does', async (_, bytes) => {
    await using gateway = await startGateway()
    await using relay = await relayTo([gateway])
    await using good = await connectTo(relay)
    const socket = connect(relay.socket)
    socket.on('error', () => {})
    socket.resume()
    socket.write(bytes)
    await once(socket, 'close')
    expect(isSigned(await good.sign(request))).toBe(true)
    expect(relay.noted.filter((line) => line.startsWith('local protocol'))).toHaveLength(1)
  })

  it('that claims to speak for another user is refused', async () => {
    await using gateway = await startGateway()
    await using relay = await relayTo([gateway])
    await using client = await connectTo(relay)
    const answer = await client.sign({ ...request, reported: { uid: 0 } })
    expect(answer).toMatchObject({ ok: false, code: errorNumbers.badRequest })
    expect(gateway.asked).toHaveLength(0)
  })

  it('that leaves before its answers have come harms nobody', async () => {
    await using gateway = await startGateway()
    gateway.onSign = () => ({ afterMs: 30 })
    await using relay = await relayTo([gateway], { config: { connections: 1 } })
    const leaver = await connectTo(relay)
    void leaver.sign(request).catch(() => {})
    await using good = await connectTo(relay)
    const answer = good.sign(request)
    await leaver[Symbol.asyncDispose]()
    expect(isSigned(await answer)).toBe(true)
    await expect.poll(() => relay.relay.status().pending).toBe(0)
  })
})
