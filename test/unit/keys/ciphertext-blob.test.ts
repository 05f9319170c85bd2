import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { GatewayError } from '../../../src/error.ts'
import { decodeBlob, encodeBlobHeader, headerBytes } from '../../../src/keys/ciphertext-blob.ts'

const keyId = fc.oneof(
  fc.uuid({ version: 4 }),
  fc.uint8Array({ minLength: 16, maxLength: 16 }).map((bytes) => `mrk-${Buffer.from(bytes).toString('hex')}`),
)
const sealed = fc.uint8Array({ minLength: 30, maxLength: 80 })
const materialId = fc.uint8Array({ minLength: 32, maxLength: 32 }).map((bytes) => Buffer.from(bytes))

describe('ciphertext blob', () => {
  it('decodes to what was encoded', () => {
    fc.assert(
      fc.property(keyId, materialId, fc.boolean(), sealed, (id, material, derived, tail) => {
        const header = encodeBlobHeader({ keyId: id, materialId: material, derived })
        const blob = decodeBlob(Buffer.concat([header, tail]))
        expect(header).toHaveLength(headerBytes)
        expect([blob.keyId, blob.materialId, blob.derived]).toEqual([id, material, derived])
        expect(blob.header).toEqual(header)
        expect(blob.sealed).toEqual(Buffer.from(tail))
      }),
    )
  })

  it('answers any other bytes with CiphertextInvalid', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        try {
          const blob = decodeBlob(bytes)
          expect(encodeBlobHeader(blob)).toEqual(blob.header)
        } catch (error) {
          expect(error).toBeInstanceOf(GatewayError)
          expect((error as GatewayError).code).toBe('CiphertextInvalid')
        }
      }),
    )
  })

  it('refuses an unknown version, unknown flags and a truncated blob', () => {
    const header = encodeBlobHeader({
      keyId: 'mrk-00112233445566778899aabbccddeeff',
      materialId: Buffer.alloc(32),
      derived: true,
    })
    const good = Buffer.concat([header, Buffer.alloc(30)])
    const version = Buffer.from(good)
    version[0] = 2
    const flags = Buffer.from(good)
    flags[1] = 0x80
    for (const bad of [version, flags, good.subarray(0, good.length - 1), Buffer.alloc(0)]) {
      expect(() => decodeBlob(bad)).toThrow('CiphertextInvalid')
    }
  })
})
