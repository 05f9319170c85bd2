/** What the parts of the catalog share. One value per open catalog. */
import type { GatewayError } from '../error.ts'
import type { Cache } from './cache.ts'
import type {
  AccessKeyRecord,
  AliasRecord,
  CredentialEntry,
  HeldLease,
  KeyEntry,
  PrincipalPolicyRecord,
  PrincipalRecord,
  RowSeal,
} from './catalog.ts'
import type { Database, Statement } from './database.ts'
import type { GrantSet } from './grant-set.ts'
import type { WriteQueue } from './write-queue.ts'

/** A principal with all that says what it may do, verified together. */
export interface PrincipalEntry {
  readonly principal: PrincipalRecord
  readonly policies: readonly PrincipalPolicyRecord[]
  readonly accessKeys: readonly AccessKeyRecord[]
}

/** Entries are named like their first row in the change table; credentials by the id of their access key. */
export interface Caches {
  readonly keys: Cache<KeyEntry>
  readonly aliases: Cache<AliasRecord>
  /** By key; a set serves only the key whose digest it has. */
  readonly grants: Cache<GrantSet>
  readonly principals: Cache<PrincipalEntry>
  readonly credentials: Cache<CredentialEntry>
}

export interface Ports {
  readonly database: Database
  readonly queue: WriteQueue
  readonly caches: Caches
  /** @throws GatewayError `CatalogUnavailable` before the seal is installed. */
  readonly seal: () => RowSeal
  readonly hasSeal: () => boolean
  /** Whether the caches may be used: this gateway has read the others' changes lately enough. */
  readonly isCurrent: () => boolean
  /** Reads the others' changes where that is due. @throws GatewayError `CatalogUnavailable` */
  readonly whenCurrent: () => Promise<void>
  /** Keeps nothing that is older than what other gateways are known to have changed. */
  readonly isNewest: (revision: number) => boolean
  /** Whether no other gateway runs under this name of the change table (any more); takes its time to look. */
  readonly isGone: (instance: string) => Promise<boolean>
  /** Makes a write depend on a lease that is still held. */
  readonly guard: (lease: HeldLease) => Statement
  readonly now: () => number
  /** Rows left out of a list because their seal is wrong. */
  readonly report: (error: GatewayError) => void
  readonly partition: string
}
