/**
 * The algorithm registry: everything the key service knows about one KMS algorithm or key spec stands in one row here.
 * Code below is handed the row; nothing else enumerates algorithms. Source: AWS KMS Developer Guide, "Key spec reference".
 */
import type { Capabilities, CipherAlgorithm, KeySpec, KeyUsage, MacAlgorithm, SignAlgorithm } from '../hsm/port.ts'

export type Hash = 'sha1' | 'sha256' | 'sha384' | 'sha512'
type Curve = 'p256' | 'p384' | 'p521' | 'secp256k1'

export interface SigningAlgorithm {
  readonly kind: 'sign'
  readonly family: 'pkcs1' | 'pss' | 'ecdsa' | 'ed25519' | 'ed25519ph' | 'ml-dsa'
  readonly hsm: SignAlgorithm
  /** Hash of a RAW message; null where the algorithm takes the message itself. */
  readonly hash: Hash | null
  /** Required length of a DIGEST message in bytes; 0 = DIGEST is not offered. */
  readonly digestBytes: number
  readonly messageTypes: readonly ('RAW' | 'DIGEST' | 'EXTERNAL_MU')[]
}

export interface EncryptionAlgorithm {
  readonly kind: 'encrypt'
  readonly hsm: CipherAlgorithm
  /** OAEP hash; null for SYMMETRIC_DEFAULT. */
  readonly hash: 'sha1' | 'sha256' | null
}

export interface MacAlgorithmRow {
  readonly kind: 'mac'
  readonly hsm: MacAlgorithm
  readonly macBytes: number
}

export interface AgreementAlgorithm {
  readonly kind: 'agree'
}

export interface EncapsulationAlgorithm {
  readonly kind: 'encapsulate'
}

export type Algorithm =
  | SigningAlgorithm
  | EncryptionAlgorithm
  | MacAlgorithmRow
  | AgreementAlgorithm
  | EncapsulationAlgorithm

function signing(
  family: SigningAlgorithm['family'],
  hsm: SignAlgorithm,
  hash: Hash | null,
  digestBytes: number,
  messageTypes: SigningAlgorithm['messageTypes'] = ['RAW', 'DIGEST'],
): SigningAlgorithm {
  return { kind: 'sign', family, hsm, hash, digestBytes, messageTypes }
}

function mac(hsm: MacAlgorithm, macBytes: number): MacAlgorithmRow {
  return { kind: 'mac', hsm, macBytes }
}

/** By API name. */
export const algorithms: ReadonlyMap<string, Algorithm> = new Map<string, Algorithm>([
  ['SYMMETRIC_DEFAULT', { kind: 'encrypt', hsm: 'SEAL', hash: null }],
  ['RSAES_OAEP_SHA_1', { kind: 'encrypt', hsm: 'RSAES_OAEP_SHA_1', hash: 'sha1' }],
  ['RSAES_OAEP_SHA_256', { kind: 'encrypt', hsm: 'RSAES_OAEP_SHA_256', hash: 'sha256' }],
  ['RSASSA_PKCS1_V1_5_SHA_256', signing('pkcs1', 'RSASSA_PKCS1_V1_5_SHA_256', 'sha256', 32)],
  ['RSASSA_PKCS1_V1_5_SHA_384', signing('pkcs1', 'RSASSA_PKCS1_V1_5_SHA_384', 'sha384', 48)],
  ['RSASSA_PKCS1_V1_5_SHA_512', signing('pkcs1', 'RSASSA_PKCS1_V1_5_SHA_512', 'sha512', 64)],
  ['RSASSA_PSS_SHA_256', signing('pss', 'RSASSA_PSS_SHA_256', 'sha256', 32)],
  ['RSASSA_PSS_SHA_384', signing('pss', 'RSASSA_PSS_SHA_384', 'sha384', 48)],
  ['RSASSA_PSS_SHA_512', signing('pss', 'RSASSA_PSS_SHA_512', 'sha512', 64)],
  ['ECDSA_SHA_256', signing('ecdsa', 'ECDSA', 'sha256', 32)],
  ['ECDSA_SHA_384', signing('ecdsa', 'ECDSA', 'sha384', 48)],
  ['ECDSA_SHA_512', signing('ecdsa', 'ECDSA', 'sha512', 64)],
  ['ED25519_SHA_512', signing('ed25519', 'ED25519', null, 0, ['RAW'])],
  ['ED25519_PH_SHA_512', signing('ed25519ph', 'ED25519_PH', null, 64, ['DIGEST'])],
  ['ML_DSA_SHAKE_256', signing('ml-dsa', 'ML_DSA', null, 0, ['RAW', 'EXTERNAL_MU'])],
  ['HMAC_SHA_224', mac('HMAC_SHA_224', 28)],
  ['HMAC_SHA_256', mac('HMAC_SHA_256', 32)],
  ['HMAC_SHA_384', mac('HMAC_SHA_384', 48)],
  ['HMAC_SHA_512', mac('HMAC_SHA_512', 64)],
  ['ECDH', { kind: 'agree' }],
  ['ML_KEM', { kind: 'encapsulate' }],
])

const pss = ['RSASSA_PSS_SHA_256', 'RSASSA_PSS_SHA_384', 'RSASSA_PSS_SHA_512']
const pkcs1 = ['RSASSA_PKCS1_V1_5_SHA_256', 'RSASSA_PKCS1_V1_5_SHA_384', 'RSASSA_PKCS1_V1_5_SHA_512']

export interface SpecRow {
  readonly family: 'aes' | 'rsa' | 'ec' | 'ed25519' | 'hmac' | 'ml-dsa' | 'ml-kem'
  /** Usages in the order of the documentation, each with its algorithms in AWS's order. */
  readonly usages: Readonly<Partial<Record<KeyUsage, readonly string[]>>>
  /** RSA modulus, ECDSA coordinate or ML-KEM ciphertext length in bytes; 0 elsewhere. */
  readonly widthBytes: number
  readonly curve?: Curve
}

function rsa(bits: number): SpecRow {
  return {
    family: 'rsa',
    usages: { ENCRYPT_DECRYPT: ['RSAES_OAEP_SHA_1', 'RSAES_OAEP_SHA_256'], SIGN_VERIFY: [...pkcs1, ...pss] },
    widthBytes: bits / 8,
  }
}

function nist(curve: Curve, widthBytes: number, algorithm: string): SpecRow {
  return { family: 'ec', curve, widthBytes, usages: { SIGN_VERIFY: [algorithm], KEY_AGREEMENT: ['ECDH'] } }
}

function hmac(algorithm: string): SpecRow {
  return { family: 'hmac', usages: { GENERATE_VERIFY_MAC: [algorithm] }, widthBytes: 0 }
}

const mlDsa: SpecRow = { family: 'ml-dsa', usages: { SIGN_VERIFY: ['ML_DSA_SHAKE_256'] }, widthBytes: 0 }

/** Lengths of ciphertexts: FIPS 203 section 8, table 3. */
function mlKem(widthBytes: number): SpecRow {
  return { family: 'ml-kem', usages: { ENCAPSULATE_DECAPSULATE: ['ML_KEM'] }, widthBytes }
}

export const specs: Readonly<Record<KeySpec, SpecRow>> = {
  SYMMETRIC_DEFAULT: { family: 'aes', usages: { ENCRYPT_DECRYPT: ['SYMMETRIC_DEFAULT'] }, widthBytes: 0 },
  RSA_2048: rsa(2048),
  RSA_3072: rsa(3072),
  RSA_4096: rsa(4096),
  ECC_NIST_P256: nist('p256', 32, 'ECDSA_SHA_256'),
  ECC_NIST_P384: nist('p384', 48, 'ECDSA_SHA_384'),
  ECC_NIST_P521: nist('p521', 66, 'ECDSA_SHA_512'),
  ECC_SECG_P256K1: {
    family: 'ec',
    curve: 'secp256k1',
    widthBytes: 32,
    usages: { SIGN_VERIFY: ['ECDSA_SHA_256'] },
  },
  ECC_NIST_EDWARDS25519: {
    family: 'ed25519',
    widthBytes: 0,
    usages: { SIGN_VERIFY: ['ED25519_SHA_512', 'ED25519_PH_SHA_512'] },
  },
  HMAC_224: hmac('HMAC_SHA_224'),
  HMAC_256: hmac('HMAC_SHA_256'),
  HMAC_384: hmac('HMAC_SHA_384'),
  HMAC_512: hmac('HMAC_SHA_512'),
  ML_DSA_44: mlDsa,
  ML_DSA_65: mlDsa,
  ML_DSA_87: mlDsa,
  ML_KEM_512: mlKem(768),
  ML_KEM_768: mlKem(1088),
  ML_KEM_1024: mlKem(1568),
}

export function algorithmsOf(spec: KeySpec, usage: KeyUsage): readonly string[] {
  return specs[spec].usages[usage] ?? []
}

/** What the module signs with: an external mu needs a mechanism of its own. */
export function signAlgorithmOf(algorithm: SigningAlgorithm, messageType: string): SignAlgorithm {
  return messageType === 'EXTERNAL_MU' ? 'ML_DSA_MU' : algorithm.hsm
}

/** Whether the module proved the algorithm; public-key halves that run in software need no proof. */
export function isProven(capabilities: Capabilities, algorithm: Algorithm): boolean {
  if (algorithm.kind === 'agree') return capabilities.algorithms.includes('ECDH')
  if (algorithm.kind === 'encapsulate') return capabilities.algorithms.includes('ML_KEM')
  return capabilities.algorithms.includes(algorithm.hsm)
}
