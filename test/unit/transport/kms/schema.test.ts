import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { GatewayError } from '../../../../src/error.ts'
import { KmsError } from '../../../../src/transport/kms/kms-error.ts'
import { readInput, recordInput } from '../../../../src/transport/kms/request-body.ts'
import {
  blob,
  boolean,
  enumeration,
  integer,
  list,
  type Schema,
  string,
  stringMap,
  structure,
  timestamp,
} from '../../../../src/transport/kms/schema.ts'

function bodyOf(value: unknown) {
  const bytes = Buffer.isBuffer(value) ? value : Buffer.from(typeof value === 'string' ? value : JSON.stringify(value))
  return { bytes, secrets: [] as Uint8Array[] }
}

function failure(input: Schema<unknown>, value: unknown): { name: string; text: string | undefined } {
  try {
    readInput(input, bodyOf(value))
  } catch (error) {
    if (error instanceof KmsError) return { name: error.kmsCode, text: error.params.text }
    if (error instanceof GatewayError) return { name: error.code, text: (error.params as { text?: string }).text }
    throw error
  }
  throw new Error('accepted')
}

const invalid = (text: string) => ({ name: 'ValidationFailed', text })

describe('readInput', () => {
  const input = structure({
    KeyId: string({ min: 1, max: 8 }).required(),
    Plaintext: blob({ min: 1, max: 4, sensitive: true }),
    CiphertextBlob: blob({ min: 1, max: 4 }),
    Mode: enumeration(['A', 'B']).default('A'),
    Limit: integer({ min: 1, max: 10 }),
    Name: string({ min: 2, max: 8, pattern: /^[a-z]+$/ }),
    Tokens: list(string({ min: 1, max: 3 }), { max: 2 }),
    Tags: list(structure({ TagKey: string({ min: 1, max: 4 }).required(), TagValue: string({ max: 4 }).required() })),
    Context: stringMap(),
    Flag: boolean(),
    At: timestamp(),
  })

  it('gives typed values, decoded blobs and defaults', () => {
    const at = 1_700_000_000.123
    const value = readInput(
      input,
      bodyOf({ KeyId: 'k', Plaintext: 'aGk=', Limit: 3, Tags: [{ TagKey: 'a', TagValue: '' }], Flag: true, At: at }),
    )
    expect(value).toMatchObject({ KeyId: 'k', Mode: 'A', Limit: 3, Flag: true, At: 1_700_000_000_123 })
    expect(value.Plaintext).toEqual(Buffer.from('hi'))
    expect(value.Tags).toEqual([{ TagKey: 'a', TagValue: '' }])
    expect(value.Context).toBeUndefined()
  })

  it('takes an empty body for an empty structure', () => {
    expect(readInput(structure({ Limit: integer() }), bodyOf(''))).toEqual({ Limit: undefined })
  })

  it('ignores unknown members and takes null for absent', () => {
    expect(readInput(input, bodyOf({ KeyId: 'k', Other: {}, Limit: null })).Limit).toBeUndefined()
  })

  it('names a missing member as null', () => {
    expect(failure(input, {})).toEqual(
      invalid(
        "1 validation error detected: Value null at 'keyId' failed to satisfy constraint: Member must not be null",
      ),
    )
    expect(failure(input, { KeyId: null })).toEqual(failure(input, {}))
  })

  it('reports every broken constraint at once', () => {
    expect(failure(input, { KeyId: '', Mode: 'C', Limit: 11 })).toEqual(
      invalid(
        "3 validation errors detected: Value '' at 'keyId' failed to satisfy constraint: Member must have length greater than or equal to 1; " +
          "Value 'C' at 'mode' failed to satisfy constraint: Member must satisfy enum value set: [A, B]; " +
          "Value '11' at 'limit' failed to satisfy constraint: Member must have value less than or equal to 10",
      ),
    )
    expect(failure(input, { KeyId: 'k', Limit: 0 }).text).toMatch(/Value '0' at 'limit' .* greater than or equal to 1$/)
    expect(failure(input, { KeyId: 'k', Name: 'A' }).text).toBe(
      "2 validation errors detected: Value 'A' at 'name' failed to satisfy constraint: Member must have length greater than or equal to 2; " +
        "Value 'A' at 'name' failed to satisfy constraint: Member must satisfy regular expression pattern: ^[a-z]+$",
    )
  })

  it('writes paths of list elements from one, and of scalars as one complaint of the list', () => {
    expect(failure(input, { KeyId: 'k', Tags: [{ TagKey: 'a', TagValue: '' }, { TagKey: '12345' }] }).text).toBe(
      "2 validation errors detected: Value '12345' at 'tags.2.member.tagKey' failed to satisfy constraint: Member must have length less than or equal to 4; " +
        "Value null at 'tags.2.member.tagValue' failed to satisfy constraint: Member must not be null",
    )
    expect(failure(input, { KeyId: 'k', Tokens: ['', '1234'] }).text).toBe(
      "1 validation error detected: Value '[, 1234]' at 'tokens' failed to satisfy constraint: " +
        'Member must satisfy constraint: [Member must have length less than or equal to 3, Member must have length greater than or equal to 1]',
    )
    expect(failure(input, { KeyId: 'k', Tokens: ['a', 'b', 'c'] }).text).toBe(
      "1 validation error detected: Value '[a, b, c]' at 'tokens' failed to satisfy constraint: Member must have length less than or equal to 2",
    )
  })

  it('never echoes a sensitive value', () => {
    const text = Buffer.from('secret').toString('base64')
    expect(failure(input, { KeyId: 'k', Plaintext: text })).toEqual(
      invalid(
        "1 validation error detected: Value at 'plaintext' failed to satisfy constraint: Member must have length less than or equal to 4",
      ),
    )
    expect(failure(input, { KeyId: 'k', CiphertextBlob: '' }).text).toBe(
      "1 validation error detected: Value 'java.nio.HeapByteBuffer[pos=0 lim=0 cap=0]' at 'ciphertextBlob' failed to satisfy constraint: Member must have length greater than or equal to 1",
    )
  })

  it('shortens what it echoes', () => {
    expect(failure(input, { KeyId: 'x'.repeat(100_000) }).text?.length).toBeLessThan(5000)
  })

  it.each([
    ['not JSON', '{'],
    ['a list', '[]'],
    ['null', 'null'],
    ['a string', '"x"'],
    ['a byte order mark', '\uFEFF{}'],
    ['broken UTF-8', Buffer.from([0x7b, 0x22, 0xff, 0x22, 0x7d])],
    ['a number for a string', { KeyId: 1 }],
    ['a list for a string', { KeyId: [] }],
    ['a lone surrogate', '{"KeyId":"\\ud800"}'],
    ['a string for an integer', { KeyId: 'k', Limit: '1' }],
    ['a fraction for an integer', { KeyId: 'k', Limit: 1.5 }],
    ['a number for a boolean', { KeyId: 'k', Flag: 1 }],
    ['a string for a timestamp', { KeyId: 'k', At: '2020-01-01T00:00:00Z' }],
    ['an endless timestamp', '{"KeyId":"k","At":1e400}'],
    ['a string for a list', { KeyId: 'k', Tokens: 'a' }],
    ['a list for a map', { KeyId: 'k', Context: [] }],
    ['a number in a map', { KeyId: 'k', Context: { a: 1 } }],
    ['null in a map', { KeyId: 'k', Context: { a: null } }],
    ['null in a list', { KeyId: 'k', Tokens: [null] }],
    ['a string for a structure', { KeyId: 'k', Tags: ['a'] }],
    ['a number for a blob', { KeyId: 'k', Plaintext: 1 }],
    ['an unpadded blob', { KeyId: 'k', Plaintext: 'aGk' }],
    ['a URL-safe blob', { KeyId: 'k', Plaintext: '-_-_' }],
    ['white space in a blob', { KeyId: 'k', Plaintext: 'aG k' }],
    ['padding inside a blob', { KeyId: 'k', Plaintext: 'aG==aG==' }],
  ])('calls %s a serialization failure', (_what, value) => {
    expect(failure(input, value).name).toBe('SerializationFailed')
  })

  it('keeps no text of a body that it can not parse', () => {
    const { text } = failure(input, '{"KeyId": topsecret}')
    expect(text).not.toContain('topsecret')
  })

  it('says serialization failure before any broken constraint', () => {
    expect(failure(input, { KeyId: '', Flag: 'x' }).name).toBe('SerializationFailed')
  })

  it('collects sensitive blobs, so that they can be wiped', () => {
    const body = bodyOf({ KeyId: 'k', Plaintext: 'aGk=', CiphertextBlob: 'aGk=' })
    const value = readInput(input, body)
    expect(body.secrets).toEqual([value.Plaintext])
    expect(body.secrets[0]).toBe(value.Plaintext)
  })

  it('takes __proto__ and constructor for names like any other', () => {
    const value = readInput(
      input,
      bodyOf('{"KeyId":"k","__proto__":{"Limit":5},"constructor":1,"Context":{"__proto__":"x","constructor":"y"}}'),
    )
    expect(value.Limit).toBeUndefined()
    expect(Object.entries(value.Context ?? {})).toEqual([
      ['__proto__', 'x'],
      ['constructor', 'y'],
    ])
    expect(({} as Record<string, unknown>).Limit).toBeUndefined()
  })

  it('decodes every padded base64 text to its bytes and nothing else', () => {
    const one = structure({ B: blob({}).required() })
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        const text = Buffer.from(bytes).toString('base64')
        expect(readInput(one, bodyOf({ B: text })).B).toEqual(Buffer.from(bytes))
      }),
    )
    const canonical = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/
    fc.assert(
      fc.property(fc.string({ unit: fc.constantFrom(...'Ab0+/=-_ \n!é'), maxLength: 12 }), (text) => {
        if (canonical.test(text)) expect(readInput(one, bodyOf({ B: text })).B).toEqual(Buffer.from(text, 'base64'))
        else expect(failure(one, { B: text }).name).toBe('SerializationFailed')
      }),
      { numRuns: 2000 },
    )
  })

  it('answers any JSON with a value or a modelled error', () => {
    fc.assert(
      fc.property(
        fc.oneof(fc.jsonValue(), fc.record({ KeyId: fc.jsonValue(), Tags: fc.jsonValue(), Context: fc.jsonValue() })),
        (value) => {
          try {
            expect(typeof readInput(input, bodyOf(JSON.stringify(value))).KeyId).toBe('string')
          } catch (error) {
            expect(error).toBeInstanceOf(GatewayError)
          }
        },
      ),
      { numRuns: 1000 },
    )
  })

  it('survives deep nesting', () => {
    const deep = `${'{"a":'.repeat(100_000)}1${'}'.repeat(100_000)}`
    expect(failure(input, deep).text).toMatch(/keyId/)
  })
})

describe('recordInput', () => {
  it('shows lowerCamel members and leaves out blobs, sensitive and unrecorded ones', () => {
    const input = structure({
      KeyId: string().required(),
      Plaintext: blob({}),
      Password: string({ sensitive: true }),
      GrantTokens: list(string()).unrecorded(),
      EncryptionContext: stringMap(),
      Tags: list(structure({ TagKey: string(), Data: blob({}) })),
      DryRun: boolean(),
      Mode: string().default('RAW'),
    })
    const value = readInput(
      input,
      bodyOf({
        KeyId: 'alias/a',
        Plaintext: 'aGk=',
        Password: 'p',
        GrantTokens: ['t'],
        EncryptionContext: { A: 'b' },
        Tags: [{ TagKey: 'k', Data: 'aGk=' }],
      }),
    )
    expect(JSON.parse(JSON.stringify(recordInput(input, value)))).toEqual({
      keyId: 'alias/a',
      encryptionContext: { A: 'b' },
      tags: [{ tagKey: 'k' }],
      mode: 'RAW',
    })
  })
})
