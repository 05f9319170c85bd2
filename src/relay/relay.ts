/**
 * The face of the relay, the process on a web host that brings the signing protocol of local TLS servers to gateways elsewhere. It holds no key
 * but that of its own certificate, no state and no policy: who may sign what is decided by the gateway on (certificate, token).
 *
 * The local socket is that of a gateway, down to its limits; only what it asks goes over TLS. One event loop.
 */
import { randomBytes } from 'node:crypto'
import { createServer } from 'node:net'
import type { SecureContext } from 'node:tls'
import packageJson from '../../package.json' with { type: 'json' }
import type { Answer, Asked, ConnectionLimits } from '../transport/offload/connection.ts'
import { createConnectionSet } from '../transport/offload/connection-set.ts'
import { errorNumbers } from '../transport/offload/frames.ts'
import { openLocalSockets } from '../transport/offload/local-sockets.ts'
import { findLocalPeer, type PeerCredentials } from '../transport/offload/peer.ts'
import type { RelayConfig } from './config.ts'
import type { Credentials } from './credentials.ts'
import { createDispatch } from './dispatch.ts'
import type { RelayEvents as Events } from './events.ts'
import { type LinkTiming, openLink } from './link.ts'
import type { GatewayPlace } from './place.ts'
import { openUpstream, type Upstream } from './upstream.ts'

export type RelayEvents = Events

export interface RelayParts {
  readonly config: RelayConfig
  readonly credentials: Credentials
  readonly events: RelayEvents
  readonly peerCredentials: PeerCredentials
  /** Descriptors of listening sockets that this process got from another one. */
  readonly inherited: ReadonlyMap<string, number>
  readonly timing?: Partial<LinkTiming>
}

export interface GatewayStatus {
  readonly gateway: string
  readonly connections: number
  readonly inFlight: number
  readonly pingMs?: number
  readonly requests: number
  readonly signatures: number
  /** Attempts that came to nothing: an error that another gateway may not have, the connection, time. */
  readonly refused: number
  readonly lost: number
  readonly late: number
  readonly connects: number
  /** End of its certificate, as ISO 8601 has it; absent until it was reached. */
  readonly validUntil?: string
}

export interface RelayStatus {
  /** End of the relay's own certificate. */
  readonly validUntil: string
  readonly daysLeft: number
  readonly localConnections: number
  readonly pending: number
  /** Of those, waiting for a connection to a gateway. */
  readonly waiting: number
  readonly requests: number
  readonly signatures: number
  /** Sent to a second gateway, or again. */
  readonly again: number
  readonly gateways: readonly GatewayStatus[]
}

export interface Relay extends AsyncDisposable {
  /** Paths of its sockets. */
  readonly endpoints: readonly string[]
  status(): RelayStatus
  /**
   * Takes over gateways and credentials: what is under way ends on the old connections, once a new one is open.
   * @returns the reasons, one for each gateway, when none of them took the new credentials; the old connections then stay.
   */
  renew(config: RelayConfig, credentials: Credentials): Promise<readonly string[] | undefined>
}

const timing: LinkTiming = { connectTimeoutMs: 2000, pingIntervalMs: 2000, pongTimeoutMs: 2000 }
const drainTimeoutMs = 10_000
const renewTimeoutMs = 5000
const inputBytes = 16_384
const dayMs = 86_400_000

/** Opens the socket and begins to connect. @throws ProblemsError */
export async function openRelay(parts: RelayParts): Promise<Relay> {
  const { config, events } = parts
  const linkTiming = { ...timing, ...parts.timing }
  const closings = new Set<Promise<void>>()
  let { notAfter } = parts.credentials
  let upstreams = connect(config, parts.credentials)
  const dispatch = createDispatch(config, () => upstreams, events)
  const limits: ConnectionLimits = {
    maxBodyBytes: inputBytes + 1024,
    maxInputBytes: inputBytes,
    maxInFlight: config.maxInFlight,
    maxBudgetMs: config.maxBudgetMs,
    frameTimeoutMs: 5000,
    idleMs: config.idleSeconds * 1000,
    strangerIdleMs: Math.min(30, config.idleSeconds) * 1000,
  }
  const connections = createConnectionSet({ maxConnections: config.maxConnections, drainTimeoutMs }, events.local)
  const connectionParts = {
    limits,
    instanceId: randomBytes(16),
    events: events.local,
    sign,
    // only gateways know which tokens are valid
    knows: () => false,
  }
  const { socket, moreSockets, mode, group } = config
  const sockets = await openLocalSockets(
    { socket, moreSockets, mode, ...(group === undefined ? {} : { group }) },
    {
      prefix: '',
      runDirectory: config.runDirectory,
      inherited: parts.inherited,
      open(bind) {
        const server = createServer((local) => {
          connections.admit(local, findLocalPeer(local, parts.peerCredentials), 'local', connectionParts)
        })
        return connections.open(server, bind)
      },
    },
  ).catch(async (cause) => {
    await connections.close()
    await end(upstreams, 0)
    throw cause
  })

  async function sign(asked: Asked): Promise<Answer> {
    const { peer } = asked
    if (config.users !== undefined && peer.kind === 'local' && !config.users.includes(peer.uid)) {
      const text = 'this user may not have signatures made here'
      const failure = { number: errorNumbers.unauthenticated, code: 'userRefused', retryable: false, text }
      return { ok: false, failure }
    }
    return dispatch.forward(asked)
  }

  function connect({ gateways, connections: count }: RelayConfig, { context }: Credentials): readonly Upstream[] {
    return gateways.map((place) =>
      openUpstream({
        place,
        context,
        connections: count,
        timing: linkTiming,
        version: packageJson.version,
        events,
        roomMade: () => dispatch.pump(),
      }),
    )
  }

  return {
    endpoints: sockets.endpoints,
    status: () => ({
      validUntil: new Date(notAfter).toISOString(),
      daysLeft: daysUntil(notAfter),
      localConnections: connections.size,
      pending: dispatch.pending,
      waiting: dispatch.waiting,
      ...dispatch.counters,
      gateways: upstreams.map(statusOf),
    }),
    async renew(next, credentials) {
      const fresh = connect(next, credentials)
      const reasons = await reach(fresh, renewTimeoutMs)
      if (reasons !== undefined) {
        await end(fresh, 0)
        return reasons
      }
      const old = upstreams
      upstreams = fresh
      notAfter = credentials.notAfter
      dispatch.pump()
      const closing = end(old, config.maxBudgetMs).then(() => void closings.delete(closing))
      closings.add(closing)
      return undefined
    },
    async [Symbol.asyncDispose]() {
      await connections.close()
      await sockets[Symbol.asyncDispose]()
      await Promise.all([...closings, end(upstreams, 0)])
    },
  }
}

/** Greets each gateway once and says how it went. */
export async function probeGateways(
  { gateways }: RelayConfig,
  { context }: Credentials,
): Promise<readonly { readonly gateway: string; readonly problem?: string }[]> {
  return Promise.all(
    gateways.map(async (place) => {
      const problem = await greetOnce(place, context)
      return { gateway: place.name, ...(problem === undefined ? {} : { problem }) }
    }),
  )
}

function greetOnce(place: GatewayPlace, context: SecureContext): Promise<string | undefined> {
  return new Promise((resolve) => {
    const { version } = packageJson
    openLink({
      place,
      context,
      timing,
      version,
      opened(link) {
        resolve(undefined)
        link.leave()
      },
      leaving: () => resolve('it is leaving'),
      roomMade() {},
      closed: (_, detail) => resolve(detail ?? 'it closed the connection'),
    })
  })
}

/** Undefined as soon as one can be reached, else the reasons, one for each. */
async function reach(upstreams: readonly Upstream[], timeoutMs: number): Promise<readonly string[] | undefined> {
  const outcomes = upstreams.map(async (upstream) => {
    const reason = await upstream.firstUp(timeoutMs)
    if (reason !== undefined) throw new Error(`${upstream.name}: ${reason}`)
  })
  try {
    await Promise.any(outcomes)
    return undefined
  } catch (cause) {
    return (cause as AggregateError).errors.map(({ message }: Error) => message)
  }
}

/** Whole days, negative ones for what has expired. */
export function daysUntil(epochMs: number): number {
  return Math.floor((epochMs - Date.now()) / dayMs)
}

async function end(upstreams: readonly Upstream[], timeoutMs: number): Promise<void> {
  await Promise.all(upstreams.map((upstream) => upstream.close(timeoutMs)))
}

function statusOf({ name, openLinks, inFlight, pingMs, notAfter, counters }: Upstream): GatewayStatus {
  return {
    gateway: name,
    connections: openLinks,
    inFlight,
    ...(pingMs === undefined ? {} : { pingMs: Math.round(pingMs * 1000) / 1000 }),
    ...counters,
    ...(notAfter === undefined ? {} : { validUntil: new Date(notAfter).toISOString() }),
  }
}
