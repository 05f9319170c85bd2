/** What strangers may make the listener of the XKS door hold: bodies that never end. */
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { type ClientHttp2Session, type ClientHttp2Stream, connect } from 'node:http2'
import { connect as connectTls } from 'node:net'
import os from 'node:os'
import path from 'node:path'
import { buffer } from 'node:stream/consumers'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { completeDevelopmentTls } from '../../../../src/cli/development-ca.ts'
import { createListener, type ListenerLimits, type ListenerTls } from '../../../../src/transport/xks/listener.ts'

let directory: string
let tls: ListenerTls
let ca: Buffer

beforeAll(async () => {
  directory = await mkdtemp(path.join(os.tmpdir(), 'hsmgate-xks-listener-'))
  await completeDevelopmentTls(directory)
  const read = (name: string) => readFile(path.join(directory, name))
  tls = { cert: await read('server.pem'), key: await read('server.key') }
  ca = await read('ca.pem')
})
afterAll(() => rm(directory, { recursive: true, force: true }))

async function listen(limits: Partial<ListenerLimits>, isPlain = false) {
  const listener = createListener({
    limits,
    ...(isPlain ? {} : { tls }),
    answer: async ({ body }) => ({ status: 200, body: JSON.stringify({ bytes: body.length }) }),
  })
  const { port } = await listener.listen({ host: '127.0.0.1', port: 0 })
  return { listener, port }
}

function begin(session: ClientHttp2Session, body: Buffer): ClientHttp2Stream {
  const stream = session.request({
    ':method': 'POST',
    ':path': '/kms/xks/v1/health',
    'content-type': 'application/json',
  })
  stream.on('error', () => {})
  stream.write(body)
  return stream
}

/** Its end comes before the stream is reset, which `buffer` would take for a failure. */
function answerOf(stream: ClientHttp2Stream): Promise<{ status: number; body: unknown }> {
  return new Promise((resolve) => {
    let status = 0
    let text = ''
    stream.once('response', (head) => {
      status = Number(head[':status'])
    })
    stream.on('data', (chunk) => {
      text += chunk
    })
    stream.once('end', () => resolve({ status, body: JSON.parse(text) }))
  })
}

it('ends an HTTP/2 request whose body does not arrive in time, and leaves the others of its connection alone', async () => {
  const { listener, port } = await listen({ requestTimeoutMs: 200 })
  await using _listener = listener
  const session = connect(`https://localhost:${port}`, { ca })
  const slow = begin(session, Buffer.alloc(1000))
  expect(await answerOf(slow)).toMatchObject({ status: 408, body: { errorName: 'ValidationException' } })
  await expect.poll(() => slow.closed).toBe(true)
  const whole = begin(session, Buffer.alloc(10))
  whole.end()
  expect(await answerOf(whole)).toEqual({ status: 200, body: { bytes: 10 } })
  session.destroy()
})

it('holds only so many bytes of bodies that have not arrived: the slowest give way, whoever sends whole requests is served', async () => {
  const { listener, port } = await listen({ maxArrivingBytes: 256 * 1024 })
  await using _listener = listener
  const session = connect(`https://localhost:${port}`, { ca })
  const slow = Array.from({ length: 5 }, () => begin(session, Buffer.alloc(30 * 1024)))
  const refused = await Promise.all(slow.slice(0, 2).map(answerOf))
  expect(refused.map(({ status }) => status)).toEqual([408, 408])
  const whole = begin(session, Buffer.alloc(10))
  whole.end()
  expect(await answerOf(whole)).toMatchObject({ status: 200 })
  session.destroy()
})

it('makes slow requests of HTTP/1.1 give way, too', async () => {
  const { listener, port } = await listen({ maxArrivingBytes: 100 * 1024 }, true)
  await using _listener = listener
  const head =
    'POST /kms/xks/v1/health HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 60000\r\n\r\n'
  const slow = connectTls(port, '127.0.0.1')
  slow.write(`${head}abc`)
  const others = connectTls(port, '127.0.0.1')
  slow.once('connect', () => others.write(`${head}abc`))
  expect((await buffer(slow)).toString()).toMatch(/^HTTP\/1\.1 408 /)
  others.destroy()
})
