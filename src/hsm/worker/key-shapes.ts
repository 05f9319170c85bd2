/**
 * What each key spec is in PKCS#11: class, key type, generation mechanism, curve or size; and back, from attributes to the spec.
 * One entry per spec; a spec without an entry is not served. Pure data.
 */
import type { KeySpec, KeyUsage } from '../port.ts'
import { CKK, CKM } from './cryptoki.ts'

export interface Curve {
  /** `namedCurve` of node:crypto. */
  readonly node: string
  /** Name in `asymmetricKeyDetails`. */
  readonly opensslName: string
  /** DER of the object identifier: CKA_EC_PARAMS. */
  readonly params: Buffer
  /** Bytes of a field element. */
  readonly fieldBytes: number
}

const curve = (node: string, opensslName: string, paramsHex: string, fieldBytes: number): Curve => ({
  node,
  opensslName,
  params: Buffer.from(paramsHex, 'hex'),
  fieldBytes,
})

export const ed25519Params = Buffer.from('06032b6570', 'hex')
/** The PrintableString `edwards25519` of PKCS#11 3.0. */
export const ed25519NamedParams = Buffer.from('130c656477617264733235353139', 'hex')

export interface KeyShape {
  readonly objectClass: 'private' | 'secret'
  readonly keyType: number
  /** Other key types that an adopted object of this spec may have. */
  readonly alsoKeyTypes?: readonly number[]
  readonly generation: number
  readonly modulusBits?: number
  readonly curve?: Curve
  readonly valueBytes?: number
  readonly usages: readonly KeyUsage[]
}

const rsa = (modulusBits: number): KeyShape => ({
  objectClass: 'private',
  keyType: CKK.rsa,
  generation: CKM.rsaPkcsKeyPairGen,
  modulusBits,
  usages: ['ENCRYPT_DECRYPT', 'SIGN_VERIFY', 'WRAP_UNWRAP'],
})

const ec = (named: Curve, usages: readonly KeyUsage[]): KeyShape => ({
  objectClass: 'private',
  keyType: CKK.ec,
  generation: CKM.ecKeyPairGen,
  curve: named,
  usages,
})

const hmac = (valueBytes: number, hmacType: number): KeyShape => ({
  objectClass: 'secret',
  keyType: CKK.genericSecret,
  alsoKeyTypes: [hmacType],
  generation: CKM.genericSecretKeyGen,
  valueBytes,
  usages: ['GENERATE_VERIFY_MAC'],
})

export const keyShapes: Readonly<Partial<Record<KeySpec, KeyShape>>> = {
  SYMMETRIC_DEFAULT: {
    objectClass: 'secret',
    keyType: CKK.aes,
    generation: CKM.aesKeyGen,
    valueBytes: 32,
    usages: ['ENCRYPT_DECRYPT', 'WRAP_UNWRAP'],
  },
  RSA_2048: rsa(2048),
  RSA_3072: rsa(3072),
  RSA_4096: rsa(4096),
  ECC_NIST_P256: ec(curve('P-256', 'prime256v1', '06082a8648ce3d030107', 32), ['SIGN_VERIFY', 'KEY_AGREEMENT']),
  ECC_NIST_P384: ec(curve('P-384', 'secp384r1', '06052b81040022', 48), ['SIGN_VERIFY', 'KEY_AGREEMENT']),
  ECC_NIST_P521: ec(curve('P-521', 'secp521r1', '06052b81040023', 66), ['SIGN_VERIFY', 'KEY_AGREEMENT']),
  ECC_SECG_P256K1: ec(curve('secp256k1', 'secp256k1', '06052b8104000a', 32), ['SIGN_VERIFY']),
  ECC_NIST_EDWARDS25519: {
    objectClass: 'private',
    keyType: CKK.ecEdwards,
    generation: CKM.ecEdwardsKeyPairGen,
    usages: ['SIGN_VERIFY'],
  },
  HMAC_224: hmac(28, CKK.sha224Hmac),
  HMAC_256: hmac(32, CKK.sha256Hmac),
  HMAC_384: hmac(48, CKK.sha384Hmac),
  HMAC_512: hmac(64, CKK.sha512Hmac),
}

/** Whether an object of this key type can be what the request says it is. */
export function fitsShape(shape: KeyShape, keyType: number): boolean {
  return shape.keyType === keyType || (shape.alsoKeyTypes?.includes(keyType) ?? false)
}

const hmacSpecs: Readonly<Record<number, KeySpec>> = { 28: 'HMAC_224', 32: 'HMAC_256', 48: 'HMAC_384', 64: 'HMAC_512' }
const hmacTypes: Readonly<Record<number, KeySpec>> = {
  [CKK.sha224Hmac]: 'HMAC_224',
  [CKK.sha256Hmac]: 'HMAC_256',
  [CKK.sha384Hmac]: 'HMAC_384',
  [CKK.sha512Hmac]: 'HMAC_512',
}

export interface ShapeFacts {
  readonly keyType: number
  readonly modulusBits?: number | undefined
  readonly ecParams?: Uint8Array | undefined
  readonly valueBytes?: number | undefined
}

/** The spec that an existing object fits, if any. Some modules report 0 as the length of an unwrapped secret: then AES counts as AES-256. */
export function specOf(facts: ShapeFacts): KeySpec | undefined {
  const { keyType, modulusBits, ecParams, valueBytes } = facts
  if (keyType === CKK.aes) return valueBytes === 32 || !valueBytes ? 'SYMMETRIC_DEFAULT' : undefined
  if (keyType === CKK.genericSecret) return hmacSpecs[valueBytes ?? 0]
  if (hmacTypes[keyType] !== undefined) return hmacTypes[keyType]
  if (keyType === CKK.ecEdwards) {
    const isEd25519 = ecParams === undefined || ed25519Params.equals(ecParams) || ed25519NamedParams.equals(ecParams)
    return isEd25519 ? 'ECC_NIST_EDWARDS25519' : undefined
  }
  for (const [spec, shape] of Object.entries(keyShapes)) {
    if (shape.keyType !== keyType) continue
    if (keyType === CKK.rsa && shape.modulusBits === modulusBits) return spec as KeySpec
    if (keyType === CKK.ec && ecParams !== undefined && shape.curve?.params.equals(ecParams)) return spec as KeySpec
  }
  return undefined
}
