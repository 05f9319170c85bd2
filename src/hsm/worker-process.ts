/**
 * One worker process as the gateway sees it: its pipe, its state and what is in flight on it. A supervisor creates it and moves its state
 * (only `dead` it finds out itself); the router of its group uses it. It never restarts: a dead worker stays dead and another takes its place.
 *
 * The process gets its own process group (a terminal's Ctrl-C is the gateway's affair), descriptor 3, and no environment but the token's and the
 * place of the compile cache.
 */
import { spawn } from 'node:child_process'
import type { Socket } from 'node:net'
import { fileURLToPath } from 'node:url'
import { GatewayError } from '../error.ts'
import type { WorkerName } from './events.ts'
import { createFrameWriter, createResponseReader, type ResponseFrame } from './frame-codec.ts'
import type { OperationName, Request, Response, WorkerFailure } from './frames.ts'
import type { WorkerState } from './port.ts'
import type { Attempt, RoutedCall } from './routed-call.ts'

export interface WorkerProcess extends WorkerName {
  state: WorkerState['state']
  /** Routed calls whose answer is outstanding. */
  readonly attempts: ReadonlyMap<number, Attempt>
  /** Calls it may have in flight on the hot lane: shrinks when the token throttles, grows back with success. */
  window: number
  maxWindow: number
  maxAdmin: number
  /** PKCS#11 sessions that work for calls; 0 until it is ready. */
  sessions: number
  hotInFlight: number
  adminInFlight: number
  suspectsInFlight: number
  /** Failures that asked for another session, since the last success. */
  strikes: number
  /**
   * The operation that met a lost login or state; the replacement is ordered. Others are preferred until this very operation succeeds
   * here: random numbers and verifications need no login.
   */
  doubt: OperationName | undefined
  /** Session objects made and not yet destroyed here. */
  sessionObjects: number
  /** Calls on its session objects that wait for room. */
  readonly pinned: RoutedCall[]
  /** Resolves with the reason when the process and its pipe are gone. */
  readonly dead: Promise<string>
  /** @throws TypeError when the fields don't fit the operation. */
  send(attempt: Attempt, budgetMs: number): void
  /** Asks outside the queues. Rejects with AskFailure, or GatewayError when the worker dies; kills the worker after `limitMs`. */
  ask<N extends OperationName>(operation: N, fields: Request<N>, limitMs: number): Promise<Response<N>>
  kill(reason: string): void
}

/** What a worker answered to `ask` instead of a result. */
export class AskFailure extends Error {
  readonly failure: WorkerFailure
  constructor(failure: WorkerFailure) {
    super(failure.detail)
    this.name = 'AskFailure'
    this.failure = failure
  }
}

export interface WorkerHooks {
  onAnswer(worker: WorkerProcess, attempt: Attempt, response: ResponseFrame): void
  /** Called once all of a chunk's answers were handed over. */
  onIdle(worker: WorkerProcess): void
  onLog(worker: WorkerProcess, line: string): void
}

export interface WorkerSpawn {
  readonly id: string
  readonly token: string
  readonly role: 'serve' | 'manage'
  /** Program and arguments. */
  readonly command: readonly string[]
  readonly env: Readonly<Record<string, string>>
}

/** Program and arguments of hsmgate's own worker. */
export const ownWorker: readonly string[] = [
  process.execPath,
  fileURLToPath(new URL('./worker/main.ts', import.meta.url)),
]

interface Question {
  readonly operation: OperationName
  readonly answer: (response: ResponseFrame) => void
  readonly lost: (reason: string) => void
}

/** After the process is gone its last answers may still be in the pipe; a module's own child may also hold the pipe open. */
const pipeGraceMs = 100
const maxLogLine = 4096

export function spawnWorker(options: WorkerSpawn, hooks: WorkerHooks): WorkerProcess {
  const [program = '', ...args] = options.command
  const child = spawn(program, args, {
    cwd: '/',
    env: { ...compileCache(), ...options.env },
    stdio: ['ignore', 'ignore', 'pipe', 'pipe'],
    detached: true,
  })
  const socket = child.stdio[3] as Socket
  const writer = createFrameWriter(socket)
  const attempts = new Map<number, Attempt>()
  const questions = new Map<number, Question>()
  const death = Promise.withResolvers<string>()
  let lastCallId = 0
  let reason: string | undefined
  let exited = false
  let closed = false

  const read = createResponseReader(
    (callId) => attempts.get(callId)?.operation ?? questions.get(callId)?.operation,
    (response) => {
      const attempt = attempts.get(response.callId)
      if (attempt !== undefined) {
        attempts.delete(response.callId)
        hooks.onAnswer(worker, attempt, response)
      } else {
        const question = questions.get(response.callId)
        questions.delete(response.callId)
        question?.answer(response)
      }
    },
  )

  function nextCallId(): number {
    do lastCallId = (lastCallId + 1) >>> 0
    while (attempts.has(lastCallId) || questions.has(lastCallId))
    return lastCallId
  }

  function kill(why: string): void {
    reason ??= why
    worker.state = 'dead'
    if (!exited) child.kill('SIGKILL')
    socket.destroy()
  }

  const worker: WorkerProcess = {
    id: options.id,
    token: options.token,
    role: options.role,
    pid: child.pid,
    state: 'starting',
    attempts,
    window: 1,
    maxWindow: 1,
    maxAdmin: 1,
    sessions: 0,
    hotInFlight: 0,
    adminInFlight: 0,
    suspectsInFlight: 0,
    strikes: 0,
    doubt: undefined,
    sessionObjects: 0,
    pinned: [],
    dead: death.promise,
    send(attempt, budgetMs) {
      const callId = nextCallId()
      writer.request(callId, attempt.operation, budgetMs, attempt.call.fields as never)
      attempts.set(callId, attempt)
    },
    ask(operation, fields, limitMs) {
      return new Promise((resolve, reject) => {
        const callId = nextCallId()
        const lost = (why: string) => {
          clearTimeout(limit)
          reject(new GatewayError('KeyUnavailable', undefined, { detail: `worker ${options.id} died: ${why}` }))
        }
        if (worker.state === 'dead' || reason !== undefined) {
          lost(reason ?? 'dead')
          return
        }
        const limit = setTimeout(() => kill(`no answer to ${operation} within ${limitMs} ms`), limitMs)
        writer.request(callId, operation, Math.min(limitMs, 0xffffffff), fields)
        questions.set(callId, {
          operation,
          lost,
          answer({ fields, failure }) {
            clearTimeout(limit)
            if (failure !== undefined) reject(new AskFailure(failure))
            else resolve(fields as never)
          },
        })
        writer.flush()
      })
    },
    kill,
  }

  socket.on('data', (chunk: Buffer) => {
    try {
      read(chunk)
    } catch (error) {
      kill(`broke the frame protocol: ${(error as Error).message}`)
      return
    }
    hooks.onIdle(worker)
  })
  socket.on('error', () => {}) // close follows
  socket.on('close', () => {
    closed = true
    worker.state = 'dead'
    // The exit tells more than the closed pipe, and is at hand unless the process lives on without its pipe.
    if (exited) finish()
    else setTimeout(() => kill('closed its pipe'), pipeGraceMs).unref()
  })
  child.on('error', (error) => {
    reason ??= `cannot start ${program}: ${error.message}`
    exited = true
    if (closed) finish()
    else socket.destroy()
  })
  child.on('exit', (code, signal) => {
    exited = true
    reason ??= signal === null ? `exited with status ${code}` : `ended by ${signal}`
    if (closed) finish()
    else setTimeout(() => socket.destroy(), pipeGraceMs).unref()
  })
  forwardLines(child.stderr!, (line) => hooks.onLog(worker, line))

  function finish(): void {
    const why = reason ?? 'gone'
    for (const question of questions.values()) question.lost(why)
    questions.clear()
    death.resolve(why)
  }
  return worker
}

/** Compiled code may be shared because gateway and worker run as one user: whoever can write it can run it. */
function compileCache(): Readonly<Record<string, string>> {
  const { NODE_COMPILE_CACHE } = process.env
  return NODE_COMPILE_CACHE ? { NODE_COMPILE_CACHE } : {}
}

function forwardLines(stream: NodeJS.ReadableStream, onLine: (line: string) => void): void {
  let rest = ''
  stream.setEncoding('utf8')
  stream.on('data', (chunk: string) => {
    const lines = (rest + chunk).split('\n')
    rest = (lines.pop() ?? '').slice(0, maxLogLine)
    for (const line of lines) if (line !== '') onLine(line.slice(0, maxLogLine))
  })
  stream.on('end', () => {
    if (rest !== '') onLine(rest)
  })
  stream.on('error', () => {})
}
