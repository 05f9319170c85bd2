/**
 * How the XKS door words every error: HTTP status, errorName and errorMessage (XKS proxy API, "Error Codes"). Messages are printable ASCII of
 * less than 512 characters; AWS KMS logs them and never shows them to its callers.
 */
import { type ErrorCode, type ErrorParams, type GatewayError, toGatewayError } from '../../error.ts'
import { type XksCode, XksError } from './xks-error.ts'

type ParamsOf<C> = C extends keyof ErrorParams
  ? ErrorParams[C]
  : C extends XksCode
    ? { readonly text?: string }
    : undefined

type Entry<C> = readonly [status: number, name: string, text: (params: ParamsOf<C>) => string | undefined]

const own = (params: { readonly text?: string }) => params.text
const failed = () => 'Something in the proxy failed; its log says what.'
const unauthenticated = 'AuthenticationFailedException'
const badSignature = 'The signature does not match: check access key id, secret, Region, Host header and path.'
const invalidState = 'InvalidStateException'
const validation = 'ValidationException'
const internal = 'InternalException'

const dialect = {
  CredentialsMissing: [401, unauthenticated, () => 'The request is not signed.'],
  CredentialsIncomplete: [401, unauthenticated, own],
  CredentialsUnknown: [401, unauthenticated, () => 'The access key id is not one of this key store.'],
  CredentialsExpired: [401, unauthenticated, () => 'The credential has expired.'],
  SignatureMismatch: [401, unauthenticated, (params) => params.text ?? badSignature],
  AccessDenied: [403, 'AccessDeniedException', () => 'The key store does not let this AWS principal in.'],
  CiphertextKeyInaccessible: [404, 'KeyNotFoundException', () => 'There is no such key.'],
  ValidationFailed: [400, validation, own],
  KeyNotFound: [404, 'KeyNotFoundException', own],
  NotFound: [404, 'KeyNotFoundException', own],
  AlreadyExists: [400, validation, own],
  LimitExceeded: [400, invalidState, own],
  Throttled: [429, 'ThrottlingException', () => 'The key store gets more requests than its quota.'],
  DryRun: [500, internal, failed],
  PolicyMalformed: [500, internal, failed],
  Unsupported: [501, 'UnsupportedOperationException', own],
  MarkerInvalid: [500, internal, failed],
  NotAuthorized: [403, 'AccessDeniedException', () => 'Not authorized.'],
  TagInvalid: [500, internal, failed],
  KeyDisabled: [400, invalidState, () => 'The key is disabled.'],
  KeyStateInvalid: [
    400,
    invalidState,
    (params) => ('text' in params ? params.text : `The key is ${params.condition}.`),
  ],
  KeyUsageInvalid: [400, 'InvalidKeyUsageException', own],
  IncorrectKey: [400, 'InvalidCiphertextException', () => 'The ciphertext belongs to another key.'],
  CiphertextInvalid: [400, 'InvalidCiphertextException', () => 'The ciphertext does not decrypt under this key.'],
  SignatureInvalid: [500, internal, failed],
  MacInvalid: [500, internal, failed],
  KeyMaterialIncorrect: [500, internal, failed],
  ImportTokenInvalid: [500, internal, failed],
  ImportTokenExpired: [500, internal, failed],
  Conflict: [500, internal, own],
  KeyUnavailable: [500, internal, () => 'No token that holds the key can serve now.'],
  HsmFailure: [500, internal, () => 'The HSM answered an error.'],
  HsmBusy: [429, 'ThrottlingException', () => 'The HSM has too much to do.'],
  DeadlineExceeded: [503, 'DependencyTimeoutException', () => 'The HSM did not answer in time.'],
  Quarantined: [500, internal, () => 'This input made two HSM workers fail and is refused for a while.'],
  AuditUnavailable: [500, internal, () => 'The audit journal cannot be written, so the result is withheld.'],
  CatalogUnavailable: [500, internal, failed],
  IntegrityFailed: [500, internal, failed],
  Internal: [500, internal, failed],
  // raised by this door alone
  UriPathInvalid: [404, 'InvalidUriPathException', own],
  MethodNotAllowed: [405, 'InvalidUriPathException', () => 'The XKS proxy API takes POST alone.'],
  RequestTooLarge: [501, 'UnsupportedOperationException', own],
  RequestMalformed: [400, validation, own],
  RequestTimedOut: [408, validation, own],
  StoreBlocked: [400, invalidState, own],
} satisfies { readonly [C in ErrorCode | XksCode]: Entry<C> }

export interface WireError {
  readonly status: number
  readonly name: string
  readonly body: string
}

const maxMessageChars = 511

/** Text of a request may be in it: whatever is not printable ASCII becomes a question mark. */
function toPrintable(text: string): string {
  return text.slice(0, maxMessageChars).replace(/[^\x20-\x7e]/g, '?')
}

function word(error: GatewayError): { readonly status: number; readonly name: string; readonly text: string } {
  const code = error instanceof XksError ? error.xksCode : error.code
  const [status, name, text] = dialect[code] as Entry<never>
  return { status, name, text: toPrintable(text(error.params as never) ?? '') }
}

/** Anything that is not modelled is an InternalException: its text stays in the log. */
export function renderError(cause: unknown): WireError {
  const { status, name, text } = word(toGatewayError(cause))
  const body = text === '' ? { errorName: name } : { errorName: name, errorMessage: text }
  return { status, name, body: JSON.stringify(body) }
}

/** Error code and message of the audit record. */
export function describeError(error: GatewayError): { readonly code: string; readonly text: string } {
  const { name, text } = word(error)
  return { code: name, text }
}
