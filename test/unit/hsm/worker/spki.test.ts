import { createPublicKey, generateKeyPairSync } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { keyShapes } from '../../../../src/hsm/worker/key-shapes.ts'
import {
  decodeEcPoint,
  ecPublicKey,
  ed25519PublicKey,
  parsePeerPoint,
  rsaPublicKey,
} from '../../../../src/hsm/worker/spki.ts'

const curves = ['ECC_NIST_P256', 'ECC_NIST_P384', 'ECC_NIST_P521', 'ECC_SECG_P256K1'] as const

function ecPair(spec: (typeof curves)[number]) {
  const curve = keyShapes[spec]!.curve!
  const { publicKey } = generateKeyPairSync('ec', { namedCurve: curve.node })
  const spki = publicKey.export({ format: 'der', type: 'spki' })
  return { curve, spki, point: spki.subarray(-(1 + 2 * curve.fieldBytes)) }
}

describe('SubjectPublicKeyInfo', () => {
  it.each([2048, 3072])('of an RSA-%i key is what OpenSSL writes', (modulusLength) => {
    const { publicKey } = generateKeyPairSync('rsa', { modulusLength })
    const { n, e } = publicKey.export({ format: 'jwk' })
    const spki = rsaPublicKey(Buffer.from(n as string, 'base64url'), Buffer.from(e as string, 'base64url'))
    expect(spki.equals(publicKey.export({ format: 'der', type: 'spki' }))).toBe(true)
  })

  it('drops leading zeros that a module puts before a modulus', () => {
    const { publicKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })
    const n = Buffer.from(publicKey.export({ format: 'jwk' }).n as string, 'base64url')
    const padded = rsaPublicKey(Buffer.concat([Buffer.alloc(3), n]), Buffer.from([0, 1, 0, 1]))
    expect(padded.equals(publicKey.export({ format: 'der', type: 'spki' }))).toBe(true)
  })

  it.each(curves)('of a %s key is what OpenSSL writes', (spec) => {
    const { curve, spki, point } = ecPair(spec)
    expect(ecPublicKey(curve, point).equals(spki)).toBe(true)
  })

  it('of an Ed25519 key is what OpenSSL writes', () => {
    const { publicKey } = generateKeyPairSync('ed25519')
    const spki = publicKey.export({ format: 'der', type: 'spki' })
    expect(ed25519PublicKey(spki.subarray(-32)).equals(spki)).toBe(true)
  })

  it('is refused for points of another size or form', () => {
    const { curve, point } = ecPair('ECC_NIST_P256')
    expect(() => ecPublicKey(curve, point.subarray(1))).toThrow(TypeError)
    expect(() => ecPublicKey(curve, Buffer.concat([Buffer.from([2]), point.subarray(1)]))).toThrow(TypeError)
    expect(() => ed25519PublicKey(Buffer.alloc(31))).toThrow(TypeError)
  })
})

describe('CKA_EC_POINT', () => {
  it.each(curves)('of %s is read bare and inside an OCTET STRING', (spec) => {
    const { point } = ecPair(spec)
    const header = point.length < 128 ? [0x04, point.length] : [0x04, 0x81, point.length]
    expect(decodeEcPoint(point, point.length).equals(point)).toBe(true)
    expect(decodeEcPoint(Buffer.concat([Buffer.from(header), point]), point.length).equals(point)).toBe(true)
  })

  it('is refused when anything is left over or missing', () => {
    const { point } = ecPair('ECC_NIST_P256')
    const wrapped = Buffer.concat([Buffer.from([0x04, 65]), point])
    expect(() => decodeEcPoint(wrapped.subarray(0, -1), 65)).toThrow(TypeError)
    expect(() => decodeEcPoint(Buffer.concat([wrapped, Buffer.from([0])]), 65)).toThrow(TypeError)
    expect(() => decodeEcPoint(Buffer.alloc(0), 65)).toThrow(TypeError)
  })
})

describe('a peer of a key agreement', () => {
  it('is taken when its point lies on the curve', () => {
    const { curve, spki, point } = ecPair('ECC_NIST_P521')
    expect(parsePeerPoint(spki, curve)?.equals(point)).toBe(true)
  })

  it('is refused when its point lies elsewhere', () => {
    const { curve, spki } = ecPair('ECC_NIST_P256')
    const off = Buffer.from(spki)
    off[off.length - 1] = off[off.length - 1]! ^ 1
    expect(parsePeerPoint(off, curve)).toBeUndefined()
    expect(parsePeerPoint(ecPair('ECC_SECG_P256K1').spki, curve)).toBeUndefined()
    const ed25519 = generateKeyPairSync('ed25519').publicKey.export({ format: 'der', type: 'spki' })
    expect(parsePeerPoint(ed25519, curve)).toBeUndefined()
    expect(parsePeerPoint(Buffer.alloc(91), curve)).toBeUndefined()
    expect(createPublicKey({ key: spki, format: 'der', type: 'spki' }).asymmetricKeyType).toBe('ec')
  })
})
