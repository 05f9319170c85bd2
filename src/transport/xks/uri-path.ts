/** URIs of the XKS proxy API: `[/<prefix>]/kms/xks/v1/health` and `.../keys/<external key id>/{metadata,encrypt,decrypt}`. Pure. */

export type Api = 'health' | 'metadata' | 'encrypt' | 'decrypt'

export interface XksPath {
  /** Begins with a slash; empty for a store without one. */
  readonly prefix: string
  /** Undefined where the rest of the path names no API, or a key id has characters that none has. */
  readonly api?: Api
  readonly externalKeyId?: string
}

const base = '/kms/xks/v1'
/** AWS KMS API Reference, CreateCustomKeyStore: XksProxyUriPath has 10 to 128 characters. */
const prefixForm = /^(?:\/[a-zA-Z0-9_-]+)*$/
export const prefixCharsMax = 128 - base.length
export const externalKeyIdForm = /^[A-Za-z0-9._-]{1,128}$/
const keyForm = /^\/keys\/([A-Za-z0-9._-]{1,128})\/(metadata|encrypt|decrypt)$/

export function isPrefix(text: string): boolean {
  return text.length <= prefixCharsMax && prefixForm.test(text)
}

/** Undefined for a target that is below no store whatever it is called: another base, a query, an absolute form. */
export function parseXksPath(target: string): XksPath | undefined {
  const at = target.lastIndexOf(`${base}/`)
  if (at < 0) return undefined
  const prefix = target.slice(0, at)
  if (!isPrefix(prefix)) return undefined
  const rest = target.slice(at + base.length)
  if (rest === '/health') return { prefix, api: 'health' }
  const [, externalKeyId, api] = keyForm.exec(rest) ?? []
  return externalKeyId === undefined ? { prefix } : { prefix, api: api as Api, externalKeyId }
}

/** What AWS KMS calls XksProxyUriPath. */
export function uriPathOf(prefix: string): string {
  return `${prefix}${base}`
}
