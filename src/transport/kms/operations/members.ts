/** Members that several operations share, with the limits of the API model (AWS KMS API Reference, service model 2014-11-01). */
import { blob, boolean, enumeration, list, string, stringMap, structure } from '../schema.ts'

export const keyId = string({ min: 1, max: 2048 })
export const aliasName = string({ min: 1, max: 256, pattern: /^[a-zA-Z0-9:/_-]+$/ })
/** Tokens are bearer secrets: never recorded. */
export const grantTokens = list(string({ min: 1, max: 8192 }), { max: 10 }).unrecorded()
export const encryptionContext = stringMap()
export const dryRun = boolean()
export const ciphertextBlob = blob({ min: 1, max: 6144 })
export const description = string({ max: 8192 })
export const marker = string({ min: 1, max: 1024, pattern: /^[\u0020-\u00FF]*$/ })
export const policyDocument = string({
  min: 1,
  max: 131_072,
  // biome-ignore lint/suspicious/noControlCharactersInRegex: tab, line feed and carriage return are allowed characters of a policy
  pattern: /^[\u0009\u000A\u000D\u0020-\u00FF]+$/,
})
export const tag = structure({
  TagKey: string({ min: 1, max: 128 }).required(),
  TagValue: string({ max: 256 }).required(),
})
export const regionName = string({ min: 1, max: 32, pattern: /^([a-z]+-){2,3}\d+$/ })
export const customKeyStoreId = string({ min: 1, max: 64 })

export const recipient = structure({
  KeyEncryptionAlgorithm: enumeration(['RSAES_OAEP_SHA_256']),
  AttestationDocument: blob({ min: 1, max: 262_144 }),
})

/** CustomerMasterKeySpec is deprecated: it stayed with these when KeySpec went on. */
const masterKeySpecs = [
  'RSA_2048',
  'RSA_3072',
  'RSA_4096',
  'ECC_NIST_P256',
  'ECC_NIST_P384',
  'ECC_NIST_P521',
  'ECC_SECG_P256K1',
  'SYMMETRIC_DEFAULT',
  'HMAC_224',
  'HMAC_256',
  'HMAC_384',
  'HMAC_512',
  'SM2',
] as const

export const customerMasterKeySpec = enumeration(masterKeySpecs)

export const keySpec = enumeration([
  ...masterKeySpecs,
  'ML_DSA_44',
  'ML_DSA_65',
  'ML_DSA_87',
  'ECC_NIST_EDWARDS25519',
  'ML_KEM_512',
  'ML_KEM_768',
  'ML_KEM_1024',
])

export const keyUsage = enumeration([
  'SIGN_VERIFY',
  'ENCRYPT_DECRYPT',
  'GENERATE_VERIFY_MAC',
  'KEY_AGREEMENT',
  'ENCAPSULATE_DECAPSULATE',
])

export const encryptionAlgorithm = enumeration([
  'SYMMETRIC_DEFAULT',
  'RSAES_OAEP_SHA_1',
  'RSAES_OAEP_SHA_256',
  'SM2PKE',
])

export const signingAlgorithm = enumeration([
  'RSASSA_PSS_SHA_256',
  'RSASSA_PSS_SHA_384',
  'RSASSA_PSS_SHA_512',
  'RSASSA_PKCS1_V1_5_SHA_256',
  'RSASSA_PKCS1_V1_5_SHA_384',
  'RSASSA_PKCS1_V1_5_SHA_512',
  'ECDSA_SHA_256',
  'ECDSA_SHA_384',
  'ECDSA_SHA_512',
  'SM2DSA',
  'ML_DSA_SHAKE_256',
  'ED25519_SHA_512',
  'ED25519_PH_SHA_512',
])

export const encapsulationAlgorithm = enumeration(['ML_KEM'])

export const messageType = enumeration(['RAW', 'DIGEST', 'EXTERNAL_MU'])

export const macAlgorithm = enumeration(['HMAC_SHA_224', 'HMAC_SHA_256', 'HMAC_SHA_384', 'HMAC_SHA_512'])

export const dataKeySpec = enumeration(['AES_256', 'AES_128'])
export const policyName = string({ min: 1, max: 128, pattern: /^[\w]+$/ })

export const dataKeyPairSpec = enumeration([
  'RSA_2048',
  'RSA_3072',
  'RSA_4096',
  'ECC_NIST_P256',
  'ECC_NIST_P384',
  'ECC_NIST_P521',
  'ECC_SECG_P256K1',
  'SM2',
  'ECC_NIST_EDWARDS25519',
  'ML_KEM_512',
  'ML_KEM_768',
  'ML_KEM_1024',
])

/** 64 hex. */
export const keyMaterialId = string({ min: 64, max: 64, pattern: /^[a-f0-9]+$/ })
