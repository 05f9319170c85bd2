import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { decodeBlob, encodeBlobHeader } from '../../../src/keys/ciphertext-blob.ts'
import { decodeExternalTail, encodeExternalTail } from '../../../src/keys/external-blob.ts'

const sealed = fc.record({
  metadata: fc.uint8Array({ maxLength: 20 }),
  iv: fc.constantFrom(12, 16).chain((length) => fc.uint8Array({ minLength: length, maxLength: length })),
  tag: fc.uint8Array({ minLength: 16, maxLength: 16 }),
  ciphertext: fc.uint8Array({ minLength: 1, maxLength: 4300 }),
})
const bytes = (value: object) =>
  Object.fromEntries(Object.entries(value).map(([name, each]) => [name, Buffer.from(each).toString('hex')]))

describe('the tail of an external blob', () => {
  it('comes back as it was', () => {
    fc.assert(
      fc.property(sealed, (given) => {
        expect(bytes(decodeExternalTail(encodeExternalTail(given)))).toEqual(bytes(given))
      }),
    )
  })

  it('is refused when it is shorter or longer, and never read beyond', () => {
    fc.assert(
      fc.property(sealed, fc.nat(), (given, cut) => {
        const tail = encodeExternalTail(given)
        expect(() => decodeExternalTail(tail.subarray(0, cut % tail.length))).toThrow('CiphertextInvalid')
        expect(() => decodeExternalTail(Buffer.concat([tail, Buffer.alloc(1)]))).toThrow('CiphertextInvalid')
      }),
    )
  })

  it('is refused as any bytes at all, unless they are one', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (given) => {
        try {
          expect(encodeExternalTail(decodeExternalTail(Buffer.from(given)))).toEqual(Buffer.from(given))
        } catch (cause) {
          expect(cause).toMatchObject({ code: 'CiphertextInvalid' })
        }
      }),
    )
  })

  it('is marked in the header of its blob', () => {
    const keyId = '01234567-89ab-4def-8123-456789abcdef'
    const header = encodeBlobHeader({ keyId, materialId: Buffer.alloc(32), derived: false, external: true })
    expect(decodeBlob(Buffer.concat([header, Buffer.alloc(40)]))).toMatchObject({ external: true, derived: false })
  })
})
