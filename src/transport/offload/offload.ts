/**
 * The face of the offload door: TLS libraries have handshakes signed here, through the Unix socket or a relay. It owns its listeners and
 * connections; each request becomes a call of the pipeline. One event loop; closing answers what is open.
 */
import { randomBytes, randomUUID } from 'node:crypto'
import { createServer, type Server, type Socket } from 'node:net'
import { createServer as createTlsServer } from 'node:tls'
import { type TlsBinding, type TlsBindings, tlsPrincipalArn } from '../../authenticate/tls-bindings.ts'
import type { Principal } from '../../call.ts'
import { GatewayError } from '../../error.ts'
import type { TlsSigner } from '../../keys/keys.ts'
import type { Caller, Operation, Pipeline } from '../../pipeline.ts'
import { createBindingLimits } from './binding-limits.ts'
import {
  type Answer,
  type Asked,
  type Connection,
  type ConnectionLimits,
  type ConnectionParts,
  createConnection,
} from './connection.ts'
import { describeFailure } from './dialect.ts'
import type { OffloadEvents as Events } from './events.ts'
import { findLocalPeer, findRelayPeer, type Peer, type PeerCredentials, refusalOfPeer } from './peer.ts'
import { createSignOperation } from './sign-operation.ts'

export type OffloadEvents = Events

export interface OffloadLimits extends ConnectionLimits {
  readonly maxConnections: number
  /** Signatures of the whole door at one time, waiting ones included. */
  readonly maxPending: number
  /** Open requests of one relay, which speaks for many processes. */
  readonly maxRelayInFlight: number
  /** How long closing waits for what is open. */
  readonly drainTimeoutMs: number
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

export interface OffloadDoorParts {
  readonly pipeline: Pipeline
  readonly bindings: TlsBindings
  readonly signer: TlsSigner
  readonly partition: string
  readonly peerCredentials: PeerCredentials
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
  /** Connections now. */
  readonly connections: number
  close(): Promise<void>
}

const sweepIntervalMs = 1000

export function createOffloadDoor(parts: OffloadDoorParts): OffloadDoor {
  const { pipeline, bindings, signer, partition, events } = parts
  const limits = { ...defaultOffloadLimits, ...parts.limits }
  const instanceId = randomBytes(16)
  const operation = createSignOperation({
    signer,
    limits: createBindingLimits(limits.maxPending),
    maxInputBytes: limits.maxInputBytes,
    timeoutMs: limits.maxBudgetMs,
  }) as Operation as Operation<unknown, unknown, Buffer>
  const principals = new WeakMap<TlsBinding, Principal>()
  const connections = new Set<Connection>()
  const servers = new Set<Server>()
  let sweeper: NodeJS.Timeout | undefined
  let closing: Promise<void> | undefined
  let emptied: (() => void) | undefined

  const common = {
    instanceId,
    events,
    sign,
    knows,
    closed(connection: Connection) {
      connections.delete(connection)
      if (connections.size > 0) return
      clearInterval(sweeper)
      sweeper = undefined
      emptied?.()
    },
  }
  const localParts: ConnectionParts = { ...common, limits }
  const relayParts: ConnectionParts = { ...common, limits: { ...limits, maxInFlight: limits.maxRelayInFlight } }

  async function sign(asked: Asked): Promise<Answer> {
    const { token, source, receivedMs, budgetMs } = asked
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
      authenticate: () => callerOf(binding, token),
    })
    if (outcome.ok) return { ok: true, signature: outcome.output as Buffer }
    return { ok: false, failure: describeFailure(outcome.error) }
  }

  /** @throws GatewayError `CredentialsUnknown` */
  function callerOf(binding: TlsBinding | undefined, token: Buffer): Caller {
    if (binding === undefined) throw new GatewayError('CredentialsUnknown')
    return { principal: principalOf(binding), region: binding.region, admit: () => requireBound(token) }
  }

  /** A token that was revoked while its request waited is sent nowhere. */
  function requireBound(token: Buffer): void {
    if (bindings.find(token) === undefined) throw new GatewayError('CredentialsUnknown')
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
    return binding !== undefined && refusalOfPeer(binding, peer) === undefined
  }

  function admit(socket: Socket, peer: Peer | undefined, kind: Peer['kind'], connectionParts: ConnectionParts): void {
    if (peer === undefined || closing !== undefined || !makeRoom()) {
      if (closing === undefined)
        events.peerRefused(kind, peer === undefined ? 'nobody vouches for it' : 'too many connections')
      socket.on('error', () => {})
      socket.destroy()
      return
    }
    events.connectionOpened(kind)
    connections.add(createConnection(socket, peer, connectionParts))
    sweeper ??= setInterval(sweep, sweepIntervalMs).unref()
  }

  /** When all places are taken, the one goes that came first, waits for nothing and never presented a token that is valid for it. */
  function makeRoom(): boolean {
    if (connections.size < limits.maxConnections) return true
    for (const connection of connections) {
      if (connection.isKnown || !connection.isIdle) continue
      connections.delete(connection)
      connection.destroy('crowded')
      return true
    }
    return false
  }

  function sweep(): void {
    const now = performance.now()
    for (const connection of connections) connection.sweep(now)
  }

  async function open(server: Server, bind: (server: Server) => Promise<void>): Promise<Server> {
    await bind(server)
    servers.add(server)
    return server
  }

  async function close(): Promise<void> {
    const gone = [...servers].map((server) => new Promise<void>((resolve) => server.close(() => resolve())))
    for (const connection of connections) connection.drain()
    if (connections.size > 0) {
      await new Promise<void>((resolve) => {
        const timer = setTimeout(() => {
          for (const connection of connections) connection.destroy('stopped')
        }, limits.drainTimeoutMs)
        emptied = () => {
          clearTimeout(timer)
          resolve()
        }
      })
    }
    await Promise.all(gone)
  }

  return {
    openLocal(bind) {
      const server = createServer((socket) => {
        admit(socket, findLocalPeer(socket, parts.peerCredentials), 'local', localParts)
      })
      return open(server, bind)
    },
    openRelay(tls, bind) {
      const server = createTlsServer({
        ...tls,
        requestCert: true,
        rejectUnauthorized: true,
        minVersion: 'TLSv1.3',
        handshakeTimeout: limits.frameTimeoutMs,
        noDelay: true,
        keepAlive: true,
      })
      server.on('secureConnection', (socket) => admit(socket, findRelayPeer(socket), 'relay', relayParts))
      server.on('tlsClientError', ({ message }) => events.peerRefused('relay', message))
      return open(server, bind)
    },
    get connections() {
      return connections.size
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

/** Name and text of an error as this door words it, for the audit record. */
export function describeOffloadError(error: GatewayError): { readonly code: string; readonly text: string } {
  return describeFailure(error)
}
