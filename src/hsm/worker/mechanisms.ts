/**
 * The registry of algorithms: one entry per name of the port with its PKCS#11 mechanism, its packed parameters, the key specs that it
 * goes with, the exact length of its input and the bound of its output. Adding an algorithm is adding an entry. Pure data.
 */
import type { KeySpec, MacAlgorithm, SignAlgorithm } from '../port.ts'
import { CKG, CKM } from './cryptoki.ts'
import { keyShapes } from './key-shapes.ts'
import { encodeParams } from './pack.ts'

export interface SignEntry {
  readonly mechanism: number
  readonly params: Buffer | null
  readonly specs: readonly KeySpec[]
  /** Exact input length; 0 = any. */
  readonly inputBytes: number
  /** Goes before the input (DigestInfo). */
  readonly prefix?: Buffer
}

const rsaSpecs: readonly KeySpec[] = ['RSA_2048', 'RSA_3072', 'RSA_4096']
const ecdsaSpecs: readonly KeySpec[] = ['ECC_NIST_P256', 'ECC_NIST_P384', 'ECC_NIST_P521', 'ECC_SECG_P256K1']

/** Everything of DigestInfo that precedes the digest (RFC 8017 section 9.2, note 1). */
const digestInfo = {
  sha1: Buffer.from('3021300906052b0e03021a05000414', 'hex'),
  sha224: Buffer.from('302d300d06096086480165030402040500041c', 'hex'),
  sha256: Buffer.from('3031300d060960864801650304020105000420', 'hex'),
  sha384: Buffer.from('3041300d060960864801650304020205000430', 'hex'),
  sha512: Buffer.from('3051300d060960864801650304020305000440', 'hex'),
}

const pkcs1 = (prefix: Buffer, inputBytes: number): SignEntry => ({
  mechanism: CKM.rsaPkcs,
  params: null,
  specs: rsaSpecs,
  inputBytes,
  prefix,
})

/** Salt as long as the digest, MGF1 with the same hash. */
const pss = (hashAlg: number, mgf: number, inputBytes: number): SignEntry => ({
  mechanism: CKM.rsaPkcsPss,
  params: encodeParams({ kind: 'pss', hashAlg, mgf, saltLen: inputBytes }),
  specs: rsaSpecs,
  inputBytes,
})

/** Hashes of RSASSA_PSS_SALTED by the first byte of its input. */
export const saltedHashes: readonly (
  | { readonly hashAlg: number; readonly mgf: number; readonly bytes: number }
  | undefined
)[] = [
  undefined,
  { hashAlg: CKM.sha256, mgf: CKG.mgf1Sha256, bytes: 32 },
  { hashAlg: CKM.sha384, mgf: CKG.mgf1Sha384, bytes: 48 },
  { hashAlg: CKM.sha512, mgf: CKG.mgf1Sha512, bytes: 64 },
]

const edwards = (params: Buffer | null, inputBytes: number): SignEntry => ({
  mechanism: CKM.eddsa,
  params,
  specs: ['ECC_NIST_EDWARDS25519'],
  inputBytes,
})

const mlDsaSpecs: readonly KeySpec[] = ['ML_DSA_44', 'ML_DSA_65', 'ML_DSA_87']

export const signEntries: Readonly<Partial<Record<SignAlgorithm, SignEntry>>> = {
  RSASSA_PKCS1_V1_5_SHA_1: pkcs1(digestInfo.sha1, 20),
  RSASSA_PKCS1_V1_5_SHA_224: pkcs1(digestInfo.sha224, 28),
  RSASSA_PKCS1_V1_5_SHA_256: pkcs1(digestInfo.sha256, 32),
  RSASSA_PKCS1_V1_5_SHA_384: pkcs1(digestInfo.sha384, 48),
  RSASSA_PKCS1_V1_5_SHA_512: pkcs1(digestInfo.sha512, 64),
  RSASSA_PSS_SHA_256: pss(CKM.sha256, CKG.mgf1Sha256, 32),
  RSASSA_PSS_SHA_384: pss(CKM.sha384, CKG.mgf1Sha384, 48),
  RSASSA_PSS_SHA_512: pss(CKM.sha512, CKG.mgf1Sha512, 64),
  // the parameters come with the input
  RSASSA_PSS_SALTED: { mechanism: CKM.rsaPkcsPss, params: null, specs: rsaSpecs, inputBytes: 0 },
  // any digest that a client chose: TLS pairs SHA-256 with P-384 at times
  ECDSA: { mechanism: CKM.ecdsa, params: null, specs: ecdsaSpecs, inputBytes: 0 },
  ED25519: edwards(null, 0),
  // with phFlag the module takes the message, here the caller's digest, and hashes it itself (PKCS#11 3.2, 6.3.15)
  ED25519_PH: edwards(encodeParams({ kind: 'eddsa', prehash: true }), 64),
  // without a parameter: empty context, hedged if the module can (PKCS#11 3.2, 6.67.5)
  ML_DSA: { mechanism: CKM.mlDsa, params: null, specs: mlDsaSpecs, inputBytes: 0 },
  ML_DSA_MU: { mechanism: CKM.mlDsaExternalMu, params: null, specs: mlDsaSpecs, inputBytes: 64 },
}

export const ecdsaInputBytesMin = 20
export const ecdsaInputBytesMax = 64

/** Signature length: RSA modulus, twice the field for ECDSA (PKCS#11 3.2, 6.3.1), 64 for Ed25519, that of the set for ML-DSA. */
export function signatureBytes(spec: KeySpec): number {
  const shape = keyShapes[spec]
  if (shape?.modulusBits !== undefined) return shape.modulusBits / 8
  if (shape?.parameters !== undefined) return shape.parameters.outputBytes
  return shape?.curve === undefined ? 64 : 2 * shape.curve.fieldBytes
}

export interface MacEntry {
  readonly mechanism: number
  readonly specs: readonly KeySpec[]
  readonly macBytes: number
  readonly hash: string
}

export const macEntries: Readonly<Partial<Record<MacAlgorithm, MacEntry>>> = {
  HMAC_SHA_224: { mechanism: CKM.sha224Hmac, specs: ['HMAC_224'], macBytes: 28, hash: 'sha224' },
  HMAC_SHA_256: { mechanism: CKM.sha256Hmac, specs: ['HMAC_256'], macBytes: 32, hash: 'sha256' },
  HMAC_SHA_384: { mechanism: CKM.sha384Hmac, specs: ['HMAC_384'], macBytes: 48, hash: 'sha384' },
  HMAC_SHA_512: { mechanism: CKM.sha512Hmac, specs: ['HMAC_512'], macBytes: 64, hash: 'sha512' },
}

export interface OaepEntry {
  /** Hash of OAEP and of its MGF1. */
  readonly hashAlg: number
  readonly params: Buffer
  readonly hash: string
}

const oaep = (hashAlg: number, mgf: number, hash: string): OaepEntry => ({
  hashAlg,
  params: encodeParams({ kind: 'oaep', hashAlg, mgf }),
  hash,
})

export const oaepEntries = {
  RSAES_OAEP_SHA_1: oaep(CKM.sha1, CKG.mgf1Sha1, 'sha1'),
  RSAES_OAEP_SHA_256: oaep(CKM.sha256, CKG.mgf1Sha256, 'sha256'),
} as const

/** ARGUMENTS_BAD, FUNCTION_NOT_SUPPORTED, MECHANISM_INVALID, MECHANISM_PARAM_INVALID: the module has no OAEP with this hash. */
export const lacksParameters: ReadonlySet<number> = new Set([0x07, 0x54, 0x70, 0x71])
