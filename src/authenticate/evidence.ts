/**
 * What a signed request presents, read from its raw headers and body, and the string its signature must cover. Nothing here is verified
 * but that the parts fit together. Pure; refusals have AWS's texts.
 */
import { hash } from 'node:crypto'
import { GatewayError } from '../error.ts'
import { type AmzDate, parseAmzDate } from './amz-date.ts'
import { parseAuthorization, printable, type SigV4Authorization } from './authorization-header.ts'
import { canonicalPath, canonicalQuery, canonicalValue, splitTarget } from './canonical-request.ts'

export interface RawRequest {
  readonly method: string
  /** Request target as received. */
  readonly rawUrl: string
  /** Node's `rawHeaders`: name, value, name, value, ... */
  readonly rawHeaders: readonly string[]
  /** The body's bytes before any decoding. */
  readonly body: Buffer
}

/** Headers that decide something; a second one would let two readers see two requests. */
const singular = new Set([
  'authorization',
  'host',
  'date',
  'content-type',
  'content-length',
  'x-amz-date',
  'x-amz-target',
  'x-amz-security-token',
  'x-amz-content-sha256',
])

export interface Evidence {
  readonly authorization: SigV4Authorization
  readonly headers: ReadonlyMap<string, string>
  readonly signedHeaders: readonly string[]
  readonly date: AmzDate
  /** Lower-case hex SHA-256 of the body. */
  readonly bodyHash: string
}

export function mismatch(text: string): GatewayError {
  return new GatewayError('SignatureMismatch', { text })
}

function incomplete(text: string): GatewayError {
  return new GatewayError('CredentialsIncomplete', { text })
}

/** @throws GatewayError `CredentialsMissing`, `CredentialsIncomplete`, `SignatureMismatch` */
export function readEvidence(request: RawRequest): Evidence {
  const headers = collectHeaders(request.rawHeaders)
  const header = headers.get('authorization')
  if (header === undefined) throw new GatewayError('CredentialsMissing')
  const dateName = headers.has('x-amz-date') ? 'x-amz-date' : 'date'
  const dateText = headers.get(dateName)
  const authorization = parseAuthorization(header, dateText !== undefined)
  const date = parseAmzDate(dateText ?? '')
  if (date === undefined) {
    throw incomplete(
      `Date must be in ISO-8601 'basic format'. Got ${printable(dateText ?? '')}. See http://en.wikipedia.org/wiki/ISO_8601`,
    )
  }
  const signedHeaders = authorization.signedHeaders.split(';')
  checkSignedHeaders(signedHeaders, headers, dateName)
  const bodyHash = hash('sha256', request.body, 'hex')
  const claimed = headers.get('x-amz-content-sha256')
  // UNSIGNED-PAYLOAD fails here too: the body of a KMS request is never left unsigned.
  if (claimed !== undefined && claimed !== bodyHash) {
    throw mismatch("The provided 'x-amz-content-sha256' header does not match what was computed.")
  }
  return { authorization, headers, signedHeaders, date, bodyHash }
}

/** Lower-case names; repeated headers join with a comma (RFC 9110, section 5.3), single-valued ones must not repeat. */
function collectHeaders(rawHeaders: readonly string[]): ReadonlyMap<string, string> {
  const headers = new Map<string, string>()
  for (let at = 0; at + 1 < rawHeaders.length; at += 2) {
    const name = (rawHeaders[at] as string).toLowerCase()
    const value = canonicalValue(rawHeaders[at + 1] as string)
    const seen = headers.get(name)
    if (seen !== undefined && singular.has(name)) throw incomplete(`Header '${name}' must appear only once.`)
    headers.set(name, seen === undefined ? value : `${seen},${value}`)
  }
  return headers
}

function checkSignedHeaders(
  signedHeaders: readonly string[],
  headers: ReadonlyMap<string, string>,
  dateName: string,
): void {
  let previous = ''
  let hasHost = false
  let hasDate = false
  let signedAmz = 0
  for (const name of signedHeaders) {
    // Strictly ascending rules out duplicates; a name in upper case is never found among the headers.
    if (name <= previous || !headers.has(name)) throw new GatewayError('SignatureMismatch', {})
    if (name === 'host') hasHost = true
    if (name === dateName) hasDate = true
    if (name.startsWith('x-amz-')) signedAmz += 1
    previous = name
  }
  if (!hasHost) throw mismatch("'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization.")
  if (!hasDate) throw mustBeSigned(dateName)
  let presentAmz = 0
  for (const name of headers.keys()) if (name.startsWith('x-amz-')) presentAmz += 1
  if (presentAmz === signedAmz) return
  for (const name of headers.keys()) {
    if (name.startsWith('x-amz-') && !signedHeaders.includes(name)) throw mustBeSigned(name)
  }
}

function mustBeSigned(name: string): GatewayError {
  return mismatch(`${printable(name)} must be a 'SignedHeader' in the AWS Authorization.`)
}

export function stringToSign(evidence: Evidence, request: RawRequest): string {
  const { authorization, headers, signedHeaders, date, bodyHash } = evidence
  const { path, query } = splitTarget(request.rawUrl)
  let canonical = `${request.method}\n${canonicalPath(path)}\n${canonicalQuery(query)}\n`
  for (const name of signedHeaders) canonical += `${name}:${headers.get(name)}\n`
  canonical += `\n${authorization.signedHeaders}\n${bodyHash}`
  const digest = hash('sha256', Buffer.from(canonical, 'latin1'), 'hex')
  return `AWS4-HMAC-SHA256\n${date.text}\n${authorization.date}/${authorization.region}/${authorization.service}/aws4_request\n${digest}`
}
