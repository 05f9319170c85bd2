/**
 * The stores as calls see them: found by URI prefix, with credentials unsealed, keys by external id and what is blocked, all from memory. The
 * catalog is the truth; every change of it, from this gateway or another, loads the store anew. Secrets are wiped when they go.
 *
 * A store that can't be loaded after a change serves nobody until it can: what it forbids now is not known. For the same reason calls wait while
 * what another gateway changed is being read; what this one changed is read before its operator has an answer.
 */
import type { Credential, SigV4Verifier } from '../../authenticate/authenticate.ts'
import type { IdentityPolicy } from '../../authorize/authorize.ts'
import type { Principal } from '../../call.ts'
import type { Catalog, KeyName } from '../../catalog/catalog.ts'
import { createReadings, type Unread } from '../../unread.ts'
import {
  type KeyDocument,
  keyCollection,
  nameOfKeyDocument,
  parseKey,
  parseStore,
  type StoreDocument,
  sealContext,
  storeCollection,
} from './store-documents.ts'
import { createTokenBucket, type TokenBucket } from './token-bucket.ts'

export interface StoreKey {
  readonly externalKeyId: string
  readonly key: KeyName
  readonly isBlocked: boolean
}

export interface Store extends Omit<StoreDocument, 'credentials'> {
  readonly name: string
  readonly verifier: SigV4Verifier
  readonly bucket: TokenBucket | undefined
  readonly keys: ReadonlyMap<string, StoreKey>
  /** What the catalog says now could not be read. */
  readonly isUncertain: boolean
}

export interface StoreParts {
  readonly catalog: Pick<Catalog, 'listDocuments' | 'findDocument' | 'onChange'>
  readonly unseal: (sealed: Uint8Array, context: string) => Promise<Buffer>
  readonly partition: string
  /** A verifier of signatures for `kms-xks-proxy` in one Region. */
  readonly createVerifier: (region: string, find: (accessKeyId: string) => Credential | undefined) => SigV4Verifier
  /** A store or one of its credentials could not be loaded; it is tried again. */
  readonly failed: (cause: unknown, store: string, accessKeyId?: string) => void
}

/** Unread are what other gateways changed; a store that could not be read says so itself. */
export interface Stores extends Disposable, Unread {
  /** The store at a prefix, from memory. */
  find(prefix: string): Store | undefined
  get(name: string): Store | undefined
  list(): readonly Store[]
  /** Ages of live credentials by store: epoch milliseconds of their creation. */
  credentials(): readonly { readonly store: string; readonly accessKeyId: string; readonly createdAt: number }[]
  /** The credential that was made last; undefined when none is loaded. Its secret is not the caller's to keep. */
  newestCredential(name: string): Credential | undefined
  /** What the store's policy lets its callers do. */
  policiesOf(principal: Principal): readonly IdentityPolicy[]
  /** Resolves when memory follows the catalog, at least as it was when this was called: the whole store, or one key of it. */
  reload(name: string, externalKeyId?: string): Promise<void>
}

/** One store with what is private to it. */
interface Loaded {
  readonly name: string
  document: StoreDocument
  store: Store
  readonly credentials: Map<string, Credential & { readonly sealedSecret: string; readonly createdAt: number }>
  keys: Map<string, StoreKey>
  policies: readonly IdentityPolicy[]
}

const retryMs = 250

export async function openStores(parts: StoreParts): Promise<Stores> {
  const { catalog, partition } = parts
  const loaded = new Map<string, Loaded>()
  const byPrefix = new Map<string, Loaded>()
  const policies = new WeakMap<Principal, Loaded>()
  const turns = new Map<string, Promise<void>>()
  const readings = createReadings()
  let isClosed = false

  function drop(one: Loaded): void {
    for (const accessKeyId of one.credentials.keys()) dropCredential(one, accessKeyId)
    one.store.verifier[Symbol.dispose]()
    loaded.delete(one.name)
    if (byPrefix.get(one.document.prefix) === one) byPrefix.delete(one.document.prefix)
  }

  function dropCredential(one: Loaded, accessKeyId: string): void {
    one.credentials.get(accessKeyId)?.secret.fill(0)
    one.credentials.delete(accessKeyId)
    one.store.verifier.forget(accessKeyId)
  }

  /** One after another for each store, so that an older state never replaces a newer one. */
  function reload(name: string, externalKeyId?: string): Promise<void> {
    const turn = (turns.get(name) ?? Promise.resolve()).catch(() => {}).then(() => load(name, externalKeyId))
    turns.set(name, turn)
    return turn
  }

  async function load(name: string, externalKeyId: string | undefined): Promise<void> {
    if (isClosed) return
    try {
      const known = loaded.get(name)
      if (externalKeyId !== undefined && known?.store.isUncertain === false) return await loadKey(known, externalKeyId)
      const body = await catalog.findDocument(storeCollection, name)
      const before = loaded.get(name)
      if (body === undefined) {
        if (before !== undefined) drop(before)
        return
      }
      await install(name, parseStore(body), await loadKeys(name))
    } catch (cause) {
      const one = loaded.get(name)
      if (one !== undefined) one.store = { ...one.store, isUncertain: true }
      parts.failed(cause, name)
      retry(name)
      throw cause
    }
  }

  function retry(name: string): void {
    setTimeout(() => reload(name).catch(() => {}), retryMs).unref()
  }

  async function loadKey({ name, keys }: Loaded, externalKeyId: string): Promise<void> {
    const body = await catalog.findDocument(keyCollection, nameOfKeyDocument(name, externalKeyId))
    if (body === undefined) keys.delete(externalKeyId)
    else keys.set(externalKeyId, toKey(externalKeyId, parseKey(body)))
  }

  async function loadKeys(name: string): Promise<Map<string, StoreKey>> {
    const prefix = `${name}/`
    const documents = await catalog.listDocuments(keyCollection)
    return new Map(
      documents
        .filter((document) => document.name.startsWith(prefix))
        .map(({ name: full, body }) => [full.slice(prefix.length), toKey(full.slice(prefix.length), parseKey(body))]),
    )
  }

  async function install(name: string, document: StoreDocument, keys: Map<string, StoreKey>): Promise<void> {
    const before = loaded.get(name)
    const isSameRegion = before?.document.region === document.region
    if (before !== undefined && (!isSameRegion || before.document.prefix !== document.prefix)) drop(before)
    const kept = loaded.get(name)
    const credentials: Loaded['credentials'] = kept?.credentials ?? new Map()
    const verifier =
      kept?.store.verifier ?? parts.createVerifier(document.region, (accessKeyId) => credentials.get(accessKeyId))
    const isSameRate = kept !== undefined && kept.document.requestsPerSecond === document.requestsPerSecond
    const { requestsPerSecond } = document
    const fresh = requestsPerSecond === null ? undefined : createTokenBucket(requestsPerSecond)
    const bucket = isSameRate ? kept.store.bucket : fresh
    const one: Loaded = kept ?? {
      name,
      document,
      store: undefined as never,
      credentials,
      keys,
      policies: [],
    }
    const { credentials: stored, ...visible } = document
    one.document = document
    one.keys = keys
    one.store = { ...visible, name, verifier, bucket, keys, isUncertain: false }
    one.policies = [{ name: `external key store ${name}`, document: policyOf(document) }]
    loaded.set(name, one)
    byPrefix.set(document.prefix, one)
    const current = new Map(stored.map((credential) => [credential.accessKeyId, credential]))
    for (const [accessKeyId, { sealedSecret }] of [...credentials]) {
      if (current.get(accessKeyId)?.sealedSecret !== sealedSecret) dropCredential(one, accessKeyId)
    }
    for (const { accessKeyId, sealedSecret, createdAt } of stored) {
      if (credentials.has(accessKeyId)) continue
      try {
        const secret = await parts.unseal(Buffer.from(sealedSecret, 'base64'), sealContext(name, accessKeyId))
        const principal = principalOf(name, document, accessKeyId)
        policies.set(principal, one)
        credentials.set(accessKeyId, { accessKeyId, secret, principal, sealedSecret, createdAt })
      } catch (cause) {
        parts.failed(cause, name, accessKeyId)
        retry(name)
      }
    }
  }

  function principalOf(name: string, { account }: StoreDocument, accessKeyId: string): Principal {
    return Object.freeze({
      type: 'key-store',
      arn: `arn:${partition}:hsmgate::${account}:xks-store/${name}`,
      account,
      principalId: name,
      accessKeyId,
    })
  }

  async function reloadAll(): Promise<void> {
    const names = new Set([...loaded.keys(), ...(await catalog.listDocuments(storeCollection)).map(({ name }) => name)])
    await Promise.all([...names].map((name) => reload(name).catch(() => {})))
  }

  function followAll(): void {
    const reading = reloadAll()
    readings.begin(reading)
    reading.then(readings.allRead, (cause) => {
      parts.failed(cause, '*')
      if (!isClosed) setTimeout(followAll, retryMs).unref()
    })
  }

  catalog.onChange(({ table, name, own }) => {
    if (table === '*') followAll()
    if (table !== 'document') return
    const [collection, store = '', externalKeyId] = name.split('/')
    if (collection !== storeCollection && collection !== keyCollection) return
    // one that fails makes its store uncertain
    const reading = reload(store, collection === keyCollection ? externalKeyId : undefined).catch(() => {})
    if (!own) readings.begin(reading)
  })
  await reloadAll()

  return {
    find: (prefix) => byPrefix.get(prefix)?.store,
    get: (name) => loaded.get(name)?.store,
    list: () => [...loaded.values()].map(({ store }) => store).sort((a, b) => (a.name < b.name ? -1 : 1)),
    credentials: () =>
      [...loaded.values()].flatMap(({ name: store, credentials }) =>
        [...credentials.values()].map(({ accessKeyId, createdAt }) => ({ store, accessKeyId, createdAt })),
      ),
    newestCredential: (name) =>
      [...(loaded.get(name)?.credentials.values() ?? [])].sort((a, b) => b.createdAt - a.createdAt)[0],
    policiesOf: (principal) => policies.get(principal)?.policies ?? [],
    reload,
    get isUnread() {
      return readings.isUnread
    },
    whenRead: readings.whenRead,
    [Symbol.dispose]() {
      isClosed = true
      for (const one of [...loaded.values()]) drop(one)
    },
  }
}

function toKey(externalKeyId: string, { account, region, keyId, isBlocked }: KeyDocument): StoreKey {
  return Object.freeze({ externalKeyId, key: Object.freeze({ account, region, keyId }), isBlocked })
}

/** Key by key the allow-list decides; the policy says which AWS principals may use what is on it. */
function policyOf({ principals }: StoreDocument): string {
  const Condition = principals.length === 0 ? {} : { Condition: { StringLike: { 'xks:AwsPrincipalArn': principals } } }
  const Statement = [{ Sid: 'AllowAwsPrincipals', Effect: 'Allow', Action: 'xks:*', Resource: '*', ...Condition }]
  return JSON.stringify({ Version: '2012-10-17', Statement })
}
