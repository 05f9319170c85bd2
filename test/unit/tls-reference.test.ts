import { createPublicKey } from 'node:crypto'
import { readFileSync } from 'node:fs'
import path from 'node:path'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import {
  decodeReference,
  decodeReferencePem,
  encodeReference,
  encodeReferencePem,
  KeyReferenceError,
  keyIdOf,
} from '../../src/tls-reference.ts'

interface Vectors {
  readonly valid: readonly {
    readonly name: string
    readonly pem: string
    readonly der: string
    readonly keyId: string
    readonly publicKey: string
    readonly endpoint?: string
    readonly token?: string
    readonly comment?: string
  }[]
  readonly invalid: readonly { readonly name: string; readonly der: string }[]
  readonly files: {
    readonly valid: readonly { readonly name: string; readonly file: string; readonly der: string }[]
    readonly invalid: readonly { readonly name: string; readonly file: string }[]
  }
}

const vectors: Vectors = JSON.parse(
  readFileSync(path.join(import.meta.dirname, '../vectors/key-reference.json'), 'utf8'),
)
const hex = (text: string) => Buffer.from(text, 'hex')
const referenceOf = ({ publicKey, endpoint, token, comment }: Vectors['valid'][number]) => ({
  publicKey: hex(publicKey),
  ...(endpoint === undefined ? {} : { endpoint }),
  ...(token === undefined ? {} : { token: hex(token) }),
  ...(comment === undefined ? {} : { comment }),
})

describe('a key reference', () => {
  it.each(vectors.valid)('reads and writes: $name', (vector) => {
    const reference = referenceOf(vector)
    expect(decodeReference(hex(vector.der))).toEqual(reference)
    expect(encodeReference(reference).toString('hex')).toBe(vector.der)
    expect(encodeReferencePem(reference)).toBe(vector.pem)
    expect(keyIdOf(reference.publicKey).toString('hex')).toBe(vector.keyId)
    expect(createPublicKey({ key: reference.publicKey, format: 'der', type: 'spki' }).type).toBe('public')
  })

  it.each(vectors.invalid)('is refused: $name', ({ der }) => {
    expect(() => decodeReference(hex(der))).toThrow(KeyReferenceError)
  })

  it.each(vectors.files.valid)('is found in a file: $name', ({ file, der }) => {
    expect(encodeReference(decodeReferencePem(file)).toString('hex')).toBe(der)
  })

  it.each(vectors.files.invalid)('is not found in a file: $name', ({ file }) => {
    expect(() => decodeReferencePem(file)).toThrow(KeyReferenceError)
  })

  it('refuses a file of a megabyte and more', () => {
    expect(() => decodeReferencePem('x'.repeat(1024 * 1024 + 1))).toThrow(/longer/)
  })

  it('is never more than it says: members that are too long are not written', () => {
    const { publicKey } = referenceOf(vectors.valid[0]!)
    for (const more of [
      { endpoint: '' },
      { endpoint: 'e'.repeat(65) },
      { comment: 'c'.repeat(257) },
      { token: Buffer.alloc(31) },
    ]) {
      expect(() => encodeReference({ publicKey, ...more })).toThrow(KeyReferenceError)
    }
  })

  it('has one encoding: whatever is read is written the same', () => {
    const seeds = vectors.valid.map(({ der }) => hex(der))
    const mutation = fc.record({
      seed: fc.constantFrom(...seeds),
      edits: fc.array(fc.record({ at: fc.nat(4096), byte: fc.nat(255) }), { maxLength: 4 }),
      cut: fc.option(fc.nat(4096)),
    })
    fc.assert(
      fc.property(mutation, ({ seed, edits, cut }) => {
        const bytes = Buffer.from(cut === null ? seed : seed.subarray(0, cut))
        for (const { at, byte } of edits) if (at < bytes.length) bytes[at] = byte
        try {
          expect(encodeReference(decodeReference(bytes)).equals(bytes)).toBe(true)
        } catch (failure) {
          expect(failure).toBeInstanceOf(KeyReferenceError)
        }
      }),
      { numRuns: 2000, seed: 5 },
    )
  })

  it('never fails otherwise, whatever the file holds', () => {
    fc.assert(
      fc.property(fc.string({ maxLength: 400, unit: 'binary' }), (noise) => {
        const [first, ...rest] = vectors.valid[0]!.pem.split('\n')
        const file = [first, noise, ...rest].join('\n')
        try {
          decodeReferencePem(file)
        } catch (failure) {
          expect(failure).toBeInstanceOf(KeyReferenceError)
        }
      }),
      { numRuns: 500, seed: 5 },
    )
  })
})
