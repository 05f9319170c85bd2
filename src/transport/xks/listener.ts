/**
 * The listener of the XKS door: HTTP/1.1 and HTTP/2 over TLS 1.2 and 1.3, raw bodies within a limit, and one line of JSON as the answer to
 * everything, even where HTTP itself is broken. It knows nothing of operations. While it closes it answers what is under way.
 */
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Http2ServerRequest, Http2ServerResponse } from 'node:http2'
import type { AddressInfo, Socket } from 'node:net'
import type { SecureContextOptions, TLSSocket } from 'node:tls'
import fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify'
import { afterPendingAnswer, endWith, isBeyondAnswer } from '../broken-http.ts'
import { descriptorOf, type ListenAddress, listenAt } from '../descriptor.ts'
import { takeLeave } from '../farewell.ts'
import { createArrivingRequests } from './arriving-requests.ts'
import { renderError } from './dialect.ts'
import { XksError } from './xks-error.ts'

export interface WireRequest {
  readonly method: string
  /** Request target as received. */
  readonly rawUrl: string
  /** Name, value, name, value, ..; `:authority` of HTTP/2 stands as `host`. */
  readonly rawHeaders: readonly string[]
  readonly body: Buffer
  /** Epoch milliseconds. */
  readonly receivedAt: number
  readonly ip: string
  readonly userAgent: string
  readonly socket: Socket
}

export interface WireResponse {
  readonly status: number
  readonly body: string
  /** Default: application/json. */
  readonly contentType?: string
  /** Ends the connection without an answer. */
  readonly resets?: boolean
}

export interface ListenerLimits {
  readonly maxBodyBytes: number
  /** Of all requests together that have not arrived whole. */
  readonly maxArrivingBytes: number
  readonly maxHeaderBytes: number
  readonly maxConnections: number
  readonly maxStreamsPerConnection: number
  /** For a whole request to arrive. */
  readonly requestTimeoutMs: number
  readonly headersTimeoutMs: number
  readonly keepAliveTimeoutMs: number
  readonly drainTimeoutMs: number
}

/**
 * A request holds at most 8192 + 16,384 characters of base64 and metadata. Network load balancers end connections that are idle for 350 s
 * (AWS, "Network Load Balancers: idle timeout"): the proxy must not be faster, since every new connection costs AWS KMS round trips of its 250 ms.
 */
export const defaultLimits: ListenerLimits = Object.freeze({
  maxBodyBytes: 64 * 1024,
  maxArrivingBytes: 128 * 1024 * 1024,
  maxHeaderBytes: 16 * 1024,
  maxConnections: 10_000,
  maxStreamsPerConnection: 256,
  requestTimeoutMs: 10_000,
  headersTimeoutMs: 5_000,
  keepAliveTimeoutMs: 400_000,
  drainTimeoutMs: 5_000,
})

export interface ListenerTls {
  readonly cert: string | Buffer
  readonly key: string | Buffer
  /** Those whose client certificates are required; without it none is asked for. */
  readonly ca?: string | Buffer
}

export interface ListenerOptions {
  /** Answers every request; never rejects. */
  readonly answer: (request: WireRequest) => Promise<WireResponse>
  readonly limits?: Partial<ListenerLimits>
  /** Without it: plain HTTP/1.1. */
  readonly tls?: ListenerTls
  readonly onRefused?: (name: string, cause: unknown) => void
}

export interface Listener extends AsyncDisposable {
  listen(address: ListenAddress): Promise<AddressInfo>
  /** The listening socket. */
  descriptor(): number
  /** New connections get this certificate. @throws when key and certificate don't belong together */
  replaceCertificate(tls: ListenerTls): void
  close(): Promise<void>
}

/** What AWS KMS asks for (XKS proxy API, "TLS"), and the equals that other clients of this proxy may have. */
const ciphers = [
  'TLS_AES_256_GCM_SHA384',
  'TLS_CHACHA20_POLY1305_SHA256',
  'TLS_AES_128_GCM_SHA256',
  'ECDHE-ECDSA-AES256-GCM-SHA384',
  'ECDHE-RSA-AES256-GCM-SHA384',
  'ECDHE-ECDSA-CHACHA20-POLY1305',
  'ECDHE-RSA-CHACHA20-POLY1305',
].join(':')

const json = 'application/json'
/** As AWS's sample proxy probes: a dead peer is found within about a minute. */
const keepAliveProbeMs = 60_000

export function createListener(options: ListenerOptions): Listener {
  const limits = { ...defaultLimits, ...options.limits }
  const { answer, onRefused = () => {} } = options
  const app = fastify({
    logger: false,
    bodyLimit: limits.maxBodyBytes,
    requestTimeout: limits.requestTimeoutMs,
    keepAliveTimeout: limits.keepAliveTimeoutMs,
    return503OnClosing: false,
    exposeHeadRoutes: false,
    clientErrorHandler: (error: Error, socket: Socket) => refuseConnection(error, socket, onRefused),
    frameworkErrors: (error: unknown, _request: FastifyRequest, reply: FastifyReply) =>
      refuse(reply, new XksError('UriPathInvalid', 'The path is not one of the XKS proxy API.', error)),
    ...serverOptions(options.tls, limits),
  } as object) as unknown as FastifyInstance
  const { server } = app
  let closing: Promise<void> | undefined

  function refuse(reply: FastifyReply, error: XksError): FastifyReply {
    onRefused(error.xksCode, error)
    // the rest of the request may still be on its way: the connection can't carry another one
    return send(reply, renderError(error), true)
  }

  const arriving = createArrivingRequests(limits.maxArrivingBytes, limits.requestTimeoutMs)
  app.addHook('onRequest', (request, reply, next) => {
    const raw = request.raw as IncomingMessage | Http2ServerRequest
    const stream = 'stream' in raw ? raw.stream : undefined
    const announced = Number(request.headers['content-length'])
    const bodyBytes = announced <= limits.maxBodyBytes ? announced : limits.maxBodyBytes
    const arrived = arriving.begin(bodyBytes, stream !== undefined, () => {
      if (reply.raw.headersSent) return
      refuse(reply, new XksError('RequestTimedOut', 'The request did not arrive in time.'))
      // the answer is out; what is left of the request is wanted no more (RFC 9113 section 8.1)
      if (stream !== undefined) stream.once('finish', () => stream.close())
    })
    raw.once('end', arrived).once('close', arrived)
    reply.raw.once('close', arrived)
    next()
  })
  app.removeAllContentTypeParsers()
  app.addContentTypeParser('*', { parseAs: 'buffer' }, (_request, body, done) => done(null, body))
  app.setErrorHandler((error, _request, reply) => refuse(reply, wordFrameworkError(error)))
  const handle = async (request: FastifyRequest, reply: FastifyReply) => {
    const wire = toWireRequest(request)
    // HTTP/2 in Node knows no limit below nghttp2's own 64 KiB; HTTP/1.1 never gets here with so many
    if (wire.rawHeaders.reduce((sum, text) => sum + text.length, 0) > limits.maxHeaderBytes) {
      return refuse(reply, new XksError('RequestMalformed', 'The headers are too long.'))
    }
    const response = await answer(wire)
    return send(reply, response, closing !== undefined)
  }
  app.all('/*', handle)
  app.setNotFoundHandler(handle)

  // allowHTTP1 leaves HTTP/1.1 to Node's parser, which reads these from the server itself
  Object.assign(server, {
    keepAliveTimeout: limits.keepAliveTimeoutMs,
    headersTimeout: limits.headersTimeoutMs,
    requestTimeout: limits.requestTimeoutMs,
    maxHeaderSize: limits.maxHeaderBytes,
    requireHostHeader: false,
    maxConnections: limits.maxConnections,
  })
  server.on('connection', (socket: Socket) => socket.setKeepAlive(true, keepAliveProbeMs))
  server.on('checkExpectation', (_request: IncomingMessage, response: ServerResponse) => {
    const { body } = renderError(new XksError('RequestMalformed', 'Unsupported Expect header'))
    response.writeHead(417, { 'content-type': json, connection: 'close' }).end(body)
  })
  server.on('connect', (_request: IncomingMessage, socket: Socket) => {
    // the compatibility layer of HTTP/2 answers CONNECT like any method
    if (typeof socket.end === 'function' && 'remoteAddress' in socket) {
      refuseAndEnd(socket, '405 Method Not Allowed', new XksError('MethodNotAllowed'))
    }
  })

  async function close(): Promise<void> {
    const timer = setTimeout(() => endConnections(server), limits.drainTimeoutMs)
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
    descriptor: () => descriptorOf(server),
    replaceCertificate(tls) {
      const secure = server as unknown as { setSecureContext?(options: SecureContextOptions): void }
      secure.setSecureContext?.({ ...tls, ciphers, minVersion: 'TLSv1.2' })
    },
    close() {
      closing ??= close()
      return closing
    },
    [Symbol.asyncDispose]() {
      return this.close()
    },
  }
}

function serverOptions(tls: ListenerTls | undefined, limits: ListenerLimits): object {
  const http = {
    maxHeaderSize: limits.maxHeaderBytes,
    headersTimeout: limits.headersTimeoutMs,
    connectionsCheckingInterval: Math.min(limits.headersTimeoutMs, limits.requestTimeoutMs),
    requireHostHeader: false,
  }
  if (tls === undefined) return { http }
  const client = { requestCert: tls.ca !== undefined, rejectUnauthorized: tls.ca !== undefined }
  return {
    http2: true,
    https: {
      ...http,
      ...tls,
      ...client,
      allowHTTP1: true,
      minVersion: 'TLSv1.2',
      ciphers,
      honorCipherOrder: true,
      settings: {
        maxConcurrentStreams: limits.maxStreamsPerConnection,
        maxHeaderListSize: limits.maxHeaderBytes,
        enablePush: false,
      },
      unknownProtocolTimeout: limits.headersTimeoutMs,
    },
  }
}

function endConnections(server: unknown): void {
  ;(server as { closeAllConnections?(): void }).closeAllConnections?.()
}

function toWireRequest(request: FastifyRequest): WireRequest {
  const raw = request.raw as IncomingMessage | Http2ServerRequest
  const stream = 'stream' in raw ? (raw as Http2ServerRequest).stream : undefined
  const socket = (stream?.session?.socket ?? raw.socket) as Socket
  const address = socket.remoteAddress ?? ''
  return {
    method: request.method,
    rawUrl: raw.url ?? '/',
    rawHeaders: stream === undefined ? raw.rawHeaders : withHost(raw.rawHeaders),
    body: Buffer.isBuffer(request.body) ? request.body : Buffer.alloc(0),
    receivedAt: Date.now(),
    ip: address.startsWith('::ffff:') ? address.slice(7) : address,
    userAgent: String(request.headers['user-agent'] ?? ''),
    socket: socket as TLSSocket,
  }
}

/** Pseudo-headers of HTTP/2 (RFC 9113 section 8.3): the authority is what a signature calls host; a Host that repeats it says nothing new. */
function withHost(rawHeaders: readonly string[]): readonly string[] {
  const headers: string[] = []
  let authority: string | undefined
  for (let at = 0; at + 1 < rawHeaders.length; at += 2) {
    const name = rawHeaders[at] as string
    const value = rawHeaders[at + 1] as string
    if (name === ':authority') authority = value
    else if (!name.startsWith(':')) headers.push(name, value)
  }
  if (authority === undefined) return headers
  const isRepeated = headers.some((name, at) => at % 2 === 0 && name === 'host' && headers[at + 1] === authority)
  return isRepeated ? headers : ['host', authority, ...headers]
}

/** Past fastify's own serialisation, which would add a charset to the content type. */
function send(reply: FastifyReply, response: WireResponse, endsConnection: boolean): FastifyReply {
  reply.hijack()
  const raw = reply.raw as ServerResponse | Http2ServerResponse
  const stream = 'stream' in raw ? (raw as Http2ServerResponse).stream : undefined
  if (response.resets === true) {
    if (stream !== undefined) stream.session?.destroy()
    else raw.socket?.destroy()
    return reply
  }
  const headers = {
    'Content-Type': response.contentType ?? json,
    'Content-Length': Buffer.byteLength(response.body),
    ...(response.status === 405 ? { Allow: 'POST' } : {}),
    // connection headers are HTTP/1.1's alone (RFC 9113 section 8.2.2)
    ...(endsConnection && stream === undefined ? { Connection: 'close' } : {}),
  }
  ;(raw as ServerResponse).writeHead(response.status, headers)
  ;(raw as ServerResponse).end(response.body)
  return reply
}

function wordFrameworkError(error: unknown): XksError {
  const code = (error as { code?: unknown }).code
  if (code === 'FST_ERR_CTP_BODY_TOO_LARGE') {
    return new XksError('RequestTooLarge', 'The body is larger than this proxy takes.', error)
  }
  return new XksError('RequestMalformed', 'The request could not be read.', error)
}

/** Broken HTTP: there is no request to answer, only a connection to end. */
function refuseConnection(error: Error, socket: Socket, onRefused: (name: string, cause: unknown) => void): void {
  if (isBeyondAnswer(error, socket)) return
  const { code } = error as NodeJS.ErrnoException
  const isLate = code === 'ERR_HTTP_REQUEST_TIMEOUT'
  const isLong = code === 'HPE_HEADER_OVERFLOW'
  const text = isLong ? 'The headers are too long.' : 'The request is not valid HTTP.'
  const refusal = isLate
    ? new XksError('RequestTimedOut', 'The request did not arrive in time.')
    : new XksError('RequestMalformed', text)
  onRefused(refusal.xksCode, error)
  const status = isLate ? '408 Request Timeout' : '400 Bad Request'
  afterPendingAnswer(socket, () => refuseAndEnd(socket, status, refusal))
}

function refuseAndEnd(socket: Socket, status: string, error: XksError): void {
  endWith(socket, status, [`Content-Type: ${json}`], renderError(error).body)
}
