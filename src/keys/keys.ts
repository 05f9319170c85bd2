/**
 * The face of the key service: KMS semantics independent of any wire. It decides what an operation means for a key (state, usage,
 * algorithm, limits), turns API algorithms into HSM intents and composes ciphertext blobs. Authorization is not its business.
 */
import type { Deadline } from '../call.ts'
import type {
  AliasRecord,
  GrantRecord,
  KeyEntry,
  KeyName,
  KeyRecord,
  KeyState,
  KeyUsageRecord,
} from '../catalog/catalog.ts'
import type { KeySpec, KeyUsage, Purpose, SignAlgorithm } from '../hsm/port.ts'

/** Who asks and where: picks account and Region for bare ids. */
export interface Locale {
  readonly partition: string
  readonly account: string
  readonly region: string
}

/**
 * The keys that the KMS door knows: its own, and those of TLS servers, which it manages and does not sign with (tls-keys.ts). Keys of other
 * purposes don't exist there.
 */
export const kmsPurposes: readonly Purpose[] = ['kms', 'tls']

export function isKmsVisible({ key }: { readonly key: Pick<KeyRecord, 'purpose'> }): boolean {
  return kmsPurposes.includes(key.purpose)
}

/** A key reference of a request, looked up. */
export interface ResolvedKey {
  /** Key ARN; for a foreign key that does not exist, the ARN as given. */
  readonly arn: string
  readonly account: string
  /** Undefined only for keys of another account that do not exist: authorization must deny, existence is not told. */
  readonly entry: KeyEntry | undefined
  /** The alias name (`alias/x`) by which the request named it. */
  readonly alias?: string
}

export interface CreateKeyRequest {
  readonly spec: KeySpec
  readonly usage: KeyUsage
  readonly purpose: Purpose
  readonly description: string
  readonly policy: string
  readonly tags: Readonly<Record<string, string>>
  readonly multiRegion: boolean
  readonly origin: 'AWS_KMS' | 'EXTERNAL' | 'AWS_CLOUDHSM' | 'EXTERNAL_KEY_STORE'
  readonly group?: string
  /** The custom key store in which the key is to live, exactly with the last two origins. */
  readonly store?: { readonly id: string; readonly xksKeyId?: string; readonly requester: Requester }
}

/** In which custom key store a key lives. */
export interface StorePlace {
  readonly id: string
  /** The external key's id at its proxy; of external key stores only. */
  readonly xksKeyId?: string
}

/** Of the open column of a key's row, which alone says it. */
export function findStorePlace(extra: KeyEntry['key']['extra']): StorePlace | undefined {
  return extra.customKeyStore as StorePlace | undefined
}

/** On whose behalf a call is made, as proxies of external key stores are told. */
export interface Requester {
  readonly requestId: string
  readonly principal: { readonly arn: string }
}

/** What KeyMetadata and audit records say of a key in a custom key store. */
export interface StoreKeyDescription {
  readonly storeId: string
  readonly xksKeyId?: string
  readonly clusterId?: string
}

/** Which key of an external key store is used, and for what. */
export interface ExternalCall {
  readonly place: StorePlace
  readonly keyArn: string
  /** Name of the KMS operation. */
  readonly operation: string
  readonly requester: Requester
}

/** What the proxy of an external key store made of a plaintext. */
export interface ExternalCiphertext {
  readonly metadata: Uint8Array
  readonly iv: Uint8Array
  readonly tag: Uint8Array
  readonly ciphertext: Uint8Array
}

/** A place in a custom key store, held until the key is there or its creation has failed. */
export interface ReservedPlace extends Disposable {
  readonly place: StorePlace
  /** The HSM group of the key; absent where it lives outside, and a key of our own encrypts first. */
  readonly group?: string
  /** Whether the key has material in a token of ours. */
  readonly hasOwnLayer: boolean
  /** A failure of the token, as the maker of the key is told. */
  explain(cause: unknown): unknown
}

/** What stands behind keys of custom key stores: src/stores supplies it, and this folder knows no more of it. */
export interface KeyStores {
  /** From memory. While it is not, keys of the store are `Unavailable`. */
  isConnected(storeId: string): boolean
  /** From memory; undefined but for AWS_CLOUDHSM stores. */
  clusterOf(storeId: string): string | undefined
  /** One more request for the store's keys. @throws GatewayError `Throttled` */
  take(storeId: string): void
  /** Sees to it that a key can be made there. @throws GatewayError, with the store's own reasons. */
  reserve(
    request: {
      readonly place: StorePlace
      readonly origin: CreateKeyRequest['origin']
      readonly keyArn: string
      readonly requester: Requester
    },
    locale: Locale,
    deadline: Deadline,
  ): Promise<ReservedPlace>
  /** By the proxy of an external key store. @throws GatewayError `KeyStateInvalid`, worded by what went wrong. */
  encrypt(call: ExternalCall, plaintext: Uint8Array, aad: Uint8Array, deadline: Deadline): Promise<ExternalCiphertext>
  decrypt(call: ExternalCall, sealed: ExternalCiphertext, aad: Uint8Array, deadline: Deadline): Promise<Buffer>
}

/** Names one object in the token, by label, id and class as far as needed, and what it is to be. */
export interface AdoptKeyRequest {
  readonly group?: string
  readonly label?: string
  readonly objectId?: Uint8Array
  readonly objectClass?: 'private' | 'secret'
  /** Needed where the object permits several. */
  readonly usage?: KeyUsage
  /** Default: as the object's label says, else `kms`. */
  readonly purpose?: Exclude<Purpose, 'system'>
  readonly description: string
  readonly policy: string
  readonly allowWeak: boolean
}

/** An object in a token, as reports name it. */
export interface TokenObject {
  readonly group: string
  /** CKA_ID in hex. */
  readonly objectId: string
  readonly label: string
  readonly objectClass: 'private' | 'secret' | 'public'
}

export interface UnknownObject extends TokenObject {
  readonly spec: KeySpec | null
  /** Made by hsmgate, as its label says: this catalog has forgotten it. */
  readonly ours: boolean
}

export interface WeakObject extends TokenObject {
  readonly weaknesses: readonly string[]
  readonly isKnown: boolean
}

/** How a group's token and the catalog differ. */
export interface Reconciliation {
  readonly unknown: readonly UnknownObject[]
  /** Materials whose object the token does not have. */
  readonly missing: readonly (KeyName & { readonly group: string; readonly objectId: string; readonly state: string })[]
  readonly weak: readonly WeakObject[]
}

export type EncryptionContext = Readonly<Record<string, string>>

export interface ParsedBlob {
  readonly keyId: string
  /** 64 hex. */
  readonly materialId: string
}

/** What a new grant is to be; its id and date are the gateway's. `name` is empty when it has none. */
export type GrantRequest = Omit<GrantRecord, keyof KeyName | 'keyArn' | 'grantId' | 'createdAt'>

/** The schedule of automatic rotation. */
export interface RotationSchedule {
  readonly periodDays: number
  /** Epoch milliseconds. */
  readonly nextAt: number
}

/** One material of a symmetric key, as ListKeyRotations tells. */
export interface MaterialDescription {
  readonly number: number
  /** 64 hex. */
  readonly materialId: string
  readonly state: 'CURRENT' | 'NON_CURRENT' | 'PENDING_ROTATION' | 'PENDING_MULTI_REGION_IMPORT_AND_ROTATION'
  /** The rotation that made it current, at epoch milliseconds; absent for the first material and for one that waits. */
  readonly rotation?: { readonly type: 'AUTOMATIC' | 'ON_DEMAND'; readonly at: number }
  /** Of imported material only. */
  readonly isImported?: boolean
  readonly description?: string
  /** Epoch milliseconds; null: it does not expire. Absent where nothing is imported. */
  readonly expiresAt?: number | null
}

export interface KeyRotation {
  /** @throws `Unsupported` for a key that waits for its material. */
  rotationStatus(entry: KeyEntry): {
    readonly schedule?: RotationSchedule
    /** When the on-demand rotation under way began. */
    readonly startedAt?: number
  }
  /** Starts the period anew when it is on already. @throws `KeyDisabled`, `KeyStateInvalid`, `Unsupported`. */
  enableRotation(entry: KeyEntry, periodDays: number): Promise<void>
  disableRotation(entry: KeyEntry): Promise<void>
  /** @throws `Conflict`, `LimitExceeded`, `KeyDisabled`, `KeyStateInvalid`, `Unsupported`. */
  rotateOnDemand(entry: KeyEntry, deadline: Deadline): Promise<void>
  /** Oldest first. @throws `Unsupported` for keys that don't rotate. */
  listMaterials(entry: KeyEntry): Promise<readonly MaterialDescription[]>
  /** A key became enabled: what was overdue meanwhile happens now. */
  resumeRotation(name: KeyName): Promise<void>
}

export interface ImportRequest {
  readonly token: Uint8Array
  readonly encrypted: Uint8Array
  /** Epoch milliseconds; null: it does not expire. */
  readonly expiresAt: number | null
  readonly importType?: 'NEW_KEY_MATERIAL' | 'EXISTING_KEY_MATERIAL'
  readonly description?: string
  /** 64 hex. */
  readonly materialId?: string
}

export interface KeyImport {
  /** @throws `KeyStateInvalid`, `Unsupported` when the key takes no import or the module can't do the algorithm, `ValidationFailed`. */
  importParameters(
    entry: KeyEntry,
    request: { readonly algorithm: string; readonly wrappingSpec: string },
    deadline: Deadline,
  ): Promise<{ readonly token: Buffer; readonly publicKey: Buffer; readonly validTo: number }>
  /** @throws `ImportTokenInvalid`, `ImportTokenExpired`, `CiphertextInvalid`, `KeyMaterialIncorrect`, `KeyStateInvalid`. */
  importMaterial(entry: KeyEntry, request: ImportRequest, deadline: Deadline): Promise<{ readonly materialId: string }>
  /** The current material unless told. Nothing to delete is success. */
  deleteMaterial(
    entry: KeyEntry,
    materialId: string | undefined,
    deadline: Deadline,
  ): Promise<{ readonly materialId?: string }>
}

/** What KeyMetadata says beyond the key's own row. */
export interface KeyCondition {
  /** At this moment: material that has expired is gone, whether or not it was destroyed yet. */
  readonly state: KeyState
  /** Present while all material of an EXTERNAL key is imported; `expiresAt` is the earliest, null when none expires. */
  readonly imported?: { readonly expiresAt: number | null }
}

/** What a replica has of its own; all the rest is the primary's. */
export interface ReplicaRequest {
  readonly region: string
  readonly description: string
  readonly policy: string
  readonly tags: Readonly<Record<string, string>>
}

/** Multi-Region keys (multi-region.ts). */
export interface MultiRegionKeys {
  /**
   * The keys that share a key's id and materials, itself included, in ascending order of Regions; of a single-Region key itself alone. What
   * changes the primary's materials or their history needs to do nothing for the others: they follow in the same write.
   */
  relatedKeys(entry: KeyEntry): Promise<readonly KeyEntry[]>
  /**
   * Answers the replica in state `Creating`; it is `Enabled` (imported material: `PendingImport`) soon after.
   * @throws `Unsupported` unless the key is a primary one, `AlreadyExists`, `LimitExceeded`, `KeyDisabled`, `KeyStateInvalid`.
   */
  replicate(entry: KeyEntry, request: ReplicaRequest): Promise<KeyEntry>
  /**
   * Both keys are `Updating` when it resolves, and have changed roles soon after.
   * @throws `Unsupported` unless the key is a primary one, `KeyNotFound` when there is no replica in `region`, `KeyDisabled`, `KeyStateInvalid`.
   */
  updatePrimaryRegion(entry: KeyEntry, region: string): Promise<void>
  /** Finishes replications and changes of roles that a crash or a failure cut off. */
  settleRelatedKeys(): Promise<void>
}

/** Told before the key can be used in its new role; a rejection leaves it to the next round, which tells again. */
export interface RelatedEvents {
  readonly replicaCreated: (replica: KeyEntry) => Promise<void>
  /** `primary` is the key that becomes the primary one. */
  readonly primaryChanged: (primary: KeyEntry) => Promise<void>
}

/** What the gateway itself signs with keys of purpose `tls` (tls-keys.ts). */
export interface TlsSigning {
  /**
   * A certificate, or a request for one: PKCS#1 v1.5 with SHA-256, ECDSA with the hash of the curve's size as r || s, or Ed25519.
   * @throws GatewayError `ValidationFailed` for a key of another purpose; `KeyDisabled`, `KeyStateInvalid`.
   */
  signCertificate(entry: KeyEntry, tbs: Uint8Array, deadline: Deadline): Promise<Buffer>
}

export interface KeyService extends TlsSigning, KeyRotation, KeyImport, MultiRegionKeys {
  /** Wall time of keys, epoch milliseconds. */
  now(): number
  condition(entry: KeyEntry): KeyCondition
  /** Of a key in a custom key store. */
  storeOf(entry: KeyEntry): StoreKeyDescription | undefined
  /** The last successful cryptographic call; undefined when there was none. */
  lastUsage(entry: KeyEntry): Promise<KeyUsageRecord | undefined>
  keyArn(name: KeyName): string
  aliasArn(alias: Pick<AliasRecord, 'account' | 'region' | 'name'>): string
  /**
   * Looks a KeyId member up. `accepts: 'key'` refuses aliases with `Invalid keyId 'alias/x'`.
   * @throws GatewayError `KeyNotFound` with AWS's text (KMS parity 1.5).
   */
  resolve(reference: string, accepts: 'key' | 'key-or-alias', locale: Locale): Promise<ResolvedKey>
  /** Crash-safe: row, object, read back, self-test, row `Enabled`. @throws `Unsupported` when the probe did not prove spec and usage. */
  create(request: CreateKeyRequest, locale: Locale, deadline: Deadline): Promise<KeyEntry>
  /**
   * Registers an object of a token as it is; the object is not changed, and is not destroyed with the key.
   * @throws `NotFound`; `ValidationFailed`, with what an operator can do; `AlreadyExists`; `Unsupported`.
   */
  adopt(request: AdoptKeyRequest, locale: Locale, deadline: Deadline): Promise<KeyEntry>
  /** Compares a group's token with the catalog; touches nothing. */
  reconcile(group: string, deadline: Deadline): Promise<Reconciliation>
  list(
    locale: Locale,
    after: string | undefined,
    limit: number,
  ): Promise<{ readonly keyIds: readonly string[]; readonly more: boolean }>

  encrypt(
    entry: KeyEntry,
    request: {
      algorithm: string
      plaintext: Uint8Array
      context: EncryptionContext
      operation: string
      dryRun: boolean
      /** For keys of external key stores. */
      requester?: Requester
    },
    deadline: Deadline,
  ): Promise<{ ciphertext: Buffer; materialId: string | null }>
  /** @throws `CiphertextInvalid` when the bytes are not one of our blobs. */
  parseBlob(ciphertext: Uint8Array): ParsedBlob
  /** The key that a blob names, in this account and Region (or another account's by id): undefined when there is none. */
  findByBlob(blob: ParsedBlob, locale: Locale): Promise<ResolvedKey | undefined>
  decrypt(
    entry: KeyEntry,
    request: {
      algorithm: string
      ciphertext: Uint8Array
      context: EncryptionContext
      operation: string
      dryRun: boolean
      requester?: Requester
    },
    deadline: Deadline,
  ): Promise<{ plaintext: Buffer; materialId: string | null }>
  generateDataKey(
    entry: KeyEntry,
    request: {
      bytes: number
      context: EncryptionContext
      operation: string
      dryRun: boolean
      requester?: Requester
    },
    deadline: Deadline,
  ): Promise<{ plaintext: Buffer; ciphertext: Buffer; materialId: string | null }>
  /** A pair of DER SubjectPublicKeyInfo and PKCS#8, and the latter sealed under the key. @throws `Unsupported` for a spec without pairs. */
  generateDataKeyPair(
    entry: KeyEntry,
    request: { pairSpec: string; context: EncryptionContext; operation: string; dryRun: boolean },
    deadline: Deadline,
  ): Promise<{ publicKey: Buffer; privateKey: Buffer; ciphertext: Buffer; materialId: string }>
  /** Raw ECDH shared secret with a peer's DER SubjectPublicKeyInfo. @throws `ValidationFailed` when that is no point of the key's curve. */
  deriveSharedSecret(
    entry: KeyEntry,
    request: { algorithm: string; peerPublicKey: Uint8Array; dryRun: boolean },
    deadline: Deadline,
  ): Promise<Buffer>
  /** A new shared secret and what carries it to the holder of the key; made in software with the public key. */
  encapsulate(
    entry: KeyEntry,
    request: { algorithm: string; dryRun: boolean },
  ): Promise<{ secret: Buffer; ciphertext: Buffer }>
  /** @throws `CiphertextInvalid` for a wrong length; every ciphertext of the right one gives a secret (FIPS 203 section 6.3). */
  decapsulate(
    entry: KeyEntry,
    request: { algorithm: string; ciphertext: Uint8Array; dryRun: boolean },
    deadline: Deadline,
  ): Promise<Buffer>
  random(locale: Locale, bytes: number, deadline: Deadline): Promise<Buffer>
  sign(
    entry: KeyEntry,
    request: { algorithm: string; message: Uint8Array; messageType: string; dryRun: boolean },
    deadline: Deadline,
  ): Promise<{ signature: Buffer }>
  /** @throws `SignatureInvalid`; never answers false. */
  verify(
    entry: KeyEntry,
    request: { algorithm: string; message: Uint8Array; messageType: string; signature: Uint8Array; dryRun: boolean },
    deadline: Deadline,
  ): Promise<void>
  /** DER SubjectPublicKeyInfo. */
  publicKey(entry: KeyEntry): Buffer
  mac(
    entry: KeyEntry,
    request: { algorithm: string; message: Uint8Array; operation: string; dryRun: boolean },
    deadline: Deadline,
  ): Promise<Buffer>
  /** @throws `MacInvalid`; never answers false. */
  verifyMac(
    entry: KeyEntry,
    request: { algorithm: string; message: Uint8Array; mac: Uint8Array; dryRun: boolean },
    deadline: Deadline,
  ): Promise<void>

  /** Enabled ↔ Disabled; no-ops succeed. Effective for the next operation on every door, queued ones included, when it resolves. */
  setEnabled(entry: KeyEntry, enabled: boolean): Promise<void>
  setDescription(entry: KeyEntry, description: string): Promise<void>
  /** @throws `KeyStateInvalid` when it is pending already. */
  scheduleDeletion(entry: KeyEntry, windowDays: number): Promise<KeyEntry>
  /** The key is Disabled afterwards. @throws `KeyStateInvalid` `is not pending deletion`. */
  cancelDeletion(entry: KeyEntry): Promise<KeyEntry>
  setPolicy(entry: KeyEntry, document: string): Promise<void>
  /** State checks only; limits and reserved names are the caller's. */
  setTags(entry: KeyEntry, put: Readonly<Record<string, string>>, remove: readonly string[]): Promise<void>

  /** @throws `AlreadyExists`, `LimitExceeded` (50 per key), `KeyStateInvalid`. */
  createAlias(name: string, target: KeyEntry): Promise<void>
  /** @throws `KeyNotFound` when there is no such alias; `ValidationFailed` when old and new key differ in kind or usage. */
  updateAlias(name: string, target: KeyEntry, locale: Locale): Promise<void>
  /** @throws `KeyNotFound`. */
  deleteAlias(name: string, locale: Locale): Promise<void>
  findAlias(name: string, locale: Locale): Promise<AliasRecord | undefined>
  listAliases(
    locale: Locale,
    keyId: string | undefined,
    after: string | undefined,
    limit: number,
  ): Promise<{ readonly aliases: readonly AliasRecord[]; readonly more: boolean }>
  /**
   * Makes a grant, or answers the one that an identical request of the same name made.
   * @throws `KeyDisabled`, `KeyStateInvalid`, `ValidationFailed` when it does not fit the key, `LimitExceeded`, `DryRun`.
   */
  createGrant(entry: KeyEntry, request: GrantRequest, options: { readonly dryRun: boolean }): Promise<GrantRecord>
  findGrant(name: KeyName, grantId: string): Promise<GrantRecord | undefined>
  /** In stable order, by ascending grant id; `after` is one. */
  listGrants(
    entry: KeyEntry,
    filter: {
      readonly grantId?: string
      readonly granteePrincipal?: string
      readonly granteeServicePrincipal?: string
    },
    after: string | undefined,
    limit: number,
  ): Promise<{ readonly grants: readonly GrantRecord[]; readonly more: boolean }>
  /** Grants on keys of every account, in the Region of the call, that a principal or service may retire. */
  listRetirableGrants(
    locale: Locale,
    principal: string,
    after: Pick<GrantRecord, 'account' | 'keyId' | 'grantId'> | undefined,
    limit: number,
  ): Promise<{ readonly grants: readonly GrantRecord[]; readonly more: boolean }>
  /** False when it was gone already. Nobody is permitted by it any more when this resolves. */
  deleteGrant(grant: Pick<GrantRecord, keyof KeyName | 'grantId'>): Promise<boolean>
  /** A new token for a grant, another one at every call. */
  encodeGrantToken(grant: GrantRecord): string
  /** What a token names; undefined unless this gateway made it. */
  parseGrantToken(token: string): (KeyName & { readonly grantId: string }) | undefined
  /** Algorithms a key offers, in AWS's order. */
  algorithmsOf(spec: KeySpec, usage: KeyUsage): readonly string[]
}

/** Keys of purpose `xks` (direct-keys.ts): AES-256-GCM with the backing key itself. */
export interface DirectKeys {
  /** Undefined for keys of another purpose too. */
  find(name: KeyName): KeyEntry | undefined | Promise<KeyEntry | undefined>
  /** What the object behind the key permits (`encrypt`, `decrypt`, `sign`, ..), as far as it was known when it was registered. */
  describe(entry: KeyEntry): {
    readonly usages: readonly string[]
    readonly isEnabled: boolean
    /** Number of the backing key that encrypts. */
    readonly currentMaterial: number
  }
  /**
   * With `digestPrefix`, also SHA-256 over it, IV, ciphertext and tag, of a result that was then decrypted and compared.
   * @throws `KeyDisabled`, `KeyStateInvalid` (also when the key has no messages left), `KeyUsageInvalid`.
   */
  encrypt(
    entry: KeyEntry,
    request: {
      readonly plaintext: Uint8Array
      /** Additional data; never empty. */
      readonly context: Uint8Array
      readonly digestPrefix?: Uint8Array
    },
    deadline: Deadline,
  ): Promise<{ readonly iv: Buffer; readonly ciphertext: Buffer; readonly tag: Buffer; readonly digest?: Buffer }>
  /** IVs of 12 or 16 bytes, tags of 16. @throws `CiphertextInvalid`, `KeyDisabled`, `KeyStateInvalid`, `KeyUsageInvalid`. */
  decrypt(
    entry: KeyEntry,
    request: {
      readonly iv: Uint8Array
      readonly ciphertext: Uint8Array
      readonly tag: Uint8Array
      readonly context: Uint8Array
      /** Number of the backing key that encrypted; default: the first. */
      readonly material?: number
    },
    deadline: Deadline,
  ): Promise<Buffer>
}

/** What stands against destroying keys. */
export type Pause =
  | {
      readonly reason: 'clock'
      /** By how much wall time is off. */
      readonly jumpMs: number
    }
  | {
      readonly reason: 'restored-catalog'
      readonly catalogRevision: number
      /** Revision that a signed checkpoint saw. */
      readonly signedRevision: number
    }

/** Whether keys may be destroyed now (destruction-gate.ts). */
export interface DestructionGate {
  /** Wall time in epoch milliseconds, or what it should be where the clock was set back. */
  latest(): number
  /** Wall time, and what stands against destroying what is due at it; persists the reading of a trusted clock. */
  check(): Promise<{ readonly now: number; readonly pauses: readonly Pause[] }>
  /** The pauses that the last check found. */
  pauses(): readonly Pause[]
  /** The operator says that wall time is right, and that the keys which are due in this catalog may go. */
  confirm(): Promise<void>
}

/** What a round of deletions tells. */
export interface DeletionEvents {
  /**
   * The key's objects are gone and its rows follow; called again when a crash comes in between. `orphans`: ids in hex of objects that could not be
   * destroyed, in the token of a custom key store.
   */
  readonly deleted: (entry: KeyEntry, orphans: readonly string[]) => Promise<void>
  /** A key could not be destroyed now; the next round tries again. */
  readonly failed: (name: KeyName, cause: unknown) => void
  /** Once a round, what stands against destroying anything; nothing: destruction goes on. */
  readonly paused: (pauses: readonly Pause[]) => void
}

/** What a round over due keys tells. */
export interface DueEvents {
  /** For the journal, as a service event. May be told again when a crash comes in between. */
  readonly happened: (
    entry: KeyEntry,
    event: 'RotateKey' | 'SynchronizeMultiRegionKey' | 'DeleteExpiredKeyMaterial',
    details: Readonly<Record<string, unknown>>,
  ) => Promise<void>
  /** A key could not be looked after now; the next round tries again. */
  readonly failed: (name: KeyName, cause: unknown) => void
}

/** Signatures of keys of purpose `tls`. */
export interface TlsSigner {
  keyArn(name: KeyName): string
  /** @throws GatewayError `KeyNotFound` for no key, and for one of another purpose. */
  find(name: KeyName): Promise<KeyEntry>
  /** SHA-256 of the DER SubjectPublicKeyInfo. */
  spkiDigest(entry: KeyEntry): Buffer
  /**
   * `input` is the digest, but for Ed25519 the message; ECDSA answers DER. `saltBytes`: of RSASSA_PSS_*, where it is not the length of the digest.
   * @throws GatewayError
   */
  sign(
    entry: KeyEntry,
    algorithm: SignAlgorithm,
    input: Uint8Array,
    deadline: Deadline,
    saltBytes?: number,
  ): Promise<Buffer>
}
