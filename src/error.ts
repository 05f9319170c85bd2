/**
 * The one error class and the frozen table of codes that every door answers.
 *
 * `fault` says whose fault it is, `retry` whether the same call may succeed later. `params` are public: a door renders them to its
 * caller, so no secret and nothing about other accounts goes in. `cause` and `detail` go to the log only.
 */

interface CodeEntry {
  readonly fault: 'caller' | 'gateway' | 'hsm'
  readonly retry: boolean
}

const caller = (retry = false): CodeEntry => ({ fault: 'caller', retry })
const gateway = (retry = false): CodeEntry => ({ fault: 'gateway', retry })
const hsm = (retry = false): CodeEntry => ({ fault: 'hsm', retry })

export const errorCodes = Object.freeze({
  // who calls
  CredentialsMissing: caller(),
  CredentialsIncomplete: caller(),
  CredentialsUnknown: caller(),
  CredentialsExpired: caller(),
  SignatureMismatch: caller(),
  AccessDenied: caller(),
  /** Decrypt whose blob names a key that is missing or forbidden: one answer for both. */
  CiphertextKeyInaccessible: caller(),
  // what is asked
  ValidationFailed: caller(),
  KeyNotFound: caller(),
  NotFound: caller(),
  AlreadyExists: caller(),
  LimitExceeded: caller(true),
  Throttled: caller(true),
  DryRun: caller(),
  PolicyMalformed: caller(),
  Unsupported: caller(),
  MarkerInvalid: caller(),
  NotAuthorized: caller(),
  TagInvalid: caller(),
  // the key
  KeyDisabled: caller(),
  KeyStateInvalid: caller(),
  KeyUsageInvalid: caller(),
  IncorrectKey: caller(),
  CiphertextInvalid: caller(),
  SignatureInvalid: caller(),
  MacInvalid: caller(),
  // importing key material
  KeyMaterialIncorrect: caller(),
  ImportTokenInvalid: caller(),
  ImportTokenExpired: caller(),
  /** Something else is changing the key right now, or is about to. */
  Conflict: caller(),
  // behind the gateway
  KeyUnavailable: hsm(true),
  HsmFailure: hsm(true),
  HsmBusy: hsm(true),
  DeadlineExceeded: hsm(true),
  /** The same (key, mechanism, input shape) killed two workers; refused for a while. */
  Quarantined: hsm(),
  AuditUnavailable: gateway(true),
  CatalogUnavailable: gateway(true),
  /** A catalog row whose HMAC does not match: tampering or corruption. */
  IntegrityFailed: gateway(),
  Internal: gateway(),
} satisfies Record<string, CodeEntry>)

export type ErrorCode = keyof typeof errorCodes

/** Public parameters by code; codes that are absent here take none. */
export interface ErrorParams {
  readonly CredentialsIncomplete: { readonly text: string }
  readonly SignatureMismatch: { readonly text?: string }
  readonly AccessDenied: {
    readonly principal: string
    readonly action: string
    /** Absent where the operation has no resource. */
    readonly resource?: string
    readonly reason:
      | 'explicit-deny-identity'
      | 'explicit-deny-resource'
      | 'no-identity-allow'
      | 'no-resource-allow'
      | 'cross-account'
  }
  readonly ValidationFailed: { readonly text?: string }
  readonly KeyNotFound: { readonly text: string }
  readonly NotFound: { readonly text: string }
  readonly AlreadyExists: { readonly text: string }
  readonly LimitExceeded: { readonly text: string }
  readonly PolicyMalformed: { readonly text: string }
  readonly Unsupported: { readonly text?: string }
  readonly TagInvalid: { readonly text: string }
  readonly KeyDisabled: { readonly keyArn: string }
  /** `text` where the sentence is not `<key ARN> is <condition>.` */
  readonly KeyStateInvalid: { readonly keyArn: string; readonly condition: string } | { readonly text: string }
  readonly KeyUsageInvalid: { readonly text: string }
  readonly Conflict: { readonly text: string }
}

type ParamsOf<C extends ErrorCode> = C extends keyof ErrorParams ? ErrorParams[C] : undefined

interface ErrorExtras {
  readonly cause?: unknown
  /** For the log only. */
  readonly detail?: string
}

export class GatewayError<C extends ErrorCode = ErrorCode> extends Error {
  readonly code: C
  readonly params: ParamsOf<C>
  readonly detail: string | undefined

  constructor(
    code: C,
    ...rest: undefined extends ParamsOf<C>
      ? [params?: ParamsOf<C>, extras?: ErrorExtras]
      : [params: ParamsOf<C>, extras?: ErrorExtras]
  ) {
    const [params, extras] = rest
    super(extras?.detail === undefined ? code : `${code}: ${extras.detail}`, { cause: extras?.cause })
    this.name = 'GatewayError'
    this.code = code
    this.params = params as ParamsOf<C>
    this.detail = extras?.detail
  }
}

/** Narrows to one code, so that `params` is typed. */
export function isCode<C extends ErrorCode>(error: unknown, code: C): error is GatewayError<C> {
  return error instanceof GatewayError && error.code === code
}

/** The error itself when it is modelled, else `Internal` with the original as its cause. */
export function toGatewayError(error: unknown): GatewayError {
  if (error instanceof GatewayError) return error
  return new GatewayError('Internal', undefined, { cause: error })
}
