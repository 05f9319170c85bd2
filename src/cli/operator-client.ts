/**
 * Asks a running gateway: `POST /v1/<noun>/<verb>` with a JSON object on its operator socket. One connection per question; the socket's
 * folder and the peer check of the gateway are the authentication.
 */
import { request } from 'node:http'
import { type Problem, ProblemsError } from '../problem.ts'
import { loadEffectiveConfig } from './effective-config.ts'
import { NoGatewayError, remedyOf } from './failure.ts'
import type { CommonOptions, Terminal } from './terminal.ts'

/** The gateway's own limit for management is 60 s. */
const answerTimeoutMs = 65_000
const maxAnswerBytes = 64 * 1024 * 1024

export type Question = Readonly<Record<string, string | number | boolean | undefined>>

/** @throws NoGatewayError when no gateway listens; ProblemsError with the gateway's refusal. */
export async function askGateway<T>(
  options: CommonOptions,
  terminal: Terminal,
  noun: string,
  verb: string,
  question: Question = {},
): Promise<T> {
  const { socket } = loadEffectiveConfig(options, terminal).listen.operator
  return askSocket<T>(socket, noun, verb, question)
}

export async function askSocket<T>(
  socket: string,
  noun: string,
  verb: string,
  question: Question,
  timeoutMs = answerTimeoutMs,
): Promise<T> {
  const { status, body } = await post(socket, `/v1/${noun}/${verb}`, JSON.stringify(question), timeoutMs).catch(
    (cause) => {
      throw connectionFailure(socket, cause)
    },
  )
  const answer = parseAnswer(body)
  if (status >= 200 && status < 300 && answer !== undefined) return answer as T
  throw new ProblemsError([describeRefusal(`hsmgate ${noun.replace('-', ' ')} ${verb}`, status, answer)])
}

function post(
  socketPath: string,
  path: string,
  body: string,
  timeoutMs: number,
): Promise<{ readonly status: number; readonly body: string }> {
  return new Promise((resolve, reject) => {
    const headers = {
      host: 'localhost',
      'content-type': 'application/json',
      'content-length': Buffer.byteLength(body),
      connection: 'close',
    }
    const signal = AbortSignal.timeout(timeoutMs)
    const asking = request({ socketPath, path, method: 'POST', headers, agent: false, signal }, (response) => {
      const chunks: Buffer[] = []
      let bytes = 0
      response.on('data', (chunk: Buffer) => {
        bytes += chunk.length
        if (bytes > maxAnswerBytes) asking.destroy(new Error('the answer is longer than any should be'))
        else chunks.push(chunk)
      })
      response.on('end', () =>
        resolve({ status: response.statusCode ?? 0, body: Buffer.concat(chunks).toString('utf8') }),
      )
      response.on('error', reject)
    })
    asking.on('error', reject)
    asking.end(body)
  })
}

function connectionFailure(socket: string, cause: unknown): ProblemsError {
  const { code, name, message } = cause as NodeJS.ErrnoException
  const start =
    'start it (systemctl start hsmgate, or hsmgate serve; development: npm start), or name its configuration with --config; its log (journalctl -u hsmgate) says why it ended'
  if (code === 'ENOENT' || code === 'ENOTDIR') {
    return new NoGatewayError([{ at: socket, cause: 'no gateway runs here: the socket is missing', remedy: start }])
  }
  if (code === 'ECONNREFUSED') {
    return new NoGatewayError([{ at: socket, cause: 'no gateway runs here: nobody listens on it', remedy: start }])
  }
  if (code === 'EACCES' || code === 'EPERM') {
    const remedy = "run the command as the gateway's own user or as root"
    return new ProblemsError([{ at: socket, cause: 'you may not use this socket', remedy }], { cause })
  }
  const timedOut = name === 'TimeoutError' || name === 'AbortError'
  const text = timedOut ? 'the gateway did not answer in time' : `the connection failed (${code ?? message})`
  return new ProblemsError([{ at: socket, cause: text, remedy: "see the gateway's log, then try again" }], { cause })
}

function parseAnswer(body: string): unknown {
  try {
    return body === '' ? {} : JSON.parse(body)
  } catch {
    return undefined
  }
}

function describeRefusal(at: string, status: number, answer: unknown): Problem {
  const { error } = (answer ?? {}) as { readonly error?: { readonly code?: unknown; readonly text?: unknown } }
  if (typeof error?.code !== 'string') {
    return { at, cause: `the gateway answered with status ${status}`, remedy: remedyOf('') }
  }
  return { at, cause: typeof error.text === 'string' ? error.text : error.code, remedy: remedyOf(error.code) }
}
