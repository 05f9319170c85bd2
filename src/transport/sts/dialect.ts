/**
 * How the STS door words every error: HTTP status, code and text (AWS Security Token Service API Reference, "Common Errors" and the
 * errors of AssumeRole). Here, unlike at the KMS door, refused callers get 403.
 */
import { type ErrorCode, type ErrorParams, errorCodes, type GatewayError, toGatewayError } from '../../error.ts'
import { type StsCode, StsError } from './sts-error.ts'

type ParamsOf<C> = C extends keyof ErrorParams
  ? ErrorParams[C]
  : C extends StsCode
    ? { readonly text?: string }
    : undefined

type Entry<C> = readonly [status: number, code: string, text: (params: ParamsOf<C>) => string]

const own = (params: { readonly text?: string }) => params.text ?? ''
const internal = () => 'The request processing has failed because of an unknown error, exception or failure.'
const unavailable = () => 'The request has failed due to a temporary failure of the server.'
const failed = [500, 'InternalFailure', internal] as const
const busy = [503, 'ServiceUnavailable', unavailable] as const

const signatureText =
  'The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method. Consult the service documentation for details.'

const dialect = {
  CredentialsMissing: [403, 'MissingAuthenticationToken', () => 'Request is missing Authentication Token'],
  CredentialsIncomplete: [400, 'IncompleteSignature', own],
  CredentialsUnknown: [403, 'InvalidClientTokenId', () => 'The security token included in the request is invalid.'],
  CredentialsExpired: [403, 'ExpiredToken', () => 'The security token included in the request is expired'],
  SignatureMismatch: [403, 'SignatureDoesNotMatch', (params) => params.text ?? signatureText],
  AccessDenied: [403, 'AccessDenied', accessDeniedText],
  NotAuthorized: [403, 'AccessDenied', () => 'Access denied'],
  ValidationFailed: [400, 'ValidationError', own],
  PolicyMalformed: [400, 'MalformedPolicyDocument', own],
  LimitExceeded: [400, 'PackedPolicyTooLarge', own],
  Throttled: [400, 'Throttling', () => 'Rate exceeded'],
  KeyUnavailable: busy,
  HsmFailure: failed,
  HsmBusy: busy,
  DeadlineExceeded: busy,
  AuditUnavailable: failed,
  CatalogUnavailable: busy,
  IntegrityFailed: failed,
  Internal: failed,
  ActionMissing: [400, 'MissingAction', () => 'The request is missing an action or a required parameter.'],
  ActionUnknown: [400, 'InvalidAction', own],
  QueryMalformed: [400, 'MalformedInput', own],
} satisfies { readonly [C in ErrorCode | StsCode]?: Entry<C> }

function accessDeniedText({ principal, action, resource, reason }: ErrorParams['AccessDenied']): string {
  const on = resource === undefined ? '' : ` on resource: ${resource}`
  const because = {
    'no-identity-allow': ` because no identity-based policy allows the ${action} action`,
    'explicit-deny-identity': ' with an explicit deny in an identity-based policy',
    'explicit-deny-resource': ' with an explicit deny in a resource-based policy',
    // AWS does not tell a role that is missing from one that does not trust the caller.
    'no-resource-allow': '',
    'cross-account': '',
  }[reason]
  return `User: ${principal} is not authorized to perform: ${action}${on}${because}`
}

export interface QueryError {
  readonly status: number
  readonly type: 'Sender' | 'Receiver'
  readonly code: string
  readonly text: string
}

/** Codes that no operation of this door raises are internal errors, like everything that is not modelled. */
export function renderError(cause: unknown): QueryError {
  const error = toGatewayError(cause)
  const name: ErrorCode | StsCode = error instanceof StsError ? error.stsCode : error.code
  const [status, code, text] = (dialect as Readonly<Partial<Record<string, Entry<never>>>>)[name] ?? failed
  const isSender = errorCodes[error.code].fault === 'caller' && status < 500
  return { status, type: isSender ? 'Sender' : 'Receiver', code, text: text(error.params as never) }
}

export function describeError(error: GatewayError): { readonly code: string; readonly text: string } {
  const { code, text } = renderError(error)
  return { code, text }
}
