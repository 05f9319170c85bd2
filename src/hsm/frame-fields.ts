/**
 * The field types of the frame table as bytes: for a list of fields, an encoder and a decoder made of one closure per field, built once.
 *
 * Decoded `bytes` are views into what arrived, so there is one copy of a secret to wipe. Every length is checked against the frame's end before
 * use. Encoders throw TypeError for values that don't fit, decoders FrameError for bytes that don't parse.
 */
import { isUtf8 } from 'node:buffer'
import type { Fields, FieldType } from './frames.ts'

/** The peer broke the protocol; the worker behind it is dropped. */
export class FrameError extends Error {
  override readonly name = 'FrameError'
}

/** Where frames are laid down: a buffer that grows by doubling and a position. */
export interface Sink {
  buffer: Buffer
  at: number
}

export function reserve(sink: Sink, bytes: number): void {
  const needed = sink.at + bytes
  if (needed <= sink.buffer.length) return
  const grown = Buffer.allocUnsafeSlow(Math.max(needed, sink.buffer.length * 2))
  grown.set(sink.buffer.subarray(0, sink.at))
  sink.buffer.fill(0, 0, sink.at)
  sink.buffer = grown
}

export function putU32(buffer: Buffer, at: number, value: number): void {
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

export type Encode = (sink: Sink, values: Readonly<Record<string, unknown>>) => void

export function compileEncoder(fields: Fields): Encode {
  const names = Object.keys(fields)
  const steps = names.map((name) => puts[fields[name] as FieldType])
  return (sink, values) => {
    for (let i = 0; i < steps.length; i++) (steps[i] as Put)(sink, values[names[i] as string] as never)
  }
}

export interface Cursor {
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

export function getU32(buffer: Buffer, at: number): number {
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

export type Decode = (cursor: Cursor) => Record<string, unknown>

export function compileDecoder(fields: Fields): Decode {
  const names = Object.keys(fields)
  const steps = names.map((name) => takes[fields[name] as FieldType])
  return (cursor) => {
    const values: Record<string, unknown> = {}
    for (let i = 0; i < steps.length; i++) values[names[i] as string] = (steps[i] as Take)(cursor)
    if (cursor.at !== cursor.end) throw new FrameError('bytes after the last field')
    return values
  }
}
