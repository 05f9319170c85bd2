/**
 * The face of the HSM layer: what the rest of the gateway may ask of keys that live in a PKCS#11 token.
 *
 * Calls are intents; templates, mechanisms and limits live in the worker process. Every call takes an absolute deadline and rejects
 * with GatewayError only. Safe for any number of concurrent callers.
 */
import type { Deadline } from '../call.ts'
import type { TokenConfig } from './token-config.ts'

/** Fixed per key at creation and enforced again by the worker: a key of one purpose cannot be used at another door. */
export type Purpose = 'kms' | 'tls' | 'xks' | 'system'

export type KeySpec =
  | 'SYMMETRIC_DEFAULT'
  | 'RSA_2048'
  | 'RSA_3072'
  | 'RSA_4096'
  | 'ECC_NIST_P256'
  | 'ECC_NIST_P384'
  | 'ECC_NIST_P521'
  | 'ECC_SECG_P256K1'
  | 'ECC_NIST_EDWARDS25519'
  | 'HMAC_224'
  | 'HMAC_256'
  | 'HMAC_384'
  | 'HMAC_512'
  | 'ML_DSA_44'
  | 'ML_DSA_65'
  | 'ML_DSA_87'
  | 'ML_KEM_512'
  | 'ML_KEM_768'
  | 'ML_KEM_1024'

export type KeyUsage =
  | 'ENCRYPT_DECRYPT'
  | 'SIGN_VERIFY'
  | 'GENERATE_VERIFY_MAC'
  | 'KEY_AGREEMENT'
  | 'ENCAPSULATE_DECAPSULATE'
  /** Domain and transport keys of purpose `system`; no door offers it. */
  | 'WRAP_UNWRAP'

/** How a symmetric backing key encrypts: by working keys derived from it (`derived`), or itself (`direct`). `none`: not symmetric. */
export type Construction = 'derived' | 'direct' | 'none'

/** One HSM object behind a key, by CKA_ID; adopted objects may also need their CKA_LABEL. Session objects carry a `session` reference. */
export interface HsmKey {
  readonly group: string
  readonly purpose: Purpose
  readonly spec: KeySpec
  readonly construction: Construction
  /** CKA_ID: 16 bytes of UUID for our own objects, anything for adopted ones. */
  readonly objectId: Uint8Array
  /** CKA_LABEL, only where the id alone does not name the object. */
  readonly label?: string
  readonly session?: SessionObject
}

/** A session object: lives in one worker process and dies with it. */
export interface SessionObject {
  readonly worker: string
  readonly reference: number
}

/** The input is always the digest, but for Ed25519 and ML-DSA, which take the message. ECDSA answers r || s in fixed width (PKCS#11 2.3.1). */
export type SignAlgorithm =
  | 'RSASSA_PKCS1_V1_5_SHA_1'
  | 'RSASSA_PKCS1_V1_5_SHA_224'
  | 'RSASSA_PKCS1_V1_5_SHA_256'
  | 'RSASSA_PKCS1_V1_5_SHA_384'
  | 'RSASSA_PKCS1_V1_5_SHA_512'
  | 'RSASSA_PSS_SHA_256'
  | 'RSASSA_PSS_SHA_384'
  | 'RSASSA_PSS_SHA_512'
  /** Any length of salt. Input: u8 hash (1 SHA-256, 2 SHA-384, 3 SHA-512; MGF1 with the same), u16 big-endian length of the salt, the digest. */
  | 'RSASSA_PSS_SALTED'
  | 'ECDSA'
  | 'ED25519'
  | 'ED25519_PH'
  | 'ML_DSA'
  /** Of the 64 bytes of mu (FIPS 204 section 6.2), which the caller computed. */
  | 'ML_DSA_MU'

export type MacAlgorithm =
  | 'HMAC_SHA_224'
  | 'HMAC_SHA_256'
  | 'HMAC_SHA_384'
  | 'HMAC_SHA_512'
  /** Fingerprint of secret key material bound to `message`; 32 bytes, deterministic, reveals nothing (reserved derivation purpose). */
  | 'MATERIAL_ID'

/**
 * `SEAL`: AES-256-GCM in the key's construction. The sealed bytes are u8 saltLen, salt, u8 ivLen, iv, ciphertext, 16 bytes tag; the
 * additional data is `prefix`, then saltLen .. iv (the iv left out where the module makes it), then `context`.
 * `AES_GCM`: the key itself, for XKS: u8 ivLen, iv, ciphertext, tag; additional data is `context` alone, never empty to decrypt, where an
 * IV may also have 16 bytes.
 */
export type CipherAlgorithm = 'SEAL' | 'AES_GCM' | 'RSAES_OAEP_SHA_1' | 'RSAES_OAEP_SHA_256'

export type WrapAlgorithm =
  | 'AES_KWP'
  | 'RSAES_OAEP_SHA_1'
  | 'RSAES_OAEP_SHA_256'
  | 'RSA_AES_KEY_WRAP_SHA_1'
  | 'RSA_AES_KEY_WRAP_SHA_256'

export interface GenerateIntent {
  readonly group: string
  readonly spec: KeySpec
  readonly usage: KeyUsage
  readonly purpose: Purpose
  /** 16 bytes of UUID. */
  readonly objectId: Uint8Array
  /** Key id and number of the backing key: CKA_LABEL becomes `hsmgate:<keyId>:<n>`, for other purposes `hsmgate-<purpose>:<keyId>:<n>`. */
  readonly keyId: string
  readonly number: number
  /** `token`: survives; `session`: in one worker, for wrapping out or a short life. */
  readonly residence: 'token' | 'session'
  /** Session objects that will be wrapped out (data key pairs, wrapped custody). Never honoured for token objects. */
  readonly exportable?: boolean
}

export interface GeneratedKey {
  readonly key: HsmKey
  /** DER SubjectPublicKeyInfo; `null` for secret keys. */
  readonly publicKey: Uint8Array | null
}

/** What a token says about one object; everything is read back, nothing assumed. */
export interface ObjectSummary {
  readonly objectId: Uint8Array
  readonly label: string
  readonly objectClass: 'private' | 'secret' | 'public'
  /** Undefined when the object fits no spec that we serve. */
  readonly spec?: KeySpec
  readonly sensitive: boolean
  readonly extractable: boolean
  readonly neverExtractable: boolean
  readonly local: boolean
  readonly isPrivate: boolean
  readonly modifiable: boolean
  /** `sign`, `verify`, `encrypt`, `decrypt`, `derive`, `wrap`, `unwrap`, `encapsulate`, `decapsulate`. */
  readonly usages: readonly string[]
  readonly publicKey: Uint8Array | null
}

/** What the probe proved about a token; everything not listed answers UnsupportedOperationException. */
export interface Capabilities {
  /** Version of the probe's rules; older cached results are ignored. */
  readonly probe: number
  /** Specs whose keys were generated, used and verified, with the usages that work. */
  readonly specs: Readonly<Partial<Record<KeySpec, readonly KeyUsage[]>>>
  /** Algorithms proven in software against the module's answer: SignAlgorithm, CipherAlgorithm, MacAlgorithm, WrapAlgorithm names, `ECDH`, `ML_KEM`,
   * `DATA_KEY_PAIR <spec>`, `UNWRAP RSAES_OAEP_*` where the module itself unwraps with it. */
  readonly algorithms: readonly string[]
  /** OAEP-SHA-256 through raw RSA with decoding in the worker, where the module has no native one. */
  readonly oaepSha256: 'native' | 'raw' | 'none'
  readonly construction: 'derived' | 'direct' | 'none'
  readonly gcmIv: 'caller' | 'module' | 'none'
  /** What was tried and why it is not offered, for the operator. */
  readonly refused: readonly { readonly what: string; readonly why: string }[]
}

export interface WorkerState {
  readonly id: string
  readonly token: string
  readonly role: 'serve' | 'manage'
  readonly state: 'starting' | 'ready' | 'draining' | 'dead'
  readonly pid: number | undefined
  readonly inFlight: number
  /** PKCS#11 sessions that work for calls; 0 until it is ready. */
  readonly sessions: number
}

export interface GroupState {
  readonly name: string
  /** A warm serve worker exists. */
  readonly ready: boolean
  readonly capabilities: Capabilities | undefined
  readonly tokens: readonly {
    readonly name: string
    readonly label: string
    readonly serial: string
    /** Why this token cannot serve, with the remedy, when it can't. */
    readonly trouble?: string
    readonly pinRefused: boolean
  }[]
  readonly workers: readonly WorkerState[]
}

/** Why a worker could not start: the answer of the module, or our own reason (`rv` 0). `action` is the letter of the CKR table. */
export interface StartFailure {
  /** CK_RV. */
  readonly rv: number
  /** The PKCS#11 function that answered. */
  readonly call: string
  readonly action: string
  readonly detail: string
}

/** `failure` is absent when there was nobody to say why: the process died, or was closed. */
export type GroupOpening =
  | { readonly ready: true }
  | { readonly ready: false; readonly trouble: string; readonly failure: StartFailure | undefined }

/** Groups that come and go while the gateway runs. */
export interface TokenGroups {
  /**
   * Adds a group of one token. Resolves when it serves, or with what stops it; it keeps trying either way, until it is closed.
   * @throws TypeError when there is such a group.
   */
  openGroup(name: string, token: TokenConfig): Promise<GroupOpening>
  /** Ends the group and its workers; calls that wait for it fail. Nothing happens when there is none. */
  closeGroup(name: string): Promise<void>
}

export interface Hsm extends AsyncDisposable {
  /** State only, from memory: never calls the module. */
  groups(): readonly GroupState[]
  /** @throws GatewayError `KeyUnavailable` while no token of the group has been probed. */
  capabilities(group: string): Capabilities
  sign(key: HsmKey, algorithm: SignAlgorithm, input: Uint8Array, deadline: Deadline): Promise<Buffer>
  verify(
    key: HsmKey,
    algorithm: SignAlgorithm,
    input: Uint8Array,
    signature: Uint8Array,
    deadline: Deadline,
  ): Promise<boolean>
  encrypt(key: HsmKey, algorithm: CipherAlgorithm, input: CipherInput, deadline: Deadline): Promise<Buffer>
  /** @throws GatewayError `CiphertextInvalid` for every kind of bad ciphertext. */
  decrypt(key: HsmKey, algorithm: CipherAlgorithm, input: CipherInput, deadline: Deadline): Promise<Buffer>
  /** Encrypts, decrypts the result in the same worker operation and compares. */
  encryptThenVerify(key: HsmKey, algorithm: CipherAlgorithm, input: CipherInput, deadline: Deadline): Promise<Buffer>
  /**
   * AES_GCM of a key of purpose `xks`, and SHA-256 over `digestPrefix`, IV, ciphertext and tag, taken before the same worker operation
   * decrypts the result and compares.
   */
  encryptDigested(
    key: HsmKey,
    input: { readonly context: Uint8Array; readonly digestPrefix: Uint8Array; readonly data: Uint8Array },
    deadline: Deadline,
  ): Promise<{ readonly output: Buffer; readonly digest: Buffer }>
  mac(key: HsmKey, algorithm: MacAlgorithm, message: Uint8Array, deadline: Deadline): Promise<Buffer>
  /** Raw ECDH shared secret (x coordinate, full width) with the peer's DER SubjectPublicKeyInfo. @throws `ValidationFailed` for a bad point. */
  derive(key: HsmKey, peerPublicKey: Uint8Array, deadline: Deadline): Promise<Buffer>
  /** The 32 bytes that an ML-KEM ciphertext encapsulates. @throws `CiphertextInvalid` for a wrong length, and for nothing else about it. */
  decapsulate(key: HsmKey, ciphertext: Uint8Array, deadline: Deadline): Promise<Buffer>
  random(group: string, bytes: number, deadline: Deadline): Promise<Buffer>
  /** `bytes` random bytes of the module, and SEAL of them. */
  sealRandom(
    key: HsmKey,
    bytes: number,
    input: Omit<CipherInput, 'data'>,
    deadline: Deadline,
  ): Promise<{ readonly plaintext: Buffer; readonly sealed: Buffer }>
  wrap(wrappingKey: HsmKey, target: HsmKey, algorithm: WrapAlgorithm, deadline: Deadline): Promise<Buffer>
  unwrap(
    unwrappingKey: HsmKey,
    algorithm: WrapAlgorithm,
    wrapped: Uint8Array,
    intent: GenerateIntent,
    deadline: Deadline,
  ): Promise<GeneratedKey>
  /** Token objects: not idempotent; after an unknown outcome `attributes` by object id tells whether it exists. */
  generate(intent: GenerateIntent, deadline: Deadline): Promise<GeneratedKey>
  /**
   * A new pair that leaves the module and stays nowhere in it; DER SubjectPublicKeyInfo and PKCS#8. Only for specs whose
   * `DATA_KEY_PAIR <spec>` is among the proven algorithms.
   */
  generateDataKeyPair(
    group: string,
    spec: KeySpec,
    deadline: Deadline,
  ): Promise<{ readonly publicKey: Buffer; readonly privateKey: Buffer }>
  enumerate(group: string, deadline: Deadline): Promise<readonly ObjectSummary[]>
  /** `null` when no such object exists. */
  attributes(key: HsmKey, deadline: Deadline): Promise<ObjectSummary | null>
  /** Destroys the object(s) with this id after every worker dropped its handle; absent objects are success. */
  destroy(key: HsmKey, deadline: Deadline): Promise<void>
  /** Describes an existing object for registration, by label and/or id, without changing it. @throws `NotFound`, `ValidationFailed` when ambiguous. */
  adopt(request: AdoptRequest, deadline: Deadline): Promise<AdoptableObject>
  /** Clears a latched PIN refusal of a configured token and tries again once. */
  retryLogin(token: string): Promise<void>
}

export interface CipherInput {
  /** Additional data before the salt; SEAL only. */
  readonly prefix?: Uint8Array
  /** Canonical encryption context, or XKS additional data. */
  readonly context?: Uint8Array
  /** Plaintext, or sealed bytes / RSA ciphertext. */
  readonly data: Uint8Array
}

/** An existing object as it is, with the public key found with it or in a certificate. */
export interface AdoptableObject extends ObjectSummary {
  /** The id does not name the object alone in its class: HsmKey.label must. */
  readonly needsLabel: boolean
}

export interface AdoptRequest {
  readonly group: string
  readonly label?: string
  readonly objectId?: Uint8Array
  readonly objectClass?: 'private' | 'secret'
}
