/**
 * The face of the offload door: TLS libraries have handshakes signed here, through the Unix socket or a relay. It owns its listeners and
 * connections; each request becomes a call of the pipeline. One event loop; closing answers what is open.
 */
import { randomBytes, randomUUID } from 'node:crypto'
import { createServer, type Server } from 'node:net'
import { createServer as createTlsServer, type Server as TlsServer } from 'node:tls'
import { digestToken, type TlsBinding, type TlsBindings, tlsPrincipalArn } from '../../authenticate/tls-bindings.ts'
import type { Principal } from '../../call.ts'
import { GatewayError } from '../../error.ts'
import type { TlsSigner } from '../../keys/keys.ts'
import type { Caller, Operation, Pipeline } from '../../pipeline.ts'
import type { Unread } from '../../unread.ts'
import { createBindingLimits, createRefusalLimit } from './binding-limits.ts'
import type { Answer, Asked, ConnectionLimits, ConnectionParts } from './connection.ts'
import { type ConnectionSetLimits, createConnectionSet } from './connection-set.ts'
import { describeFailure } from './dialect.ts'
import type { OffloadEvents as Events } from './events.ts'
import type { Request } from './frames.ts'
import { OffloadError } from './offload-error.ts'
import {
  describePeer,
  findLocalPeer,
  findRelayPeer,
  type Peer,
  type PeerCredentials,
  type RelayCheck,
  refusalOfPeer,
} from './peer.ts'
import { findPolicy } from './policies.ts'
import { createSignOperation } from './sign-operation.ts'

export type OffloadEvents = Events

export interface OffloadLimits extends ConnectionLimits, ConnectionSetLimits {
  /** Signatures of the whole door at one time, waiting ones included. */
  readonly maxPending: number
  /** Open requests of one relay, which speaks for many processes. */
  readonly maxRelayInFlight: number
}

export const defaultOffloadLimits: OffloadLimits = {
  maxBodyBytes: 17_408,
  maxInputBytes: 16_384,
  maxInFlight: 64,
  maxRelayInFlight: 1024,
  maxBudgetMs: 1000,
  frameTimeoutMs: 5000,
  idleMs: 600_000,
  strangerIdleMs: 30_000,
  maxConnections: 16_384,
  maxPending: 1024,
  drainTimeoutMs: 10_000,
}

/** Refusals under one binding that are journaled in a second: of peers that it is not for, and of what it does not permit. */
const peerRefusalsPerSecond = 5
const requestRefusalsPerSecond = 100

export interface OffloadDoorParts {
  readonly pipeline: Pipeline
  readonly bindings: TlsBindings
  readonly signer: TlsSigner
  readonly partition: string
  readonly peerCredentials: PeerCredentials
  /** Asked at every call of a relay, beside what the token's binding says. */
  readonly isRelayApproved: RelayCheck
  /** Absent where approval is not a matter of the catalog. */
  readonly relays?: Unread
  readonly events: OffloadEvents
  readonly limits?: Partial<OffloadLimits>
}

/** PEM; every client must present a certificate of `ca`. */
export interface RelayTls {
  readonly cert: string | Buffer
  readonly key: string | Buffer
  readonly ca: string | Buffer
}

export interface OffloadDoor extends AsyncDisposable {
  /** Lets local processes in through this server once `bind` has made it listen. */
  openLocal(bind: (server: Server) => Promise<void>): Promise<Server>
  /** Lets relays in; what they report of their clients is taken as evidence. */
  openRelay(tls: RelayTls, bind: (server: Server) => Promise<void>): Promise<Server>
  /** For connections that come from now on. @throws Error when OpenSSL refuses them */
  setRelayCertificates(tls: RelayTls): void
  /** Connections now. */
  readonly connections: number
  close(): Promise<void>
}

export function createOffloadDoor(parts: OffloadDoorParts): OffloadDoor {
  const { pipeline, bindings, signer, partition, events } = parts
  const limits = { ...defaultOffloadLimits, ...parts.limits }
  const instanceId = randomBytes(16)
  const bindingLimits = createBindingLimits(limits.maxPending)
  const operation = createSignOperation({
    signer,
    limits: bindingLimits,
    isApproved: parts.isRelayApproved,
    maxInputBytes: limits.maxInputBytes,
    timeoutMs: limits.maxBudgetMs,
  }) as Operation as Operation<unknown, unknown, Buffer>
  const isPeerJournaled = createRefusalLimit(peerRefusalsPerSecond)
  const isRequestJournaled = createRefusalLimit(requestRefusalsPerSecond)
  const principals = new WeakMap<TlsBinding, Principal>()
  const connections = createConnectionSet(limits, events)
  const toContext = (tls: RelayTls) => ({ ...tls, minVersion: 'TLSv1.3' as const })
  let relayServer: TlsServer | undefined
  const localParts: Omit<ConnectionParts, 'closed'> = { limits, instanceId, events, sign, knows }
  const relayParts = { ...localParts, limits: { ...limits, maxInFlight: limits.maxRelayInFlight } }

  async function sign(asked: Asked): Promise<Answer> {
    const { token, peer, source, receivedMs, budgetMs } = asked
    let unread: unknown
    try {
      if (bindings.isUnread && bindings.find(token) === undefined) await bindings.whenRead()
      if (peer.kind === 'relay' && parts.relays?.isUnread) await parts.relays.whenRead()
    } catch (cause) {
      unread = cause
    }
    const binding = bindings.find(token)
    const outcome = await pipeline({
      door: 'offload',
      operation,
      raw: { ...asked, binding },
      requestId: randomUUID(),
      receivedAt: Date.now(),
      deadline: { atMs: receivedMs + budgetMs },
      source,
      partition,
      authenticate: () => {
        if (unread !== undefined) throw unread
        return callerOf(binding, asked)
      },
    })
    if (outcome.ok) return { ok: true, signature: outcome.output as Buffer }
    return { ok: false, failure: describeFailure(outcome.error) }
  }

  /**
   * The operation refuses a peer that is not the binding's, and what the binding does not permit, so that the journal tells of it; this does when
   * it was told often enough.
   * @throws GatewayError `CredentialsUnknown`, `Throttled`, OffloadError `PeerRefused`, `PeerExpired`, `PolicyRefused`
   */
  function callerOf(binding: TlsBinding | undefined, { token, peer, receivedMs, request }: Asked): Caller {
    if (binding === undefined) {
      // enough to find the file and the server: `hsmgate tls show` has the digest of a reference's token
      const digits = digestToken(token).toString('hex', 0, 4)
      const detail = `token ${digits}.., presented by ${describePeer(peer)}`
      throw new GatewayError('CredentialsUnknown', undefined, { detail })
    }
    const refusal = refusalOfPeer(binding, peer, parts.isRelayApproved)
    if (refusal !== undefined && !isPeerJournaled(binding, receivedMs)) throw refusal
    const failure = refusalOfRequest(binding, request, receivedMs)
    if (failure !== undefined && !isRequestJournaled(binding, receivedMs)) throw failure
    return { principal: principalOf(binding), region: binding.region, admit: () => requireBound(token) }
  }

  function refusalOfRequest(binding: TlsBinding, request: Request, nowMs: number): GatewayError | undefined {
    if (findPolicy(binding.policies, request) === undefined || !request.keyId.equals(binding.spkiDigest)) {
      return new OffloadError('PolicyRefused', 'the token does not permit this, and was used for too much of it')
    }
    return bindingLimits.isThrottled(binding, nowMs) ? new GatewayError('Throttled') : undefined
  }

  /** A token that was revoked while its request waited is sent nowhere. */
  function requireBound(token: Buffer): void {
    if (bindings.find(token) !== undefined) return
    throw new GatewayError(bindings.isUnread ? 'CatalogUnavailable' : 'CredentialsUnknown')
  }

  function principalOf(binding: TlsBinding): Principal {
    let principal = principals.get(binding)
    if (principal === undefined) {
      const { account, name } = binding
      const path = `hsmgate/tls/${name}`
      const arn = tlsPrincipalArn(partition, binding)
      principal = Object.freeze({ type: 'user', arn, account, principalId: path, userName: path })
      principals.set(binding, principal)
    }
    return principal
  }

  function knows(token: Buffer, peer: Peer): boolean {
    const binding = bindings.find(token)
    return binding !== undefined && refusalOfPeer(binding, peer, parts.isRelayApproved) === undefined
  }

  return {
    openLocal(bind) {
      const server = createServer((socket) => {
        connections.admit(socket, findLocalPeer(socket, parts.peerCredentials), 'local', localParts)
      })
      return connections.open(server, bind)
    },
    openRelay(tls, bind) {
      const server = createTlsServer({
        ...toContext(tls),
        requestCert: true,
        rejectUnauthorized: true,
        handshakeTimeout: limits.frameTimeoutMs,
        noDelay: true,
        keepAlive: true,
      })
      // connections are counted among the door's once they are greeted; before, strangers must not take every descriptor of the process
      server.maxConnections = limits.maxConnections
      server.on('secureConnection', (socket) => connections.admit(socket, findRelayPeer(socket), 'relay', relayParts))
      server.on('tlsClientError', ({ message }, socket) => {
        // what is wrong with its certificate, in OpenSSL's word: CERT_HAS_EXPIRED
        events.peerRefused('relay', String(socket.authorizationError ?? message))
        // Node leaves a connection open whose handshake took too long
        socket.destroy()
      })
      relayServer = server
      return connections.open(server, bind)
    },
    setRelayCertificates: (tls) => relayServer?.setSecureContext(toContext(tls)),
    get connections() {
      return connections.size
    },
    close: () => connections.close(),
    [Symbol.asyncDispose]() {
      return connections.close()
    },
  }
}

/** Name and text of an error as this door words it, for the audit record. */
export function describeOffloadError(error: GatewayError): { readonly code: string; readonly text: string } {
  return describeFailure(error)
}
