/**
 * One connection of the offload door, from HELLO to its end. Costs nothing but its socket while it is idle: no timer, no buffer; the door's
 * sweep asks it now and then whether it has been silent for too long.
 *
 * Answers leave in any order; those of one turn of the event loop leave in one write. Whoever does not read his answers, or breaks the protocol,
 * loses the connection and nobody else does.
 */
import type { Socket } from 'node:net'
import type { Source } from '../../call.ts'
import { closingFailure, describeFailure, type OffloadFailure } from './dialect.ts'
import type { CloseReason, OffloadEvents } from './events.ts'
import { decodeHello, decodeRequest } from './frame-decoding.ts'
import { encodeError, encodeGoaway, encodePong, encodeResult, encodeWelcome } from './frame-encoding.ts'
import { createFrameReader } from './frame-reader.ts'
import {
  clientFrames,
  errorNumbers,
  FrameError,
  featureBits,
  frameLimits,
  frameVersion,
  type Head,
  type Hello,
  type Request,
  type Welcome,
} from './frames.ts'
import { OffloadError } from './offload-error.ts'
import { hasExpired, type Peer, sourceOf } from './peer.ts'

/** A request with what its connection knows. */
export interface Asked {
  readonly request: Request
  readonly token: Buffer
  readonly peer: Peer
  readonly source: Source
  readonly app: string
  readonly pid: number
  readonly receivedMs: number
  readonly budgetMs: number
}

export type Answer =
  | { readonly ok: true; readonly signature: Buffer }
  | { readonly ok: false; readonly failure: OffloadFailure }

export interface ConnectionLimits {
  readonly maxBodyBytes: number
  readonly maxInputBytes: number
  readonly maxInFlight: number
  readonly maxBudgetMs: number
  /** For HELLO, and for any frame that has begun, to arrive. */
  readonly frameTimeoutMs: number
  /** Silence of a peer that has presented a valid token, and of one that has not. */
  readonly idleMs: number
  readonly strangerIdleMs: number
}

export interface ConnectionParts {
  readonly limits: ConnectionLimits
  readonly instanceId: Buffer
  readonly events: OffloadEvents
  sign(asked: Asked): Promise<Answer>
  /** Whether a token of this peer would be let in. */
  knows(token: Buffer, peer: Peer): boolean
  closed(connection: Connection): void
}

export interface Connection {
  readonly peer: Peer
  /** Has presented a token that is valid for it. */
  readonly isKnown: boolean
  readonly isIdle: boolean
  /** Ends the connection if it has been silent, or a frame under way, for too long. */
  sweep(nowMs: number): void
  /** Takes nothing new, answers what is open, then ends. */
  drain(): void
  destroy(reason: CloseReason): void
}

/** Answers that a peer has not read yet. */
const maxUnreadBytes = 256 * 1024
/** Between our end of a connection and the peer's. */
const lingerMs = 1000

export function createConnection(socket: Socket, peer: Peer, parts: ConnectionParts): Connection {
  const { limits, events } = parts
  const open = new Set<number>()
  const tokens: Buffer[] = []
  const isRelay = peer.kind === 'relay'
  /** Without its tokens, which are views into what arrived. */
  let hello: Pick<Hello, 'app' | 'pid'> | undefined
  let source: Source = sourceOf(peer, '')
  let lastFrameMs = performance.now()
  let frameBegunMs: number | undefined
  let isKnown = false
  let isDraining = false
  let drainReason: CloseReason = 'drained'
  let isCorked = false
  let reason: CloseReason | undefined
  let endedMs: number | undefined

  const reader = createFrameReader(clientFrames, limits.maxBodyBytes, onFrame)

  const connection: Connection = {
    peer,
    get isKnown() {
      return isKnown
    },
    get isIdle() {
      return open.size === 0
    },
    sweep(nowMs) {
      if (endedMs !== undefined) {
        if (nowMs - endedMs > lingerMs) socket.destroy()
      } else if (frameBegunMs !== undefined && nowMs - frameBegunMs > limits.frameTimeoutMs) destroy('slow')
      else if (hello === undefined && nowMs - lastFrameMs > limits.frameTimeoutMs) destroy('slow')
      else if (open.size === 0 && nowMs - lastFrameMs > (isKnown ? limits.idleMs : limits.strangerIdleMs))
        finish('idle')
    },
    drain,
    destroy,
  }

  socket.on('data', onData)
  socket.on('error', () => destroy('error'))
  socket.on('close', onClose)
  return connection

  function onData(chunk: Buffer): void {
    try {
      reader.push(chunk)
    } catch (error) {
      if (!(error instanceof FrameError)) throw error
      events.protocolBroken(peer.kind, error.message)
      destroy('protocol')
      return
    }
    if (!reader.isWithinFrame()) frameBegunMs = undefined
    else frameBegunMs ??= performance.now()
  }

  function onClose(): void {
    events.connectionClosed(peer.kind, reason ?? 'client')
    for (const token of tokens) token.fill(0)
    parts.closed(connection)
  }

  function destroy(why: CloseReason): void {
    reason ??= why
    socket.destroy()
  }

  function drain(why: CloseReason = 'drained'): void {
    if (isDraining) return
    isDraining = true
    drainReason = why
    if (hello !== undefined) send(encodeGoaway())
    endIfDrained()
  }

  function endIfDrained(): void {
    if (isDraining && open.size === 0) finish(drainReason)
  }

  /** What was written still goes out; a peer that does not close its side then loses it at a sweep. */
  function finish(why: CloseReason): void {
    reason ??= why
    endedMs ??= performance.now()
    socket.end()
  }

  function onFrame(head: Head, buffer: Buffer, at: number, end: number): void {
    if (socket.destroyed || reason !== undefined) return
    lastFrameMs = performance.now()
    frameBegunMs = undefined
    if (head.type === 'HELLO') onHello(buffer, at, end)
    else if (hello === undefined) throw new FrameError(`${head.type} before HELLO`)
    else if (head.type === 'PING') send(encodePong(head.requestId))
    else onRequest(head, hello, buffer, at, end)
    if (peer.kind === 'relay' && !isDraining && hasExpired(peer)) {
      // the request that met it is refused by its operation, and recorded; what follows is not looked at
      events.peerExpired(peer.kind, peer.subject)
      drain('expired')
    }
  }

  function onHello(buffer: Buffer, at: number, end: number): void {
    if (hello !== undefined) throw new FrameError('a second HELLO')
    let said: Hello
    try {
      said = decodeHello(buffer, at, end)
    } catch (error) {
      if (!(error instanceof FrameError)) throw error
      refuseHello(errorNumbers.badRequest, error.message)
      return
    }
    if (said.minVersion > frameVersion || said.maxVersion < frameVersion) {
      refuseHello(errorNumbers.unsupported, 'no common version')
      return
    }
    for (const token of said.tokens) {
      tokens.push(Buffer.from(token))
      token.fill(0)
    }
    hello = { app: said.app, pid: said.pid }
    source = sourceOf(peer, said.app)
    isKnown = tokens.some((token) => parts.knows(token, peer))
    send(encodeWelcome(welcome()))
    if (isDraining) {
      send(encodeGoaway())
      endIfDrained()
    }
  }

  function welcome(): Welcome {
    return {
      version: frameVersion,
      maxBodyBytes: limits.maxBodyBytes,
      maxInputBytes: limits.maxInputBytes,
      maxInFlight: limits.maxInFlight,
      maxTokens: frameLimits.tokens,
      instanceId: parts.instanceId,
      features: isRelay ? featureBits.relayEvidence : 0,
      maxBudgetMs: limits.maxBudgetMs,
      idleMs: isKnown ? limits.idleMs : limits.strangerIdleMs,
    }
  }

  function refuseHello(code: number, text: string): void {
    events.protocolBroken(peer.kind, text)
    send(encodeError(0, 0, { code, retryable: false, text }))
    finish('protocol')
  }

  function onRequest(
    { requestId, aux }: Head,
    { app, pid }: Pick<Hello, 'app' | 'pid'>,
    buffer: Buffer,
    at: number,
    end: number,
  ): void {
    if (open.has(requestId)) throw new FrameError('an id that is open')
    const receivedMs = lastFrameMs
    if (isDraining) {
      refuse(requestId, receivedMs, closingFailure)
      return
    }
    let request: Request
    let token: Buffer
    try {
      request = decodeRequest(buffer, at, end)
      token = tokenOf(request)
      if (open.size >= limits.maxInFlight) throw new OffloadError('Busy', 'too many requests of this connection')
    } catch (error) {
      if (!(error instanceof FrameError || error instanceof OffloadError)) throw error
      const invalid = error instanceof FrameError ? new OffloadError('RequestInvalid', error.message) : error
      refuse(requestId, receivedMs, describeFailure(invalid))
      return
    }
    open.add(requestId)
    const budgetMs = aux === 0 ? limits.maxBudgetMs : Math.min(aux, limits.maxBudgetMs)
    parts.sign({ request, token, peer, source, app, pid, receivedMs, budgetMs }).then(
      (answer) => onAnswer(requestId, receivedMs, answer),
      (cause) => onAnswer(requestId, receivedMs, { ok: false, failure: describeFailure(cause) }),
    )
  }

  /** The token that a request names, put into the table first if it is new. @throws FrameError */
  function tokenOf({ newToken, tokenIndex, reported }: Request): Buffer {
    if (reported !== undefined && !isRelay) throw new FrameError('reported items are for relays')
    if (newToken !== undefined) {
      if (tokenIndex !== tokens.length) throw new FrameError('tokenIndex is not that of newToken')
      if (tokens.length >= frameLimits.tokens) throw new FrameError('too many tokens')
      tokens.push(Buffer.from(newToken))
      newToken.fill(0)
    }
    const token = tokens[tokenIndex]
    if (token === undefined) throw new FrameError('no token has this index')
    return token
  }

  function onAnswer(requestId: number, receivedMs: number, answer: Answer): void {
    open.delete(requestId)
    if (answer.ok) {
      isKnown = true
      send(encodeResult(requestId, microsSince(receivedMs), answer.signature))
    } else refuse(requestId, receivedMs, answer.failure)
    endIfDrained()
  }

  function refuse(requestId: number, receivedMs: number, { number, code, retryable, text }: OffloadFailure): void {
    events.refused(peer.kind, code)
    send(encodeError(requestId, microsSince(receivedMs), { code: number, retryable, text }))
  }

  function send(frame: Buffer): void {
    if (!socket.writable) return
    if (!isCorked) {
      isCorked = true
      socket.cork()
      process.nextTick(uncork)
    }
    socket.write(frame)
    if (socket.writableLength > maxUnreadBytes) destroy('unread')
  }

  function uncork(): void {
    isCorked = false
    socket.uncork()
  }
}

function microsSince(startedMs: number): number {
  return Math.round((performance.now() - startedMs) * 1000)
}
