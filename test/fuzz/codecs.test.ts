/** Decoders fed with anything, and with valid bytes that were damaged: a value, or the one error that they promise. */
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { parseLine } from '../../src/audit/chain.ts'
import { parseAnchor } from '../../src/audit/verify.ts'
import { parseAmzDate } from '../../src/authenticate/amz-date.ts'
import { parseAuthorization } from '../../src/authenticate/authorization-header.ts'
import { PolicyError } from '../../src/authorize/authorize.ts'
import { parsePolicy } from '../../src/authorize/policy.ts'
import { parseConfig } from '../../src/config/load.ts'
import { GatewayError } from '../../src/error.ts'
import { createRequestReader, createResponseReader } from '../../src/hsm/frame-codec.ts'
import { FrameError } from '../../src/hsm/frame-fields.ts'
import { maxFrameBytes, type OperationName, operations } from '../../src/hsm/frames.ts'
import { decodeBlob, encodeBlobHeader } from '../../src/keys/ciphertext-blob.ts'
import { ProblemsError } from '../../src/problem.ts'
import { fuzzBounds, patience } from './bounds.ts'

const names = Object.keys(operations) as OperationName[]
const codes = names.map((name) => operations[name].code)

/** A frame whose length is right and whose operation exists, with a content that is not. */
const framed = fc
  .tuple(fc.constantFrom(...codes, 0, 255), fc.uint8Array({ maxLength: 300 }), fc.nat(0xffff_ffff))
  .map(([code, content, id]) => {
    const frame = Buffer.alloc(13 + content.length)
    frame.writeUInt32LE(9 + content.length, 0)
    frame.writeUInt32LE(id, 4)
    frame[8] = code
    frame.set(content, 13)
    return frame
  })
const stream = fc.array(fc.oneof(framed, fc.uint8Array({ maxLength: 40 }).map(Buffer.from)), { maxLength: 8 })
const anyText = fc.oneof(fc.string({ unit: 'binary', maxLength: 200 }), fc.json())

/** Any outcome but an error that nobody declared. */
function answersOnly(kind: new (...words: never[]) => Error, decode: () => unknown): void {
  try {
    decode()
  } catch (cause) {
    expect(cause).toBeInstanceOf(kind)
  }
}

describe('any bytes', () => {
  it('are requests of a worker or a FrameError that stays', patience, () => {
    fc.assert(
      fc.property(stream, fc.nat(50), (chunks, cut) => {
        const read = createRequestReader(({ operation }) => expect(names).toContain(operation))
        const bytes = Buffer.concat(chunks)
        let broken = false
        for (const part of [bytes.subarray(0, cut), bytes.subarray(cut)]) {
          try {
            read(Buffer.from(part))
            expect(broken).toBe(false)
          } catch (cause) {
            expect(cause).toBeInstanceOf(FrameError)
            broken = true
          }
        }
      }),
      fuzzBounds(2000),
    )
  })

  it('are answers of a worker or a FrameError', patience, () => {
    fc.assert(
      fc.property(stream, fc.constantFrom(...names, undefined), (chunks, asked) => {
        const read = createResponseReader(
          () => asked,
          () => {},
        )
        answersOnly(FrameError, () => read(Buffer.concat(chunks)))
      }),
      fuzzBounds(2000),
    )
  })

  it('never make the reader of frames take more memory than a frame may have', patience, () => {
    fc.assert(
      fc.property(fc.integer({ min: maxFrameBytes + 1, max: 0xffff_ffff }), (length) => {
        const head = Buffer.alloc(4)
        head.writeUInt32LE(length >>> 0)
        expect(() => createRequestReader(() => {})(head)).toThrow(FrameError)
      }),
      fuzzBounds(200),
    )
  })

  it('are a ciphertext blob or CiphertextInvalid', patience, () => {
    const header = encodeBlobHeader({
      keyId: '11111111-2222-4333-8444-555555555555',
      materialId: Buffer.alloc(32, 7),
      derived: true,
    })
    const damaged = fc.tuple(fc.uint8Array({ maxLength: 120 }), fc.nat(49), fc.nat(255)).map(([rest, place, value]) => {
      const bytes = Buffer.concat([header, rest])
      bytes[place] = value
      return bytes
    })
    fc.assert(
      fc.property(fc.oneof(damaged, fc.uint8Array({ maxLength: 200 })), (bytes) => {
        try {
          const blob = decodeBlob(bytes)
          expect(blob.keyId).toMatch(/^(mrk-[0-9a-f]{32}|[0-9a-f-]{36})$/)
          expect(Buffer.concat([blob.header, blob.sealed]).equals(bytes)).toBe(true)
        } catch (cause) {
          expect(cause).toMatchObject({ code: 'CiphertextInvalid' })
        }
      }),
      fuzzBounds(3000),
    )
  })

  it('are a line of the journal, an anchor, or neither', patience, () => {
    fc.assert(
      fc.property(anyText, (text) => {
        expect(parseLine(Buffer.from(text))?.isIntact ?? false).toBe(false)
        expect(parseAnchor(text)).toBeUndefined()
      }),
      fuzzBounds(1000),
    )
  })
})

describe('any text', () => {
  const credential = fc.oneof(
    fc.string({ maxLength: 20 }),
    fc.constant('AKIAIOSFODNN7EXAMPLE/20260101/us-east-1/kms/aws4_request'),
  )
  const header = fc.oneof(
    anyText,
    fc
      .tuple(
        credential,
        fc.string({ maxLength: 30 }),
        fc.string({ maxLength: 70 }),
        fc.constantFrom(',', ', ', ' ', '  ,'),
      )
      .map(([name, signed, signature, between]) =>
        [
          'AWS4-HMAC-SHA256 Credential=',
          name,
          between,
          'SignedHeaders=',
          signed,
          between,
          'Signature=',
          signature,
        ].join(''),
      ),
  )

  it('is an Authorization header or a modelled refusal', patience, () => {
    fc.assert(
      fc.property(header, fc.boolean(), (text, hasDate) =>
        answersOnly(GatewayError, () => parseAuthorization(text, hasDate)),
      ),
      fuzzBounds(3000),
    )
  })

  it('is a date or none', patience, () => {
    fc.assert(
      fc.property(fc.oneof(anyText, fc.stringMatching(/^\d{8}T\d{6}Z$/)), (text) => {
        const date = parseAmzDate(text)
        if (date !== undefined) expect(text).toMatch(/\d/)
      }),
      fuzzBounds(1000),
    )
  })

  it.each(['identity', 'key'] as const)('is a policy of kind %s or a PolicyError', patience, (kind) => {
    const word = fc.constantFrom(
      'Version',
      'Statement',
      'Effect',
      'Action',
      'NotAction',
      'Resource',
      'Principal',
      'Condition',
      'Sid',
    )
    const leaf = fc.oneof(
      fc.constantFrom('Allow', 'Deny', '*', 'kms:*', '2012-10-17', 'StringLike'),
      fc.jsonValue({ maxDepth: 2 }),
    )
    const { document } = fc.letrec<{ document: unknown }>((tie) => ({
      document: fc.oneof(
        { depthSize: 'small' },
        leaf,
        fc.array(tie('document'), { maxLength: 3 }),
        fc.dictionary(word, tie('document'), { maxKeys: 5 }),
      ),
    }))
    fc.assert(
      fc.property(
        fc.oneof(
          anyText,
          document.map((value) => JSON.stringify(value) ?? ''),
        ),
        (text) => answersOnly(PolicyError, () => parsePolicy(kind, text)),
      ),
      fuzzBounds(1500),
    )
  })

  it('is a configuration or problems', patience, () => {
    const key = fc.constantFrom(
      'listen',
      'kms',
      'tokens',
      'groups',
      'catalog',
      'audit',
      'port',
      'address',
      'module',
      'softhsm',
      '__proto__',
    )
    const { document } = fc.letrec<{ document: unknown }>((tie) => ({
      document: fc.oneof(
        { depthSize: 'small' },
        fc.jsonValue({ maxDepth: 1 }),
        fc.dictionary(key, tie('document'), { maxKeys: 5 }),
      ),
    }))
    fc.assert(
      fc.property(
        fc.oneof(
          anyText,
          document.map((value) => JSON.stringify(value) ?? ''),
        ),
        (text) => answersOnly(ProblemsError, () => parseConfig(text, '/etc/hsmgate/config.json')),
      ),
      fuzzBounds(300),
    )
  })
})
