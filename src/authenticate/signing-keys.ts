/**
 * Derived SigV4 signing keys (AWS General Reference, "Derive the signing key"), remembered by access key, date, Region and service.
 * Bounded, least recently used first out, wiped on the way out. An entry serves only the very secret it was derived from, so a
 * replaced secret never meets an old key. Synchronous, no locking.
 */
import { createHmacKey, type HmacKey, hmac, wipeHmacKey } from './hmac-sha256.ts'

export interface SigningScope {
  readonly accessKeyId: string
  /** YYYYMMDD. */
  readonly date: string
  readonly region: string
  readonly service: string
}

export interface SigningKeys {
  find(scope: SigningScope, secret: Buffer): HmacKey
  forget(accessKeyId: string): void
  clear(): void
}

export function createSigningKeys(maxEntries: number): SigningKeys {
  const entries = new Map<string, { readonly secret: Buffer; readonly key: HmacKey }>()

  function drop(name: string): void {
    const entry = entries.get(name)
    if (entry === undefined) return
    wipeHmacKey(entry.key)
    entries.delete(name)
  }

  return {
    find(scope, secret) {
      const name = `${scope.accessKeyId}/${scope.date}/${scope.region}/${scope.service}`
      const entry = entries.get(name)
      if (entry !== undefined && entry.secret === secret) {
        entries.delete(name)
        entries.set(name, entry)
        return entry.key
      }
      drop(name)
      if (entries.size >= maxEntries) drop(entries.keys().next().value as string)
      const key = deriveSigningKey(secret, scope)
      entries.set(name, { secret, key })
      return key
    },
    forget(accessKeyId) {
      const prefix = `${accessKeyId}/`
      for (const name of [...entries.keys()]) if (name.startsWith(prefix)) drop(name)
    },
    clear() {
      for (const name of [...entries.keys()]) drop(name)
    },
  }
}

function deriveSigningKey(secret: Buffer, scope: SigningScope): HmacKey {
  let bytes: Buffer = Buffer.concat([Buffer.from('AWS4'), secret])
  for (const part of [scope.date, scope.region, scope.service, 'aws4_request']) {
    const key = createHmacKey(bytes)
    bytes.fill(0)
    bytes = hmac(key, part, 'buffer')
    wipeHmacKey(key)
  }
  const signingKey = createHmacKey(bytes)
  bytes.fill(0)
  return signingKey
}
