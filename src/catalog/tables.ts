/**
 * The tables as Kysely sees them, and what a row's HMAC covers.
 *
 * Rows hold integers, text and bytes only (booleans are 0 or 1, structures are JSON text), so that every engine gives back exactly
 * what was sealed. `sealedColumns` fixes the order of the columns under the HMAC: adding a column to a sealed table takes a migration
 * that seals its rows again.
 */

interface KeyColumns {
  readonly account: string
  readonly region: string
  readonly key_id: string
}

export interface KeyRow extends KeyColumns {
  readonly spec: string
  readonly usage: string
  readonly origin: string
  readonly purpose: string
  readonly group: string
  readonly custody: string
  readonly state: string
  readonly description: string
  readonly multi_region: number
  readonly created_at: number
  readonly deletion_at: number | null
  readonly current_material: number
  readonly adopted: number
  readonly extra: string
  /** Its materials, policy, tags, grants and TLS bindings, see row-parts.ts. */
  readonly parts: string
  readonly revision: number
  readonly hmac: Uint8Array
}

export interface MaterialRow extends KeyColumns {
  readonly number: number
  readonly state: string
  readonly object_id: Uint8Array
  readonly label: string | null
  readonly construction: string
  readonly material_id: Uint8Array
  readonly public_key: Uint8Array
  readonly wrapped: Uint8Array
  readonly created_at: number
  /** Grows with the revision that inserts rows, and is of one row alone, so that all materials can be paged through. */
  readonly ordinal: number
  readonly revision: number
  readonly hmac: Uint8Array
}

export interface PolicyRow extends KeyColumns {
  readonly name: string
  readonly document: string
  readonly revision: number
  readonly hmac: Uint8Array
}

export interface TagRow extends KeyColumns {
  readonly tag_key: string
  readonly tag_value: string
  readonly revision: number
}

export interface AliasRow {
  readonly account: string
  readonly region: string
  readonly name: string
  readonly key_id: string
  readonly created_at: number
  readonly updated_at: number
  readonly revision: number
}

export interface GrantRow extends KeyColumns {
  readonly grant_id: string
  readonly name: string | null
  readonly grantee: string
  readonly retiring: string | null
  readonly issuing_account: string
  readonly operations: string
  readonly constraints: string | null
  readonly created_at: number
  readonly revision: number
}

export interface TlsBindingRow extends KeyColumns {
  /** Unique within the account. */
  readonly name: string
  readonly token_digest: Uint8Array
  readonly spki_digest: Uint8Array
  /** JSON lists; `users` may be `"any"`. */
  readonly policies: string
  readonly users: string
  readonly relays: string
  readonly rate_per_second: number | null
  readonly concurrency: number | null
  readonly created_at: number
  readonly revision: number
}

export interface KeyTimerRow extends KeyColumns {
  readonly due_at: number
  readonly revision: number
}

export interface LastUsageRow extends KeyColumns {
  readonly operation: string
  readonly event_id: string
  readonly request_id: string
  readonly at: number
  readonly revision: number
}

export interface PrincipalRow {
  readonly account: string
  readonly region: string
  readonly kind: string
  readonly name: string
  readonly principal_id: string
  readonly enabled: number
  readonly created_at: number
  readonly tags: string
  readonly trust_policy: string | null
  /** Its policies and access keys, see row-parts.ts. */
  readonly parts: string
  readonly revision: number
  readonly hmac: Uint8Array
}

export interface PrincipalPolicyRow {
  readonly account: string
  readonly region: string
  readonly kind: string
  readonly principal: string
  readonly name: string
  readonly document: string
  readonly revision: number
  readonly hmac: Uint8Array
}

export interface AccessKeyRow {
  readonly account: string
  readonly region: string
  readonly access_key_id: string
  readonly kind: string
  readonly user: string
  readonly sealed_secret: Uint8Array
  readonly active: number
  readonly created_at: number
  readonly revision: number
  readonly hmac: Uint8Array
}

export interface DocumentRow {
  readonly account: string
  readonly region: string
  readonly collection: string
  readonly name: string
  readonly body: string
  readonly revision: number
  readonly hmac: Uint8Array
}

export interface CustomKeyStoreRow {
  readonly account: string
  readonly region: string
  readonly store_id: string
  readonly name: string
  readonly type: string
  readonly state: string
  readonly error_code: string | null
  readonly settings: string
  readonly sealed_secret: Uint8Array
  readonly secret_version: number
  readonly created_at: number
  readonly revision: number
  readonly hmac: Uint8Array
}

export interface SettingRow {
  readonly account: string
  readonly region: string
  readonly name: string
  readonly value: string
  readonly revision: number
}

export interface CounterRow {
  readonly name: string
  readonly value: number
}

export interface ChangeRow {
  readonly revision: number
  readonly table: string
  readonly name: string
  readonly instance: string
  readonly at: number
}

export interface InstanceRow {
  readonly id: string
  readonly host: string
  readonly pid: number
  readonly started_at: number
  readonly seen_at: number
  /** Grows with every renewal, so that others can tell a renewal without comparing clocks. */
  readonly beat: number
  readonly seen_revision: number
  readonly revision: number
}

export interface LeaseRow {
  readonly name: string
  readonly holder: string
  readonly fence: number
  readonly expires_at: number
  readonly revision: number
}

export interface SealedTables {
  readonly key: KeyRow
  readonly material: MaterialRow
  readonly policy: PolicyRow
  readonly principal: PrincipalRow
  readonly principal_policy: PrincipalPolicyRow
  readonly access_key: AccessKeyRow
  readonly custom_key_store: CustomKeyStoreRow
  readonly document: DocumentRow
}

export interface Tables extends SealedTables {
  readonly tag: TagRow
  readonly grant: GrantRow
  readonly tls_binding: TlsBindingRow
  readonly key_timer: KeyTimerRow
  readonly last_usage: LastUsageRow
  readonly alias: AliasRow
  readonly setting: SettingRow
  readonly counter: CounterRow
  readonly change: ChangeRow
  readonly instance: InstanceRow
  readonly lease: LeaseRow
}

export type SealedTable = keyof SealedTables

/** Rows that are of no Region (identities, settings) carry this one. */
export const everyRegion = '*'

/** Every column but `hmac`, in the order of the canonical encoding. */
export const sealedColumns = {
  key: columnsOf<KeyRow>()(
    'account',
    'region',
    'key_id',
    'spec',
    'usage',
    'origin',
    'purpose',
    'group',
    'custody',
    'state',
    'description',
    'multi_region',
    'created_at',
    'deletion_at',
    'current_material',
    'adopted',
    'extra',
    'parts',
    'revision',
  ),
  material: columnsOf<MaterialRow>()(
    'account',
    'region',
    'key_id',
    'number',
    'state',
    'object_id',
    'label',
    'construction',
    'material_id',
    'public_key',
    'wrapped',
    'created_at',
    'ordinal',
    'revision',
  ),
  policy: columnsOf<PolicyRow>()('account', 'region', 'key_id', 'name', 'document', 'revision'),
  principal: columnsOf<PrincipalRow>()(
    'account',
    'region',
    'kind',
    'name',
    'principal_id',
    'enabled',
    'created_at',
    'tags',
    'trust_policy',
    'parts',
    'revision',
  ),
  principal_policy: columnsOf<PrincipalPolicyRow>()(
    'account',
    'region',
    'kind',
    'principal',
    'name',
    'document',
    'revision',
  ),
  access_key: columnsOf<AccessKeyRow>()(
    'account',
    'region',
    'access_key_id',
    'kind',
    'user',
    'sealed_secret',
    'active',
    'created_at',
    'revision',
  ),
  custom_key_store: columnsOf<CustomKeyStoreRow>()(
    'account',
    'region',
    'store_id',
    'name',
    'type',
    'state',
    'error_code',
    'settings',
    'sealed_secret',
    'secret_version',
    'created_at',
    'revision',
  ),
  document: columnsOf<DocumentRow>()('account', 'region', 'collection', 'name', 'body', 'revision'),
} as const satisfies Record<SealedTable, readonly string[]>

/** Grants have no seal each: their key names the digest of all of them, over these columns, see grant-set.ts. */
export const grantColumns = columnsOf<GrantRow>()(
  'account',
  'region',
  'key_id',
  'grant_id',
  'name',
  'grantee',
  'retiring',
  'issuing_account',
  'operations',
  'constraints',
  'created_at',
  'revision',
)

/** TLS bindings have no seal each either, see binding-set.ts. */
export const tlsBindingColumns = columnsOf<TlsBindingRow>()(
  'account',
  'region',
  'key_id',
  'name',
  'token_digest',
  'spki_digest',
  'policies',
  'users',
  'relays',
  'rate_per_second',
  'concurrency',
  'created_at',
  'revision',
)

/** Refuses, at compile time, a list that forgets a column: a column outside the HMAC could be changed unseen. */
function columnsOf<Row>() {
  return <const Names extends readonly Exclude<keyof Row, 'hmac'>[]>(
    ...names: Exclude<keyof Row, 'hmac' | Names[number]> extends never ? Names : never
  ): readonly Exclude<keyof Row, 'hmac'>[] => names
}

/** Tables whose rows are changed as a unit with the row they belong to. */
export type NamedTable = SealedTable | 'tag' | 'grant'

const rowNames: { readonly [T in NamedTable]: (row: Tables[T]) => string } = {
  key: (row) => `${row.account}/${row.region}/${row.key_id}`,
  material: (row) => `${row.account}/${row.region}/${row.key_id}/${row.number}`,
  policy: (row) => `${row.account}/${row.region}/${row.key_id}/${row.name}`,
  tag: (row) => `${row.account}/${row.region}/${row.key_id}/${row.tag_key}`,
  grant: (row) => `${row.account}/${row.region}/${row.key_id}/${row.grant_id}`,
  principal: (row) => `${row.account}/${row.kind}/${row.name}`,
  principal_policy: (row) => `${row.account}/${row.kind}/${row.principal}/${row.name}`,
  access_key: (row) => row.access_key_id,
  custom_key_store: (row) => `${row.account}/${row.region}/${row.store_id}`,
  document: (row) => `${row.collection}/${row.name}`,
}

/** The name of a row in the change table and in messages to the operator. */
export function nameOfRow<T extends NamedTable>(table: T, row: Tables[T]): string {
  return rowNames[table](row)
}
