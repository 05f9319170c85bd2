/**
 * A signing endpoint for the provider's tests: speaks HKS/1 on a Unix socket with software keys, and misbehaves when told.
 *
 *   await using endpoint = await startHksEndpoint()
 *   const key = endpoint.addKey('ec', { namedCurve: 'P-256' })
 *   endpoint.onRequest = () => ({ error: 6 })
 *
 * What came in is kept in `requests` and `hellos`, in order of arrival. It serves on the event loop of its test, so programs under test
 * have to be spawned, not run synchronously.
 */
import { constants, createPublicKey, generateKeyPairSync, type KeyObject, randomBytes, sign } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type Server, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { encodeReferencePem, keyIdOf } from '../../src/tls-reference.ts'
import { decodeHello, decodeRequest } from '../../src/transport/offload/frame-decoding.ts'
import {
  encodeError,
  encodeGoaway,
  encodePong,
  encodeResult,
  encodeWelcome,
} from '../../src/transport/offload/frame-encoding.ts'
import { createFrameReader } from '../../src/transport/offload/frame-reader.ts'
import {
  clientFrames,
  errorNumbers,
  frameLimits,
  type Hello,
  hashAlgorithms,
  inputKinds,
  type Request,
  signatureAlgorithms,
  type Welcome,
} from '../../src/transport/offload/frames.ts'
import { runOk } from './command.ts'

/** What becomes of a request. Bytes go out as they are. */
export type Answer =
  | 'sign'
  | 'silence'
  | 'close'
  | 'goaway'
  | 'strayFirst'
  | 'signAndClose'
  | { readonly afterMs: number; readonly then?: Answer }
  | { readonly once: Promise<unknown>; readonly then?: Answer }
  | { readonly error: number; readonly text?: string }
  | { readonly bytes: Buffer; readonly thenClose?: boolean }
  | { readonly signature: Buffer }

/** What becomes of a HELLO. */
export type Greeting =
  | 'welcome'
  | 'silence'
  | 'close'
  | 'goaway'
  | { readonly error: number }
  | { readonly bytes: Buffer }

export interface ReceivedRequest extends Request {
  readonly requestId: number
  readonly budgetMs: number
  /** Which connection, counted from 0, and which token of it. */
  readonly connection: number
  readonly token: Buffer | undefined
}

export interface HksKey {
  readonly name: string
  readonly privateKey: KeyObject
  readonly publicKey: Buffer
  readonly keyId: Buffer
  readonly token: Buffer
  /** Paths of PEM files: the key reference, the private key, and the public key. */
  readonly reference: string
  readonly private: string
  readonly public: string
}

export interface HksEndpoint extends AsyncDisposable {
  readonly folder: string
  readonly socketPath: string
  readonly hellos: Hello[]
  readonly requests: ReceivedRequest[]
  readonly connections: { readonly accepted: number; readonly open: number }
  onRequest: (request: ReceivedRequest, attempt: number) => Answer
  onHello: (hello: Hello, connection: number) => Greeting
  welcome: Welcome
  addKey(kind: 'rsa' | 'P-256' | 'P-384' | 'P-521' | 'ed25519', options?: KeyOptions): HksKey
  /** Also signs with a key of another endpoint. */
  shareKey(key: HksKey): void
  /** Stops listening and ends all connections, as a gateway that is killed. */
  stop(): Promise<void>
  /** Listens again at the same path. */
  start(): Promise<void>
}

export interface KeyOptions {
  readonly bits?: number
  readonly endpoint?: string
  readonly withoutToken?: boolean
}

export const generousWelcome: Welcome = {
  version: 1,
  maxBodyBytes: 17_408,
  maxInputBytes: 16_384,
  maxInFlight: 64,
  maxTokens: 1024,
  instanceId: Buffer.alloc(16, 7),
  features: 0,
  maxBudgetMs: 5000,
  idleMs: 600_000,
}

const hashNames = new Map<number, string>([
  [hashAlgorithms.sha256, 'sha256'],
  [hashAlgorithms.sha384, 'sha384'],
  [hashAlgorithms.sha512, 'sha512'],
])

export async function startHksEndpoint(options: { readonly socketPath?: string } = {}): Promise<HksEndpoint> {
  const folder = mkdtempSync(path.join(tmpdir(), 'hsmgate-hks-'))
  const socketPath = options.socketPath ?? path.join(folder, 'sign.sock')
  const keys = new Map<string, HksKey>()
  const sockets = new Set<Socket>()
  let server: Server | undefined
  let accepted = 0
  let timers = new Set<NodeJS.Timeout>()

  const endpoint: HksEndpoint = {
    folder,
    socketPath,
    hellos: [],
    requests: [],
    get connections() {
      return { accepted, open: sockets.size }
    },
    onRequest: () => 'sign',
    onHello: () => 'welcome',
    welcome: generousWelcome,
    addKey: (kind, keyOptions = {}) => {
      const key = makeKey(folder, `key${keys.size}`, kind, keyOptions)
      keys.set(key.keyId.toString('hex'), key)
      return key
    },
    shareKey: (key) => void keys.set(key.keyId.toString('hex'), key),
    async stop() {
      for (const timer of timers) clearTimeout(timer)
      timers = new Set()
      for (const socket of sockets) socket.destroy()
      await new Promise<void>((resolve) => (server === undefined ? resolve() : server.close(() => resolve())))
      server = undefined
    },
    async start() {
      const listening = createServer(serve)
      server = listening
      await new Promise<void>((resolve, reject) => {
        listening.once('error', reject)
        listening.listen(socketPath, resolve)
      })
    },
    async [Symbol.asyncDispose]() {
      await endpoint.stop()
      rmSync(folder, { recursive: true, force: true })
    },
  }

  function serve(socket: Socket): void {
    const connection = accepted++
    const tokens: Buffer[] = []
    sockets.add(socket)
    socket.on('error', () => {}) // clients end as they like
    socket.on('close', () => sockets.delete(socket))
    const reader = createFrameReader(clientFrames, frameLimits.bodyBytes, (head, buffer, at, end) => {
      if (head.type === 'HELLO') {
        const hello = decodeHello(Buffer.from(buffer.subarray(at, end)), 0, end - at)
        endpoint.hellos.push(hello)
        tokens.push(...hello.tokens)
        greet(socket, endpoint.onHello(hello, connection))
      } else if (head.type === 'REQUEST') {
        const request = decodeRequest(Buffer.from(buffer.subarray(at, end)), 0, end - at)
        if (request.newToken !== undefined) tokens.push(request.newToken)
        const received: ReceivedRequest = {
          ...request,
          requestId: head.requestId,
          budgetMs: head.aux,
          connection,
          token: tokens[request.tokenIndex],
        }
        endpoint.requests.push(received)
        answer(socket, received, endpoint.onRequest(received, endpoint.requests.length - 1))
      } else {
        socket.write(encodePong(head.requestId))
      }
    })
    socket.on('data', (chunk) => {
      try {
        reader.push(chunk)
      } catch {
        socket.destroy()
      }
    })
  }

  function greet(socket: Socket, greeting: Greeting): void {
    if (greeting === 'welcome') socket.write(encodeWelcome(endpoint.welcome))
    else if (greeting === 'close') socket.destroy()
    else if (greeting === 'goaway') socket.write(encodeGoaway())
    else if (greeting === 'silence') return
    else if ('error' in greeting) {
      socket.end(encodeError(0, 0, { code: greeting.error, retryable: false, text: 'refused by the test' }))
    } else socket.write(greeting.bytes)
  }

  function answer(socket: Socket, request: ReceivedRequest, what: Answer): void {
    if (what === 'silence' || socket.destroyed) return
    if (what === 'close') socket.destroy()
    else if (what === 'goaway') {
      socket.write(encodeGoaway())
      void signAndSend(socket, request)
    } else if (what === 'sign') void signAndSend(socket, request)
    else if (what === 'signAndClose') void signAndSend(socket, request).then(() => socket.end())
    else if (what === 'strayFirst') {
      socket.write(encodeResult(request.requestId + 1000, 0, Buffer.alloc(8)))
      void signAndSend(socket, request)
    } else if ('once' in what) void what.once.then(() => answer(socket, request, what.then ?? 'sign'))
    else if ('afterMs' in what) {
      const timer = setTimeout(() => {
        timers.delete(timer)
        answer(socket, request, what.then ?? 'sign')
      }, what.afterMs)
      timers.add(timer)
    } else if ('error' in what) {
      const retryable = [errorNumbers.busy, errorNumbers.hsm, errorNumbers.shuttingDown].some((n) => n === what.error)
      socket.write(
        encodeError(request.requestId, 0, { code: what.error, retryable, text: what.text ?? 'as the test wants' }),
      )
    } else if ('bytes' in what) {
      if (what.thenClose === true) socket.end(what.bytes)
      else socket.write(what.bytes)
    } else socket.write(encodeResult(request.requestId, 0, what.signature))
  }

  async function signAndSend(socket: Socket, request: ReceivedRequest): Promise<void> {
    const key = keys.get(request.keyId.toString('hex'))
    const fail = (code: number, text: string) =>
      socket.write(encodeError(request.requestId, 0, { code, retryable: false, text }))
    if (key === undefined) fail(errorNumbers.keyNotFound, 'no such key')
    else if (request.token !== undefined && !request.token.equals(key.token)) {
      fail(errorNumbers.unauthenticated, 'no such token')
    } else {
      const signature = await signWith(key, request)
      if (!socket.destroyed) socket.write(encodeResult(request.requestId, 0, signature))
    }
  }

  await endpoint.start()
  return endpoint
}

function makeKey(
  folder: string,
  name: string,
  kind: Parameters<HksEndpoint['addKey']>[0],
  options: KeyOptions,
): HksKey {
  const { privateKey } = generatePair(kind, options)
  const publicObject = createPublicKey(privateKey)
  const publicKey = publicObject.export({ type: 'spki', format: 'der' })
  const token = randomBytes(32)
  const reference = encodeReferencePem({
    publicKey,
    ...(options.withoutToken === true ? {} : { token }),
    ...(options.endpoint === undefined ? {} : { endpoint: options.endpoint }),
    comment: name,
  })
  const file = (extension: string, content: string) => {
    const place = path.join(folder, `${name}.${extension}`)
    writeFileSync(place, content, { mode: 0o600 })
    return place
  }
  return {
    name,
    privateKey,
    publicKey,
    keyId: keyIdOf(publicKey),
    token,
    reference: file('ref.pem', reference),
    private: file('key.pem', privateKey.export({ type: 'pkcs8', format: 'pem' }).toString()),
    public: file('pub.pem', publicObject.export({ type: 'spki', format: 'pem' }).toString()),
  }
}

function generatePair(kind: Parameters<HksEndpoint['addKey']>[0], { bits = 2048 }: KeyOptions) {
  if (kind === 'rsa') return generateKeyPairSync('rsa', { modulusLength: bits })
  return kind === 'ed25519' ? generateKeyPairSync('ed25519') : generateKeyPairSync('ec', { namedCurve: kind })
}

async function signWith(key: HksKey, request: ReceivedRequest): Promise<Buffer> {
  const hash = hashNames.get(request.hash)
  if (request.inputKind === inputKinds.digest) return signDigest(key, request, hash ?? '')
  if (request.algorithm === signatureAlgorithms.rsaPss) {
    return sign(hash, request.input, {
      key: key.privateKey,
      padding: constants.RSA_PKCS1_PSS_PADDING,
      saltLength: request.saltBytes ?? 0,
    })
  }
  return sign(hash ?? null, request.input, key.privateKey)
}

/** Node signs messages only; `openssl pkeyutl` signs digests. */
async function signDigest(key: HksKey, request: ReceivedRequest, hash: string): Promise<Buffer> {
  const options = ['-pkeyopt', `digest:${hash}`]
  if (request.algorithm === signatureAlgorithms.rsaPss) {
    options.push('-pkeyopt', 'rsa_padding_mode:pss', '-pkeyopt', `rsa_pss_saltlen:${request.saltBytes}`)
  }
  return runOk('openssl', ['pkeyutl', '-sign', '-inkey', key.private, ...options], { input: request.input })
}
