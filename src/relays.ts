/**
 * Relays: hosts that bring the signing protocol of their web servers to this gateway over TLS. An operator approves a relay's request; the
 * gateway's own authority, a system key, signs its certificate. Which relays there are stands in the row of that key, under its seal, and in memory.
 *
 * A certificate alone opens nothing: the relay must also be known here, so that a revocation holds for the next call.
 */
import { createPublicKey } from 'node:crypto'
import type { Catalog, KeyEntry, KeyName } from './catalog/catalog.ts'
import {
  type CertificateKey,
  makeAuthorityCertificate,
  makeClientCertificate,
  parseCertificateRequest,
} from './certificates.ts'
import { GatewayError } from './error.ts'
import { keyIdOf } from './tls-reference.ts'
import { createReadings, type Unread } from './unread.ts'

export interface Relay {
  readonly name: string
  /** Lower-case hex SHA-256 of the SubjectPublicKeyInfo of its certificate: what bindings list. */
  readonly digest: string
  /** End of its newest certificate, epoch milliseconds. */
  readonly notAfter: number
  readonly approvedAt: number
}

export interface Relays extends Unread {
  /** The relay that holds the key with this digest (lower-case hex), while it is approved. */
  find(digest: string): Relay | undefined
  /** Certificate of the authority of all relays, in PEM; made when it is first asked for. */
  authorityCertificate(): Promise<string>
}

export interface RelayAdministration extends Relays, Disposable {
  /**
   * Signs a certificate for the holder of the key in the request; again for the same name and key, when it is to be renewed.
   * @throws GatewayError `ValidationFailed`, `AlreadyExists`, `LimitExceeded`.
   */
  approve(
    name: string,
    request: string,
    days: number,
  ): Promise<Relay & { readonly certificate: string; readonly authority: string }>
  list(): readonly Relay[]
  /** The relay is refused at its next call. @throws GatewayError `NotFound` */
  revoke(name: string): Promise<void>
  /** Reads what is approved; at start. */
  load(): Promise<void>
}

/** The system key that signs for relays. */
export interface RelayAuthorityKey {
  readonly name: KeyName
  /** Finds or makes it. */
  open(): Promise<CertificateKey & { readonly entry: KeyEntry }>
}

export interface RelayParts {
  readonly catalog: Catalog
  readonly authority: RelayAuthorityKey
  /** Epoch milliseconds. */
  readonly now: () => number
  /** What changed could not be read; no relay is known until it can. */
  readonly failed: (cause: unknown) => void
}

/** Kept in the `extra` member of the authority's key. */
interface Extra {
  readonly certificate?: string
  readonly relays?: readonly Relay[]
}

const authorityName = 'hsmgate relays'
const authorityDays = 3650
const maxDays = 825
const maxRelays = 256
const dayMs = 86_400_000
const minRsaBits = 2048
const retryMs = 1000
const curves: readonly (string | undefined)[] = ['prime256v1', 'secp384r1', 'secp521r1']

export function createRelayAdministration({ catalog, authority, now, failed }: RelayParts): RelayAdministration {
  const known = new Map<string, Relay>()
  const readings = createReadings()
  let changes = 0
  let retry: NodeJS.Timeout | undefined
  let isClosed = false

  async function load(): Promise<void> {
    for (;;) {
      const before = changes
      const entry = await catalog.findKey(authority.name)
      if (before !== changes) continue
      known.clear()
      for (const relay of extraOf(entry).relays ?? []) known.set(relay.digest, relay)
      readings.allRead()
      return
    }
  }

  function loadLater(): void {
    const loading = load()
    readings.begin(loading)
    loading.catch((cause) => {
      failed(cause)
      if (!isClosed) retry = setTimeout(loadLater, retryMs).unref()
    })
  }

  const { account, region, keyId } = authority.name
  catalog.onChange(({ table, name }) => {
    if (table !== '*' && (table !== 'key' || name !== `${account}/${region}/${keyId}`)) return
    changes++
    known.clear()
    clearTimeout(retry)
    loadLater()
  })

  async function authorityCertificate(): Promise<string> {
    const key = await authority.open()
    const { certificate } = extraOf(key.entry)
    if (certificate !== undefined) return certificate
    const made = await makeAuthorityCertificate(key, authorityName, authorityDays, now())
    const entry = await catalog.reviseKey(authority.name, ({ key: { extra } }) =>
      // another gateway may have been faster
      extra.certificate === undefined ? { key: { extra: { ...extra, certificate: made } } } : undefined,
    )
    return extraOf(entry).certificate as string
  }

  return {
    load,
    get isUnread() {
      return readings.isUnread
    },
    whenRead: readings.whenRead,
    [Symbol.dispose]() {
      isClosed = true
      clearTimeout(retry)
    },
    authorityCertificate,
    find: (digest) => known.get(digest),
    list: () => [...known.values()].sort((a, b) => (a.name < b.name ? -1 : 1)),

    async approve(name, request, days) {
      if (!/^[\w+=,.@-]{1,64}$/.test(name)) throw invalid('A name has 1 to 64 letters, digits and any of _+=,.@-')
      if (!Number.isInteger(days) || days < 1 || days > maxDays) throw invalid(`days is from 1 to ${maxDays}.`)
      const { publicKey } = await parseCertificateRequest(request)
      requireStrong(publicKey)
      const authorityPem = await authorityCertificate()
      const digest = keyIdOf(publicKey).toString('hex')
      const approvedAt = now()
      const relay = { name, digest, approvedAt, notAfter: approvedAt + days * dayMs }
      const key = await authority.open()
      const client = { publicKey, commonName: name, days, nowMs: approvedAt }
      const certificate = await makeClientCertificate(key, authorityName, client)
      // only what the catalog knows is of use, so the certificate that a refusal leaves behind is none
      await catalog.reviseKey(authority.name, (entry) => {
        const others = (extraOf(entry).relays ?? []).filter((each) => each.name !== name || each.digest !== digest)
        refuseDuplicate(others, relay)
        return { key: { extra: { ...entry.key.extra, relays: [...others, relay] } } }
      })
      await load()
      return { ...relay, certificate, authority: authorityPem }
    },

    async revoke(name) {
      const missing = new GatewayError('NotFound', { text: `There is no relay ${name}.` })
      if ((await catalog.findKey(authority.name)) === undefined) throw missing
      await catalog.reviseKey(authority.name, (entry) => {
        const { relays = [] } = extraOf(entry)
        const others = relays.filter((relay) => relay.name !== name)
        if (others.length === relays.length) throw missing
        return { key: { extra: { ...entry.key.extra, relays: others } } }
      })
      await load()
    },
  }
}

function extraOf(entry: KeyEntry | undefined): Extra {
  return (entry?.key.extra ?? {}) as Extra
}

/** @throws GatewayError `AlreadyExists`, `LimitExceeded` */
function refuseDuplicate(others: readonly Relay[], { name, digest }: Relay): void {
  if (others.some((relay) => relay.name === name)) {
    const text = `There is a relay ${name} with another key; revoke it first.`
    throw new GatewayError('AlreadyExists', { text })
  }
  const twin = others.find((relay) => relay.digest === digest)
  if (twin !== undefined) {
    throw new GatewayError('AlreadyExists', { text: `The key of the request is that of the relay ${twin.name}.` })
  }
  if (others.length >= maxRelays) {
    throw new GatewayError('LimitExceeded', { text: `There are at most ${maxRelays} relays.` })
  }
}

/** @throws GatewayError `ValidationFailed` */
function requireStrong(publicKey: Buffer): void {
  const { asymmetricKeyType: type, asymmetricKeyDetails: details } = createPublicKey({
    key: publicKey,
    format: 'der',
    type: 'spki',
  })
  const isStrong =
    type === 'ed25519' ||
    (type === 'ec' && curves.includes(details?.namedCurve)) ||
    (type === 'rsa' && (details?.modulusLength ?? 0) >= minRsaBits)
  if (!isStrong) throw invalid(`A relay's key is RSA of ${minRsaBits} bits or more, P-256, P-384, P-521 or Ed25519.`)
}

function invalid(text: string): GatewayError {
  return new GatewayError('ValidationFailed', { text })
}
