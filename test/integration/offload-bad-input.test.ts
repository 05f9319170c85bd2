/**
 * Clients of a real gateway that send what is no HKS/1, too little of it, too slowly, or what they heard from others: at the Unix socket and at
 * the listener for relays. Each gets a clear answer or the end of its connection; whoever else is there is signed for as before.
 */
import { randomBytes, verify } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import os from 'node:os'
import path from 'node:path'
import { connect as connectTls } from 'node:tls'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { encodeHello, encodePing, encodeRequest, encodeResult } from '../../src/transport/offload/frame-encoding.ts'
import { errorNumbers, frameTypes, headBytes } from '../../src/transport/offload/frames.ts'
import { startGateway, type TestGateway } from '../support/gateway.ts'
import { certificateVerify, completeRequest, greet, type HksClient } from '../support/hks-client.ts'
import { type BoundKey, bindKey, createTlsKey, offloadRecords } from '../support/offload.ts'
import { makeRelayPki, type RelayFiles } from '../support/relay-gateway.ts'

/** A gateway takes five seconds for a frame, and looks once a second. */
const patience = { timeout: 60_000 }
const message = certificateVerify('server', randomBytes(32))
const read = (file: string) => readFileSync(file, 'utf8')
let folder: string
let gateway: TestGateway
let relay: RelayFiles
let key: BoundKey
const doors = { local: 'the Unix socket', relay: 'the listener for relays' }
type Door = keyof typeof doors
/** A new connection, on which nothing was said. */
let open: Record<Door, () => Socket>

beforeAll(async () => {
  folder = mkdtempSync(path.join(os.tmpdir(), 'hsmgate-bad-input-'))
  const pki = await makeRelayPki(folder)
  const file = (name: string, text: string) => {
    writeFileSync(path.join(folder, name), text, { mode: 0o600 })
    return path.join(folder, name)
  }
  const tls = {
    certificateFile: file('gateway.pem', pki.server.cert),
    keyFile: file('gateway.key', pki.server.key),
    clientCaFile: file('relays.pem', pki.clientCa),
  }
  const loopback = { address: '127.0.0.1', port: 0 }
  gateway = await startGateway({
    config: { listen: { kms: loopback, operator: { http: null }, relay: { ...loopback, tls } } },
  })
  relay = await pki.issue('web-host')
  const [socketPath = '', listener = ''] = gateway.gateway.endpoints.offload
  const client = { cert: read(relay.certificateFile), key: read(relay.keyFile), ca: read(pki.server.caFile) }
  open = {
    local: () => connect(socketPath),
    relay: () => connectTls({ host: '127.0.0.1', port: Number(new URL(listener).port), ...client }),
  }
  key = await newKey()
})
afterAll(async () => {
  await gateway?.[Symbol.asyncDispose]()
  rmSync(folder, { recursive: true, force: true })
})

async function newKey(): Promise<BoundKey> {
  const tlsKey = await createTlsKey(gateway, 'ECC_NIST_P256')
  return bindKey(gateway, tlsKey, { users: [process.getuid?.() ?? 0], relays: [relay.digest] })
}

const helloWith = (...tokens: readonly Buffer[]) =>
  encodeHello({ minVersion: 1, maxVersion: 1, app: 'test', pid: 1, providerVersion: '0', tokens })
const requestOf = ({ spkiDigest: keyId }: BoundKey, id = 1) =>
  encodeRequest(id, 0, completeRequest({ keyId, input: message }))
/** With bytes of its head replaced. */
function changed(frame: Buffer, at: number, ...bytes: readonly number[]): Buffer {
  const copy = Buffer.from(frame)
  copy.set(bytes, at)
  return copy
}
const headOf = (bodyBytes: number, type: number) => {
  const head = changed(Buffer.alloc(headBytes), 4, 1, type)
  head.writeUInt32BE(bodyBytes)
  return head
}

interface RawClient extends Disposable {
  readonly socket: Socket
  /** The types of the frames that came, and the bodies. */
  readonly frames: () => readonly { readonly type: number; readonly body: Buffer }[]
  readonly over: Promise<void>
  frame(index: number): Promise<{ readonly type: number; readonly body: Buffer }>
}

function openRaw(door: Door): RawClient {
  const socket = open[door]()
  const chunks: Buffer[] = []
  socket.on('data', (chunk) => chunks.push(chunk)).on('error', () => {})
  const over = new Promise<void>((resolve) => socket.once('close', () => resolve()))
  const frames = () => {
    const found = []
    let rest = Buffer.concat(chunks)
    while (rest.length >= headBytes && rest.length >= headBytes + rest.readUInt32BE()) {
      const end = headBytes + rest.readUInt32BE()
      found.push({ type: rest[5] ?? 0, body: rest.subarray(headBytes, end) })
      rest = rest.subarray(end)
    }
    return found
  }
  return {
    socket,
    frames,
    over,
    async frame(index) {
      await vi.waitFor(() => expect(frames().length).toBeGreaterThan(index), { timeout: 20_000, interval: 5 })
      return frames()[index]!
    },
    [Symbol.dispose]: () => void socket.destroy(),
  }
}

async function isSigned(client: HksClient, by = key): Promise<boolean> {
  const answer = await client.sign({ keyId: by.spkiDigest, input: message })
  return answer.ok && verify('sha256', message, by.publicKey, answer.signature)
}

async function count(metric: string): Promise<number> {
  const { text } = await gateway.gateway.observer.metrics()
  return Number(
    text
      .split('\n')
      .find((line) => line.startsWith(`${metric} `))
      ?.slice(metric.length) ?? 0,
  )
}
const ended = (door: Door, reason: string) =>
  count(`hsmgate_offload_connections_closed_total{peer="${door}",reason="${reason}"}`)

it('ends whoever is too slow with any part of a frame, and signs for others meanwhile', patience, async () => {
  const [hello, request] = [helloWith(key.token), requestOf(key)]
  // What is sent whole, and what follows: its first bytes at once, the rest one by one, never to its end.
  const stages: readonly (readonly [whole: Buffer, begun: Buffer, isDribbled: boolean])[] = [
    [Buffer.alloc(0), Buffer.alloc(0), false],
    [Buffer.alloc(0), hello.subarray(0, 7), false],
    [Buffer.alloc(0), hello.subarray(0, headBytes), false],
    [Buffer.alloc(0), hello.subarray(0, -1), false],
    [Buffer.alloc(0), hello, true],
    [hello, request.subarray(0, 1), false],
    [hello, request.subarray(0, headBytes), false],
    [hello, request.subarray(0, -1), false],
    [hello, request, true],
    [Buffer.concat([hello, requestOf(key, 7)]), request.subarray(0, 40), false],
    [hello, encodePing(1), true],
  ]
  const attack = async (door: Door) => {
    const before = await ended(door, 'slow')
    await using good = await greet(open[door](), { tokens: [key.token] })
    const slow = stages.map(([whole, begun, isDribbled]) => {
      const raw = openRaw(door)
      raw.socket.write(Buffer.concat([whole, isDribbled ? begun.subarray(0, 1) : begun]))
      let at = 1
      const dribble = setInterval(() => {
        if (isDribbled && at < begun.length - 1 && !raw.socket.destroyed) raw.socket.write(begun.subarray(at, ++at))
      }, 400)
      return raw.over.finally(() => clearInterval(dribble))
    })
    let areOver = false
    const all = Promise.all(slow).then(() => {
      areOver = true
    })
    let signed = 0
    while (!areOver) {
      expect(await isSigned(good)).toBe(true)
      signed++
    }
    await all
    expect(signed).toBeGreaterThan(10)
    expect((await ended(door, 'slow')) - before).toBe(stages.length)
  }
  await Promise.all([attack('local'), attack('relay')])
})

describe.each(Object.entries(doors) as [Door, string][])('%s: %s', (door) => {
  it('ends without an answer whoever sends what is no frame of a client, and nobody else', patience, async () => {
    const [hello, request] = [helloWith(key.token), requestOf(key)]
    const broken: Readonly<Record<string, Buffer>> = {
      'another version': changed(request, 4, 2),
      'version 0': changed(request, 4, 0),
      'no type': changed(request, 5, 0),
      'an unknown type': changed(request, 5, 9),
      'a flag': changed(request, 7, 1),
      'a frame of gateways': encodeResult(1, 0, Buffer.alloc(64)),
      'one byte more than a HELLO may have': headOf(65_537, frameTypes.HELLO),
      'one byte more than a REQUEST may have': headOf(17_409, frameTypes.REQUEST),
      'four gigabytes': headOf(0xffffffff, frameTypes.REQUEST),
      'a PING with a body': headOf(1, frameTypes.PING),
      HTTP: Buffer.from('GET / HTTP/1.1\r\nHost: localhost\r\n\r\n'),
      TLS: Buffer.from('1603010200010001fc0303', 'hex'),
      zeros: Buffer.alloc(100),
    }
    const before = await ended(door, 'protocol')
    const records = (await offloadRecords(gateway)).length
    await using good = await greet(open[door](), { tokens: [key.token] })
    const cases = Object.entries(broken)
    for (const [name, bytes] of cases) {
      using greeted = openRaw(door)
      greeted.socket.write(Buffer.concat([hello, bytes, request]))
      using stranger = openRaw(door)
      stranger.socket.write(Buffer.concat([bytes, hello]))
      await Promise.all([greeted.over, stranger.over])
      expect([name, ...stranger.frames()]).toEqual([name])
      // At most the WELCOME; the end of the connection may be faster.
      expect([name, greeted.frames().filter(({ type }) => type !== frameTypes.WELCOME)]).toEqual([name, []])
    }
    using twice = openRaw(door)
    twice.socket.write(Buffer.concat([hello, hello, request]))
    using early = openRaw(door)
    early.socket.write(request)
    await Promise.all([twice.over, early.over])
    expect((await ended(door, 'protocol')) - before).toBe(2 * cases.length + 2)
    await good.ping()
    expect((await offloadRecords(gateway)).slice(records)).toEqual([])
    expect(await isSigned(good)).toBe(true)
  })

  it('forgets whoever leaves in the middle of a frame', patience, async () => {
    const [hello, request] = [helloWith(key.token), requestOf(key)]
    const connections = () => count(`hsmgate_offload_connections{peer="${door}"}`)
    const before = await connections()
    for (const bytes of [
      hello.subarray(0, 3),
      hello.subarray(0, 40),
      Buffer.concat([hello, request.subarray(0, 50)]),
    ]) {
      const raw = openRaw(door)
      raw.socket.end(bytes)
      await raw.over
    }
    await expect.poll(connections, { timeout: 20_000 }).toBeLessThanOrEqual(before)
  })

  it('says what is wrong with a greeting, and ends it', patience, async () => {
    const hello = helloWith()
    const says = async (bytes: Buffer) => {
      using raw = openRaw(door)
      raw.socket.write(bytes)
      const { type, body } = await raw.frame(0)
      await raw.over
      return [type, body.readUInt16BE(), body.subarray(3).toString()]
    }
    const versions = hello.indexOf(Buffer.from([1, 0, 2]), headBytes) + 3
    expect(await says(changed(hello, versions, 2, 3))).toEqual([
      frameTypes.ERROR,
      errorNumbers.unsupported,
      'no common version',
    ])
    const [type, code, text] = await says(Buffer.concat([headOf(2, frameTypes.HELLO), Buffer.alloc(2)]))
    expect([type, code]).toEqual([frameTypes.ERROR, errorNumbers.badRequest])
    expect(text).toMatch(/./)
  })

  it('says what is wrong with a request, and goes on', patience, async () => {
    using raw = openRaw(door)
    const request = requestOf(key)
    const cut = Buffer.concat([headOf(30, frameTypes.REQUEST), request.subarray(headBytes, headBytes + 30)])
    const garbage = Buffer.concat([headOf(500, frameTypes.REQUEST), randomBytes(500)])
    const unknown = changed(request, headBytes, 0x7f)
    raw.socket.write(Buffer.concat([helloWith(key.token), cut, garbage, unknown, requestOf(key, 9)]))
    const answers = [await raw.frame(1), await raw.frame(2), await raw.frame(3)]
    for (const { type, body } of answers) {
      expect([type, body.readUInt16BE()]).toEqual([frameTypes.ERROR, errorNumbers.badRequest])
    }
    const { type, body } = await raw.frame(4)
    expect(type).toBe(frameTypes.RESULT)
    expect(verify('sha256', message, key.publicKey, body)).toBe(true)
  })

  it(
    'signs nothing without a token, with an unknown one, with one of another connection, or for another key',
    patience,
    async () => {
      const other = await newKey()
      await using client = await greet(open[door](), {})
      const ask = (request: object) => client.sign({ keyId: key.spkiDigest, input: message, ...request })
      const refused = (code: number) => expect.objectContaining({ ok: false, code, retryable: false })
      expect(await ask({})).toEqual(refused(errorNumbers.badRequest))
      // The index that it has on the connection of another process.
      await using owner = await greet(open[door](), { tokens: [other.token, key.token] })
      expect(await ask({ tokenIndex: 1 })).toEqual(refused(errorNumbers.badRequest))
      expect(await ask({ newToken: randomBytes(32) })).toEqual(refused(errorNumbers.unauthenticated))
      expect(await ask({ newToken: other.token, tokenIndex: 1 })).toEqual(refused(errorNumbers.keyNotFound))
      expect(await ask({ tokenIndex: 1, keyId: randomBytes(32) })).toEqual(refused(errorNumbers.keyNotFound))
      expect(await ask({ tokenIndex: 1, keyId: other.spkiDigest })).toMatchObject({ ok: true })
      await owner.ping()
    },
  )

  it('lets a greeting that was heard from another do no more than its token does', patience, async () => {
    const heard = helloWith(key.token)
    const revocable = await newKey()
    await using own = await greet(open[door](), { tokens: [key.token] })
    expect(await isSigned(own)).toBe(true)
    // The same user or relay again: it is the token that counts, and whose connection it is.
    using again = openRaw(door)
    again.socket.write(Buffer.concat([heard, requestOf(key)]))
    expect((await again.frame(1)).type).toBe(frameTypes.RESULT)
    // After a revocation, in the bytes of before.
    const late = Buffer.concat([helloWith(revocable.token), requestOf(revocable)])
    await gateway.ask('tls', 'revoke', { name: revocable.name })
    using revoked = openRaw(door)
    revoked.socket.write(late)
    expect((await revoked.frame(1)).body.readUInt16BE()).toBe(errorNumbers.unauthenticated)
    // From where the token is not bound to.
    const elsewhere = await bindKey(gateway, key, {
      ...(door === 'local' ? { users: [65_534], relays: [relay.digest] } : { users: [process.getuid?.() ?? 0] }),
    })
    using thief = openRaw(door)
    thief.socket.write(Buffer.concat([helloWith(elsewhere.token), requestOf(elsewhere)]))
    expect((await thief.frame(1)).body.readUInt16BE()).toBe(errorNumbers.unauthenticated)
    const [record] = await offloadRecords(gateway, elsewhere.name)
    expect(record).toMatchObject({ errorCode: 'PeerRefused', eventName: expect.any(String) })
  })
})
