import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { encodeEncryptionContext } from '../../../src/keys/encryption-context.ts'

const context = fc.dictionary(fc.string(), fc.string(), { maxKeys: 6 })

describe('canonical encryption context', () => {
  it('does not depend on the order of the pairs', () => {
    fc.assert(
      fc.property(context, (pairs) => {
        const reversed = Object.fromEntries(Object.entries(pairs).reverse())
        expect(encodeEncryptionContext(reversed)).toEqual(encodeEncryptionContext(pairs))
      }),
    )
  })

  it('differs for contexts that differ', () => {
    fc.assert(
      fc.property(context, context, (a, b) => {
        const same = JSON.stringify(Object.entries(a).sort()) === JSON.stringify(Object.entries(b).sort())
        expect(encodeEncryptionContext(a).equals(encodeEncryptionContext(b))).toBe(same)
      }),
    )
  })

  it('differs however the same characters are shared out among keys and values', () => {
    const piece = fc.string({ unit: fc.constantFrom('a', '\0', '\u0001', 'é'), maxLength: 3 })
    const crowded = fc.dictionary(piece, piece, { maxKeys: 3 })
    const sorted = (pairs: Record<string, string>) => JSON.stringify(Object.entries(pairs).sort())
    fc.assert(
      fc.property(crowded, crowded, (a, b) => {
        expect(encodeEncryptionContext(a).equals(encodeEncryptionContext(b))).toBe(sorted(a) === sorted(b))
      }),
      { numRuns: 2000 },
    )
  })

  it('keeps pair boundaries apart', () => {
    expect(encodeEncryptionContext({ ab: 'c' })).not.toEqual(encodeEncryptionContext({ a: 'bc' }))
    expect(encodeEncryptionContext({ a: 'A' })).not.toEqual(encodeEncryptionContext({ A: 'a' }))
  })

  it('has fixed bytes', () => {
    expect(encodeEncryptionContext({ b: '2', a: 'é' }).toString('hex')).toBe(
      '000000020000000161000000' + '02c3a9' + '00000001620000000132',
    )
  })
})
