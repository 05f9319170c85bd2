import { PassThrough } from 'node:stream'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import {
  createFrameReader,
  createFrameWriter,
  createRequestReader,
  createResponseReader,
  decodeRequest,
  encodeQuestion,
  type RequestFrame,
  type ResponseFrame,
} from '../../../src/hsm/frame-codec.ts'
import { FrameError } from '../../../src/hsm/frame-fields.ts'
import { type Fields, type FieldType, maxFrameBytes, type OperationName, operations } from '../../../src/hsm/frames.ts'

const json = fc.oneof(
  fc
    .json()
    .map((text) => JSON.parse(text) as unknown)
    .filter((value) => !JSON.stringify(value).includes('$bytes') && !JSON.stringify(value).includes('__proto__')),
  fc.record({ objectId: fc.uint8Array().map((bytes) => Buffer.from(bytes)), keyId: fc.string({ unit: 'grapheme' }) }),
)
const values: Record<FieldType, fc.Arbitrary<unknown>> = {
  u8: fc.integer({ min: 0, max: 0xff }),
  u16: fc.integer({ min: 0, max: 0xffff }),
  u32: fc.integer({ min: 0, max: 0xffffffff }),
  f64: fc.double({ noNaN: true }),
  bytes: fc.uint8Array({ maxLength: 3000 }).map((bytes) => Buffer.from(bytes)),
  text: fc.string({ unit: 'grapheme' }),
  json: json.map((value) => (Object.is(value, -0) ? 0 : value)),
}
const fieldsOf = (fields: Fields) =>
  fc.record(Object.fromEntries(Object.entries(fields).map(([name, type]) => [name, values[type]])))
const u32 = values.u32 as fc.Arbitrary<number>
const names = Object.keys(operations) as OperationName[]
const request = fc.constantFrom(...names).chain((operation) =>
  fc.record({
    callId: u32,
    operation: fc.constant(operation),
    budgetMs: u32,
    fields: fieldsOf(operations[operation].request),
  }),
)
const response = fc
  .constantFrom(...names)
  .chain((operation) =>
    fc.record({ operation: fc.constant(operation), hsmMicros: u32, fields: fieldsOf(operations[operation].response) }),
  )

/** Writes frames through a real stream and returns what came out, one buffer per write. */
async function written(write: (writer: ReturnType<typeof createFrameWriter>) => void): Promise<Buffer[]> {
  const stream = new PassThrough()
  const chunks: Buffer[] = []
  stream.on('data', (chunk: Buffer) => chunks.push(Buffer.from(chunk)))
  const writer = createFrameWriter(stream)
  write(writer)
  await new Promise<void>((resolve) => writer.flush(resolve))
  stream.end()
  await new Promise((resolve) => stream.once('end', resolve))
  return chunks
}

/** Cuts bytes at the given places, as a socket may. */
function cut(bytes: Buffer, places: readonly number[]): Buffer[] {
  const at = [0, ...places.map((place) => place % (bytes.length + 1)).sort((a, b) => a - b), bytes.length]
  return at.slice(1).map((end, i) => Buffer.from(bytes.subarray(at[i], end)))
}

const copied = (frame: RequestFrame | ResponseFrame): unknown => structuredClone(frame)
const plain = (value: unknown): unknown => structuredClone(value)

describe('frame codec', () => {
  it('gives back every request however the stream is cut', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(request, { maxLength: 6 }),
        fc.array(fc.nat(), { maxLength: 5 }),
        async (requests, places) => {
          const [bytes = Buffer.alloc(0)] = await written((writer) => {
            for (const { callId, operation, budgetMs, fields } of requests)
              writer.request(callId, operation, budgetMs, fields as never)
          })
          const seen: unknown[] = []
          const read = createRequestReader((frame) => seen.push(copied(frame)))
          for (const chunk of cut(bytes, places)) read(chunk)
          expect(seen).toEqual(requests.map(plain))
        },
      ),
    )
  })

  it('gives back every response however the stream is cut', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(response, { maxLength: 6 }),
        fc.array(fc.nat(), { maxLength: 5 }),
        async (responses, places) => {
          const [bytes = Buffer.alloc(0)] = await written((writer) => {
            responses.forEach(({ operation, hsmMicros, fields }, callId) => {
              writer.response(callId, operation, hsmMicros, fields as never)
            })
          })
          const seen: unknown[] = []
          const read = createResponseReader(
            (callId) => responses[callId]?.operation,
            (frame) => seen.push(copied(frame)),
          )
          for (const chunk of cut(bytes, places)) read(chunk)
          expect(seen).toEqual(
            responses.map(({ hsmMicros, fields }, callId) => plain({ callId, hsmMicros, fields, failure: undefined })),
          )
        },
      ),
    )
  })

  it('gives back a failure', async () => {
    const failure = { code: 'HsmFailure', action: 'S', rv: 0x80000001, call: 'C_Sign', detail: 'vendor code' } as const
    const [bytes] = await written((writer) => writer.failure(7, 42, failure))
    const seen: ResponseFrame[] = []
    createResponseReader(
      () => 'sign',
      (frame) => seen.push(frame),
    )(bytes!)
    expect(seen).toEqual([{ callId: 7, hsmMicros: 42, fields: undefined, failure }])
  })

  it('turns any byte sequence into frames or a FrameError', () => {
    const length = fc.oneof(fc.nat(64), u32)
    const framed = fc.tuple(length, fc.uint8Array({ maxLength: 64 })).map(([declared, rest]) => {
      const head = Buffer.alloc(4)
      head.writeUInt32LE(declared)
      return Buffer.concat([head, rest])
    })
    const wellFramed = fc.tuple(fc.nat(25), fc.uint8Array({ maxLength: 80 })).map(([kind, rest]) => {
      const head = Buffer.alloc(13)
      head.writeUInt32LE(9 + rest.length)
      head[8] = kind
      return Buffer.concat([head, rest])
    })
    const noise = fc.oneof(fc.uint8Array({ maxLength: 200 }), framed, wellFramed)
    fc.assert(
      fc.property(
        noise,
        fc.array(fc.nat(), { maxLength: 3 }),
        fc.constantFrom(...names),
        (bytes, places, operation) => {
          for (const read of [
            createRequestReader(() => {}),
            createResponseReader(
              () => operation,
              () => {},
            ),
          ]) {
            try {
              for (const chunk of cut(Buffer.from(bytes), places)) read(chunk)
            } catch (error) {
              expect(error).toBeInstanceOf(FrameError)
              expect(() => read(Buffer.alloc(1))).toThrow(FrameError)
            }
          }
        },
      ),
      { numRuns: 500 },
    )
  })

  it('refuses a length beyond the limit before any content arrives', () => {
    const head = Buffer.alloc(4)
    head.writeUInt32LE(maxFrameBytes + 1)
    expect(() => createFrameReader(() => {})(head)).toThrow('frame of 16777217 bytes')
  })

  it('refuses an answer to a call that is not open', async () => {
    const [bytes] = await written((writer) => writer.response(9, 'drain', 0, {}))
    const read = createResponseReader(
      () => undefined,
      () => {},
    )
    expect(() => read(bytes!)).toThrow('not open')
  })

  it('knows what a request asks by the bytes up to its input, which are those on the wire', async () => {
    const fields = {
      purpose: 1,
      spec: 2,
      construction: 0,
      session: 0,
      objectId: Buffer.from('id'),
      label: 'é',
      algorithm: 3,
    }
    const input = Buffer.from('what changes from call to call')
    const [sign = Buffer.alloc(0)] = await written((writer) => writer.request(7, 'sign', 1000, { ...fields, input }))
    const inputLengthAt = sign.length - input.length - 4
    const asked = Buffer.concat([sign.subarray(8, 9), sign.subarray(13, inputLengthAt)])
    expect(encodeQuestion(decodeRequest(sign, 4, sign.length))).toEqual(asked)
    const [mac = Buffer.alloc(0)] = await written((writer) =>
      writer.request(8, 'mac', 1, { ...fields, message: input }),
    )
    const sameBut = Buffer.concat([Buffer.from([operations.mac.code]), asked.subarray(1)])
    expect(encodeQuestion(decodeRequest(mac, 4, mac.length))).toEqual(sameBut)
  })

  it('sends everything queued in one turn with one write', async () => {
    const chunks = await written((writer) => {
      for (let callId = 0; callId < 100; callId++) writer.request(callId, 'random', 5, { count: 32 })
    })
    expect(chunks).toHaveLength(1)
  })

  it('sends nothing of a frame whose values do not fit', async () => {
    const chunks = await written((writer) => {
      expect(() => writer.request(1, 'random', 5, { count: -1 })).toThrow(TypeError)
      expect(() => writer.request(1, 'forget', 5, { objectId: Buffer.alloc(16), label: 'x'.repeat(70_000) })).toThrow(
        TypeError,
      )
      writer.request(2, 'random', 5, { count: 1 })
    })
    const seen: number[] = []
    const read = createRequestReader((frame) => seen.push(frame.callId))
    for (const chunk of chunks) read(chunk)
    expect(seen).toEqual([2])
  })

  it('leaves no copy of a partial frame in the chunk it came from', async () => {
    const [bytes] = await written((writer) => writer.response(1, 'decrypt', 0, { output: Buffer.from('plaintext') }))
    const first = Buffer.from(bytes!.subarray(0, bytes!.length - 2))
    const seen: string[] = []
    const read = createResponseReader(
      () => 'decrypt',
      ({ fields }) => seen.push((fields as { output: Buffer }).output.toString()),
    )
    read(first)
    read(bytes!.subarray(bytes!.length - 2))
    expect(seen).toEqual(['plaintext'])
    expect(first.subarray(4).every((byte) => byte === 0)).toBe(true)
  })
})
