/**
 * The capability tokens of the signing socket: what a token stands for, found by its SHA-256 digest. Only digests are kept, here and in the catalog.
 * Fed from the catalog at start and at every change; what was revoked is not found any more when the command that revoked it answers. What changed is
 * out of force until it has been read again, but that is no word on a token. Nothing here calls the HSM.
 */
import { hash } from 'node:crypto'
import { createReadings, type Readings, type Unread } from '../unread.ts'

/** What the bytes to be signed must look like; `any` looks at nothing. */
export type OffloadPolicy = 'tls13-server' | 'tls12-server-ecdhe' | 'tls13-client' | 'x509' | 'cms' | 'any'

export const offloadPolicies: readonly OffloadPolicy[] = [
  'tls13-server',
  'tls12-server-ecdhe',
  'tls13-client',
  'x509',
  'cms',
  'any',
]

/** What a token permits: one key, some policies, some users. Frozen. */
export interface TlsBinding {
  readonly account: string
  readonly region: string
  /** Unique within the account. */
  readonly name: string
  /** KMS key id of a key of purpose `tls`. */
  readonly keyId: string
  /** SHA-256 of the key's DER SubjectPublicKeyInfo. */
  readonly spkiDigest: Buffer
  readonly policies: readonly OffloadPolicy[]
  /** Users (uid) that may present the token on the Unix socket. */
  readonly users: readonly number[] | 'any'
  /** Lower-case hex SHA-256 of the SubjectPublicKeyInfo of client certificates of relays; none unless listed. */
  readonly relays: readonly string[]
  /** Signatures per second; without it there is no limit. */
  readonly ratePerSecond?: number
  /** Signatures at one time; without it there is no limit. */
  readonly concurrency?: number
  readonly revision: number
}

export interface TlsBindings extends Unread {
  find(token: Buffer): TlsBinding | undefined
}

export interface TlsBindingStore extends TlsBindings {
  /** Takes the place of the binding of the same account and name. */
  put(tokenDigest: Buffer, binding: TlsBinding): void
  drop(account: string, name: string): void
  /** Whether any binding of the key has the policy. */
  permits(key: Pick<TlsBinding, 'account' | 'region' | 'keyId'>, policy: OffloadPolicy): boolean
  /** Drops all bindings of one key. */
  dropKey(key: Pick<TlsBinding, 'account' | 'region' | 'keyId'>): void
  clear(): void
  readonly readings: Pick<Readings, 'begin' | 'allRead'>
  readonly size: number
}

/** SHA-256. Tokens are 32 random bytes, so that neither salt nor stretching adds anything. */
export function digestToken(token: Uint8Array): Buffer {
  return hash('sha256', token, 'buffer')
}

const nameOfToken = new WeakMap<Uint8Array, string>()

/** Its digest in hex, computed once for each buffer: a connection presents the same one with every request, and wipes it when it ends. */
export function nameToken(token: Uint8Array): string {
  let name = nameOfToken.get(token)
  if (name === undefined) {
    name = digestToken(token).toString('hex')
    nameOfToken.set(token, name)
  }
  return name
}

/** Of the principal that presents a token, as policies and audit records name it. */
export function tlsPrincipalArn(partition: string, { account, name }: Pick<TlsBinding, 'account' | 'name'>): string {
  return `arn:${partition}:iam::${account}:user/hsmgate/tls/${name}`
}

export function createTlsBindingStore(): TlsBindingStore {
  /** By digest, in hex. Whoever times a look-up learns of a digest, not of a token. */
  const bindings = new Map<string, TlsBinding>()
  const digests = new Map<string, string>()
  const readings = createReadings()

  const ofKey = ({ account, region, keyId }: Pick<TlsBinding, 'account' | 'region' | 'keyId'>) =>
    [...bindings.values()].filter(
      (binding) => binding.keyId === keyId && binding.region === region && binding.account === account,
    )

  function drop(account: string, name: string): void {
    const id = `${account}/${name}`
    const digest = digests.get(id)
    if (digest === undefined) return
    digests.delete(id)
    bindings.delete(digest)
  }

  return {
    find: (token) => bindings.get(nameToken(token)),
    get isUnread() {
      return readings.isUnread
    },
    whenRead: readings.whenRead,
    readings,
    put(tokenDigest, binding) {
      const digest = tokenDigest.toString('hex')
      drop(binding.account, binding.name)
      bindings.set(digest, Object.freeze(binding))
      digests.set(`${binding.account}/${binding.name}`, digest)
    },
    drop,
    permits: (key, policy) => ofKey(key).some(({ policies }) => policies.includes(policy)),
    dropKey(key) {
      for (const { account, name } of ofKey(key)) drop(account, name)
    },
    clear() {
      bindings.clear()
      digests.clear()
    },
    get size() {
      return bindings.size
    },
  }
}
