/**
 * One connection to a gateway: TLS 1.3 with both certificates, HKS/1 as its client. Any number of requests at one time, answered in any
 * order; what is open when it ends is lost, and its owner is told. It ends itself when the gateway breaks the protocol, does not answer a
 * PING, or has left and everything is answered.
 *
 * Tokens are numbered by connection: each goes over once, with the first request that needs it.
 */
import { isIP } from 'node:net'
import { checkServerIdentity, connect, type SecureContext, type TLSSocket } from 'node:tls'
import { endOfCertificates } from '../transport/certificate-end.ts'
import { decodeError, decodeResult, decodeWelcome } from '../transport/offload/frame-decoding.ts'
import { encodeHello, encodePing, encodeRequest } from '../transport/offload/frame-encoding.ts'
import { createFrameReader } from '../transport/offload/frame-reader.ts'
import {
  type ErrorBody,
  FrameError,
  featureBits,
  frameLimits,
  frameVersion,
  gatewayFrames,
  type Head,
  type Reported,
  type Request,
  type Welcome,
} from '../transport/offload/frames.ts'
import type { GatewayPlace } from './place.ts'

/** A request as it goes to any gateway; its token travels beside it. */
export interface Forwarded {
  readonly request: Omit<Request, 'tokenIndex' | 'newToken' | 'reported'>
  readonly token: Buffer
  /** SHA-256 of the token, in hex: what a connection's table calls it by. */
  readonly tokenDigest: string
  readonly reported: Reported
}

export type LinkAnswer =
  | { readonly kind: 'signature'; readonly signature: Buffer }
  | { readonly kind: 'error'; readonly error: ErrorBody }
  | {
      readonly kind: 'lost'
      readonly detail: string
      /** It crossed the leave that the gateway took, which then ended in good order: it was never looked at. */
      readonly isUnseen: boolean
    }

export type OnAnswer = (answer: LinkAnswer) => void

export interface LinkTiming {
  /** From the connection to WELCOME. */
  readonly connectTimeoutMs: number
  readonly pingIntervalMs: number
  readonly pongTimeoutMs: number
}

export interface LinkParts {
  readonly place: GatewayPlace
  readonly context: SecureContext
  readonly timing: LinkTiming
  readonly version: string
  opened(link: Link): void
  /** Nothing new goes over it: the gateway said so, or `detail` does. */
  leaving(link: Link, detail?: string): void
  /** An answer made room for a request, or cleared a suspicion. */
  roomMade(): void
  /** `detail` says why; undefined when it ended in good order. */
  closed(link: Link, detail: string | undefined): void
}

export interface Link {
  /** Takes requests. */
  readonly isOpen: boolean
  readonly hasRoom: boolean
  readonly inFlight: number
  /** There is reason to doubt that it still answers, and nothing has come since. */
  readonly isSuspect: boolean
  /** Round trip of the last PING in milliseconds. */
  readonly pingMs: number | undefined
  /** End of the gateway's certificate, or of an authority's above it that ends sooner; epoch milliseconds. */
  readonly notAfter: number
  /** Why the gateway would close the connection over this request, or undefined. */
  refusalOf(forwarded: Forwarded): string | undefined
  /** `onAnswer` is called once, later, unless `forget` came first. The link is open and has room. */
  send(forwarded: Forwarded, budgetMs: number, onAnswer: OnAnswer): number
  forget(requestId: number): void
  suspect(): void
  /** Sends nothing new, waits for what is open, ends. */
  leave(): void
  destroy(detail: string): void
}

/** Written and not yet taken by the kernel: a gateway that does not read gets nothing new. */
const maxUnsentBytes = 256 * 1024
/** A TLS 1.3 client learns only afterwards that its certificate was refused, and some servers just hang up. */
const noWelcome =
  'it closed the connection before WELCOME: it does not take the certificate of this relay, or has no room'
/** Between our end of a connection and the gateway's. */
const lingerMs = 1000
/** Of items around the input: each but `input` at its longest. */
const itemBytes = 256

export function openLink(parts: LinkParts): Link {
  const { place, timing } = parts
  const open = new Map<number, OnAnswer>()
  const tokens = new Map<string, number>()
  let welcome: Welcome | undefined
  let isLeaving = false
  let isClosed = false
  let isSuspect = false
  let isCorked = false
  let reason: string | undefined
  let nextId = 1
  let pingId: number | undefined
  let pingSentMs = 0
  let pingMs: number | undefined
  let notAfter = 0
  let timer: NodeJS.Timeout = setTimeout(() => destroy('no WELCOME in time'), timing.connectTimeoutMs)

  const socket: TLSSocket = connect({
    host: place.host,
    port: place.port,
    secureContext: parts.context,
    minVersion: 'TLSv1.3',
    // RFC 6066, section 3: an IP address is no server name
    servername: isIP(place.serverName) === 0 ? place.serverName : '',
    checkServerIdentity: (_, certificate) => checkServerIdentity(place.serverName, certificate),
  })
  socket.setNoDelay(true)
  const reader = createFrameReader(gatewayFrames, frameLimits.bodyBytes, onFrame)

  const link: Link = {
    get isOpen() {
      return welcome !== undefined && !isLeaving && !isClosed && notAfter > Date.now()
    },
    get hasRoom() {
      return link.isOpen && open.size < (welcome?.maxInFlight ?? 0) && socket.writableLength < maxUnsentBytes
    },
    get inFlight() {
      return open.size
    },
    get isSuspect() {
      return isSuspect
    },
    get pingMs() {
      return pingMs
    },
    get notAfter() {
      return notAfter
    },
    refusalOf({ request }) {
      const { maxInputBytes = 0, maxBodyBytes = 0 } = welcome ?? {}
      const isLong = request.input.length > maxInputBytes || request.input.length + itemBytes > maxBodyBytes
      return isLong ? 'the message is longer than the gateway takes' : undefined
    },
    send,
    forget(requestId) {
      if (open.delete(requestId) && isLeaving) endIfLeft()
    },
    suspect() {
      isSuspect = true
      if (pingId === undefined) ping()
    },
    leave() {
      if (isLeaving || isClosed) return
      isLeaving = true
      endIfLeft()
    },
    destroy,
  }

  socket.once('secureConnect', () => {
    notAfter = endOfCertificates(socket)
    if (notAfter <= Date.now()) {
      destroy('its certificate has expired')
      return
    }
    socket.write(
      encodeHello({
        minVersion: frameVersion,
        maxVersion: frameVersion,
        app: 'hsmgate-relay',
        pid: process.pid,
        providerVersion: parts.version,
        tokens: [],
      }),
    )
  })
  socket.on('data', onData)
  socket.on('error', (error: NodeJS.ErrnoException) => {
    reason ??= describe(error)
  })
  socket.on('close', onClose)
  return link

  function onData(chunk: Buffer): void {
    try {
      reader.push(chunk)
    } catch (error) {
      if (!(error instanceof FrameError)) throw error
      destroy(`it broke the protocol: ${error.message}`)
    }
  }

  function onFrame(head: Head, buffer: Buffer, at: number, end: number): void {
    if (isClosed || socket.destroyed) return
    const isCleared = isSuspect
    isSuspect = false
    if (head.type === 'WELCOME') onWelcome(decodeWelcome(buffer, at, end))
    else if (head.type === 'ERROR' && welcome === undefined) {
      const { code, text } = decodeError(buffer, at, end)
      destroy(`it refused the greeting (${code}): ${text}`)
    } else if (head.type === 'GOAWAY') stopUsing()
    else if (welcome === undefined) throw new FrameError(`${head.type} before WELCOME`)
    else if (head.type === 'PONG') onPong(head.requestId)
    else if (head.type === 'RESULT') {
      settle(head.requestId, { kind: 'signature', signature: decodeResult(buffer, at, end) })
    } else settle(head.requestId, { kind: 'error', error: decodeError(buffer, at, end) })
    if (isCleared) parts.roomMade()
  }

  function onWelcome(said: Welcome): void {
    if (welcome !== undefined) throw new FrameError('a second WELCOME')
    if (said.version !== frameVersion) throw new FrameError(`version ${said.version}`)
    if (said.maxInFlight === 0 || said.maxTokens === 0) throw new FrameError('limits that allow nothing')
    welcome = said
    clearTimeout(timer)
    timer = setTimeout(ping, timing.pingIntervalMs)
    if (!isLeaving) parts.opened(link)
    else endIfLeft()
  }

  function stopUsing(detail?: string): void {
    if (isLeaving) return
    isLeaving = true
    parts.leaving(link, detail)
    endIfLeft()
  }

  function ping(): void {
    if (!isLive()) return
    if (notAfter <= Date.now()) stopUsing('its certificate has expired')
    if (socket.writableEnded) return
    pingId = takeId()
    pingSentMs = performance.now()
    write(encodePing(pingId))
    clearTimeout(timer)
    timer = setTimeout(() => destroy('it does not answer'), timing.pongTimeoutMs)
  }

  function onPong(requestId: number): void {
    if (requestId !== pingId) return
    pingId = undefined
    pingMs = performance.now() - pingSentMs
    clearTimeout(timer)
    timer = setTimeout(ping, timing.pingIntervalMs)
  }

  /** Greeted, and not over. */
  function isLive(): boolean {
    return welcome !== undefined && !isClosed && !socket.destroyed
  }

  function takeId(): number {
    do nextId = nextId === 0xffff_ffff ? 1 : nextId + 1
    while (open.has(nextId) || nextId === pingId)
    return nextId
  }

  function send({ request, token, tokenDigest, reported }: Forwarded, budgetMs: number, onAnswer: OnAnswer): number {
    if (welcome === undefined || isLeaving || isClosed) throw new TypeError('the link is not open')
    const requestId = takeId()
    const known = tokens.get(tokenDigest)
    const tokenIndex = known ?? tokens.size
    const isNew = known === undefined
    const frame = encodeRequest(requestId, Math.max(1, Math.floor(budgetMs)), {
      ...request,
      tokenIndex,
      newToken: isNew ? token : undefined,
      reported: (welcome.features & featureBits.relayEvidence) === 0 ? undefined : reported,
    })
    open.set(requestId, onAnswer)
    write(frame, isNew)
    if (isNew) {
      tokens.set(tokenDigest, tokenIndex)
      if (tokens.size >= Math.min(welcome.maxTokens, frameLimits.tokens)) {
        isLeaving = true
        parts.leaving(link)
      }
    }
    return requestId
  }

  function settle(requestId: number, answer: LinkAnswer): void {
    const onAnswer = open.get(requestId)
    if (onAnswer === undefined) return
    open.delete(requestId)
    onAnswer(answer)
    if (isLeaving) endIfLeft()
    else parts.roomMade()
  }

  function write(frame: Buffer, holdsToken = false): void {
    if (!isCorked) {
      isCorked = true
      socket.cork()
      process.nextTick(uncork)
    }
    if (holdsToken) socket.write(frame, () => void frame.fill(0))
    else socket.write(frame)
  }

  function uncork(): void {
    isCorked = false
    socket.uncork()
  }

  /** The gateway ends a connection that it left; one that this side left is ended here. */
  function endIfLeft(): void {
    if (!isLeaving || open.size > 0 || socket.writableEnded) return
    socket.end()
    clearTimeout(timer)
    timer = setTimeout(() => socket.destroy(), lingerMs)
  }

  function destroy(detail: string): void {
    reason ??= detail
    socket.destroy()
  }

  function onClose(): void {
    isClosed = true
    clearTimeout(timer)
    // whoever took leave has answered what he took on
    const isInOrder = isLeaving && reason === undefined
    const detail = reason ?? (welcome === undefined ? noWelcome : 'it closed the connection')
    const lost = [...open.values()]
    open.clear()
    tokens.clear()
    parts.closed(link, isInOrder ? undefined : detail)
    for (const onAnswer of lost) onAnswer({ kind: 'lost', detail, isUnseen: isInOrder })
  }
}

/** Errors of OpenSSL say in `reason` what happened; their messages carry numbers of threads and names of its files besides. */
function describe({ code, reason, message }: NodeJS.ErrnoException & { readonly reason?: string }): string {
  if (reason !== undefined && (code === undefined || code.startsWith('ERR_SSL_'))) return `TLS: ${reason}`
  return code === undefined ? message.slice(0, 200) : `${code}: ${message.slice(0, 200)}`
}
