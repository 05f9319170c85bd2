/**
 * Bytes of the frame table: encoders and decoders compiled once per operation, a reader that parses all frames of a chunk in one
 * pass, and a writer that sends all that was queued in one turn of the event loop with one write. Both ends of a worker's pipe use it.
 *
 * Decoded `bytes` are views into the chunk that arrived, so there is one copy of a secret to wipe: whoever is done with it fills it
 * with zeros. The writer wipes what it sent. Whatever does not parse is a FrameError and ends the conversation: the reader stays broken.
 */
import { errorCodes } from '../error.ts'
import {
  compileDecoder,
  compileEncoder,
  type Decode,
  type Encode,
  FrameError,
  getU32,
  putU32,
  reserve,
  type Sink,
} from './frame-fields.ts'
import {
  failureFields,
  maxFrameBytes,
  type OperationName,
  operations,
  type Request,
  type Response,
  type WorkerFailure,
} from './frames.ts'

/** One request as the worker sees it; narrow by `operation`. */
export type RequestFrame = {
  readonly [N in OperationName]: {
    readonly callId: number
    readonly operation: N
    readonly budgetMs: number
    readonly fields: Request<N>
  }
}[OperationName]

/** One answer as the gateway sees it: `fields` of the operation that was asked, or the failure. */
export interface ResponseFrame {
  readonly callId: number
  /** Time inside the module. */
  readonly hsmMicros: number
  readonly fields: Response<OperationName> | undefined
  readonly failure: WorkerFailure | undefined
}

const statusOk = 0
const statusFailed = 1
/** Call id, operation or status, budget or microseconds. */
const headBytes = 9
const initialBatchBytes = 64 * 1024
const noBytes = Buffer.alloc(0)

interface Codec {
  readonly name: OperationName
  readonly code: number
  readonly putRequest: Encode
  readonly lastRequestField: string
  readonly takeRequest: Decode
  readonly putResponse: Encode
  readonly takeResponse: Decode
}

const codecs = Object.fromEntries(
  Object.entries(operations).map(([name, operation]) => [
    name,
    {
      name: name as OperationName,
      code: operation.code,
      putRequest: compileEncoder(operation.request),
      lastRequestField: Object.keys(operation.request).at(-1) ?? '',
      takeRequest: compileDecoder(operation.request),
      putResponse: compileEncoder(operation.response),
      takeResponse: compileDecoder(operation.response),
    },
  ]),
) as Record<OperationName, Codec>
const byCode: (Codec | undefined)[] = []
for (const codec of Object.values(codecs)) byCode[codec.code] = codec
const putFailure = compileEncoder(failureFields)
const takeFailure = compileDecoder(failureFields)

/** @throws FrameError when the bytes are no request of the table. */
export function decodeRequest(buffer: Buffer, at: number, end: number): RequestFrame {
  if (end - at < headBytes) throw new FrameError('frame shorter than its head')
  const codec = byCode[buffer[at + 4]!]
  if (codec === undefined) throw new FrameError('unknown operation')
  const fields = codec.takeRequest({ buffer, at: at + headBytes, end })
  const callId = getU32(buffer, at)
  const budgetMs = getU32(buffer, at + 5)
  return { callId, operation: codec.name, budgetMs, fields } as unknown as RequestFrame
}

/**
 * `operationOf` says what the call id asked; `undefined` for an id that is not open.
 * @throws FrameError when the bytes are no answer to an open call.
 */
export function decodeResponse(
  buffer: Buffer,
  at: number,
  end: number,
  operationOf: (callId: number) => OperationName | undefined,
): ResponseFrame {
  if (end - at < headBytes) throw new FrameError('frame shorter than its head')
  const callId = getU32(buffer, at)
  const status = buffer[at + 4]!
  const hsmMicros = getU32(buffer, at + 5)
  const operation = operationOf(callId)
  if (operation === undefined) throw new FrameError('answer to a call that is not open')
  const cursor = { buffer, at: at + headBytes, end }
  if (status === statusOk) {
    const fields = codecs[operation].takeResponse(cursor) as unknown as Response<OperationName>
    return { callId, hsmMicros, fields, failure: undefined }
  }
  if (status !== statusFailed) throw new FrameError('unknown status')
  const failure = takeFailure(cursor) as unknown as WorkerFailure
  if (!Object.hasOwn(errorCodes, failure.code)) throw new FrameError('unknown error code')
  return { callId, hsmMicros, fields: undefined, failure }
}

/**
 * Feeds chunks in, calls `onFrame` with the bounds of each frame's content (without its length), in order, synchronously.
 * The returned function throws FrameError, now and at every later chunk, once the stream is broken; the length is checked before any allocation.
 */
export function createFrameReader(onFrame: (buffer: Buffer, at: number, end: number) => void): (chunk: Buffer) => void {
  const head = Buffer.alloc(4)
  let headFilled = 0
  let partial: Buffer | undefined
  let filled = 0
  let broken: unknown

  function checkedLength(buffer: Buffer, at: number): number {
    const length = getU32(buffer, at)
    if (length < headBytes) throw new FrameError('frame shorter than its head')
    if (length > maxFrameBytes) throw new FrameError(`frame of ${length} bytes`)
    return length
  }

  function parse(chunk: Buffer): void {
    let at = 0
    while (at < chunk.length) {
      if (partial === undefined) {
        if (headFilled === 0 && chunk.length - at >= 4) {
          const length = checkedLength(chunk, at)
          at += 4
          if (chunk.length - at >= length) {
            onFrame(chunk, at, at + length)
            at += length
            continue
          }
          partial = Buffer.allocUnsafeSlow(length)
        } else {
          head[headFilled++] = chunk[at++]!
          if (headFilled < 4) continue
          headFilled = 0
          partial = Buffer.allocUnsafeSlow(checkedLength(head, 0))
        }
        filled = 0
      }
      const part = Math.min(partial.length - filled, chunk.length - at)
      partial.set(chunk.subarray(at, at + part), filled)
      chunk.fill(0, at, at + part) // the frame's own buffer is now the only copy
      at += part
      filled += part
      if (filled === partial.length) {
        const frame = partial
        partial = undefined
        onFrame(frame, 0, frame.length)
      }
    }
  }

  return (chunk) => {
    if (broken !== undefined) throw broken
    try {
      parse(chunk)
    } catch (error) {
      broken = error
      throw error
    }
  }
}

/**
 * Operation and fields of a request whose last field is its input, without that input and its length: the same bytes for all requests that
 * differ in nothing else.
 */
export function encodeQuestion({ operation, fields }: RequestFrame): Buffer {
  const { code, putRequest, lastRequestField } = codecs[operation]
  const sink: Sink = { buffer: Buffer.allocUnsafeSlow(256), at: 0 }
  reserve(sink, 1)
  sink.buffer[sink.at++] = code
  putRequest(sink, { ...fields, [lastRequestField]: noBytes } as never)
  return sink.buffer.subarray(0, sink.at - 4)
}

/** The worker's reader. */
export function createRequestReader(onRequest: (request: RequestFrame) => void): (chunk: Buffer) => void {
  return createFrameReader((buffer, at, end) => onRequest(decodeRequest(buffer, at, end)))
}

/** The gateway's reader; see decodeResponse for `operationOf`. */
export function createResponseReader(
  operationOf: (callId: number) => OperationName | undefined,
  onResponse: (response: ResponseFrame) => void,
): (chunk: Buffer) => void {
  return createFrameReader((buffer, at, end) => onResponse(decodeResponse(buffer, at, end, operationOf)))
}

/** Lays down one frame; on any error nothing of it stays. */
function putFrame(
  sink: Sink,
  callId: number,
  kind: number,
  third: number,
  encode: Encode,
  values: Readonly<Record<string, unknown>>,
): void {
  const start = sink.at
  try {
    reserve(sink, 4 + headBytes)
    putU32(sink.buffer, start + 4, callId)
    sink.buffer[start + 8] = kind
    putU32(sink.buffer, start + 9, third)
    sink.at = start + 4 + headBytes
    encode(sink, values)
    const length = sink.at - start - 4
    if (length > maxFrameBytes) throw new TypeError(`frame of ${length} bytes`)
    putU32(sink.buffer, start, length)
  } catch (error) {
    sink.buffer.fill(0, start, sink.at)
    sink.at = start
    throw error
  }
}

/** Where a writer writes: a stream, or the worker's pipe. */
export interface FrameSocket {
  readonly writable: boolean
  write(frames: Buffer, sent: () => void): unknown
}

export interface FrameWriter {
  /** @throws TypeError for values that do not fit their fields; nothing is sent then. The fields are copied before it returns. */
  request<N extends OperationName>(callId: number, operation: N, budgetMs: number, fields: Request<N>): void
  response<N extends OperationName>(callId: number, operation: N, hsmMicros: number, fields: Response<N>): void
  failure(callId: number, hsmMicros: number, failure: WorkerFailure): void
  /** Sends what is queued now, not at the end of the turn. `sent` is called when the kernel has it. */
  flush(sent?: () => void): void
}

/**
 * Queues frames and writes them together after the current round of I/O callbacks (setImmediate), so that requests of many connections share
 * one system call. Sent buffers are wiped and used again. Errors are the socket's own; after its end frames are dropped.
 */
export function createFrameWriter(socket: FrameSocket): FrameWriter {
  const sink: Sink = { buffer: Buffer.allocUnsafeSlow(initialBatchBytes), at: 0 }
  let spare: Buffer | undefined
  let scheduled = false

  function flush(sent?: () => void): void {
    scheduled = false
    if (sink.at === 0 || !socket.writable) {
      sink.buffer.fill(0, 0, sink.at)
      sink.at = 0
      sent?.()
      return
    }
    const { buffer, at } = sink
    sink.buffer = spare ?? Buffer.allocUnsafeSlow(initialBatchBytes)
    sink.at = 0
    spare = undefined
    socket.write(buffer.subarray(0, at), () => {
      buffer.fill(0, 0, at)
      if (buffer.length === initialBatchBytes) spare = buffer
      sent?.()
    })
  }

  function schedule(): void {
    if (scheduled) return
    scheduled = true
    setImmediate(flushScheduled)
  }
  function flushScheduled(): void {
    if (scheduled) flush()
  }

  return {
    request(callId, operation, budgetMs, fields) {
      const codec = codecs[operation]
      putFrame(sink, callId, codec.code, budgetMs, codec.putRequest, fields)
      schedule()
    },
    response(callId, operation, hsmMicros, fields) {
      putFrame(sink, callId, statusOk, hsmMicros, codecs[operation].putResponse, fields)
      schedule()
    },
    failure(callId, hsmMicros, failure) {
      putFrame(sink, callId, statusFailed, hsmMicros, putFailure, { ...failure })
      schedule()
    },
    flush,
  }
}
