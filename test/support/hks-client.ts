/**
 * A raw client of the signing socket: frames in, frames out, nothing clever. It sends what it is told, wrong things too.
 *
 *   await using client = await connectHks(socket, { tokens: [token] })
 *   const answer = await client.sign({ keyId, input })
 */
import { connect, type Socket } from 'node:net'
import { decodeError, decodeResult, decodeWelcome } from '../../src/transport/offload/frame-decoding.ts'
import { encodeHello, encodePing, encodeRequest } from '../../src/transport/offload/frame-encoding.ts'
import { createFrameReader } from '../../src/transport/offload/frame-reader.ts'
import {
  frameLimits,
  gatewayFrames,
  hashAlgorithms,
  inputKinds,
  type Request,
  signatureAlgorithms,
  type Welcome,
} from '../../src/transport/offload/frames.ts'

export type HksAnswer =
  | { readonly ok: true; readonly signature: Buffer; readonly micros: number }
  | {
      readonly ok: false
      readonly code: number
      readonly retryable: boolean
      readonly text: string
      readonly micros: number
    }

export interface HksClient extends AsyncDisposable {
  readonly socket: Socket
  readonly welcome: Welcome
  /** ECDSA with SHA-256 over a message, by the first token, unless told. */
  sign(request: Partial<Request> & Pick<Request, 'keyId' | 'input'>, budgetMs?: number): Promise<HksAnswer>
  ping(): Promise<void>
  /** Bytes as they are. */
  send(bytes: Buffer): void
  /** The next answer with this request id. */
  answer(requestId: number): Promise<HksAnswer>
  readonly goaway: Promise<void>
  /** The connection is over, for whatever reason. */
  readonly closed: Promise<void>
}

export interface HksOptions {
  readonly tokens?: readonly Buffer[]
  readonly app?: string
  readonly minVersion?: number
  readonly maxVersion?: number
}

const pss = { mgfHash: hashAlgorithms.sha256, saltBytes: 32 }

export function completeRequest(request: Partial<Request> & Pick<Request, 'keyId' | 'input'>): Request {
  return {
    tokenIndex: 0,
    algorithm: signatureAlgorithms.ecdsa,
    hash: hashAlgorithms.sha256,
    inputKind: inputKinds.message,
    traceId: undefined,
    newToken: undefined,
    reported: undefined,
    ...(request.algorithm === signatureAlgorithms.rsaPss ? pss : { mgfHash: undefined, saltBytes: undefined }),
    ...request,
  }
}

/** Connects to a path and greets. @throws Error with the answer's text when the greeting is refused. */
export async function connectHks(path: string, options: HksOptions = {}): Promise<HksClient> {
  const socket = connect(path)
  return greet(socket, options)
}

export async function greet(socket: Socket, options: HksOptions = {}): Promise<HksClient> {
  const { tokens = [], app = 'test', minVersion = 1, maxVersion = 1 } = options
  const answers = new Map<number, PromiseWithResolvers<HksAnswer>>()
  const pongs = new Map<number, () => void>()
  const welcomed = Promise.withResolvers<Welcome>()
  const goaway = Promise.withResolvers<void>()
  const closed = Promise.withResolvers<void>()
  let nextId = 1

  const expect = (requestId: number) => {
    const known = answers.get(requestId) ?? Promise.withResolvers<HksAnswer>()
    answers.set(requestId, known)
    return known
  }
  const reader = createFrameReader(gatewayFrames, frameLimits.bodyBytes, (head, buffer, at, end) => {
    const { requestId, aux: micros } = head
    if (head.type === 'WELCOME') welcomed.resolve(decodeWelcome(buffer, at, end))
    else if (head.type === 'GOAWAY') goaway.resolve()
    else if (head.type === 'PONG') pongs.get(requestId)?.()
    else if (head.type === 'RESULT') {
      expect(requestId).resolve({ ok: true, signature: Buffer.from(decodeResult(buffer, at, end)), micros })
    } else {
      const error = decodeError(buffer, at, end)
      if (requestId === 0) welcomed.reject(new Error(`${error.code}: ${error.text}`))
      else expect(requestId).resolve({ ok: false, ...error, micros })
    }
  })
  socket.on('data', (chunk) => reader.push(chunk))
  socket.on('error', () => {})
  socket.on('close', () => {
    const over = new Error('the connection is over')
    welcomed.reject(over)
    for (const { reject } of answers.values()) reject(over)
    closed.resolve()
  })
  welcomed.promise.catch(() => {})
  socket.write(encodeHello({ minVersion, maxVersion, app, pid: process.pid, providerVersion: '0.0.0', tokens }))
  const welcome = await welcomed.promise

  const client: HksClient = {
    socket,
    welcome,
    async sign(request, budgetMs = 0) {
      const requestId = nextId++
      const { promise } = expect(requestId)
      socket.write(encodeRequest(requestId, budgetMs, completeRequest(request)))
      return promise
    },
    ping() {
      const requestId = nextId++
      return new Promise((resolve, reject) => {
        pongs.set(requestId, resolve)
        closed.promise.then(() => reject(new Error('the connection is over')))
        socket.write(encodePing(requestId))
      })
    },
    send: (bytes) => void socket.write(bytes),
    answer: (requestId) => expect(requestId).promise,
    goaway: goaway.promise,
    closed: closed.promise,
    async [Symbol.asyncDispose]() {
      socket.destroy()
      await closed.promise
    },
  }
  return client
}

/** What a TLS 1.3 server signs (RFC 8446, section 4.4.3). */
export function certificateVerify(side: 'server' | 'client', transcriptHash: Buffer): Buffer {
  return Buffer.concat([
    Buffer.alloc(64, 0x20),
    Buffer.from(`TLS 1.3, ${side} CertificateVerify\0`, 'latin1'),
    transcriptHash,
  ])
}
