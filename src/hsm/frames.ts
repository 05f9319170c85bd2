/**
 * The wire between the gateway and its HSM workers, as a table: every operation's request and response fields in order.
 *
 * A frame is u32 length of the rest, u32 call id, u8 operation (response: u8 status), then for a request u32 budget in milliseconds,
 * for a response u32 microseconds inside the module, then the fields. Integers are little-endian. Fields: u8, u16, u32, f64;
 * `bytes` and `json` are u32 length and content; `text` is u16 length and UTF-8. Codec: frame-codec.ts.
 */
import type { ErrorCode } from '../error.ts'

export type FieldType = 'u8' | 'u16' | 'u32' | 'f64' | 'bytes' | 'text' | 'json'
export type Fields = Readonly<Record<string, FieldType>>

/** How an object is named in a request; `session` 0 = token object. Codes of purpose, spec, construction: the tables below. */
const key = { purpose: 'u8', spec: 'u8', construction: 'u8', session: 'u32', objectId: 'bytes', label: 'text' } as const
const target = {
  targetPurpose: 'u8',
  targetSpec: 'u8',
  targetConstruction: 'u8',
  targetSession: 'u32',
  targetObjectId: 'bytes',
  targetLabel: 'text',
} as const

export const operations = {
  /** json WorkerConfiguration -> json WorkerReady. First frame of a worker's life. */
  configure: { code: 1, roles: ['serve', 'manage'], request: { configuration: 'json' }, response: { ready: 'json' } },
  sign: {
    code: 2,
    roles: ['serve'],
    request: { ...key, algorithm: 'u8', input: 'bytes' },
    response: { signature: 'bytes' },
  },
  verify: {
    code: 3,
    roles: ['serve'],
    request: { ...key, algorithm: 'u8', input: 'bytes', signature: 'bytes' },
    response: { valid: 'u8' },
  },
  encrypt: {
    code: 4,
    roles: ['serve'],
    request: { ...key, algorithm: 'u8', prefix: 'bytes', context: 'bytes', data: 'bytes' },
    response: { output: 'bytes' },
  },
  decrypt: {
    code: 5,
    roles: ['serve'],
    request: { ...key, algorithm: 'u8', prefix: 'bytes', context: 'bytes', data: 'bytes' },
    response: { output: 'bytes' },
  },
  encryptThenVerify: {
    code: 6,
    roles: ['serve'],
    request: { ...key, algorithm: 'u8', prefix: 'bytes', context: 'bytes', data: 'bytes' },
    response: { output: 'bytes' },
  },
  mac: {
    code: 7,
    roles: ['serve'],
    request: { ...key, algorithm: 'u8', message: 'bytes' },
    response: { mac: 'bytes' },
  },
  derive: { code: 8, roles: ['serve'], request: { ...key, peerPublicKey: 'bytes' }, response: { secret: 'bytes' } },
  random: { code: 9, roles: ['serve'], request: { count: 'u32' }, response: { output: 'bytes' } },
  wrap: { code: 10, roles: ['serve'], request: { ...key, ...target, algorithm: 'u8' }, response: { wrapped: 'bytes' } },
  unwrap: {
    code: 11,
    roles: ['serve', 'manage'],
    request: { ...key, algorithm: 'u8', wrapped: 'bytes', intent: 'json' },
    response: { session: 'u32', construction: 'u8', publicKey: 'bytes' },
  },
  /** Session objects on `serve`, token objects on `manage`. */
  generate: {
    code: 12,
    roles: ['serve', 'manage'],
    request: { intent: 'json' },
    response: { session: 'u32', construction: 'u8', publicKey: 'bytes' },
  },
  enumerate: { code: 13, roles: ['manage'], request: {}, response: { objects: 'json' } },
  attributes: { code: 14, roles: ['serve', 'manage'], request: { ...key }, response: { object: 'json' } },
  destroy: { code: 15, roles: ['serve', 'manage'], request: { ...key }, response: { destroyed: 'u32' } },
  adopt: { code: 16, roles: ['manage'], request: { request: 'json' }, response: { object: 'json' } },
  /** Drops the cached handle(s) and derived working keys of an object. */
  forget: { code: 17, roles: ['serve', 'manage'], request: { objectId: 'bytes', label: 'text' }, response: {} },
  /** Tries and verifies everything; json Capabilities. */
  probe: { code: 18, roles: ['serve'], request: {}, response: { capabilities: 'json' } },
  /** Finishes what is queued, logs out by closing, answers, exits 0. */
  drain: { code: 19, roles: ['serve', 'manage'], request: {}, response: {} },
  /** A call that really goes to the module (C_GenerateRandom), for liveness; json pool figures. */
  ping: { code: 20, roles: ['serve', 'manage'], request: {}, response: { state: 'json' } },
  /** A new pair, made to leave: SubjectPublicKeyInfo and PKCS#8. */
  generateDataKeyPair: {
    code: 21,
    roles: ['serve'],
    request: { spec: 'u8' },
    response: { publicKey: 'bytes', privateKey: 'bytes' },
  },
  /** Before configure, where no file holds the PIN: it is given to the module once and wiped. */
  givePin: { code: 31, roles: ['serve', 'manage'], request: { pin: 'bytes' }, response: {} },
  /** Instead of configure, json ExamineRequest -> json ModuleFacts: what the module says without a login. */
  examine: { code: 22, roles: ['serve', 'manage'], request: { request: 'json' }, response: { facts: 'json' } },
  /** Rates, IVs and concurrency; json Measurement. */
  measure: { code: 23, roles: ['serve'], request: { durationMs: 'u32' }, response: { measurement: 'json' } },
  /** `count` random bytes of the module and what SEAL makes of them: a data key in one round trip. */
  sealRandom: {
    code: 24,
    roles: ['serve'],
    request: { ...key, prefix: 'bytes', context: 'bytes', count: 'u32' },
    response: { plaintext: 'bytes', sealed: 'bytes' },
  },
  /** AES_GCM, SHA-256 over `digestPrefix` and the answer, then the decryption that proves it: an XKS Encrypt in one round trip. */
  encryptDigested: {
    code: 25,
    roles: ['serve'],
    request: { ...key, context: 'bytes', digestPrefix: 'bytes', data: 'bytes' },
    response: { output: 'bytes', digest: 'bytes' },
  },
  /** ML-KEM: the secret that a ciphertext of exactly the set's length encapsulates. */
  decapsulate: { code: 26, roles: ['serve'], request: { ...key, ciphertext: 'bytes' }, response: { secret: 'bytes' } },
} as const satisfies Record<string, { code: number; roles: readonly string[]; request: Fields; response: Fields }>

export type OperationName = keyof typeof operations

interface FieldValue {
  readonly u8: number
  readonly u16: number
  readonly u32: number
  readonly f64: number
  readonly bytes: Uint8Array
  readonly text: string
  readonly json: unknown
}
type ValuesOf<F extends Fields> = { readonly [K in keyof F]: FieldValue[F[K]] }
export type Request<N extends OperationName> = ValuesOf<(typeof operations)[N]['request']>
export type Response<N extends OperationName> = ValuesOf<(typeof operations)[N]['response']>

/** Fields of a response whose status is not 0. `action` is the letter of the CKR table (worker/rv.ts): what the gateway side does next. */
export const failureFields = { code: 'text', action: 'text', rv: 'f64', call: 'text', detail: 'text' } as const
export interface WorkerFailure {
  readonly code: ErrorCode
  readonly action: string
  /** CK_RV, or 0 when the worker itself refused. */
  readonly rv: number
  readonly call: string
  /** For the operator's log; never key material or input. */
  readonly detail: string
}

/** Longest frame either side accepts; checked before allocation. Enumerations of large tokens are the longest. */
export const maxFrameBytes = 16 * 1024 * 1024

/** Version of the capability probe's rules: raise it when a probe would now answer differently, and cached answers no longer count. */
export const probeVersion = 3

/** Wire codes: position in these lists. Append only. */
export const purposes = ['kms', 'tls', 'xks', 'system'] as const
export const specs = [
  'SYMMETRIC_DEFAULT',
  'RSA_2048',
  'RSA_3072',
  'RSA_4096',
  'ECC_NIST_P256',
  'ECC_NIST_P384',
  'ECC_NIST_P521',
  'ECC_SECG_P256K1',
  'ECC_NIST_EDWARDS25519',
  'HMAC_224',
  'HMAC_256',
  'HMAC_384',
  'HMAC_512',
  'ML_DSA_44',
  'ML_DSA_65',
  'ML_DSA_87',
  'ML_KEM_512',
  'ML_KEM_768',
  'ML_KEM_1024',
] as const
export const constructions = ['none', 'derived', 'direct'] as const
export const algorithms = [
  'RSASSA_PKCS1_V1_5_SHA_1',
  'RSASSA_PKCS1_V1_5_SHA_224',
  'RSASSA_PKCS1_V1_5_SHA_256',
  'RSASSA_PKCS1_V1_5_SHA_384',
  'RSASSA_PKCS1_V1_5_SHA_512',
  'RSASSA_PSS_SHA_256',
  'RSASSA_PSS_SHA_384',
  'RSASSA_PSS_SHA_512',
  'RSASSA_PSS_SALTED',
  'ECDSA',
  'ED25519',
  'ED25519_PH',
  'ML_DSA',
  'HMAC_SHA_224',
  'HMAC_SHA_256',
  'HMAC_SHA_384',
  'HMAC_SHA_512',
  'MATERIAL_ID',
  'SEAL',
  'AES_GCM',
  'RSAES_OAEP_SHA_1',
  'RSAES_OAEP_SHA_256',
  'AES_KWP',
  'RSA_AES_KEY_WRAP_SHA_1',
  'RSA_AES_KEY_WRAP_SHA_256',
  'ML_DSA_MU',
] as const

/** What a worker is told at birth. The worker reads the PIN from its own file; only that of a custom key store is handed to it, before. */
export interface WorkerConfiguration {
  readonly role: 'serve' | 'manage'
  readonly token: string
  readonly module: string
  /** Library parameters given to C_Initialize, for NSS-like modules (pReserved). */
  readonly initArgs?: string
  /** Exactly one of the two names the token. */
  readonly label?: string
  readonly serial?: string
  readonly pinFile: string
  /** Names the PIN that was handed over; absent where the file holds it. */
  readonly givenPin?: PinFileIdentity
  /** CloudHSM-style user name, put before the PIN as `user:PIN`. */
  readonly cryptoUser?: string
  readonly profile: string
  readonly sessions: number
  /** Identity of the PIN file that was refused, if any: the worker compares and does not log in when it still matches. */
  readonly refusedPin?: PinFileIdentity
  /** Lets an OAEP-SHA-256 import pass through the worker's memory where the module cannot unwrap it itself. */
  readonly allowImportThroughMemory?: boolean
}

/**
 * Event on a worker's standard error just before it gives the PIN to the module: should it die now, nobody knows what the token thought
 * of it.
 */
export const loginBegins = 'login begins'

export interface PinFileIdentity {
  readonly inode: string
  readonly changeTimeNs: string
  readonly bytes: number
}

export interface WorkerReady {
  readonly label: string
  readonly serial: string
  readonly manufacturer: string
  readonly model: string
  readonly firmware: string
  readonly libraryVersion: string
  readonly sessions: number
  /** Key objects found by the enumeration at start. */
  readonly objects: number
  readonly pin: PinFileIdentity
}
