/**
 * Numbers of PKCS#11 3.2 that the worker uses: object classes, key types, attributes, mechanisms, mask generation functions.
 * Data only; names follow the specification without its prefix.
 */

export const CKO = { certificate: 1, publicKey: 2, privateKey: 3, secretKey: 4 } as const

export const CKK = {
  rsa: 0x00,
  ec: 0x03,
  genericSecret: 0x10,
  aes: 0x1f,
  sha256Hmac: 0x2b,
  sha384Hmac: 0x2c,
  sha512Hmac: 0x2d,
  sha224Hmac: 0x2e,
  ecEdwards: 0x40,
  mlKem: 0x49,
  mlDsa: 0x4a,
} as const

export const CKA = {
  class: 0x00,
  token: 0x01,
  private: 0x02,
  label: 0x03,
  value: 0x11,
  keyType: 0x100,
  id: 0x102,
  sensitive: 0x103,
  encrypt: 0x104,
  decrypt: 0x105,
  wrap: 0x106,
  unwrap: 0x107,
  sign: 0x108,
  verify: 0x10a,
  derive: 0x10c,
  modulus: 0x120,
  modulusBits: 0x121,
  publicExponent: 0x122,
  publicKeyInfo: 0x129,
  valueLen: 0x161,
  extractable: 0x162,
  local: 0x163,
  neverExtractable: 0x164,
  modifiable: 0x170,
  ecParams: 0x180,
  ecPoint: 0x181,
  parameterSet: 0x61d,
  encapsulate: 0x633,
  decapsulate: 0x634,
} as const

export const CKM = {
  rsaPkcsKeyPairGen: 0x00,
  rsaPkcs: 0x01,
  rsaX509: 0x03,
  rsaPkcsOaep: 0x09,
  rsaPkcsPss: 0x0d,
  mlKemKeyPairGen: 0x0f,
  mlKem: 0x17,
  mlDsaKeyPairGen: 0x1c,
  mlDsa: 0x1d,
  sha1: 0x220,
  sha256: 0x250,
  sha256Hmac: 0x251,
  sha224: 0x255,
  sha224Hmac: 0x256,
  sha384: 0x260,
  sha384Hmac: 0x261,
  sha512: 0x270,
  sha512Hmac: 0x271,
  genericSecretKeyGen: 0x350,
  ecKeyPairGen: 0x1040,
  ecdsa: 0x1041,
  ecdh1Derive: 0x1050,
  rsaAesKeyWrap: 0x1054,
  ecEdwardsKeyPairGen: 0x1055,
  eddsa: 0x1057,
  aesKeyGen: 0x1080,
  aesEcb: 0x1081,
  aesGcm: 0x1087,
  aesEcbEncryptData: 0x1104,
  aesCbcEncryptData: 0x1105,
  /** AES-KWP (RFC 5649) under the number that SoftHSM and others gave CKM_AES_KEY_WRAP_PAD. */
  aesKeyWrapPad: 0x210a,
  /** AES-KWP (RFC 5649) in PKCS#11 3.0 and later. */
  aesKeyWrapKwp: 0x210b,
  /** Not in 3.2: the number that OASIS gave it for the version after. */
  mlDsaExternalMu: 0x403c,
} as const

export const CKG = { mgf1Sha1: 1, mgf1Sha256: 2, mgf1Sha384: 3, mgf1Sha512: 4 } as const

export const CKD = { null: 1 } as const

/** CKF_RW_SESSION | CKF_SERIAL_SESSION. */
export const rwSerialSession = 0x02 | 0x04
