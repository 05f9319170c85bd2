/**
 * Opens the catalog: database, migrations, this gateway's place among others, caches, and the parts that do the work.
 *
 * All methods may be called at any time from anywhere in the gateway; writes queue up, reads never wait for them.
 */
import type { GatewayError } from '../error.ts'
import { openAccessKeys } from './access-keys.ts'
import { openAliases } from './aliases.ts'
import { openTlsBindings } from './bindings.ts'
import { createCache } from './cache.ts'
import type { Catalog, RowSeal } from './catalog.ts'
import { openCustomKeyStores } from './custom-key-stores.ts'
import { catalogUnavailable, type Database } from './database.ts'
import { openDocuments } from './documents.ts'
import { openGrants } from './grants.ts'
import { openInstance } from './instance.ts'
import { openKeyRevisions } from './key-revisions.ts'
import { openKeys } from './keys.ts'
import { guardByLease, openLeases } from './leases.ts'
import { migrate } from './migrate.ts'
import type { Caches, Ports } from './ports.ts'
import type { PostgresAddress } from './postgres-connections.ts'
import { openPostgresDatabase } from './postgres-database.ts'
import { nameOfPrincipal } from './principal-store.ts'
import { openPrincipals } from './principals.ts'
import { openRelatedKeys } from './related-keys.ts'
import { openSettings } from './settings.ts'
import { openSqliteDatabase } from './sqlite-database.ts'
import { type Change, createWriteQueue } from './write-queue.ts'

export type CatalogOptions = CommonOptions & (SqliteCatalog | PostgresCatalog)

export interface SqliteCatalog {
  readonly kind: 'sqlite'
  /** Created with mode 0600; its folder must exist and be on a local disk. */
  readonly file: string
}

export interface PostgresCatalog {
  readonly kind: 'postgresql'
  /** `connections`: of this gateway at most; 6 unless told, at least 3. */
  readonly postgresql: PostgresAddress & { readonly connections?: number }
}

interface CommonOptions {
  /** How often the changes of other gateways are read, at most 250; undefined when no other gateway shares the catalog. On a server 50 unless told. */
  readonly pollMs?: number
  /** Entries in each cache; 10,000 unless told. */
  readonly cacheEntries?: number
  /** First part of the ARNs in messages; `aws` unless told. */
  readonly partition?: string
  /** Wall clock, epoch milliseconds. */
  readonly now?: () => number
  /** Problems that no caller is told: rows left out of a list because their seal is wrong, heartbeats that failed. */
  readonly report?: (error: GatewayError) => void
  /** A server that was away is back. */
  readonly restored?: (awayMs: number) => void
}

type Listener = Parameters<Catalog['onChange']>[0]

/** Of the heartbeat: a gateway that can't have its answer within the lease is not to use what it has cached. */
const pulseTimeoutMs = 1_000
const defaultPollMs = 50
const defaultConnections = 6
/** One for the heartbeat, one for writing. */
const connectionsBesidesReaders = 2

/** @throws GatewayError `CatalogUnavailable`, whose detail names the remedy. */
export async function openCatalog(options: CatalogOptions): Promise<Catalog> {
  const pollMs = options.kind === 'sqlite' ? options.pollMs : (options.pollMs ?? defaultPollMs)
  if (pollMs !== undefined && !(pollMs >= 1 && pollMs <= 250)) throw new TypeError('pollMs is from 1 to 250')
  const database = await openDatabase(options)
  let pulse = database
  try {
    await migrate(database, (options.now ?? Date.now)())
    if (options.kind === 'postgresql') {
      pulse = await openPostgresDatabase({ ...options.postgresql, readers: 0, queryTimeoutMs: pulseTimeoutMs })
    }
    return await openParts(database, pulse, pollMs, options)
  } catch (error) {
    await database[Symbol.asyncDispose]()
    if (pulse !== database) await pulse[Symbol.asyncDispose]()
    throw error
  }
}

async function openDatabase(options: CatalogOptions): Promise<Database> {
  if (options.kind === 'sqlite') return await openSqliteDatabase(options.file)
  const { connections = defaultConnections } = options.postgresql
  return await openPostgresDatabase({ ...options.postgresql, readers: connections - connectionsBesidesReaders })
}

async function openParts(
  database: Database,
  pulse: Database,
  pollMs: number | undefined,
  options: CommonOptions,
): Promise<Catalog> {
  const { now = Date.now, report = () => {}, restored = () => {}, cacheEntries = 10_000, partition = 'aws' } = options
  const caches = createCaches(cacheEntries)
  const listeners: Listener[] = []
  let seal: RowSeal | undefined

  const tell = (changes: readonly Change[], revision: number, own: boolean) => {
    for (const { table, name } of changes) for (const listener of listeners) listener({ table, name, revision, own })
  }
  const instance = await openInstance({
    database,
    pulse,
    now,
    pollMs,
    report,
    restored,
    othersChanged(changes) {
      for (const change of changes) dropChanged(caches, change)
      for (const change of changes) tell([change], change.revision, false)
    },
    anythingChanged() {
      clear(caches)
      tell([{ table: '*', name: '*' }], 0, false)
    },
  })
  const queue = createWriteQueue({
    database,
    instance: instance.id,
    now,
    changed(changes, revision, keep) {
      for (const change of changes) dropChanged(caches, change)
      keep()
      tell(changes, revision, true)
    },
    acknowledged: instance.acknowledged,
  })
  const ports: Ports = {
    database,
    queue,
    caches,
    seal() {
      if (!seal) throw catalogUnavailable('the key of the row seals is not open yet')
      return seal
    },
    hasSeal: () => seal !== undefined,
    isCurrent: instance.isCurrent,
    whenCurrent: instance.whenCurrent,
    isNewest: instance.isNewest,
    isGone: instance.isGone,
    guard: (lease) => guardByLease(database.sql, instance.id, lease),
    now,
    report,
    partition,
  }
  let closing: Promise<void> | undefined
  const close = async () => {
    await instance[Symbol.asyncDispose]()
    await database[Symbol.asyncDispose]()
    if (pulse !== database) await pulse[Symbol.asyncDispose]()
  }
  return {
    useSeal(next) {
      seal = next
      clear(caches)
    },
    ...openKeys(ports),
    ...openKeyRevisions(ports),
    ...openRelatedKeys(ports),
    ...openGrants(ports),
    ...openTlsBindings(ports),
    ...openAliases(ports),
    ...openPrincipals(ports),
    ...openAccessKeys(ports),
    ...openSettings(ports),
    ...openCustomKeyStores(ports),
    ...openDocuments(ports),
    ...openLeases(database, queue, instance, now),
    isShared: pollMs !== undefined,
    isCurrent: instance.isCurrent,
    whenCurrent: instance.whenCurrent,
    revision: queue.revision,
    onChange(listener) {
      listeners.push(listener)
    },
    [Symbol.asyncDispose]() {
      closing ??= close()
      return closing
    },
  }
}

function createCaches(capacity: number): Caches {
  return {
    keys: createCache(capacity),
    aliases: createCache(capacity),
    grants: createCache(capacity * grantsPerCacheEntry, ({ grants }) => 1 + grants.length),
    principals: createCache(capacity),
    credentials: createCache(capacity),
  }
}

/** Keys with tens of thousands of grants are few; four of the largest fit into the cache. */
const grantsPerCacheEntry = 20

function clear(caches: Caches): void {
  for (const cache of Object.values(caches)) cache.clear()
}

/** Names in the change table begin with the name that the row's cache entry has. */
function dropChanged(caches: Caches, { table, name }: Change): void {
  const first = (parts: number) => name.split('/', parts).join('/')
  switch (table) {
    case 'key':
    case 'material':
    case 'policy':
    case 'tag':
      caches.keys.drop(first(3))
      break
    case 'grant':
      caches.grants.drop(first(3))
      break
    case 'alias':
      caches.aliases.drop(name)
      break
    case 'principal':
      caches.principals.drop(name)
      caches.credentials.dropWhere(({ principal }) => nameOfPrincipal(principal) === name)
      break
    case 'access_key':
      caches.credentials.drop(name)
      break
    // a changed policy or access key changes the row of its principal too
  }
}
