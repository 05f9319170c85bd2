/**
 * The HTTP side of the operator door: metrics and health, read-only, from state in memory; it never calls the HSM.
 *
 * Over plain HTTP a web page could reach it under a name of its own that resolves to this machine (DNS rebinding), so the Host
 * header must name an address, `localhost` or the configured host; over TLS the certificate does that work.
 */
import { isIP } from 'node:net'
import fastify, { type FastifyInstance } from 'fastify'
import type { Journal } from '../../audit/audit.ts'
import type { GroupState, Hsm } from '../../hsm/port.ts'
import type { Observer } from '../../observe/observe.ts'

export interface StatusParts {
  readonly observer: Pick<Observer, 'metrics'>
  readonly hsm: Pick<Hsm, 'groups'>
  readonly journal: Pick<Journal, 'state'>
  /** Absent where no other gateway can change the catalog. */
  readonly catalog?: { readonly isCurrent: () => boolean }
}

export interface StatusListener {
  /** The configured host name, which the Host header may carry. */
  readonly address: string
  readonly tls?: { readonly cert: Buffer; readonly key: Buffer; readonly ca?: Buffer }
}

const common = {
  logger: false,
  bodyLimit: 1024,
  requestTimeout: 10_000,
  keepAliveTimeout: 30_000,
  forceCloseConnections: 'idle',
  return503OnClosing: false,
} as const

export function createStatusServer(parts: StatusParts, listener: StatusListener): FastifyInstance {
  const { tls } = listener
  const https = { minVersion: 'TLSv1.2', requestCert: tls?.ca !== undefined, ...tls } as const
  const app = (tls ? fastify({ ...common, https }) : fastify(common)) as unknown as FastifyInstance

  app.addHook('onRequest', async (request, reply) => {
    reply.headers({ 'cache-control': 'no-store', 'x-content-type-options': 'nosniff' })
    if (tls || isOwnHost(request.headers.host, listener.address)) return
    return reply.code(421).send({ error: 'The Host header names another machine.' })
  })
  app.setNotFoundHandler((_request, reply) => reply.code(404).send({ error: 'Not found.' }))
  app.setErrorHandler((_error, _request, reply) => reply.code(400).send({ error: 'Bad request.' }))

  app.get('/healthz', async () => ({ status: 'ok' }))
  app.get('/readyz', async (_request, reply) => {
    const readiness = describeReadiness(parts.hsm.groups(), parts.journal.state(), parts.catalog?.isCurrent())
    return reply.code(readiness.ready ? 200 : 503).send(readiness)
  })
  app.get('/metrics', async (_request, reply) => {
    const { contentType, text } = await parts.observer.metrics()
    return reply.header('content-type', contentType).send(text)
  })
  return app
}

export interface Readiness {
  readonly ready: boolean
  readonly groups: readonly {
    readonly name: string
    readonly ready: boolean
    readonly warmWorkers: number
    readonly tokens: readonly { readonly name: string; readonly pinRefused: boolean; readonly trouble?: string }[]
  }[]
  readonly journal: { readonly healthy: boolean }
  /** Of a catalog that gateways share: whether this one can follow its changes. */
  readonly catalog?: { readonly current: boolean }
}

/** Ready: every group has a warm worker, records can be written, and what other gateways do is known. */
export function describeReadiness(
  groups: readonly GroupState[],
  { healthy }: { readonly healthy: boolean },
  current?: boolean,
): Readiness {
  return {
    ready: healthy && current !== false && groups.length > 0 && groups.every(({ ready }) => ready),
    groups: groups.map(({ name, ready, tokens, workers }) => ({
      name,
      ready,
      warmWorkers: workers.filter(({ role, state }) => role === 'serve' && state === 'ready').length,
      tokens: tokens.map((token) => ({
        name: token.name,
        pinRefused: token.pinRefused,
        ...(token.trouble !== undefined && { trouble: token.trouble }),
      })),
    })),
    journal: { healthy },
    ...(current === undefined ? {} : { catalog: { current } }),
  }
}

/** RFC 9110 section 7.2: host and optional port; an IPv6 address in brackets. */
export function isOwnHost(header: string | undefined, address: string): boolean {
  const [, bracketed, plain] = /^(?:\[([0-9a-fA-F:.]+)\]|([^:[\]]+))(?::\d{1,5})?$/.exec(header ?? '') ?? []
  if (bracketed !== undefined) return isIP(bracketed) === 6
  if (plain === undefined) return false
  return isIP(plain) === 4 || plain.toLowerCase() === 'localhost' || plain.toLowerCase() === address.toLowerCase()
}
