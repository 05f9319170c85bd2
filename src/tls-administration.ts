/**
 * What an operator does to keys of TLS servers: makes them, binds them to capability tokens, takes the tokens back. A token is made here, returned
 * once and kept only as its digest; what is in force stands in the store that the signing socket asks, which follows the catalog.
 *
 * A binding that changed is out of force from the moment its change is told until it is read again, never the other way round.
 */
import { randomBytes } from 'node:crypto'
import { digestToken, type OffloadPolicy, offloadPolicies, type TlsBindingStore } from './authenticate/tls-bindings.ts'
import { defaultKeyPolicy } from './authorize/authorize.ts'
import type { Deadline } from './call.ts'
import type { Catalog, KeyEntry, TlsBindingRecord } from './catalog/catalog.ts'
import { GatewayError, isCode } from './error.ts'
import type { KeySpec } from './hsm/port.ts'
import type { KeyService, Locale } from './keys/keys.ts'
import { keyIdOf, tokenBytes } from './tls-reference.ts'

/** Specs whose keys a TLS server can have. */
export const tlsSpecs: readonly KeySpec[] = [
  'RSA_2048',
  'RSA_3072',
  'RSA_4096',
  'ECC_NIST_P256',
  'ECC_NIST_P384',
  'ECC_NIST_P521',
  'ECC_NIST_EDWARDS25519',
]

export interface NewTlsKey {
  readonly spec: string
  readonly description: string
  /** With the prefix `alias/`. */
  readonly alias?: string
  readonly group?: string
}

export interface NewTlsBinding {
  readonly name: string
  /** Key id, ARN or alias; an alias may do without its prefix. */
  readonly key: string
  readonly users: readonly number[] | 'any'
  readonly policies: readonly string[]
  readonly relays: readonly string[]
  readonly ratePerSecond?: number
  readonly concurrency?: number
}

export interface TlsAdministration extends Disposable {
  /** @throws GatewayError `ValidationFailed`, `AlreadyExists` (the alias), `Unsupported`. */
  createKey(request: NewTlsKey, locale: Locale, deadline: Deadline): Promise<KeyEntry>
  /**
   * The token is in the answer and nowhere else.
   * @throws GatewayError `ValidationFailed`, `KeyNotFound`, `KeyStateInvalid`, `AlreadyExists`.
   */
  bind(
    request: NewTlsBinding,
    locale: Locale,
  ): Promise<{ readonly binding: TlsBindingRecord; readonly publicKey: Buffer; readonly token: Buffer }>
  list(account: string | undefined): Promise<readonly TlsBindingRecord[]>
  /** Nobody signs with its token any more when this resolves. @throws GatewayError `NotFound` */
  revoke(account: string, name: string): Promise<void>
  /** A key of purpose `tls`. @throws GatewayError `KeyNotFound`, `ValidationFailed` */
  getKey(reference: string, locale: Locale): Promise<KeyEntry>
  /** Reads all bindings into the store; at start. Answers how many there are. */
  load(): Promise<number>
}

export interface TlsAdministrationParts {
  readonly catalog: Catalog
  readonly keys: KeyService
  readonly store: TlsBindingStore
  readonly accounts: readonly string[]
  readonly partition: string
  /** Epoch milliseconds. */
  readonly now: () => number
  /** What changed could not be read; it is out of force until it can. */
  readonly failed: (cause: unknown) => void
}

const limits = { users: 64, relays: 64, ratePerSecond: 1_000_000, concurrency: 4096, bindingsPerKey: 100 }
/** 2^32 - 1 is -1, nobody's (credentials(7)). */
const maxUid = 2 ** 32 - 2
const retryMs = 1000
/** What is no alias without its prefix: an ARN, an alias with it, a key id. */
const keyReference = /^(?:arn:|alias\/|mrk-[0-9a-f]{32}$|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$)/

export function createTlsAdministration(parts: TlsAdministrationParts): TlsAdministration {
  const { catalog, keys, store, accounts, partition, now, failed } = parts
  /** Counts changes of bindings, by whomever: what was read before one of them may be out of date. */
  let changes = 0
  let retry: NodeJS.Timeout | undefined
  let isClosed = false

  function put(record: TlsBindingRecord): void {
    const { tokenDigest, ratePerSecond, concurrency, createdAt: _, policies, ...rest } = record
    store.put(tokenDigest, {
      ...rest,
      policies: policies.filter((policy): policy is OffloadPolicy => isPolicy(policy)),
      ...(ratePerSecond === null ? {} : { ratePerSecond }),
      ...(concurrency === null ? {} : { concurrency }),
    })
  }

  async function load(): Promise<number> {
    for (;;) {
      const before = changes
      const bindings = await catalog.listTlsBindings(undefined)
      if (before !== changes) continue
      store.clear()
      for (const binding of bindings) put(binding)
      store.readings.allRead()
      return bindings.length
    }
  }

  async function reload(account: string, name: string): Promise<void> {
    for (;;) {
      const before = changes
      const found = await catalog.findTlsBinding(account, name)
      if (before !== changes) continue
      if (found !== undefined) put(found)
      return
    }
  }

  function loadLater(): void {
    const loading = load()
    store.readings.begin(loading)
    loading.catch((cause) => {
      failed(cause)
      if (!isClosed) retry = setTimeout(loadLater, retryMs).unref()
    })
  }

  catalog.onChange(({ table, name }) => {
    if (table !== 'tls_binding' && table !== '*') return
    changes++
    const [account = '', region = '', keyId = '', binding = ''] = name.split('/')
    if (table === '*') {
      store.clear()
      loadLater()
    } else if (binding === '*') store.dropKey({ account, region, keyId })
    else {
      store.drop(account, binding)
      const reloading = reload(account, binding)
      store.readings.begin(reloading)
      reloading.catch((cause) => {
        failed(cause)
        loadLater()
      })
    }
  })

  async function getKey(reference: string, locale: Locale): Promise<KeyEntry> {
    const name = keyReference.test(reference) ? reference : `alias/${reference}`
    const { entry, arn } = await keys.resolve(name, 'key-or-alias', locale)
    if (entry === undefined) throw new GatewayError('KeyNotFound', { text: `Key '${arn}' does not exist` })
    if (entry.key.purpose === 'tls') return entry
    const text = `Key ${arn} is of purpose ${entry.key.purpose}; hsmgate tls create-key makes one for TLS servers.`
    throw new GatewayError('ValidationFailed', { text })
  }

  return {
    getKey,
    load,

    async createKey({ spec, description, alias, group }, locale, deadline) {
      const found = tlsSpecs.find((allowed) => allowed === spec)
      if (found === undefined) throw invalid(`A key of a TLS server is one of ${tlsSpecs.join(', ')}.`)
      if (!accounts.includes(locale.account)) throw invalid(`Account ${locale.account} is not configured.`)
      if (alias !== undefined && (await keys.findAlias(alias, locale)) !== undefined) {
        throw new GatewayError('AlreadyExists', { text: `The alias ${alias} exists.` })
      }
      const request = {
        spec: found,
        usage: 'SIGN_VERIFY',
        purpose: 'tls',
        description,
        policy: defaultKeyPolicy(locale.account, partition),
        tags: {},
        multiRegion: false,
        origin: 'AWS_KMS',
        ...(group === undefined ? {} : { group }),
      } as const
      const entry = await keys.create(request, locale, deadline)
      if (alias !== undefined) await keys.createAlias(alias, entry)
      return entry
    },

    async bind(request, locale) {
      const checked = checkBinding(request)
      const entry = await getKey(request.key, locale)
      const publicKey = keys.publicKey(entry)
      const { account, region, keyId } = entry.key
      const token = randomBytes(tokenBytes)
      const wanted = {
        ...checked,
        ...{ account, region, keyId },
        tokenDigest: digestToken(token),
        spkiDigest: keyIdOf(publicKey),
        createdAt: now(),
      }
      const binding = await catalog.createTlsBinding(wanted, (existing) => {
        if (existing.length < limits.bindingsPerKey) return
        throw new GatewayError('LimitExceeded', { text: `A key has at most ${limits.bindingsPerKey} bindings.` })
      })
      // the change was told and is being read already, but whoever has the token may use it at once
      await reload(account, binding.name)
      return { binding, publicKey, token }
    },

    list: (account) => catalog.listTlsBindings(account),

    async revoke(account, name) {
      const deleted = await catalog.deleteTlsBinding(account, name).catch((cause) => {
        // what was changed from outside is not read at the next start either
        if (isCode(cause, 'IntegrityFailed')) store.drop(account, name)
        throw cause
      })
      if (deleted) return
      throw new GatewayError('NotFound', { text: `There is no binding ${name} in account ${account}.` })
    },

    [Symbol.dispose]() {
      isClosed = true
      clearTimeout(retry)
      store.clear()
    },
  }
}

function isPolicy(name: string): name is OffloadPolicy {
  return (offloadPolicies as readonly string[]).includes(name)
}

/** @throws GatewayError `ValidationFailed` */
function checkBinding(
  request: NewTlsBinding,
): Pick<TlsBindingRecord, 'name' | 'policies' | 'users' | 'relays' | 'ratePerSecond' | 'concurrency'> {
  const { name, users, policies, relays, ratePerSecond = null, concurrency = null } = request
  // it becomes the last part of an ARN, as the name of a user does (IAM User Guide, "IAM name requirements")
  if (!/^[\w+=,.@-]{1,64}$/.test(name)) throw invalid('A name has 1 to 64 letters, digits and any of _+=,.@-')
  const unknown = policies.find((policy) => !isPolicy(policy))
  if (unknown !== undefined) throw invalid(`${unknown} is no policy; there are ${offloadPolicies.join(', ')}.`)
  if (policies.length === 0) throw invalid('A binding has at least one policy.')
  if (users !== 'any') {
    if (users.length === 0 && relays.length === 0) throw invalid('A binding names at least one user, or a relay.')
    if (users.length > limits.users) throw invalid(`A binding names at most ${limits.users} users.`)
    if (!users.every((uid) => Number.isInteger(uid) && uid >= 0 && uid <= maxUid)) {
      throw invalid('A user is the number of a uid.')
    }
  }
  if (relays.length > limits.relays) throw invalid(`A binding names at most ${limits.relays} relays.`)
  if (!relays.every((digest) => /^[0-9a-f]{64}$/.test(digest))) {
    throw invalid(
      'A relay is one that hsmgate tls relay list shows, or the SHA-256 of the public key of its certificate in 64 hexadecimal digits.',
    )
  }
  checkLimit('rate', ratePerSecond, limits.ratePerSecond)
  checkLimit('concurrency', concurrency, limits.concurrency)
  return {
    name,
    policies: offloadPolicies.filter((policy) => policies.includes(policy)),
    users: users === 'any' ? 'any' : [...new Set(users)].sort((a, b) => a - b),
    relays: [...new Set(relays)].sort(),
    ratePerSecond,
    concurrency,
  }
}

function checkLimit(name: string, value: number | null, max: number): void {
  if (value === null || (Number.isInteger(value) && value >= 1 && value <= max)) return
  throw invalid(`The ${name} is a whole number from 1 to ${max}.`)
}

function invalid(text: string): GatewayError {
  return new GatewayError('ValidationFailed', { text })
}
