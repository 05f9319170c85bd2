/**
 * The HTTP/1.1 listener: raw bodies within a limit, one answer for every request, in JSON even where HTTP itself is broken. It knows
 * nothing of operations. While it closes it accepts nothing new, answers what is under way and ends each connection after it.
 */
import { randomUUID } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import type { AddressInfo, Socket } from 'node:net'
import { TLSSocket, Server as TlsServer } from 'node:tls'
import fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify'
import type { Source } from '../../call.ts'
import { GatewayError } from '../../error.ts'
import { afterPendingAnswer, endWith, isBeyondAnswer } from '../broken-http.ts'
import { descriptorOf, type ListenAddress, listenAt } from '../descriptor.ts'
import { takeLeave } from '../farewell.ts'
import { renderFailure } from './json-protocol.ts'
import { KmsError } from './kms-error.ts'
import { createTrustedProxies } from './trusted-proxies.ts'
import type { WireProtocol, WireResponse } from './wire.ts'

export interface ListenerLimits {
  readonly maxBodyBytes: number
  /** Requests with a body of more than 64 KiB, or of unknown length, that may be under way at once. */
  readonly maxLargeBodies: number
  readonly maxHeaderBytes: number
  readonly maxConnections: number
  /** For a whole request to arrive. */
  readonly requestTimeoutMs: number
  readonly headersTimeoutMs: number
  /** Longer than a client's own, so that the client is the one to end an idle connection. */
  readonly keepAliveTimeoutMs: number
  /** How long closing waits for answers under way. */
  readonly drainTimeoutMs: number
}

/** The largest legal request carries an attestation document of 262,144 bytes in base64. */
export const defaultLimits: ListenerLimits = Object.freeze({
  maxBodyBytes: 1024 * 1024,
  maxLargeBodies: 128,
  maxHeaderBytes: 16 * 1024,
  maxConnections: 10_000,
  requestTimeoutMs: 30_000,
  headersTimeoutMs: 10_000,
  keepAliveTimeoutMs: 75_000,
  drainTimeoutMs: 15_000,
})

/** What nearly every request stays below: a key policy of 32 KiB as JSON in JSON fits. */
const largeBodyBytes = 64 * 1024

export interface ListenerOptions {
  readonly answer: WireProtocol
  readonly limits?: Partial<ListenerLimits>
  /** `ca`: those whose client certificates are required; without it none is asked for. */
  readonly tls?: { readonly cert: string | Buffer; readonly key: string | Buffer; readonly ca?: string | Buffer }
  /** Addresses and networks of proxies whose X-Forwarded-For is believed. */
  readonly trustedProxies?: readonly string[]
  /** A request that never became a call: broken HTTP, wrong path or method, too large. */
  readonly onRefused?: (name: string, cause: unknown) => void
}

export interface Listener extends AsyncDisposable {
  /** Resolves with the bound address. @throws the system error when the address can't be bound. */
  listen(address: ListenAddress): Promise<AddressInfo>
  close(): Promise<void>
  /** The listening socket. */
  descriptor(): number
  /** For requests that come from now on. */
  setTrustedProxies(entries: readonly string[]): void
  /** For connections that come from now on. @throws Error when OpenSSL refuses them, TypeError where the listener has no TLS */
  setCertificates(tls: NonNullable<ListenerOptions['tls']>): void
}

/** What AWS sends besides, so that no cache keeps an answer. */
const fixedHeaders = {
  'Cache-Control': 'no-cache, no-store, must-revalidate, private',
  Expires: '0',
  Pragma: 'no-cache',
}

export function createListener(options: ListenerOptions): Listener {
  const limits = { ...defaultLimits, ...options.limits }
  const { answer, onRefused = () => {} } = options
  let proxies = createTrustedProxies(options.trustedProxies ?? [])
  const app = fastify({
    logger: false,
    bodyLimit: limits.maxBodyBytes,
    requestTimeout: limits.requestTimeoutMs,
    keepAliveTimeout: limits.keepAliveTimeoutMs,
    return503OnClosing: false,
    trustProxy: (address: string) => proxies.has(address),
    clientErrorHandler: (error, socket) => refuseConnection(error, socket as Socket, onRefused),
    frameworkErrors: (error, _request, reply) => refuse(reply, new KmsError('UnknownOperation', undefined, error), 404),
    ...serverOptions(options, limits),
  }) as FastifyInstance

  let closing: Promise<void> | undefined

  function refuse(reply: FastifyReply, error: KmsError, status?: number): void {
    onRefused(error.kmsCode, error)
    const response = renderFailure(error)
    // The rest of the request may still be on its way: the connection can't carry another one.
    send(reply, randomUUID(), status === undefined ? response : { ...response, status }, true)
  }

  // A body is in memory before its signature can be checked, so strangers may hold only so much of it; small requests still pass.
  let largeBodies = 0
  app.addHook('onRequest', async (request, reply) => {
    if (!hasLargeBody(request)) return undefined
    if (largeBodies >= limits.maxLargeBodies) {
      onRefused('Throttled', undefined)
      return send(reply, randomUUID(), renderFailure(new GatewayError('Throttled')), true)
    }
    largeBodies++
    reply.raw.once('close', () => {
      largeBodies--
    })
    return undefined
  })
  app.removeAllContentTypeParsers()
  app.addContentTypeParser('*', { parseAs: 'buffer' }, (_request, body, done) => done(null, body))
  app.setErrorHandler((error, _request, reply) => refuse(reply, wordFrameworkError(error)))
  app.setNotFoundHandler((_request, reply) => refuse(reply, new KmsError('UnknownOperation'), 404))
  app.post('/', async (request, reply) => {
    const requestId = randomUUID()
    const response = await answer({
      method: request.method,
      rawUrl: request.raw.url ?? '/',
      rawHeaders: request.raw.rawHeaders,
      headers: request.headers,
      body: Buffer.isBuffer(request.body) ? request.body : Buffer.alloc(0),
      requestId,
      receivedAt: Date.now(),
      source: sourceOf(request, !proxies.isEmpty),
    })
    return send(reply, requestId, response, closing !== undefined)
  })

  const { server } = app
  server.maxConnections = limits.maxConnections
  // 417 and tunnels would otherwise be answered by Node with an empty body or not at all.
  server.on('checkExpectation', (_request: IncomingMessage, response) => {
    const { body, contentType } = renderFailure(new KmsError('RequestMalformed', 'Unsupported Expect header'))
    response.writeHead(417, { 'content-type': contentType, connection: 'close' }).end(body)
  })
  server.on('connect', (_request: IncomingMessage, socket: Socket) =>
    refuseAndEnd(socket, '405 Method Not Allowed', new KmsError('UnknownOperation')),
  )

  async function close(): Promise<void> {
    const timer = setTimeout(() => server.closeAllConnections(), limits.drainTimeoutMs)
    await takeLeave(server)
    await app.close()
    clearTimeout(timer)
  }

  return {
    async listen(address) {
      await app.ready()
      await listenAt(server, address)
      return server.address() as AddressInfo
    },
    close() {
      closing ??= close()
      return closing
    },
    descriptor: () => descriptorOf(server),
    setTrustedProxies(entries) {
      proxies = createTrustedProxies(entries)
    },
    setCertificates(tls) {
      if (!(server instanceof TlsServer)) throw new TypeError('the listener has no TLS')
      server.setSecureContext({ ...tls, minVersion: 'TLSv1.2' })
    },
    [Symbol.asyncDispose]() {
      return this.close()
    },
  }
}

function hasLargeBody({ headers }: FastifyRequest): boolean {
  if (headers['transfer-encoding'] !== undefined) return true
  return Number(headers['content-length'] ?? 0) > largeBodyBytes
}

function serverOptions({ tls }: ListenerOptions, limits: ListenerLimits): object {
  const http = {
    maxHeaderSize: limits.maxHeaderBytes,
    headersTimeout: limits.headersTimeoutMs,
    connectionsCheckingInterval: Math.min(limits.headersTimeoutMs, limits.requestTimeoutMs, 30_000),
    // A request without Host is refused in our words: its signature can't cover what is not there.
    requireHostHeader: false,
  }
  if (tls === undefined) return { http }
  const client = { requestCert: tls.ca !== undefined, rejectUnauthorized: tls.ca !== undefined }
  return { https: { ...http, ...tls, ...client, minVersion: 'TLSv1.2' } }
}

/** Past fastify's own serialisation, which would add a charset to the content type. */
function send(reply: FastifyReply, requestId: string, response: WireResponse, endsConnection: boolean): FastifyReply {
  reply.hijack()
  reply.raw.writeHead(response.status, {
    'x-amzn-RequestId': requestId,
    ...fixedHeaders,
    'Content-Type': response.contentType,
    'Content-Length': Buffer.byteLength(response.body),
    ...(endsConnection ? { Connection: 'close' } : {}),
  })
  // As a string it leaves in one write together with the head; a Buffer would be a second chunk.
  reply.raw.end(response.body)
  return reply
}

const tlsBySocket = new WeakMap<Socket, { readonly version: string; readonly cipherSuite: string }>()

function sourceOf(request: FastifyRequest, behindProxy: boolean): Source {
  const { socket } = request.raw
  const userAgent = request.headers['user-agent'] ?? ''
  const address = behindProxy ? request.ip : (socket.remoteAddress ?? '')
  const ip = address.startsWith('::ffff:') ? address.slice(7) : address
  if (!(socket instanceof TLSSocket)) return { ip, userAgent }
  let tls = tlsBySocket.get(socket)
  if (tls === undefined) {
    tls = { version: socket.getProtocol() ?? '', cipherSuite: socket.getCipher().standardName }
    tlsBySocket.set(socket, tls)
  }
  return { ip, userAgent, tls: { ...tls, host: request.headers.host ?? '' } }
}

function wordFrameworkError(error: unknown): KmsError {
  const code = (error as { code?: unknown }).code
  if (code === 'FST_ERR_CTP_BODY_TOO_LARGE') return new KmsError('RequestTooLarge', 'Request body is too large', error)
  if (code === 'FST_ERR_CTP_INVALID_MEDIA_TYPE') {
    return new KmsError('SerializationFailed', 'Content-Type is not valid', error)
  }
  return new KmsError('RequestMalformed', 'Request could not be read', error)
}

/** Broken HTTP: there is no request to answer, only a connection to end. */
function refuseConnection(error: Error, socket: Socket, onRefused: (name: string, cause: unknown) => void): void {
  if (isBeyondAnswer(error, socket)) return
  const { code } = error as NodeJS.ErrnoException
  if (code === 'HPE_HEADER_OVERFLOW') {
    refused('RequestTooLarge', 431, 'Request Header Fields Too Large', 'Request headers are too large')
  } else if (code === 'ERR_HTTP_REQUEST_TIMEOUT') {
    refused('RequestTimedOut', 408, 'Request Timeout', 'Request did not arrive in time')
  } else {
    refused('RequestMalformed', 400, 'Bad Request', 'Request is not valid HTTP')
  }

  function refused(
    name: 'RequestTooLarge' | 'RequestTimedOut' | 'RequestMalformed',
    status: number,
    reason: string,
    text: string,
  ) {
    onRefused(name, error)
    afterPendingAnswer(socket, () => refuseAndEnd(socket, `${status} ${reason}`, new KmsError(name, text)))
  }
}

function refuseAndEnd(socket: Socket, status: string, error: KmsError): void {
  const { body, contentType } = renderFailure(error)
  endWith(socket, status, [`Content-Type: ${contentType}`, `x-amzn-RequestId: ${randomUUID()}`], body)
}
