/**
 * The face of the native addon (native/addon): types of what it exports, and the one place that loads it.
 *
 * One module per process. Every PKCS#11 call but the start-up queries runs on a pool thread that owns one session, so the event
 * loop never blocks. Completions arrive in batches, one call of `onCompletions` per wake-up. Handles are CK_ULONG: bigint here.
 */
import { createRequire } from 'node:module'

/** What a job does; the values are the addon's wire values (native/addon/core/job.h). */
export const jobOp = {
  /** C_SignInit + C_Sign of `input`. */
  sign: 1,
  /** C_VerifyInit + C_Verify of `input` against the signature in `aux`. */
  verify: 2,
  /** C_EncryptInit + C_Encrypt; for GCM the output is ciphertext then tag, after the IV when the module chose it (ivMode 1). */
  encrypt: 3,
  /** C_DecryptInit + C_Decrypt. */
  decrypt: 4,
  /** Encrypt, decrypt the result again with the same parameters and compare in constant time; output as `encrypt`.
   * A ciphertext that decrypts to something else is withheld: CKR_DEVICE_ERROR. */
  encryptVerify: 5,
  /** C_GenerateRandom of `outMax` bytes. */
  random: 6,
  /** C_FindObjects with the template in `aux`, at most `outMax / 8` handles; output = handles, u64 little-endian each. */
  find: 7,
  /** C_GetAttributeValue; `aux` = attribute types, u64 LE each. Output = packed attributes; an unavailable one has length 0xffffffff. */
  getAttributes: 8,
  /** C_DeriveKey with the template in `aux`; result: `handle`. */
  derive: 9,
  /** C_DeriveKey, read CKA_VALUE, C_DestroyObject; output = the value. */
  deriveValue: 10,
  /** C_GenerateKey with the template in `aux`; result: `handle`. */
  generateKey: 11,
  /** C_GenerateKeyPair; `input` = public template, `aux` = private template; results: `handle` = public, `handle2` = private. */
  generateKeyPair: 12,
  /** C_WrapKey of object `key2` under `key`. */
  wrap: 13,
  /** C_UnwrapKey of `input` under `key` with the template in `aux`; result: `handle`. */
  unwrap: 14,
  /** C_CreateObject with the template in `aux`; result: `handle`. */
  createObject: 15,
  /** C_DestroyObject of `key`. */
  destroy: 16,
  /** C_Decrypt with CKM_RSA_X_509, then EME-OAEP decoding in constant time (RFC 8017 section 7.1.2, empty label) with the hash
   * named by `mechanism` (CKM_SHA_1, CKM_SHA256, ...; MGF1 uses the same hash). Every padding failure is CKR_ENCRYPTED_DATA_INVALID. */
  oaepDecrypt: 17,
  /** C_SetAttributeValue of `key` with the template in `aux`. */
  setAttributes: 18,
  /** C_DecapsulateKey of `input` with the template in `aux`, read CKA_VALUE, C_DestroyObject; output = the value. CKR_FUNCTION_NOT_SUPPORTED
   * unless the module shows an interface of PKCS#11 3.2. */
  decapsulate: 19,
} as const
export type JobOp = (typeof jobOp)[keyof typeof jobOp]

/** First byte of a packed mechanism parameter; layout of the rest in native/README.md. */
export const paramKind = {
  /** CK_GCM_PARAMS: u8 ivLen, u8 tagBits, u8 ivMode (0 given, 1 module writes into the zero IV), u32 aadLen, iv, aad. */
  gcm: 1,
  /** CK_RSA_PKCS_OAEP_PARAMS: u64 hashAlg, u64 mgf; source empty. */
  oaep: 2,
  /** CK_RSA_PKCS_PSS_PARAMS: u64 hashAlg, u64 mgf, u64 saltLen. */
  pss: 3,
  /** CK_ECDH1_DERIVE_PARAMS: u64 kdf, u32 publicLen, public. */
  ecdh: 4,
  /** CK_KEY_DERIVATION_STRING_DATA: u32 len, data. */
  stringData: 5,
  /** CK_AES_CBC_ENCRYPT_DATA_PARAMS: 16 bytes iv, u32 len, data. */
  cbcData: 6,
  /** CK_EDDSA_PARAMS: u8 phFlag, u32 contextLen, context. */
  eddsa: 7,
  /** The bytes themselves (an IV, a CK_ULONG): u32 len, bytes. */
  raw: 8,
  /** CK_SP800_108_KDF_PARAMS, counter mode, HMAC-SHA256 or CMAC PRF: u64 prf, u8 counterBits, u32 len, fixed input data. */
  sp800108: 9,
} as const

/** What `verifySignature` verifies; the values are the addon's wire values (native/addon/verification.cc). */
export const signatureScheme = {
  pkcs1: 1,
  pss: 2,
  ecdsa: 3,
  ed25519: 4,
  ed25519ph: 5,
  mlDsa: 6,
  mlDsaMu: 7,
} as const
export type SignatureScheme = (typeof signatureScheme)[keyof typeof signatureScheme]

export interface SlotDescription {
  readonly slot: bigint
  readonly tokenPresent: boolean
  readonly label: string
  readonly serial: string
  readonly manufacturer: string
  readonly model: string
  readonly flags: bigint
  readonly maxSessions: bigint
  readonly maxRwSessions: bigint
  readonly freePrivateMemory: bigint
  readonly firmware: string
}

export interface MechanismDescription {
  readonly type: number
  readonly minKeySize: number
  readonly maxKeySize: number
  readonly flags: number
}

/** One batch of finished jobs; index i of every array belongs to job `ids[i]`. Outputs are the caller's; native copies are wiped. */
export interface Completions {
  readonly ids: Uint32Array
  /** CK_RV of each job; 0 = CKR_OK, -1: its budget was spent before a session took it. */
  readonly rvs: Float64Array
  readonly outputs: readonly (Buffer | null)[]
  readonly handles: BigUint64Array
  readonly handles2: BigUint64Array
  /** Microseconds spent inside the module. */
  readonly hsmMicros: Float64Array
  /** Microseconds between submit and the moment a session took the job. */
  readonly queueMicros: Float64Array
}

/** Thrown by the calls below (and carried by rejected promises) when the module answers anything but CKR_OK. */
export interface Pkcs11Error extends Error {
  readonly rv: number
  /** The C_ function that failed, e.g. `C_Login`. */
  readonly call: string
}

export interface NativeModule {
  readonly cryptokiVersion: string
  readonly manufacturer: string
  readonly description: string
  readonly libraryVersion: string
  /** All slots; token fields are empty where no token is present. @throws Pkcs11Error */
  slots(): SlotDescription[]
  /** @throws Pkcs11Error */
  mechanisms(slot: bigint): MechanismDescription[]
  /** C_InitToken, then C_InitPIN in an SO session; wipes both PINs. @throws Pkcs11Error */
  initToken(slot: bigint, label: string, soPin: Uint8Array, userPin: Uint8Array): void
  /**
   * Opens the anchor session and `sessions` work sessions, each with a thread of its own, and logs the user in once on the anchor.
   * `pin` is wiped before the promise settles, whatever happens. CKR_USER_ALREADY_LOGGED_IN is success. Rejects with Pkcs11Error.
   */
  openPool(options: {
    slot: bigint
    sessions: number
    pin: Uint8Array | null
    onCompletions: (batch: Completions) => void
  }): Promise<NativePool>
  /** C_Finalize; every pool must be closed first. */
  finalize(): void
}

export interface NativePool {
  /**
   * Queues one job; its `id` comes back in a batch. `aux`, `params` (64 KiB at most) and an `input` of at most 4096 bytes are copied;
   * a longer one is held until completion and must stay unchanged, its ArrayBuffer untransferred. A session that the module closed
   * (0xB0, 0xB3) is reopened and the job repeated once, inside the thread, unless it creates or destroys something.
   * `outMax` bounds the output: CKR_BUFFER_TOO_SMALL grows it once. A job that no session takes within `budgetMs` never reaches the module.
   * @throws Error when 4096 jobs wait already or the pool is closed; TypeError or RangeError on arguments that make no sense
   */
  submit(
    id: number,
    op: JobOp,
    mechanism: number,
    key: bigint,
    key2: bigint,
    params: Uint8Array | null,
    input: Uint8Array | null,
    aux: Uint8Array | null,
    outMax: number,
    budgetMs: number,
  ): void
  /** Jobs waiting for a session, and sessions at work. */
  depth(): { queued: number; busy: number; sessions: number }
  /** Finishes queued jobs, joins the threads, closes the sessions. */
  close(): Promise<void>
}

/** How requests that differ in their input alone are answered: one job, whose output is the answer's only field. */
export interface Plan {
  readonly op: JobOp
  readonly mechanism: number
  readonly key: bigint
  /** Packed; at most 64 KiB, as all lengths here. */
  readonly params: Uint8Array | null
  /** Goes before the input. */
  readonly prefix: Uint8Array | null
  readonly inputMin: number
  readonly inputMax: number
  /** A shorter output counts as a failure. */
  readonly outputMin: number
  readonly outputMax: number
}

/** The worker's pipe to the gateway: frames of src/hsm/frames.ts. The loop lives until the other end closes. */
export interface NativePipe {
  /** Whole frames, copied. Blocks while the gateway does not read; does nothing once it is gone. */
  write(frames: Uint8Array): void
  /** From now on requests with a plan are answered by this pool, until it closes, without the event loop. */
  attach(pool: NativePool): void
  /**
   * `question`: operation and fields of a request up to its input. The plan holds until `forget`, or until a job of it fails: that request comes
   * back through `onFailed`. Of many thousand plans the old ones are forgotten.
   */
  remember(
    question: Uint8Array,
    op: JobOp,
    mechanism: number,
    key: bigint,
    params: Uint8Array | null,
    prefix: Uint8Array | null,
    inputMin: number,
    inputMax: number,
    outputMin: number,
    outputMax: number,
  ): void
  /** Drops all plans. Jobs under way are still answered. */
  forget(): void
}

export interface PipeHandlers {
  /** Whole frames that no plan answers, one after the other; theirs to wipe. */
  onFrames(frames: Buffer): void
  /** A request whose plan for the object `key` failed with `rv` (0: the module was not asked, or gave too much or too little), and how long ago it came. */
  onFailed(frame: Buffer, rv: number, hsmMicros: number, waitedMicros: number, key: bigint): void
  /** The gateway closed its end, or sent what is no frame (`isBroken`). Nothing comes any more. */
  onEnd(isBroken: boolean): void
}

export interface Addon {
  /** Makes `fd` the worker's pipe; it must be a connected stream socket and is the pipe's from now on. @throws the system error */
  openPipe(fd: number, handlers: PipeHandlers): NativePipe
  /** dlopen (RTLD_NOW | RTLD_LOCAL | RTLD_DEEPBIND on glibc unless HSMGATE_NO_DEEPBIND=1), C_GetFunctionList, C_Initialize with
   * CKF_OS_LOCKING_OK. `initArgs` is the library parameter string of NSS-like modules. @throws Pkcs11Error, or Error when dlopen fails */
  openModule(path: string, initArgs?: string): NativeModule
  /** SO_PEERCRED of a connected Unix socket. */
  peerCredentials(fd: number): { pid: number; uid: number; gid: number }
  /** flock(LOCK_EX | LOCK_NB) on `path` (created 0600): the descriptor, or -1 when another process holds it. Freed when the process ends. */
  lockFile(path: string): number
  /** PR_SET_DUMPABLE 0, RLIMIT_CORE 0 and, with `dieWithParent`, PR_SET_PDEATHSIG SIGKILL. */
  hardenProcess(options: { dieWithParent: boolean }): void
  /** Sends a state (sd_notify(3), e.g. `READY=1`) to the datagram socket of the service manager. @throws the system error */
  notifyServiceManager(socketPath: string, state: string): void
  /**
   * Whether `signature` is valid, by Node's own OpenSSL on libuv's thread pool. `publicKey` is DER SubjectPublicKeyInfo, `hash` OpenSSL's name
   * of the digest (RSA only, else ''), `signature` DER for ECDSA. `input` is the digest for RSA and ECDSA, the 64 bytes of mu for `mlDsaMu`, else
   * the message. False for everything malformed; no low-S rule. @throws TypeError on arguments that make no sense
   */
  verifySignature(
    scheme: SignatureScheme,
    hash: string,
    publicKey: Uint8Array,
    input: Uint8Array,
    signature: Uint8Array,
  ): Promise<boolean>
  /** explicit_bzero. */
  wipe(bytes: Uint8Array): void
}

/** Loads the addon; it is built by `deploy/setup.sh` into native/build. */
export function loadAddon(): Addon {
  loaded ??= createRequire(import.meta.url)('../../../native/build/hsmgate.node') as Addon
  return loaded
}

let loaded: Addon | undefined
