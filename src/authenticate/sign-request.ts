/**
 * Signs a request with AWS Signature Version 4, as a client: for the gateway's own calls (its start-up proof, an external key store).
 * Pure; the secret is read, never kept.
 */
import { createHash, createHmac } from 'node:crypto'
import { canonicalPath, canonicalQuery, canonicalValue, splitTarget } from './canonical-request.ts'

export interface RequestToSign {
  readonly method: string
  /** Path and query as they go over the wire. */
  readonly target: string
  /** Headers to send, `host` among them; all are signed. */
  readonly headers: Readonly<Record<string, string>>
  readonly body: Uint8Array
}

export interface SigningIdentity {
  readonly accessKeyId: string
  readonly secret: Uint8Array
  readonly region: string
  readonly service: string
}

/** The request's headers with `x-amz-date` and `authorization` added. */
export function signRequest(request: RequestToSign, identity: SigningIdentity, now: number): Record<string, string> {
  const date = new Date(now).toISOString().replace(/[-:]|\.\d{3}/g, '')
  const headers: Record<string, string> = { ...request.headers, 'x-amz-date': date }
  const sorted = Object.entries(headers)
    .map(([name, value]) => [name.toLowerCase(), canonicalValue(value)] as const)
    .sort(([a], [b]) => (a < b ? -1 : 1))
  const signedHeaders = sorted.map(([name]) => name).join(';')
  const { path, query } = splitTarget(request.target)
  const lines = sorted.map(([name, value]) => `${name}:${value}\n`).join('')
  const bodyHash = createHash('sha256').update(request.body).digest('hex')
  const canonical = `${request.method}\n${canonicalPath(path)}\n${canonicalQuery(query)}\n${lines}\n${signedHeaders}\n${bodyHash}`

  const { accessKeyId, secret, region, service } = identity
  const scope = `${date.slice(0, 8)}/${region}/${service}/aws4_request`
  const digest = createHash('sha256').update(canonical, 'latin1').digest('hex')
  let key: Buffer = Buffer.concat([Buffer.from('AWS4'), secret])
  for (const part of scope.split('/')) {
    const next = createHmac('sha256', key).update(part).digest()
    key.fill(0)
    key = next
  }
  const signature = createHmac('sha256', key).update(`AWS4-HMAC-SHA256\n${date}\n${scope}\n${digest}`).digest('hex')
  key.fill(0)
  headers.authorization = `AWS4-HMAC-SHA256 Credential=${accessKeyId}/${scope}, SignedHeaders=${signedHeaders}, Signature=${signature}`
  return headers
}
