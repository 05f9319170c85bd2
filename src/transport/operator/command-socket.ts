/**
 * The authority socket: `POST /v1/<noun>/<verb>` over a Unix socket that only its owner can open, from peers whose credentials the
 * kernel vouches for (unix(7), SO_PEERCRED): the gateway's own user and root. Every command is a call of the pipeline.
 */
import { randomUUID } from 'node:crypto'
import type { Socket } from 'node:net'
import fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify'
import { deadlineIn, type Principal } from '../../call.ts'
import { GatewayError } from '../../error.ts'
import type { Operation, Pipeline } from '../../pipeline.ts'
import { findPeer } from '../descriptor.ts'
import { createCommandOperation } from './command-operation.ts'
import { describeOperatorError } from './dialect.ts'
import type { OperatorCommand } from './operator-command.ts'

export interface Peer {
  readonly pid: number
  readonly uid: number
  readonly gid: number
}

export interface CommandSocketParts {
  readonly pipeline: Pipeline
  readonly commands: readonly OperatorCommand[]
  readonly partition: string
  readonly account: string
  readonly region: string
  readonly peerCredentials: (fd: number) => Peer
}

/** A policy document of 32 KiB in JSON, with room. */
const maxBodyBytes = 256 * 1024
const drainTimeoutMs = 10_000

export function createCommandSocket(parts: CommandSocketParts): FastifyInstance {
  const app = fastify({
    logger: false,
    bodyLimit: maxBodyBytes,
    requestTimeout: 90_000,
    keepAliveTimeout: 5000,
    forceCloseConnections: 'idle',
    return503OnClosing: false,
  }) as unknown as FastifyInstance
  const peers = new WeakMap<Socket, Peer>()
  app.server.on('connection', (socket: Socket) => {
    const peer = findPeer(socket, parts.peerCredentials)
    if (peer) peers.set(socket, peer)
  })
  app.setErrorHandler((error, _request, reply) => refuse(reply, fromFramework(error)))
  app.setNotFoundHandler((_request, reply) =>
    refuse(reply, new GatewayError('NotFound', { text: 'There is no such command.' })),
  )
  for (const command of parts.commands) {
    const operation = createCommandOperation(command) as Operation
    app.post(`/v1/${command.noun}/${command.verb}`, (request, reply) =>
      answer(parts, operation, peers.get(request.raw.socket), request, reply),
    )
  }
  return app
}

async function answer(
  parts: CommandSocketParts,
  operation: Operation,
  peer: Peer | undefined,
  request: FastifyRequest,
  reply: FastifyReply,
): Promise<FastifyReply> {
  const requestId = randomUUID()
  reply.header('x-amzn-requestid', requestId)
  const outcome = await parts.pipeline({
    door: 'operator',
    operation,
    raw: request.body ?? {},
    requestId,
    receivedAt: Date.now(),
    deadline: deadlineIn(operation.timeoutMs),
    source: { ip: 'local', userAgent: String(request.headers['user-agent'] ?? '').slice(0, 256) },
    partition: parts.partition,
    authenticate: () => ({ principal: authenticatePeer(parts, peer), region: parts.region }),
  })
  if (!outcome.ok) return refuse(reply, outcome.error)
  return reply.header('cache-control', 'no-store').send(JSON.stringify(outcome.output ?? {}))
}

/** @throws GatewayError `CredentialsUnknown` */
function authenticatePeer({ partition, account }: CommandSocketParts, peer: Peer | undefined): Principal {
  const ownUid = process.geteuid?.()
  if (!peer || (peer.uid !== 0 && peer.uid !== ownUid)) throw new GatewayError('CredentialsUnknown')
  const name = `uid-${peer.uid}`
  return Object.freeze({
    type: 'operator',
    arn: `arn:${partition}:iam::${account}:operator/${name}`,
    account,
    principalId: name,
    userName: name,
  })
}

function refuse(reply: FastifyReply, error: GatewayError): FastifyReply {
  const { status, code, text } = describeOperatorError(error)
  return reply
    .code(status)
    .header('cache-control', 'no-store')
    .type('application/json')
    .send(JSON.stringify({ error: { code, text } }))
}

/** A body that the framework could not take is the caller's mistake; anything else is ours. */
function fromFramework(error: unknown): GatewayError {
  const { statusCode } = error as { statusCode?: number }
  if (statusCode === undefined || statusCode >= 500) return new GatewayError('Internal', undefined, { cause: error })
  return new GatewayError('ValidationFailed', { text: 'The request must be a JSON object of at most 256 KiB.' })
}

/** Answers what is under way, then ends every connection. */
export async function closeApp(app: FastifyInstance): Promise<void> {
  const timer = setTimeout(() => app.server.closeAllConnections(), drainTimeoutMs)
  try {
    // The framework closes only what it bound itself.
    const closed = new Promise<void>((resolve) => app.server.close(() => resolve()))
    await app.close()
    app.server.closeIdleConnections()
    await closed
  } finally {
    clearTimeout(timer)
  }
}
