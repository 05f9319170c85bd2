/** What the parts of the catalog share. One value per open catalog. */
import type { GatewayError } from '../error.ts'
import type { Cache } from './cache.ts'
import type {
  AliasRecord,
  CredentialEntry,
  KeyEntry,
  PrincipalPolicyRecord,
  PrincipalRecord,
  RowSeal,
} from './catalog.ts'
import type { Database } from './database.ts'
import type { WriteQueue } from './write-queue.ts'

/** Entries are named like their rows in the change table; policies by their principal. */
export interface Caches {
  readonly keys: Cache<KeyEntry>
  readonly aliases: Cache<AliasRecord>
  readonly credentials: Cache<CredentialEntry>
  readonly principals: Cache<PrincipalRecord>
  readonly principalPolicies: Cache<readonly PrincipalPolicyRecord[]>
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
  readonly now: () => number
  /** Rows left out of a list because their seal is wrong. */
  readonly report: (error: GatewayError) => void
  readonly partition: string
}
