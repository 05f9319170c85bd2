import { describe, expect, it } from 'vitest'
import {
  decodeAttributes,
  decodeHandles,
  decodeUlong,
  encodeAttributeTypes,
  encodeParams,
  encodeTemplate,
} from '../../../../src/hsm/worker/pack.ts'

const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex')
const bytes = (text: string) => Buffer.from(text, 'hex')

describe('encodeParams', () => {
  it('packs each kind as its table says', () => {
    const packed = [
      encodeParams({ kind: 'gcm', iv: bytes('0102030405060708090a0b0c'), aad: bytes('aabb') }),
      encodeParams({ kind: 'gcm', iv: new Uint8Array(12), tagBits: 96, ivMode: 'module' }),
      encodeParams({ kind: 'oaep', hashAlg: 0x250, mgf: 2 }),
      encodeParams({ kind: 'pss', hashAlg: 0x250, mgf: 2, saltLen: 32 }),
      encodeParams({ kind: 'ecdh', kdf: 1, publicData: bytes('04ff') }),
      encodeParams({ kind: 'stringData', data: bytes('c0ffee') }),
      encodeParams({ kind: 'cbcData', iv: Buffer.alloc(16, 7), data: bytes('dd') }),
      encodeParams({ kind: 'eddsa', prehash: true, context: bytes('63') }),
      encodeParams({ kind: 'eddsa', prehash: false }),
      encodeParams({ kind: 'raw', bytes: bytes('1011') }),
      encodeParams({ kind: 'sp800108', prf: 0x251, counterBits: 32, fixedInput: bytes('99') }),
    ].map(hex)
    expect(packed).toEqual([
      '010c8000020000000102030405060708090a0b0caabb',
      `010c600100000000${'00'.repeat(12)}`,
      '0250020000000000000200000000000000',
      '03500200000000000002000000000000002000000000000000',
      '0401000000000000000200000004ff',
      '0503000000c0ffee',
      `06${'07'.repeat(16)}01000000dd`,
      '07010100000063',
      '070000000000',
      '08020000001011',
      '095102000000000000200100000099',
    ])
  })

  it('refuses values that the layout cannot hold', () => {
    expect(() => encodeParams({ kind: 'gcm', iv: new Uint8Array(256) })).toThrow(TypeError)
    expect(() => encodeParams({ kind: 'gcm', iv: new Uint8Array(0) })).toThrow(TypeError)
    expect(() => encodeParams({ kind: 'gcm', iv: new Uint8Array(12), tagBits: 256 })).toThrow(TypeError)
    expect(() => encodeParams({ kind: 'cbcData', iv: new Uint8Array(15), data: bytes('00') })).toThrow(TypeError)
    expect(() => encodeParams({ kind: 'oaep', hashAlg: -1, mgf: 2 })).toThrow(TypeError)
    expect(() => encodeParams({ kind: 'oaep', hashAlg: 1.5, mgf: 2 })).toThrow(TypeError)
  })
})

describe('encodeTemplate', () => {
  it('packs booleans as one byte, numbers and bigints as eight, bytes as they are', () => {
    const packed = encodeTemplate([
      [0x1, true],
      [0x2, false],
      [0x100, 31],
      [0x161, 0xfffffffffffffffen],
      [0x102, bytes('aabbcc')],
      [0x80000001, new Uint8Array(0)],
    ])
    expect(hex(packed)).toBe(
      '01000000000000000100000001' +
        '02000000000000000100000000' +
        '0001000000000000080000001f00000000000000' +
        '610100000000000008000000feffffffffffffff' +
        '020100000000000003000000aabbcc' +
        '010000800000000000000000',
    )
  })

  it('packs a template inside a template', () => {
    expect(hex(encodeTemplate([[0x40000212, [[0x103, true]]]]))).toBe(
      '12020040000000000d00000003010000000000000100000001',
    )
  })

  it('packs no attributes as no bytes', () => {
    expect(encodeTemplate([])).toHaveLength(0)
  })

  it('refuses a number that is not a CK_ULONG', () => {
    expect(() => encodeTemplate([[1, -1]])).toThrow(TypeError)
    expect(() => encodeTemplate([[1, 2 ** 60]])).toThrow(TypeError)
    expect(() => encodeTemplate([[1, 1n << 64n]])).toThrow(TypeError)
  })
})

describe('decodeAttributes', () => {
  it('reads back what encodeTemplate wrote', () => {
    const attributes = decodeAttributes(
      encodeTemplate([
        [0x0, 3n],
        [0x102, bytes('aabbcc')],
        [0x3, new Uint8Array(0)],
      ]),
    )
    expect([...attributes.keys()]).toEqual([0x0, 0x102, 0x3])
    expect(decodeUlong(attributes.get(0x0)!)).toBe(3n)
    expect(hex(attributes.get(0x102)!)).toBe('aabbcc')
    expect(attributes.get(0x3)).toHaveLength(0)
  })

  it('gives null for an attribute that the module does not show', () => {
    const attributes = decodeAttributes(bytes('1100000000000000ffffffff030000000000000001000000aa'))
    expect(attributes.get(0x11)).toBeNull()
    expect(hex(attributes.get(0x3)!)).toBe('aa')
  })

  it('refuses cut-off bytes', () => {
    const whole = encodeTemplate([[0x102, bytes('aabbcc')]])
    for (let length = 1; length < whole.length; length++) {
      expect(() => decodeAttributes(whole.subarray(0, length))).toThrow(TypeError)
    }
  })
})

describe('decodeHandles', () => {
  it('reads handles above 2^53 exactly', () => {
    expect(decodeHandles(bytes('0100000000000000ffffffffffffffff'))).toEqual([1n, 0xffffffffffffffffn])
  })

  it('refuses cut-off bytes', () => {
    expect(() => decodeHandles(bytes('01'))).toThrow(TypeError)
  })
})

describe('encodeAttributeTypes', () => {
  it('packs eight bytes each', () => {
    expect(hex(encodeAttributeTypes([0x102, 0x80000001]))).toBe('02010000000000000100008000000000')
  })
})

describe('decodeUlong', () => {
  it('refuses another length', () => {
    expect(() => decodeUlong(bytes('00000000'))).toThrow(TypeError)
  })
})
