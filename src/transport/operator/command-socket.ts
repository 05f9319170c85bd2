/**
 * The authority socket: `POST /v1/<noun>/<verb>` over a Unix socket that only its owner can open, from peers whose credentials the
 * kernel vouches for (unix(7), SO_PEERCRED): the gateway's own user and root. Every command is a call of the pipeline.
 */
import { randomUUID } from 'node:crypto'
import { lstatSync, unlinkSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify'
import { deadlineIn, type Principal } from '../../call.ts'
import { GatewayError } from '../../error.ts'
import type { Operation, Pipeline } from '../../pipeline.ts'
import { ProblemsError } from '../../problem.ts'
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
/** sockaddr_un (unix(7)): 108 bytes with the terminating zero. */
const maxPathBytes = 107
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

/** Node keeps the descriptor of a socket to itself (`_handle.fd`); without it the peer is nobody. */
function findPeer(socket: Socket, peerCredentials: (fd: number) => Peer): Peer | undefined {
  const fd = (socket as unknown as { _handle?: { fd?: number } })._handle?.fd
  if (fd === undefined || fd < 0) return undefined
  try {
    return peerCredentials(fd)
  } catch {
    return undefined
  }
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

/**
 * Binds the socket with mode 0600, replacing one that nobody listens on any more.
 * @throws ProblemsError
 */
export async function listenOnSocket(app: FastifyInstance, file: string): Promise<void> {
  if (Buffer.byteLength(file) > maxPathBytes) {
    const cause = `${file} is longer than a socket's path may be (${maxPathBytes} bytes)`
    throw new ProblemsError([{ at: 'listen.operator.socket', cause, remedy: 'choose a shorter path' }])
  }
  await removeStale(file)
  await app.ready()
  await new Promise<void>((resolve, reject) => {
    app.server.once('error', (cause: NodeJS.ErrnoException) => reject(bindProblem(file, cause.code, cause)))
    // The socket is bound inside listen(), so no other user can connect before its mode is right.
    const mask = process.umask(0o177)
    try {
      app.server.listen(file, resolve)
    } finally {
      process.umask(mask)
    }
  })
}

async function removeStale(file: string): Promise<void> {
  const stats = lstatSync(file, { throwIfNoEntry: false })
  if (!stats) return
  if (!stats.isSocket()) {
    const remedy = 'remove it, or set listen.operator.socket to another path'
    throw new ProblemsError([{ at: file, cause: 'is in the way and is not a socket', remedy }])
  }
  const isAlive = await new Promise<boolean>((resolve) => {
    const probe = connect(file, () => resolve(true))
    probe.once('error', () => resolve(false))
    probe.once('close', () => resolve(false)).once('connect', () => probe.destroy())
  })
  if (isAlive) throw bindProblem(file, 'EADDRINUSE')
  unlinkSync(file)
}

function bindProblem(file: string, code: string | undefined, cause?: unknown): ProblemsError {
  const isTaken = code === 'EADDRINUSE'
  const text = isTaken ? 'another gateway listens there' : `cannot listen there (${code ?? 'unknown error'})`
  const remedy = isTaken ? 'stop it, or set listen.operator.socket to another path' : 'make its folder writable'
  return new ProblemsError([{ at: file, cause: text, remedy }], { cause })
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
