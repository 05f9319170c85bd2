import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { parseSealed, sealParams } from '../../../../src/hsm/worker/cipher.ts'
import { CallFailure } from '../../../../src/hsm/worker/failure.ts'
import { encodeParams } from '../../../../src/hsm/worker/pack.ts'

const bytes = (length?: number) =>
  fc
    .uint8Array(length === undefined ? { maxLength: 100 } : { minLength: length, maxLength: length })
    .map((array) => Buffer.from(array))

describe('the parameters of SEAL', () => {
  it('carry prefix, salt, IV and context in this order as additional data', () => {
    fc.assert(
      fc.property(bytes(), fc.constantFrom(0, 32).chain(bytes), bytes(12), bytes(), (prefix, salt, iv, context) => {
        const aad = Buffer.concat([prefix, Buffer.from([salt.length]), salt, Buffer.from([12]), iv, context])
        expect(sealParams(prefix, salt, iv, context, 'caller')).toEqual(encodeParams({ kind: 'gcm', iv, aad }))
      }),
    )
  })

  it('leave out an IV that the module makes', () => {
    const [prefix, salt, iv, context] = [Buffer.from('p'), Buffer.alloc(32, 1), Buffer.alloc(12), Buffer.from('c')]
    const aad = Buffer.concat([prefix, Buffer.from([32]), salt, Buffer.from([12]), context])
    const expected = encodeParams({ kind: 'gcm', iv, aad, ivMode: 'module' })
    expect(sealParams(prefix, salt, iv, context, 'module')).toEqual(expected)
  })

  it('hold nothing but the context for XKS', () => {
    const iv = Buffer.alloc(12, 5)
    const aad = Buffer.from('context')
    expect(sealParams(Buffer.alloc(0), undefined, iv, aad, 'caller')).toEqual(encodeParams({ kind: 'gcm', iv, aad }))
  })
})

describe('sealed bytes', () => {
  it('are taken apart into what they were put together from', () => {
    fc.assert(
      fc.property(fc.constantFrom(0, 32).chain(bytes), bytes(12), fc.nat(50), (salt, iv, length) => {
        const body = Buffer.alloc(16 + length, 9)
        const sealed = Buffer.concat([Buffer.from([salt.length]), salt, Buffer.from([12]), iv, body])
        const parsed = parseSealed(sealed)
        expect([parsed.salt, parsed.iv, parsed.body].map((part) => part.toString('hex'))).toEqual(
          [salt, iv, body].map((part) => part.toString('hex')),
        )
      }),
    )
  })

  it('of any other form are one CiphertextInvalid', () => {
    fc.assert(
      fc.property(bytes(), (any) => {
        try {
          const { salt, iv, body } = parseSealed(any)
          expect([0, 32]).toContain(salt.length)
          expect(iv).toHaveLength(12)
          expect(body.length).toBeGreaterThanOrEqual(16)
        } catch (error) {
          expect(error).toBeInstanceOf(CallFailure)
          expect((error as CallFailure).failure).toMatchObject({ code: 'CiphertextInvalid', rv: 0 })
        }
      }),
    )
  })
})
