import { describe, expect, it } from 'vitest'
import {
  decodeError,
  decodeHello,
  decodeRequest,
  decodeResult,
  decodeWelcome,
} from '../../../../src/transport/offload/frame-decoding.ts'
import {
  encodeError,
  encodeGoaway,
  encodeHello,
  encodePing,
  encodePong,
  encodeRequest,
  encodeResult,
  encodeWelcome,
} from '../../../../src/transport/offload/frame-encoding.ts'
import { createFrameReader } from '../../../../src/transport/offload/frame-reader.ts'
import {
  clientFrames,
  FrameError,
  frameLimits,
  gatewayFrames,
  type Head,
  type Request,
} from '../../../../src/transport/offload/frames.ts'
import { type FrameVector, frameVectors } from '../../../support/hks-vectors.ts'

interface Read {
  readonly head: Head
  readonly body: Buffer
}

function readFrames(chunks: readonly Buffer[], direction: FrameVector['direction']): Read[] {
  const frames: Read[] = []
  const reader = createFrameReader(
    direction === 'toGateway' ? clientFrames : gatewayFrames,
    frameLimits.bodyBytes,
    (head, buffer, at, end) => frames.push({ head, body: buffer.subarray(at, end) }),
  )
  for (const chunk of chunks) reader.push(chunk)
  return frames
}

function decodeBody({ head, body }: Read): unknown {
  const { length } = body
  if (head.type === 'HELLO') return decodeHello(body, 0, length)
  if (head.type === 'WELCOME') return decodeWelcome(body, 0, length)
  if (head.type === 'REQUEST') return decodeRequest(body, 0, length)
  if (head.type === 'RESULT') return { signature: decodeResult(body, 0, length) }
  if (head.type === 'ERROR') return decodeError(body, 0, length)
  return {}
}

/** Buffers as hex and without what is undefined, as the vectors have it. */
function plain(value: unknown): unknown {
  if (value instanceof Uint8Array) return Buffer.from(value).toString('hex')
  if (Array.isArray(value)) return value.map(plain)
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(
    Object.entries(value).flatMap(([name, inner]) => (inner === undefined ? [] : [[name, plain(inner)]])),
  )
}

function encodeAgain({ head, body }: Read): Buffer {
  const { requestId, aux } = head
  const fields = decodeBody({ head, body }) as never
  if (head.type === 'HELLO') return encodeHello(fields)
  if (head.type === 'WELCOME') return encodeWelcome(fields)
  if (head.type === 'REQUEST') return encodeRequest(requestId, aux, fields)
  if (head.type === 'RESULT') return encodeResult(requestId, aux, body)
  if (head.type === 'ERROR') return encodeError(requestId, aux, fields)
  if (head.type === 'PING') return encodePing(requestId)
  if (head.type === 'PONG') return encodePong(requestId)
  return encodeGoaway()
}

const vectorsWith = (outcome: FrameVector['outcome']) =>
  frameVectors.filter((vector) => vector.outcome === outcome).map((vector) => [vector.name, vector] as const)

describe('HKS/1 frames', () => {
  it.each(vectorsWith('frame'))('reads %s', (_name, vector) => {
    const [read, ...more] = readFrames([Buffer.from(vector.hex, 'hex')], vector.direction)
    expect(more).toEqual([])
    expect(read!.head).toMatchObject({ type: vector.type, requestId: vector.requestId, aux: vector.aux })
    expect(plain(decodeBody(read!))).toEqual(vector.fields)
  })

  it.each(vectorsWith('frame').filter(([name]) => !name.includes('nobody knows')))('writes %s', (_name, vector) => {
    const bytes = Buffer.from(vector.hex, 'hex')
    const [read] = readFrames([bytes], vector.direction)
    expect(encodeAgain(read!).toString('hex')).toBe(vector.hex)
  })

  it.each(vectorsWith('frame'))('reads %s byte by byte', (_name, vector) => {
    const bytes = Buffer.from(vector.hex, 'hex')
    const pieces = Array.from(bytes, (_byte, at) => Buffer.from(bytes.subarray(at, at + 1)))
    const [read, ...more] = readFrames(pieces, vector.direction)
    expect(more).toEqual([])
    expect(plain(decodeBody(read!))).toEqual(vector.fields)
  })

  it.each(vectorsWith('close'))('ends the connection on %s', (_name, vector) => {
    const read = () => readFrames([Buffer.from(vector.hex, 'hex')], vector.direction).map(decodeBody)
    expect(read).toThrow(FrameError)
  })

  it.each(vectorsWith('refuse'))('refuses the body of %s', (_name, vector) => {
    const [read] = readFrames([Buffer.from(vector.hex, 'hex')], vector.direction)
    expect(() => decodeBody(read!)).toThrow(FrameError)
  })

  it.each(vectorsWith('incomplete'))('waits for the rest of %s', (_name, vector) => {
    expect(readFrames([Buffer.from(vector.hex, 'hex')], vector.direction)).toEqual([])
  })

  it('reads all frames of a stream however it was cut', () => {
    const stream = Buffer.concat(
      vectorsWith('frame')
        .filter(([, vector]) => vector.direction === 'toGateway')
        .map(([, vector]) => Buffer.from(vector.hex, 'hex')),
    )
    const whole = readFrames([stream], 'toGateway').map(decodeBody)
    for (const size of [1, 7, 16, 17, 100, 1000]) {
      const chunks: Buffer[] = []
      for (let at = 0; at < stream.length; at += size) chunks.push(Buffer.from(stream.subarray(at, at + size)))
      expect(readFrames(chunks, 'toGateway').map(decodeBody)).toEqual(whole)
    }
  })

  it('refuses everything after the first broken byte', () => {
    const reader = createFrameReader(clientFrames, frameLimits.bodyBytes, () => {})
    expect(() => reader.push(Buffer.alloc(16, 0xff))).toThrow(FrameError)
    expect(() => reader.push(encodePing(1))).toThrow(FrameError)
  })

  it('refuses a request that is longer than this gateway announced before its body has come', () => {
    const reader = createFrameReader(clientFrames, 100, () => {})
    const head = Buffer.from('0000006501030000000000010000000a', 'hex')
    expect(() => reader.push(head)).toThrow('REQUEST too long')
  })

  it('cuts a long error text at a character', () => {
    const frame = encodeError(1, 0, { code: 10, retryable: false, text: `${'x'.repeat(199)}é` })
    expect(decodeError(frame, 16, frame.length).text).toBe('x'.repeat(199))
  })

  it('writes nothing that it could not read', () => {
    const request: Request = {
      keyId: Buffer.alloc(32),
      tokenIndex: 0,
      algorithm: 3,
      hash: 1,
      mgfHash: undefined,
      saltBytes: undefined,
      inputKind: 1,
      input: Buffer.alloc(0),
      traceId: undefined,
      newToken: undefined,
      reported: undefined,
    }
    expect(() => encodeRequest(1, 0, { ...request, keyId: Buffer.alloc(31) })).toThrow(TypeError)
    expect(() => encodeRequest(1, 0, { ...request, input: Buffer.alloc(frameLimits.inputBytes + 1) })).toThrow(
      TypeError,
    )
    expect(() => encodeResult(1, 0, Buffer.alloc(0))).toThrow(TypeError)
    expect(() => encodeResult(1, 0, Buffer.alloc(2049))).toThrow(TypeError)
  })
})
