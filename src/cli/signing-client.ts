/**
 * One signature over the signing socket, as the OpenSSL provider asks for it (HKS/1, native/README.md): HELLO with a token, one REQUEST. For
 * `hsmgate tls doctor`; one connection, which ends with the answer.
 */
import { once } from 'node:events'
import { createConnection, type Socket } from 'node:net'
import { decodeError, decodeResult } from '../transport/offload/frame-decoding.ts'
import { encodeHello, encodeRequest } from '../transport/offload/frame-encoding.ts'
import { createFrameReader } from '../transport/offload/frame-reader.ts'
import {
  FrameError,
  frameLimits,
  frameVersion,
  gatewayFrames,
  inputKinds,
  type Request,
} from '../transport/offload/frames.ts'

export type SignatureChoice = Pick<Request, 'algorithm' | 'hash' | 'mgfHash' | 'saltBytes'>

export interface SignatureQuestion extends SignatureChoice {
  readonly keyId: Buffer
  /** Wiped by nobody here: the caller's. */
  readonly token: Buffer
  readonly message: Buffer
}

export type SignatureAnswer =
  | { readonly signature: Buffer; readonly gatewayMicros: number }
  | { readonly error: { readonly code: number; readonly text: string } }

/** `socketPath`: a path, or `@name` in the abstract namespace. @throws Error with a `code` of the system when nobody answers; FrameError when what answers is no gateway. */
export async function askForSignature(
  socketPath: string,
  question: SignatureQuestion,
  timeoutMs: number,
): Promise<SignatureAnswer> {
  const socket = createConnection(socketPath.replace(/^@/, '\0'))
  const { promise, resolve, reject } = Promise.withResolvers<SignatureAnswer>()
  const timer = setTimeout(() => reject(systemError('ETIMEDOUT', 'no answer in time')), timeoutMs)
  try {
    socket.once('error', reject)
    socket.once('close', () => reject(systemError('ECONNRESET', 'the connection was closed without an answer')))
    const reader = createFrameReader(gatewayFrames, frameLimits.bodyBytes, ({ type, aux }, body, at, end) => {
      if (type === 'WELCOME') sendRequest(socket, question, timeoutMs)
      else if (type === 'RESULT') {
        resolve({ signature: Buffer.from(decodeResult(body, at, end)), gatewayMicros: aux })
      } else if (type === 'ERROR') resolve({ error: decodeError(body, at, end) })
      else if (type === 'GOAWAY') reject(systemError('ECONNRESET', 'the gateway is going away'))
    })
    socket.on('data', (chunk: Buffer) => {
      try {
        reader.push(chunk)
      } catch (failure) {
        reject(failure instanceof FrameError ? failure : systemError('EPROTO', 'the answer cannot be read'))
      }
    })
    await Promise.race([once(socket, 'connect'), promise])
    const hello = encodeHello({
      minVersion: frameVersion,
      maxVersion: frameVersion,
      app: 'hsmgate tls doctor',
      pid: process.pid,
      providerVersion: 'doctor',
      tokens: [question.token],
    })
    socket.write(hello, () => hello.fill(0))
    return await promise
  } finally {
    clearTimeout(timer)
    socket.destroy()
  }
}

function sendRequest(socket: Socket, question: SignatureQuestion, budgetMs: number): void {
  const { keyId, algorithm, hash, mgfHash, saltBytes, message } = question
  const request = {
    ...{ keyId, algorithm, hash, mgfHash, saltBytes },
    tokenIndex: 0,
    inputKind: inputKinds.message,
    input: message,
    traceId: undefined,
    newToken: undefined,
    reported: undefined,
  }
  socket.write(encodeRequest(1, budgetMs, request))
}

function systemError(code: string, text: string): Error {
  return Object.assign(new Error(text), { code })
}
