/**
 * Reads `Authorization: AWS4-HMAC-SHA256 Credential=..., SignedHeaders=..., Signature=...` (AWS General Reference, "Add the signature
 * to the HTTP request"). Linear in the header's length; texts of refusals are those of AWS. The header itself is never echoed.
 */
import { hash } from 'node:crypto'
import { GatewayError } from '../error.ts'

export interface SigV4Authorization {
  readonly accessKeyId: string
  /** YYYYMMDD as claimed. */
  readonly date: string
  readonly region: string
  readonly service: string
  readonly terminator: string
  readonly signedHeaders: string
  /** As sent: not yet known to be hex. */
  readonly signature: string
}

const algorithm = 'AWS4-HMAC-SHA256'
const parameters = ['Credential', 'Signature', 'SignedHeaders'] as const
type Parameter = (typeof parameters)[number]

function incomplete(text: string): GatewayError {
  return new GatewayError('CredentialsIncomplete', { text })
}

/** @throws GatewayError `CredentialsMissing` for other schemes than AWS4, `CredentialsIncomplete` for malformed ones. */
export function parseAuthorization(header: string, hasDate: boolean): SigV4Authorization {
  if (!header.startsWith('AWS4-')) throw new GatewayError('CredentialsMissing')
  const space = header.indexOf(' ')
  const scheme = space < 0 ? header : header.slice(0, space)
  // SigV4A (AWS4-ECDSA-P256-SHA256) lands here too: no client signs KMS requests with it.
  if (scheme !== algorithm) throw incomplete(`Unsupported AWS 'algorithm': '${scheme.slice(0, 64)}'.`)

  const found: Partial<Record<Parameter, string>> = {}
  for (const part of space < 0 ? [] : header.slice(space + 1).split(',')) {
    const text = part.trim()
    const equals = text.indexOf('=')
    if (equals < 0) throw incomplete(missingEqualSign(header))
    const name = text.slice(0, equals)
    if (!isParameter(name)) continue
    if (found[name] !== undefined) throw incomplete(`Authorization header has more than one '${name}' parameter.`)
    found[name] = text.slice(equals + 1)
  }
  const { Credential, Signature, SignedHeaders } = found
  if (!Credential || !Signature || !SignedHeaders || !hasDate) throw incomplete(missingParts(found, hasDate))

  const elements = Credential.split('/')
  if (elements.length !== 5 || elements.includes('')) {
    throw incomplete(
      `Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term, got ${printable(Credential)}`,
    )
  }
  const [accessKeyId, date, region, service, terminator] = elements as [string, string, string, string, string]
  return { accessKeyId, date, region, service, terminator, signedHeaders: SignedHeaders, signature: Signature }
}

function isParameter(name: string): name is Parameter {
  return name === 'Credential' || name === 'Signature' || name === 'SignedHeaders'
}

function missingParts(found: Partial<Record<Parameter, string>>, hasDate: boolean): string {
  const missing = parameters
    .filter((name) => !found[name])
    .map((name) => `Authorization header requires '${name}' parameter.`)
  if (!hasDate) missing.push("Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header.")
  return `${missing.join(' ')} Authorization=${algorithm}`
}

function missingEqualSign(header: string): string {
  const digest = hash('sha256', Buffer.from(header, 'latin1'), 'base64')
  return `Invalid key=value pair (missing equal-sign) in Authorization header (hashed with SHA-256 and encoded with Base64): '${digest}'.`
}

/** Quoted for an error text: printable ASCII only and short. */
export function printable(text: string): string {
  let out = ''
  for (const char of text.slice(0, 128)) out += char >= ' ' && char <= '~' ? char : '?'
  return `'${out}'`
}
