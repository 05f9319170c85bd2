/**
 * Bytes of the frame table: encoders and decoders compiled once per operation, a reader that parses all frames of a chunk in one
 * pass, and a writer that sends all that was queued in one turn of the event loop with one write. Both ends of a worker's pipe use it.
 *
 * Decoded `bytes` are views into the chunk that arrived, so there is one copy of a secret to wipe: whoever is done with it fills it
 * with zeros. The writer wipes what it sent. Whatever does not parse is a FrameError and ends the conversation: the reader stays broken.
 */
import { isUtf8 } from 'node:buffer'
import type { Writable } from 'node:stream'
import { type ErrorCode, errorCodes } from '../error.ts'
import {
  type Fields,
  type FieldType,
  failureFields,
  maxFrameBytes,
  type OperationName,
  operations,
  type Request,
  type Response,
  type WorkerFailure,
} from './frames.ts'

/** The peer broke the protocol; the worker behind it is dropped. */
export class FrameError extends Error {
  override readonly name = 'FrameError'
}

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

// ---- writing

/** Where frames are laid down: a buffer that grows by doubling and a position. */
interface Sink {
  buffer: Buffer
  at: number
}

function reserve(sink: Sink, bytes: number): void {
  const needed = sink.at + bytes
  if (needed <= sink.buffer.length) return
  const grown = Buffer.allocUnsafeSlow(Math.max(needed, sink.buffer.length * 2))
  grown.set(sink.buffer.subarray(0, sink.at))
  sink.buffer.fill(0, 0, sink.at)
  sink.buffer = grown
}

function putU32(buffer: Buffer, at: number, value: number): void {
  buffer[at] = value
  buffer[at + 1] = value >>> 8
  buffer[at + 2] = value >>> 16
  buffer[at + 3] = value >>> 24
}

type Put = (sink: Sink, value: never) => void

function unsigned(bytes: 1 | 2 | 4): (sink: Sink, value: number) => void {
  const max = 2 ** (8 * bytes) - 1
  return (sink, value) => {
    if (!(Number.isInteger(value) && value >= 0 && value <= max)) throw new TypeError(`not a u${8 * bytes}: ${value}`)
    reserve(sink, bytes)
    for (let i = 0; i < bytes; i++) sink.buffer[sink.at++] = value >>> (8 * i)
  }
}

function putBytes(sink: Sink, value: Uint8Array): void {
  const { length } = value
  reserve(sink, 4 + length)
  putU32(sink.buffer, sink.at, length)
  if (length > 0) sink.buffer.set(value, sink.at + 4)
  sink.at += 4 + length
}

function putText(sink: Sink, value: string): void {
  reserve(sink, 2 + value.length * 3)
  const written = value.length === 0 ? 0 : sink.buffer.write(value, sink.at + 2, 'utf8')
  if (written > 0xffff) throw new TypeError('text longer than 65535 bytes')
  sink.buffer[sink.at] = written
  sink.buffer[sink.at + 1] = written >>> 8
  sink.at += 2 + written
}

/** JSON has no bytes: they travel as `{"$bytes": base64}`, at any depth, so that intents and object summaries survive as they are. */
function replaceBytes(this: unknown, name: string, value: unknown): unknown {
  const original = (this as Record<string, unknown>)[name]
  if (!(original instanceof Uint8Array)) return value
  return { $bytes: Buffer.from(original.buffer, original.byteOffset, original.byteLength).toString('base64') }
}

function reviveBytes(_name: string, value: unknown): unknown {
  if (typeof value !== 'object' || value === null || !('$bytes' in value)) return value
  return typeof value.$bytes === 'string' ? Buffer.from(value.$bytes, 'base64') : value
}

function putJson(sink: Sink, value: unknown): void {
  const text = JSON.stringify(value, replaceBytes)
  if (text === undefined) throw new TypeError('not a JSON value')
  putBytes(sink, Buffer.from(text, 'utf8'))
}

const puts: Readonly<Record<FieldType, Put>> = {
  u8: unsigned(1),
  u16: unsigned(2),
  u32: unsigned(4),
  f64: (sink: Sink, value: number) => {
    reserve(sink, 8)
    sink.at = sink.buffer.writeDoubleLE(value, sink.at)
  },
  bytes: putBytes,
  text: putText,
  json: putJson,
}

type Encode = (sink: Sink, values: Readonly<Record<string, unknown>>) => void

function compileEncoder(fields: Fields): Encode {
  const names = Object.keys(fields)
  const steps = names.map((name) => puts[fields[name] as FieldType])
  return (sink, values) => {
    for (let i = 0; i < steps.length; i++) (steps[i] as Put)(sink, values[names[i] as string] as never)
  }
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

// ---- reading

interface Cursor {
  buffer: Buffer
  at: number
  end: number
}

function take(cursor: Cursor, bytes: number): number {
  const { at } = cursor
  if (bytes > cursor.end - at) throw new FrameError('field reaches beyond its frame')
  cursor.at = at + bytes
  return at
}

function getU32(buffer: Buffer, at: number): number {
  return (buffer[at]! | (buffer[at + 1]! << 8) | (buffer[at + 2]! << 16)) + buffer[at + 3]! * 0x1000000
}

function takeBytes(cursor: Cursor): Buffer {
  const length = getU32(cursor.buffer, take(cursor, 4))
  const at = take(cursor, length)
  return cursor.buffer.subarray(at, at + length)
}

function takeText(cursor: Cursor): string {
  const head = take(cursor, 2)
  const length = cursor.buffer[head]! | (cursor.buffer[head + 1]! << 8)
  if (length === 0) return ''
  const at = take(cursor, length)
  if (!isUtf8(cursor.buffer.subarray(at, at + length))) throw new FrameError('text is not UTF-8')
  return cursor.buffer.toString('utf8', at, at + length)
}

function takeJson(cursor: Cursor): unknown {
  const bytes = takeBytes(cursor)
  try {
    return JSON.parse(bytes.toString('utf8'), reviveBytes)
  } catch {
    throw new FrameError('field is not JSON')
  }
}

type Take = (cursor: Cursor) => unknown

const takes: Readonly<Record<FieldType, Take>> = {
  u8: (cursor) => cursor.buffer[take(cursor, 1)]!,
  u16: (cursor) => cursor.buffer.readUInt16LE(take(cursor, 2)),
  u32: (cursor) => getU32(cursor.buffer, take(cursor, 4)),
  f64: (cursor) => cursor.buffer.readDoubleLE(take(cursor, 8)),
  bytes: takeBytes,
  text: takeText,
  json: takeJson,
}

type Decode = (cursor: Cursor) => Record<string, unknown>

function compileDecoder(fields: Fields): Decode {
  const names = Object.keys(fields)
  const steps = names.map((name) => takes[fields[name] as FieldType])
  return (cursor) => {
    const values: Record<string, unknown> = {}
    for (let i = 0; i < steps.length; i++) values[names[i] as string] = (steps[i] as Take)(cursor)
    if (cursor.at !== cursor.end) throw new FrameError('bytes after the last field')
    return values
  }
}

// ---- the table, compiled

interface Codec {
  readonly name: OperationName
  readonly code: number
  readonly putRequest: Encode
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
export function createFrameWriter(socket: Writable): FrameWriter {
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

/** Frames the writer refuses to shorten: keeps a failure's texts within the u16 of `text`. */
export function failureOf(code: ErrorCode, action: string, rv: number, call: string, detail: string): WorkerFailure {
  return { code, action, rv, call, detail: detail.slice(0, 1000) }
}
