/** How the operator door words every error: an HTTP status and a sentence for a person at a terminal. The code itself is the name. */
import { type ErrorCode, type ErrorParams, toGatewayError } from '../../error.ts'

type ParamsOf<C> = C extends keyof ErrorParams ? ErrorParams[C] : undefined
type Entry<C> = readonly [status: number, text: (params: ParamsOf<C>) => string]

const seeLog = () => 'Something in the gateway failed; its log says what.'

const dialect = {
  CredentialsMissing: [403, () => 'This command needs the operator socket.'],
  CredentialsIncomplete: [403, (params) => params.text],
  CredentialsUnknown: [403, () => 'Only the user that runs the gateway, and root, may give it commands.'],
  CredentialsExpired: [403, () => 'The credentials have expired.'],
  SignatureMismatch: [403, (params) => params.text ?? 'The signature is wrong.'],
  AccessDenied: [403, (params) => `${params.principal} is not allowed to perform ${params.action}.`],
  CiphertextKeyInaccessible: [403, () => 'The ciphertext names a key that is not accessible.'],
  ValidationFailed: [400, (params) => params.text ?? 'The request is not valid.'],
  KeyNotFound: [404, (params) => params.text],
  NotFound: [404, (params) => params.text],
  AlreadyExists: [409, (params) => params.text],
  LimitExceeded: [409, (params) => params.text],
  Throttled: [429, () => 'Too many requests; try again.'],
  DryRun: [409, () => 'The request would have succeeded.'],
  PolicyMalformed: [400, (params) => params.text],
  Unsupported: [400, (params) => params.text ?? 'This is not supported.'],
  MarkerInvalid: [400, () => 'The marker is not one that this gateway gave out.'],
  NotAuthorized: [403, () => 'Not authorized.'],
  TagInvalid: [400, (params) => params.text],
  KeyDisabled: [409, (params) => `${params.keyArn} is disabled.`],
  KeyStateInvalid: [409, (params) => ('text' in params ? params.text : `${params.keyArn} is ${params.condition}.`)],
  KeyUsageInvalid: [409, (params) => params.text],
  IncorrectKey: [400, () => 'The ciphertext belongs to another key.'],
  CiphertextInvalid: [400, () => 'The ciphertext is not valid.'],
  SignatureInvalid: [400, () => 'The signature is not valid.'],
  MacInvalid: [400, () => 'The MAC is not valid.'],
  KeyMaterialIncorrect: [400, () => 'The key material is not what the key takes.'],
  ImportTokenInvalid: [400, () => 'The import token is not valid.'],
  ImportTokenExpired: [400, () => 'The import token has expired.'],
  Conflict: [409, (params) => params.text],
  KeyUnavailable: [503, () => 'No token that holds the key can serve now; `hsmgate token list` says why.'],
  HsmFailure: [502, () => 'The HSM answered an error; the log of the gateway says which.'],
  HsmBusy: [503, () => 'The HSM has too much to do; try again.'],
  DeadlineExceeded: [504, () => 'The HSM did not answer in time; try again.'],
  Quarantined: [503, () => 'This input made two workers fail and is refused for a while.'],
  AuditUnavailable: [
    503,
    () => 'The audit journal cannot be written, so the result is withheld. Make room on its disk.',
  ],
  CatalogUnavailable: [503, () => 'The catalog cannot be read or written now; the log of the gateway says why.'],
  IntegrityFailed: [500, () => 'A row of the catalog was changed from outside; the log of the gateway names it.'],
  Internal: [500, seeLog],
} satisfies { readonly [C in ErrorCode]: Entry<C> }

export interface OperatorFailure {
  readonly status: number
  readonly code: ErrorCode
  readonly text: string
}

export function describeOperatorError(cause: unknown): OperatorFailure {
  const { code, params } = toGatewayError(cause)
  const [status, text] = dialect[code] as Entry<ErrorCode>
  return { status, code, text: (text as (params: unknown) => string)(params) }
}
