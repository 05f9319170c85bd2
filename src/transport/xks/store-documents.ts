/** What the catalog keeps of stores and their keys: sealed JSON documents, collections `xks-store` and `xks-key`. Pure. */
import type { KeyName } from '../../catalog/catalog.ts'
import type { AadMode } from './additional-data.ts'

export const storeCollection = 'xks-store'
export const keyCollection = 'xks-key'

export interface StoredCredential {
  readonly accessKeyId: string
  /** Base64 of the secret access key, sealed under the system key `secret-sealing`. */
  readonly sealedSecret: string
  /** Epoch milliseconds. */
  readonly createdAt: number
}

/** One logical key store: what AWS KMS calls an external key store proxy with its URI path. */
export interface StoreDocument {
  /** Begins with a slash; empty: the URI path is /kms/xks/v1. */
  readonly prefix: string
  readonly account: string
  /** Region of the AWS KMS that calls: what signatures are scoped to. */
  readonly region: string
  readonly aadMode: AadMode
  /** Null: no quota. */
  readonly requestsPerSecond: number | null
  /** Patterns of awsPrincipalArn that are let in; none: everybody who is authenticated. */
  readonly principals: readonly string[]
  /** Common or alternative names of client certificates that are let in; none: no client certificate is needed. */
  readonly clientNames: readonly string[]
  readonly isBlocked: boolean
  /** Epoch milliseconds. */
  readonly createdAt: number
  /** At most two. */
  readonly credentials: readonly StoredCredential[]
}

/** What an external key id of a store stands for. */
export interface KeyDocument extends KeyName {
  readonly isBlocked: boolean
  /** Epoch milliseconds. */
  readonly createdAt: number
}

export function parseStore(body: string): StoreDocument {
  return Object.freeze(JSON.parse(body) as StoreDocument)
}

export function parseKey(body: string): KeyDocument {
  return Object.freeze(JSON.parse(body) as KeyDocument)
}

export function nameOfKeyDocument(store: string, externalKeyId: string): string {
  return `${store}/${externalKeyId}`
}

export function sealContext(store: string, accessKeyId: string): string {
  return `xks-credential\0${store}\0${accessKeyId}`
}
