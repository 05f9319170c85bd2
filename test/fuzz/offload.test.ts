/** HKS/1 and what it carries, fed with anything: frames of both directions, bodies, documents to be signed. */
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { offloadPolicies } from '../../src/authenticate/tls-bindings.ts'
import { DerCursor, DerError, derTags } from '../../src/transport/offload/der.ts'
import {
  decodeError,
  decodeHello,
  decodeRequest,
  decodeResult,
  decodeWelcome,
} from '../../src/transport/offload/frame-decoding.ts'
import { encodeHello, encodeRequest } from '../../src/transport/offload/frame-encoding.ts'
import { createFrameReader } from '../../src/transport/offload/frame-reader.ts'
import {
  clientFrames,
  FrameError,
  type FrameType,
  frameLimits,
  gatewayFrames,
  headBytes,
  inputKinds,
  type Request,
  signatureAlgorithms,
} from '../../src/transport/offload/frames.ts'
import { findPolicy } from '../../src/transport/offload/policies.ts'
import { frameVectors } from '../support/hks-vectors.ts'
import { fuzzBounds, patience } from './bounds.ts'

const decoders: Readonly<Record<FrameType, (buffer: Buffer, at: number, end: number) => unknown>> = {
  HELLO: decodeHello,
  WELCOME: decodeWelcome,
  REQUEST: decodeRequest,
  RESULT: decodeResult,
  ERROR: decodeError,
  PING: () => undefined,
  PONG: () => undefined,
  GOAWAY: () => undefined,
}
const vectors = frameVectors.map(({ hex }) => Buffer.from(hex, 'hex'))

/** A vector with bytes changed, cut off or put in. */
const damaged = fc
  .tuple(
    fc.constantFrom(...vectors),
    fc.array(fc.tuple(fc.nat(), fc.integer({ min: 0, max: 255 })), { maxLength: 4 }),
    fc.nat(20),
    fc.uint8Array({ maxLength: 20 }),
  )
  .map(([vector, changes, cut, more]) => {
    const bytes = Buffer.from(vector.subarray(0, vector.length - cut))
    for (const [at, value] of changes) if (bytes.length > 0) bytes[at % bytes.length] = value
    return Buffer.concat([bytes, more])
  })
/** A frame whose head is right, with a body of items that are not. */
const framed = fc
  .tuple(
    fc.integer({ min: 0, max: 9 }),
    fc.array(fc.tuple(fc.integer({ min: 0, max: 255 }), fc.nat(40), fc.uint8Array({ maxLength: 40 })), {
      maxLength: 6,
    }),
  )
  .map(([type, items]) => {
    const body = Buffer.concat(
      items.map(([tag, length, value]) => Buffer.concat([Buffer.from([tag, length >> 8, length & 255]), value])),
    )
    const head = Buffer.alloc(headBytes)
    head.writeUInt32BE(body.length, 0)
    head[4] = 1
    head[5] = type
    return Buffer.concat([head, body])
  })
const stream = fc.array(fc.oneof(framed, damaged, fc.uint8Array({ maxLength: 40 }).map(Buffer.from)), { maxLength: 6 })
const optional = <T>(arbitrary: fc.Arbitrary<T>) => fc.option(arbitrary, { nil: undefined })
const bytes = (length: number) => fc.uint8Array({ minLength: length, maxLength: length }).map(Buffer.from)
const word = fc.stringMatching(/^[a-zA-Zäß .-]{1,20}$/)
const u = (bits: number) => fc.nat(2 ** bits - 1)

describe('any bytes', () => {
  it.each([
    ['clients', clientFrames],
    ['gateways', gatewayFrames],
  ] as const)(
    'are frames of %s, cut anywhere, or a FrameError that stays',
    (_who, allowed) => {
      fc.assert(
        fc.property(stream, fc.array(fc.nat(600), { maxLength: 5 }), (chunks, cuts) => {
          const whole = Buffer.concat(chunks)
          const frames = (parts: readonly Buffer[]) => {
            const seen: string[] = []
            const reader = createFrameReader(allowed, 20_000, (head, buffer, at, end) => {
              expect(end - at).toBe(head.bodyBytes)
              seen.push(`${head.type} ${head.requestId} ${buffer.toString('hex', at, end)}`)
            })
            let broken = false
            for (const part of parts) {
              try {
                reader.push(Buffer.from(part))
                expect(broken).toBe(false)
              } catch (cause) {
                expect(cause).toBeInstanceOf(FrameError)
                broken = true
              }
            }
            return { seen, broken }
          }
          const places = [0, ...cuts.map((cut) => Math.min(cut, whole.length)).sort((a, b) => a - b), whole.length]
          const parts = places.slice(1).map((place, index) => whole.subarray(places[index], place))
          expect(frames(parts)).toEqual(frames([whole]))
        }),
        fuzzBounds(1500),
      )
    },
    patience.timeout,
  )

  it('are a body of each type or a FrameError', patience, () => {
    fc.assert(
      fc.property(fc.constantFrom(...Object.values(decoders)), fc.oneof(damaged, framed), (decode, frame) => {
        for (const at of [0, Math.min(headBytes, frame.length)]) {
          try {
            decode(frame, at, frame.length)
          } catch (cause) {
            expect(cause).toBeInstanceOf(FrameError)
          }
        }
      }),
      fuzzBounds(4000),
    )
  })

  it('are permitted or not by every policy, and nothing else happens', patience, () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ maxLength: 400 }).map(Buffer.from),
        fc.nat(5),
        fc.nat(5),
        (input, algorithm, inputKind) => {
          for (const policy of offloadPolicies) {
            const found = findPolicy([policy], { algorithm, inputKind, input })
            expect([undefined, policy]).toContain(found)
            if (inputKind !== inputKinds.message) expect(found).toBe(policy === 'any' ? 'any' : undefined)
          }
        },
      ),
      fuzzBounds(1200),
    )
  })

  it('are DER that ends where it says, or a DerError', patience, () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 100 }), fc.constantFrom(...Object.values(derTags)), (input, tag) => {
        try {
          const cursor = new DerCursor(input)
          const { from, to } = cursor.take(tag)
          expect(from).toBeLessThanOrEqual(to)
          expect(to).toBeLessThanOrEqual(input.length)
        } catch (cause) {
          expect(cause).toBeInstanceOf(DerError)
        }
      }),
      fuzzBounds(4000),
    )
  })
})

describe('what was written', () => {
  it('is read as it was: requests', patience, () => {
    const pss = fc.record({ algorithm: fc.constant(signatureAlgorithms.rsaPss), mgfHash: u(8), saltBytes: u(16) })
    const other = fc
      .constantFrom(1, 3, 4, 5, 200)
      .map((algorithm) => ({ algorithm, mgfHash: undefined, saltBytes: undefined }))
    const reported = fc
      .record({ uid: optional(u(32)), pid: optional(u(32)), app: optional(word) })
      .map((each) => JSON.parse(JSON.stringify(each)) as NonNullable<Request['reported']>)
      .map((each) => (Object.keys(each).length === 0 ? undefined : each))
    const request = fc
      .tuple(
        fc.oneof(pss, other),
        fc.record({
          keyId: bytes(32),
          tokenIndex: u(16),
          hash: u(8),
          inputKind: u(8),
          input: fc.uint8Array({ maxLength: 500 }).map(Buffer.from),
          traceId: optional(bytes(16)),
          newToken: optional(bytes(32)),
          reported,
        }),
      )
      .map(([algorithm, rest]): Request => ({ ...algorithm, ...rest }))
    fc.assert(
      fc.property(request, u(32), u(32), (fields, requestId, budgetMs) => {
        const frame = encodeRequest(requestId, budgetMs, fields)
        let read = 0
        const reader = createFrameReader(clientFrames, frameLimits.bodyBytes, (head, buffer, at, end) => {
          expect(head).toMatchObject({ type: 'REQUEST', requestId, aux: budgetMs })
          expect(decodeRequest(buffer, at, end)).toEqual(fields)
          read++
        })
        reader.push(frame)
        expect(read).toBe(1)
      }),
      fuzzBounds(1000),
    )
  })

  it('is read as it was: greetings', patience, () => {
    const hello = fc.record({
      minVersion: fc.constant(1),
      maxVersion: fc.integer({ min: 1, max: 255 }),
      app: word,
      pid: u(32),
      providerVersion: word,
      tokens: fc.array(bytes(32), { maxLength: 20 }),
    })
    fc.assert(
      fc.property(hello, (fields) => {
        const frame = encodeHello(fields)
        expect(decodeHello(frame, headBytes, frame.length)).toEqual(fields)
      }),
      fuzzBounds(1000),
    )
  })
})
