/**
 * The face of the catalog: durable metadata about keys, principals and their policies. No key material, no secret in clear.
 *
 * Every write is one transaction that gives the touched rows a new revision and adds rows to the change table; it resolves when it is
 * on disk and every cache follows it. Rows that decide security carry an HMAC made in the module, and a key and a principal name
 * their parts under it; a row whose HMAC is wrong is never returned: GatewayError `IntegrityFailed`, and the row's name goes to the
 * operator (lists of more than one key or principal leave it out). Reads are cached and served from memory when warm; returned
 * records are frozen. When the database fails, every method may reject with `CatalogUnavailable`.
 */
import type { Construction, KeySpec, KeyUsage, Purpose } from '../hsm/port.ts'

export type KeyState =
  | 'Creating'
  | 'Enabled'
  | 'Disabled'
  | 'PendingImport'
  | 'PendingDeletion'
  | 'PendingReplicaDeletion'
  | 'Unavailable'
  | 'Updating'

export interface KeyName {
  readonly account: string
  readonly region: string
  /** UUID, or `mrk-` and 32 hex. System keys live in account `system`, Region `system`. */
  readonly keyId: string
}

export interface KeyRecord extends KeyName {
  readonly spec: KeySpec
  readonly usage: KeyUsage
  readonly origin: 'AWS_KMS' | 'EXTERNAL' | 'AWS_CLOUDHSM' | 'EXTERNAL_KEY_STORE'
  readonly purpose: Purpose
  /** Name of the HSM group that serves it. */
  readonly group: string
  readonly custody: 'token' | 'wrapped'
  readonly state: KeyState
  readonly description: string
  readonly multiRegion: boolean
  /** Epoch milliseconds. */
  readonly createdAt: number
  readonly deletionAt: number | null
  /** Number of the backing key that encrypts and signs now; 0 while there is none. */
  readonly currentMaterial: number
  /** True for objects that were in the token before us. */
  readonly adopted: boolean
  /** Open place for later columns of the API (custom key store id, replicas, rotation, expiry); validated by its owner. */
  readonly extra: Readonly<Record<string, unknown>>
  /** Of every multi-Region key; changed by {@link Catalog.changeRelatedKeys} alone. */
  readonly related?: RelatedRegions
  readonly revision: number
}

/**
 * Multi-Region keys of one id: one in every Region, with materials that name the same objects. All of them hold the same value under
 * their seals.
 */
export interface RelatedRegions {
  /** Region of the primary key; the others are its replicas. */
  readonly primary: string
  /** Regions of all of them, in ascending order. */
  readonly regions: readonly string[]
  /** The Region that is becoming the primary one. */
  readonly nextPrimary?: string
  /** State `PendingReplicaDeletion` of the primary: days between the end of the last replica and its own. */
  readonly pendingWindowDays?: number
}

/** One backing key: the HSM object (or wrapped blob) behind one version of a key. */
export interface MaterialRecord extends KeyName {
  /** 1, 2, ... */
  readonly number: number
  /**
   * `Creating` until the object was read back and tested; only such an object may be destroyed by settlement. `Pending`: imported, waits for
   * a rotation. `Missing`: imported, then deleted or expired; the same material may be imported again.
   */
  readonly state: 'Creating' | 'Current' | 'NonCurrent' | 'Pending' | 'Missing' | 'Destroying' | 'Destroyed'
  /** CKA_ID. */
  readonly objectId: Buffer
  /** CKA_LABEL where the id alone does not name the object (adopted ones). */
  readonly label: string | null
  readonly construction: Construction
  /** 32 bytes; zero-length until known. */
  readonly materialId: Buffer
  /** DER SubjectPublicKeyInfo, empty for secret keys. */
  readonly publicKey: Buffer
  /** Custody `wrapped`: the blob under the domain key; else empty. */
  readonly wrapped: Buffer
  readonly createdAt: number
  readonly revision: number
}

/** Where a material's object is said to be; not under a seal check, so good for reports only. */
export interface KnownObject
  extends KeyName,
    Pick<MaterialRecord, 'objectId' | 'label' | 'state'>,
    Pick<KeyRecord, 'group' | 'spec' | 'custody'> {
  /** Place in the paging. */
  readonly row: number
}

/** Everything that one cryptographic call needs, loaded and verified together. */
export interface KeyEntry {
  readonly key: KeyRecord
  readonly materials: readonly MaterialRecord[]
  /** The key policy `default`; purpose `system` has none. */
  readonly policy: { readonly document: string; readonly revision: number } | null
  readonly tags: Readonly<Record<string, string>>
  /** Digest of the key's grants; null when it has none. The grants themselves are {@link Catalog.findGrants}. */
  readonly grants: string | null
}

/** A grant on a key; never changed, only made and deleted. */
export interface GrantRecord extends KeyName {
  /** 64 hex. */
  readonly grantId: string
  readonly keyArn: string
  /** Empty when it has none. */
  readonly name: string
  /** An ARN; exactly one of this and `granteeServicePrincipal` is there. */
  readonly granteePrincipal?: string
  readonly granteeServicePrincipal?: string
  /** At most one of this and `retiringServicePrincipal` is there. */
  readonly retiringPrincipal?: string
  readonly retiringServicePrincipal?: string
  /** The account in which it was made. */
  readonly issuingAccount: string
  readonly operations: readonly string[]
  readonly constraints?: {
    readonly encryptionContextEquals?: Readonly<Record<string, string>>
    readonly encryptionContextSubset?: Readonly<Record<string, string>>
    readonly sourceArn?: string
  }
  /** Epoch milliseconds. */
  readonly createdAt: number
}

export type NewGrant = Omit<GrantRecord, 'keyArn'>

/** A capability token for the TLS signing socket, and what it permits; never changed, only made and deleted. */
export interface TlsBindingRecord extends KeyName {
  /** Unique within the account. */
  readonly name: string
  /** SHA-256 of the token. */
  readonly tokenDigest: Buffer
  /** SHA-256 of the DER SubjectPublicKeyInfo of the key. */
  readonly spkiDigest: Buffer
  readonly policies: readonly string[]
  /** User ids, or anybody. */
  readonly users: readonly number[] | 'any'
  /** Lower-case hex SHA-256 of SubjectPublicKeyInfo. */
  readonly relays: readonly string[]
  readonly ratePerSecond: number | null
  readonly concurrency: number | null
  /** Epoch milliseconds. */
  readonly createdAt: number
  readonly revision: number
}

export interface AliasRecord {
  readonly account: string
  readonly region: string
  /** With the `alias/` prefix. */
  readonly name: string
  readonly keyId: string
  readonly createdAt: number
  readonly updatedAt: number
}

export interface PrincipalRecord {
  readonly account: string
  readonly kind: 'user' | 'role'
  readonly name: string
  /** `AIDA...` or `AROA...`. */
  readonly principalId: string
  readonly enabled: boolean
  readonly createdAt: number
  readonly tags: Readonly<Record<string, string>>
  /** Role trust policy; null for users. */
  readonly trustPolicy: string | null
  readonly revision: number
}

export interface PrincipalPolicyRecord {
  readonly account: string
  readonly kind: 'user' | 'role'
  readonly principal: string
  readonly name: string
  readonly document: string
  readonly revision: number
}

export interface AccessKeyRecord {
  /** `AKIA` and 16 characters of base32. */
  readonly accessKeyId: string
  readonly account: string
  readonly user: string
  /** The secret access key, sealed under the system key `access-key-sealing`. */
  readonly sealedSecret: Buffer
  readonly active: boolean
  readonly createdAt: number
  readonly revision: number
}

/** What authentication needs to know about one access key. */
export interface CredentialEntry {
  readonly accessKey: AccessKeyRecord
  readonly principal: PrincipalRecord
}

/**
 * A custom key store: a further token, or the proxy of an external key manager. What `settings` says of it is its owner's (src/stores),
 * who validated it.
 */
export interface CustomKeyStoreRecord {
  readonly account: string
  readonly region: string
  /** `cks-` and 17 hex; of one store in the whole catalog. */
  readonly storeId: string
  /** Unique in account and Region, as the reviews of its owner see to. */
  readonly name: string
  readonly type: 'AWS_CLOUDHSM' | 'EXTERNAL_KEY_STORE'
  readonly state: 'DISCONNECTED' | 'CONNECTING' | 'CONNECTED' | 'FAILED' | 'DISCONNECTING'
  /** Why the last connection failed; null but in state `FAILED`. */
  readonly errorCode: string | null
  readonly settings: Readonly<Record<string, unknown>>
  /** The password or the secret of the proxy's credential, sealed under the system key `secret-sealing`. */
  readonly sealedSecret: Buffer
  /** Grows with every new secret. */
  readonly secretVersion: number
  /** Epoch milliseconds. */
  readonly createdAt: number
  readonly revision: number
}

export type CustomKeyStoreName = Pick<CustomKeyStoreRecord, 'account' | 'region' | 'storeId'>
export type CustomKeyStoreChanges = Partial<
  Pick<CustomKeyStoreRecord, 'name' | 'state' | 'errorCode' | 'settings' | 'sealedSecret' | 'secretVersion'>
>

export type NewMaterial = Omit<MaterialRecord, 'revision' | keyof KeyName>

export interface NewKey {
  readonly key: Omit<KeyRecord, 'revision'>
  readonly material: NewMaterial
  readonly policy: string | null
  readonly tags: Readonly<Record<string, string>>
}

/** Patch of a key. Writers of one gateway are serialised; the last one wins. */
export type KeyChanges = Partial<
  Pick<KeyRecord, 'state' | 'description' | 'deletionAt' | 'currentMaterial' | 'extra' | 'multiRegion'>
>

/** Sees the key as a write finds it and throws to refuse the write; may be called again when another gateway was faster. */
export type KeyReview = (found: KeyEntry) => void

/** What one write does to a key and its materials. */
export interface KeyRevision {
  readonly key?: KeyChanges
  /** By number. */
  readonly materials?: Readonly<
    Record<number, Partial<Pick<MaterialRecord, 'state' | 'objectId' | 'materialId' | 'publicKey' | 'construction'>>>
  >
  readonly add?: NewMaterial
  /** Number of a material whose row goes; its object must be gone, or never have been. */
  readonly remove?: number
  /** When this key should be looked at next (epoch milliseconds); null: not at all. A hint for {@link Catalog.dueKeys}, under no seal. */
  readonly dueAt?: number | null
}

/** A multi-Region key for another Region: everything else is the primary's, and it is `Creating`. */
export interface NewReplica {
  readonly region: string
  readonly description: string
  readonly policy: string
  readonly tags: Readonly<Record<string, string>>
  /** Epoch milliseconds. */
  readonly createdAt: number
}

/** What one write does to the multi-Region keys of one id. */
export interface RelatedRevision {
  /** By Region. */
  readonly keys?: Readonly<Record<string, KeyChanges>>
  /** By Region: for keys that have materials of their own. */
  readonly revisions?: Readonly<Record<string, KeyRevision>>
  /** Replaces what they hold in common, but for the list of Regions, which follows from the rest. */
  readonly related?: Omit<RelatedRegions, 'regions'>
  readonly add?: NewReplica
  /** Region of a key that goes with its policy, tags, grants and aliases. */
  readonly remove?: string
}

/** The last successful cryptographic use of a key; informs, decides nothing. */
export interface KeyUsageRecord extends KeyName {
  readonly operation: string
  /** Epoch milliseconds. */
  readonly at: number
  /** Of its audit record. */
  readonly eventId: string
  readonly requestId: string
}

/** A lease as {@link Catalog.takeLease} gave it. */
export interface HeldLease {
  readonly name: string
  readonly fence: number
}

/** Computes the HMAC of rows inside the module. */
export interface RowSeal {
  /** 32 bytes over `bytes`. */
  compute(bytes: Uint8Array): Promise<Uint8Array>
}

export interface Catalog extends AsyncDisposable {
  /** Installs the seal; before it, system keys can be begun and read (unverified), and nothing else that is sealed. */
  useSeal(seal: RowSeal): void
  /** System key entry without HMAC verification, to find the catalog HMAC key itself; its caller verifies it by `verifyEntry`. */
  findUnverified(name: KeyName): Promise<KeyEntry | undefined>
  verifyEntry(entry: KeyEntry): Promise<void>

  findKey(name: KeyName): Promise<KeyEntry | undefined>
  /** The cached entry when it is warm and current, else undefined: lets the hot path stay synchronous. */
  peekKey(name: KeyName): KeyEntry | undefined
  /** Key ids in stable order after `after`, without keys in state `Creating`. */
  listKeys(
    account: string,
    region: string,
    after: string | undefined,
    limit: number,
    purposes?: readonly Purpose[],
  ): Promise<readonly string[]>
  /** Keys in any state. */
  countKeys(account: string, region: string): Promise<number>
  /** Inserts key, first material, policy and tags; key and material are `Creating`. Must be durable before the object is generated. */
  beginKey(key: NewKey): Promise<KeyEntry>
  /** Adds a material in state `Creating` to an existing key (rotation, import). */
  beginMaterial(name: KeyName, material: Omit<MaterialRecord, 'revision' | keyof KeyName>): Promise<KeyEntry>
  /** The object exists and was tested: records its public key and material id, makes it current and the key `state`. */
  finishMaterial(
    name: KeyName,
    number: number,
    result: {
      readonly materialId: Uint8Array
      readonly publicKey: Uint8Array
      readonly construction: Construction
      readonly state: KeyState
    },
  ): Promise<KeyEntry>
  /** Removes a material that was never acknowledged, and the key when it was its first. */
  abandonMaterial(name: KeyName, number: number): Promise<void>
  updateMaterial(
    name: KeyName,
    number: number,
    changes: { readonly state: MaterialRecord['state'] },
    review?: KeyReview,
    /** `CatalogUnavailable` when another gateway has taken it. */
    lease?: HeldLease,
  ): Promise<KeyEntry>
  /** Registers a key in one step: an adopted one, or one whose material is still to be imported. */
  insertKey(key: Omit<NewKey, 'material'> & { readonly material: NewMaterial | null }): Promise<KeyEntry>
  updateKey(name: KeyName, changes: KeyChanges, review?: KeyReview): Promise<KeyEntry>
  /**
   * Changes a key as `review` says, which sees it as the write finds it, answers undefined to change nothing, may throw to refuse, and may
   * be called again when another gateway was faster.
   */
  reviseKey(name: KeyName, review: (entry: KeyEntry) => KeyRevision | undefined): Promise<KeyEntry>
  /**
   * The keys that share a key's id, itself included, in ascending order of Regions; empty when there is no such key.
   * @throws GatewayError `IntegrityFailed` also when one of the Regions that they name has no key.
   */
  findRelatedKeys(name: KeyName): Promise<readonly KeyEntry[]>
  /**
   * Changes the multi-Region keys of one id in one transaction; `review` as in {@link Catalog.reviseKey}, in ascending order of Regions.
   * Answers those that are there afterwards. Changes of the primary's materials need no call: its replicas follow in the same write,
   * unless their material is imported into each of them.
   */
  changeRelatedKeys(
    name: KeyName,
    review: (entries: readonly KeyEntry[]) => RelatedRevision | undefined,
  ): Promise<readonly KeyEntry[]>
  /** Multi-Region keys whose replication or change of roles was begun and not finished: states `Creating` and `Updating`. */
  unfinishedRelatedKeys(): Promise<readonly KeyName[]>
  /** Whether a material of another key, or another material of this one, names the same object and does not say that it is gone. */
  isObjectShared(material: MaterialRecord): Promise<boolean>
  /** Keys whose `dueAt` is at most `before`, the earliest first. */
  dueKeys(before: number, limit: number): Promise<readonly KeyName[]>
  /** One transaction; an older use than the one known changes nothing. No change is told. */
  putUsages(usages: readonly KeyUsageRecord[]): Promise<void>
  findUsage(name: KeyName): Promise<KeyUsageRecord | undefined>
  putKeyPolicy(name: KeyName, document: string): Promise<KeyEntry>
  setTags(name: KeyName, put: Readonly<Record<string, string>>, remove: readonly string[]): Promise<KeyEntry>
  /** Removes key, materials, policy, tags, grants and aliases; related keys are not told, see {@link Catalog.changeRelatedKeys}. */
  removeKey(name: KeyName): Promise<void>
  /**
   * Every material in state `Creating` or `Destroying`, for settlement at start; without damaged ones, without those of system
   * keys that were begun before the seal, which nobody can vouch for, and without those that another running gateway is making.
   */
  unsettledMaterials(): Promise<readonly MaterialRecord[]>
  /** Keys in state `PendingDeletion` whose `deletionAt` is at most `before`. */
  dueDeletions(before: number): Promise<readonly KeyName[]>
  /** The object of every material that we know, in pages, unverified: to tell our objects from unknown ones. */
  objectIds(after: number | undefined, limit: number): Promise<readonly KnownObject[]>

  /**
   * The grants of a key by ascending id, the same frozen list as long as nothing changed; none where there is no such key.
   * Loaded on demand and cached apart from the keys.
   */
  findGrants(name: KeyName): Promise<readonly GrantRecord[]>
  /** The same when it is warm and current, else undefined. */
  peekGrants(name: KeyName): readonly GrantRecord[] | undefined
  /**
   * Adds a grant unless `review` answers one of those that are there, which is then the result. `review` sees the grants as the write
   * finds them, may throw to refuse, and may be called again when another gateway was faster.
   */
  createGrant(
    grant: NewGrant,
    review: (existing: readonly GrantRecord[]) => GrantRecord | undefined,
  ): Promise<GrantRecord>
  findGrant(name: KeyName, grantId: string): Promise<GrantRecord | undefined>
  /** False when there is no such grant. */
  deleteGrant(name: KeyName, grantId: string): Promise<boolean>
  /**
   * Grants of a Region, on keys of all accounts, whose retiring principal (or service) is `principal`, in stable order after `after`;
   * without those of damaged keys.
   */
  listRetirableGrants(
    region: string,
    principal: string,
    after: Pick<GrantRecord, 'account' | 'keyId' | 'grantId'> | undefined,
    limit: number,
  ): Promise<readonly GrantRecord[]>

  /**
   * `review` sees the bindings that the key has and throws to refuse; it may be called again when another gateway was faster.
   * @throws GatewayError `KeyNotFound`; `AlreadyExists` when the account has a binding of that name.
   */
  createTlsBinding(
    binding: Omit<TlsBindingRecord, 'revision'>,
    review?: (existing: readonly TlsBindingRecord[]) => void,
  ): Promise<TlsBindingRecord>
  /** @throws GatewayError `IntegrityFailed` when any binding of the same key was changed from outside. */
  findTlsBinding(account: string, name: string): Promise<TlsBindingRecord | undefined>
  /** In stable order; without those of damaged keys. */
  listTlsBindings(account: string | undefined): Promise<readonly TlsBindingRecord[]>
  /** False when there is no such binding. @throws GatewayError `IntegrityFailed` */
  deleteTlsBinding(account: string, name: string): Promise<boolean>

  findAlias(account: string, region: string, name: string): Promise<AliasRecord | undefined>
  listAliases(
    account: string,
    region: string,
    keyId: string | undefined,
    after: string | undefined,
    limit: number,
    purposes?: readonly Purpose[],
  ): Promise<readonly AliasRecord[]>
  createAlias(alias: AliasRecord): Promise<void>
  updateAlias(account: string, region: string, name: string, keyId: string, at: number): Promise<void>
  deleteAlias(account: string, region: string, name: string): Promise<boolean>

  findCredential(accessKeyId: string): Promise<CredentialEntry | undefined>
  findPrincipal(account: string, kind: 'user' | 'role', name: string): Promise<PrincipalRecord | undefined>
  listPrincipals(account: string | undefined): Promise<readonly PrincipalRecord[]>
  createPrincipal(principal: Omit<PrincipalRecord, 'revision'>): Promise<PrincipalRecord>
  setPrincipalEnabled(account: string, kind: 'user' | 'role', name: string, enabled: boolean): Promise<void>
  putTrustPolicy(account: string, role: string, document: string): Promise<void>
  /** Removes the principal with its policies and access keys. */
  deletePrincipal(account: string, kind: 'user' | 'role', name: string): Promise<void>
  putPrincipalPolicy(policy: Omit<PrincipalPolicyRecord, 'revision'>): Promise<void>
  deletePrincipalPolicy(account: string, kind: 'user' | 'role', principal: string, name: string): Promise<void>
  principalPolicies(
    account: string,
    kind: 'user' | 'role',
    principal: string,
  ): Promise<readonly PrincipalPolicyRecord[]>
  createAccessKey(accessKey: Omit<AccessKeyRecord, 'revision'>): Promise<AccessKeyRecord>
  listAccessKeys(account: string, user: string | undefined): Promise<readonly AccessKeyRecord[]>
  /** All active access keys, for unsealing at start. */
  activeAccessKeys(): Promise<readonly AccessKeyRecord[]>
  setAccessKeyActive(accessKeyId: string, active: boolean): Promise<void>
  deleteAccessKey(accessKeyId: string): Promise<void>

  /** A sealed document of a door; its owner validates the body. Changes are told as table `document`, name `<collection>/<name>`. */
  findDocument(collection: string, name: string): Promise<string | undefined>
  /** By ascending name, without damaged ones. */
  listDocuments(collection: string): Promise<readonly { readonly name: string; readonly body: string }[]>
  /**
   * Changes a document as `review` says, which sees it as the write finds it: a new body, null to delete it, undefined to leave it. It may
   * throw to refuse, and be called again when another gateway was faster. Answers what is there afterwards.
   */
  changeDocument(
    collection: string,
    name: string,
    review: (found: string | undefined) => string | null | undefined,
  ): Promise<string | undefined>

  /** Custom key stores of all accounts and Regions, by account, Region and id; without damaged ones. */
  listCustomKeyStores(): Promise<readonly CustomKeyStoreRecord[]>
  /** `review` sees all stores as the write finds them and throws to refuse; it may be called again when another gateway was faster. */
  createCustomKeyStore(
    store: Omit<CustomKeyStoreRecord, 'revision'>,
    review: (existing: readonly CustomKeyStoreRecord[]) => void,
  ): Promise<CustomKeyStoreRecord>
  /**
   * Changes or removes a store as `review` says, which sees it and the others as the write finds them, answers undefined to change nothing and
   * may throw to refuse. The result is the store as it is afterwards; undefined when there is none (any more).
   */
  changeCustomKeyStore(
    name: CustomKeyStoreName,
    review: (
      found: CustomKeyStoreRecord | undefined,
      others: readonly CustomKeyStoreRecord[],
    ) => CustomKeyStoreChanges | 'remove' | undefined,
  ): Promise<CustomKeyStoreRecord | undefined>
  /** Keys of an account and Region that live in custom key stores, with what their rows say of it; unverified. */
  listKeysInCustomStores(
    account: string,
    region: string,
  ): Promise<readonly (KeyName & Pick<KeyRecord, 'extra' | 'state'>)[]>

  getSetting(name: string): Promise<string | undefined>
  putSetting(name: string, value: string): Promise<void>
  /** Takes or renews a named lease for this instance; the fencing number grows with every change of holder. Undefined: someone else holds it. */
  takeLease(name: string, durationMs: number): Promise<number | undefined>
  /** Others may take it at once. */
  releaseLease(lease: HeldLease): Promise<void>
  /** Whether other gateways may be at work on this catalog. */
  readonly isShared: boolean
  /**
   * Whether what is known in memory may be used: this gateway has read the others' changes lately enough. Whoever keeps anything of the catalog in
   * memory asks here, or asks a method that does.
   */
  isCurrent(): boolean
  /** Reads the others' changes where that is due. @throws GatewayError `CatalogUnavailable` */
  whenCurrent(): Promise<void>
  /** Highest revision; goes into audit checkpoints. */
  revision(): Promise<number>
  /**
   * Tells about every change of keys, TLS bindings, principals, policies and access keys made through any instance, after it is durable and the
   * catalog's own caches follow it; `own`: through this one. Table and name `*`: this instance fell behind, or the database was away, and anything may have
   * changed. Listeners must not throw.
   */
  onChange(
    listener: (change: {
      readonly table: string
      readonly name: string
      readonly revision: number
      readonly own: boolean
    }) => void,
  ): void
}
