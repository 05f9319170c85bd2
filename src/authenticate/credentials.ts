/**
 * The credentials that authentication looks up: unsealed once at start, kept in memory, dropped (and wiped) when a key or its user is
 * disabled. Nothing here calls the HSM, so that a token that is down never stops authentication.
 */
import type { Credential, CredentialStore } from './authenticate.ts'

/** `dropped` is told of every access key that ends, so that what was derived from its secret can be wiped too. */
export function createCredentialStore(dropped: (accessKeyId: string) => void = () => {}): CredentialStore {
  const credentials = new Map<string, Credential>()

  function drop(accessKeyId: string): void {
    const credential = credentials.get(accessKeyId)
    if (credential === undefined) return
    credentials.delete(accessKeyId)
    credential.secret.fill(0)
    credential.sessionToken?.fill(0)
    dropped(accessKeyId)
  }

  const idsOf = (arn: string) =>
    [...credentials.values()].filter(({ principal }) => principal.arn === arn).map((row) => row.accessKeyId)

  return {
    find: (accessKeyId) => credentials.get(accessKeyId),
    put(credential) {
      drop(credential.accessKeyId)
      credentials.set(credential.accessKeyId, credential)
    },
    drop,
    idsOf,
    principals: () => new Set([...credentials.values()].map(({ principal }) => principal.arn)),
    dropPrincipal(arn) {
      const ids = idsOf(arn)
      for (const id of ids) drop(id)
      return ids
    },
    get size() {
      return credentials.size
    },
    [Symbol.dispose]() {
      for (const id of [...credentials.keys()]) drop(id)
    },
  }
}
