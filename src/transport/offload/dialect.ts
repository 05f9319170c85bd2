/**
 * How the offload door words every error: the number of the ERROR frame, whether another gateway may do better, the text. The name is for
 * the audit record. "Retryable" is for what another try within milliseconds, here or elsewhere, can cure.
 */
import { type ErrorCode, type ErrorParams, type GatewayError, toGatewayError } from '../../error.ts'
import { errorNumbers } from './frames.ts'
import { type OffloadCode, OffloadError } from './offload-error.ts'

type ParamsOf<C> = C extends keyof ErrorParams
  ? ErrorParams[C]
  : C extends OffloadCode
    ? { readonly text?: string }
    : undefined
type Entry<C> = readonly [number: number, name: string, retryable: boolean, text: (params: ParamsOf<C>) => string]

const {
  badRequest,
  unauthenticated,
  policyDenied,
  keyNotFound,
  unsupported,
  busy,
  hsm,
  deadline,
  shuttingDown,
  internal,
} = errorNumbers
const own = (params: { readonly text?: string }) => params.text ?? 'the request is not valid'
const seeLog = () => 'something in the gateway failed; its log says what'
const unknownToken = () => 'the token is not known, or was revoked'
const notNow = () => 'the key cannot be used now'

const dialect = {
  PeerRefused: [unauthenticated, 'PeerRefused', false, own],
  // a gateway whose clock is behind may still take it
  PeerExpired: [unauthenticated, 'PeerExpired', true, own],
  PolicyRefused: [policyDenied, 'PolicyDenied', false, own],
  KeyMismatch: [keyNotFound, 'KeyMismatch', false, own],
  RequestInvalid: [badRequest, 'BadRequest', false, own],
  Busy: [busy, 'Busy', true, own],
  CredentialsMissing: [unauthenticated, 'Unauthenticated', false, unknownToken],
  CredentialsIncomplete: [unauthenticated, 'Unauthenticated', false, unknownToken],
  CredentialsUnknown: [unauthenticated, 'Unauthenticated', false, unknownToken],
  CredentialsExpired: [unauthenticated, 'Unauthenticated', false, unknownToken],
  SignatureMismatch: [unauthenticated, 'Unauthenticated', false, unknownToken],
  AccessDenied: [policyDenied, 'AccessDenied', false, () => 'the key policy denies it'],
  CiphertextKeyInaccessible: [badRequest, 'BadRequest', false, seeLog],
  ValidationFailed: [badRequest, 'BadRequest', false, own],
  KeyNotFound: [keyNotFound, 'KeyNotFound', false, () => 'the key does not exist'],
  NotFound: [keyNotFound, 'KeyNotFound', false, () => 'the key does not exist'],
  AlreadyExists: [internal, 'Internal', false, seeLog],
  LimitExceeded: [busy, 'Busy', true, () => 'too much at once'],
  Throttled: [busy, 'Throttled', true, () => 'more signatures than this token may ask for'],
  DryRun: [internal, 'Internal', false, seeLog],
  PolicyMalformed: [internal, 'Internal', false, seeLog],
  Unsupported: [unsupported, 'Unsupported', false, (params) => params?.text ?? 'the key or its HSM does not do that'],
  MarkerInvalid: [badRequest, 'BadRequest', false, seeLog],
  NotAuthorized: [policyDenied, 'AccessDenied', false, () => 'not allowed'],
  TagInvalid: [badRequest, 'BadRequest', false, seeLog],
  KeyDisabled: [keyNotFound, 'KeyDisabled', false, () => 'the key is disabled'],
  KeyStateInvalid: [
    keyNotFound,
    'KeyStateInvalid',
    false,
    (params) => ('text' in params ? params.text : `the key is ${params.condition}`),
  ],
  KeyUsageInvalid: [unsupported, 'KeyUsageInvalid', false, () => 'the key is not for this use'],
  IncorrectKey: [keyNotFound, 'KeyMismatch', false, () => 'another key'],
  CiphertextInvalid: [internal, 'Internal', false, seeLog],
  SignatureInvalid: [internal, 'Internal', false, seeLog],
  MacInvalid: [internal, 'Internal', false, seeLog],
  KeyMaterialIncorrect: [internal, 'Internal', false, seeLog],
  ImportTokenInvalid: [internal, 'Internal', false, seeLog],
  ImportTokenExpired: [internal, 'Internal', false, seeLog],
  Conflict: [busy, 'Busy', true, () => 'the key is being changed'],
  KeyUnavailable: [hsm, 'KeyUnavailable', true, notNow],
  HsmFailure: [hsm, 'HsmFailure', true, () => 'the HSM answered an error'],
  HsmBusy: [busy, 'Busy', true, () => 'the HSM has too much to do'],
  DeadlineExceeded: [deadline, 'DeadlineExceeded', false, () => 'there was no result in time'],
  Quarantined: [hsm, 'Quarantined', false, () => 'this input made two workers fail'],
  AuditUnavailable: [internal, 'AuditUnavailable', true, () => 'the audit journal cannot be written'],
  CatalogUnavailable: [internal, 'CatalogUnavailable', true, () => 'the catalog cannot be read'],
  IntegrityFailed: [internal, 'IntegrityFailed', false, seeLog],
  Internal: [internal, 'Internal', false, seeLog],
} satisfies { readonly [C in ErrorCode | OffloadCode]: Entry<C> }

export interface OffloadFailure {
  readonly number: number
  readonly code: string
  readonly retryable: boolean
  readonly text: string
}

export function describeFailure(cause: unknown): OffloadFailure {
  const error: GatewayError = toGatewayError(cause)
  const name = error instanceof OffloadError ? error.offloadCode : error.code
  const [number, code, retryable, text] = dialect[name] as Entry<ErrorCode>
  return { number, code, retryable, text: (text as (params: unknown) => string)(error.params) }
}

/** The door closes; another one, or the same a moment later, takes the request. */
export const closingFailure: OffloadFailure = {
  number: shuttingDown,
  code: 'ShuttingDown',
  retryable: true,
  text: 'the gateway is closing this connection',
}
