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

/** A parameter set of FIPS 203 or FIPS 204. */
export interface ParameterSet {
  /** CKA_PARAMETER_SET. */
  readonly number: number
  /** `asymmetricKeyType` of node:crypto. */
  readonly node: string
  /** DER of the AlgorithmIdentifier (NIST CSOR; RFC 9881 section 2, RFC 9935 section 3): no parameters. */
  readonly algorithm: Buffer
  readonly publicBytes: number
  /** Length of a signature, or of the ciphertext that encapsulates a secret. */
  readonly outputBytes: number
}

const parameterSet = (
  number: number,
  node: string,
  lastOidBytes: string,
  publicBytes: number,
  outputBytes: number,
): ParameterSet => ({
  number,
  node,
  algorithm: Buffer.from(`300b0609608648016503${lastOidBytes}`, 'hex'),
  publicBytes,
  outputBytes,
})

/** Bytes of the secret that every ML-KEM parameter set shares (FIPS 203 section 8). */
export const sharedSecretBytes = 32

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
  readonly parameters?: ParameterSet
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

const mlDsa = (parameters: ParameterSet): KeyShape => ({
  objectClass: 'private',
  keyType: CKK.mlDsa,
  generation: CKM.mlDsaKeyPairGen,
  parameters,
  usages: ['SIGN_VERIFY'],
})

const mlKem = (parameters: ParameterSet): KeyShape => ({
  objectClass: 'private',
  keyType: CKK.mlKem,
  generation: CKM.mlKemKeyPairGen,
  parameters,
  usages: ['ENCAPSULATE_DECAPSULATE'],
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
  ML_DSA_44: mlDsa(parameterSet(1, 'ml-dsa-44', '040311', 1312, 2420)),
  ML_DSA_65: mlDsa(parameterSet(2, 'ml-dsa-65', '040312', 1952, 3309)),
  ML_DSA_87: mlDsa(parameterSet(3, 'ml-dsa-87', '040313', 2592, 4627)),
  ML_KEM_512: mlKem(parameterSet(1, 'ml-kem-512', '040401', 800, 768)),
  ML_KEM_768: mlKem(parameterSet(2, 'ml-kem-768', '040402', 1184, 1088)),
  ML_KEM_1024: mlKem(parameterSet(3, 'ml-kem-1024', '040403', 1568, 1568)),
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
  readonly parameterSet?: number | undefined
}

/** The spec that an existing object fits, if any. Some modules report 0 as the length of an unwrapped secret: then AES counts as AES-256. */
export function specOf(facts: ShapeFacts): KeySpec | undefined {
  const { keyType, modulusBits, ecParams, valueBytes, parameterSet } = facts
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
    if (shape.parameters !== undefined && shape.parameters.number === parameterSet) return spec as KeySpec
    if (keyType === CKK.ec && ecParams !== undefined && shape.curve?.params.equals(ecParams)) return spec as KeySpec
  }
  return undefined
}
