/**
 * How the KMS door words every error: HTTP status, exception name, text, and whether the text goes under `message`, `Message` or
 * nowhere. Client faults are 400 on this wire, whatever the API model's traits say (AWS KMS API Reference, "Common Errors").
 */
import type { ErrorCode, ErrorParams } from '../../error.ts'
import { type GatewayError, toGatewayError } from '../../error.ts'
import { type StoreCode, StoreError } from '../../stores/stores.ts'
import { type KmsCode, KmsError } from './kms-error.ts'

type ParamsOf<C> = C extends keyof ErrorParams
  ? ErrorParams[C]
  : C extends KmsCode | StoreCode
    ? { readonly text?: string }
    : undefined

/** `Message` in capitals is what AWS writes when the refusal comes from policy evaluation. */
type TextMember = 'message' | 'Message'

type Entry<C> = readonly [
  status: number,
  name: string,
  text: (params: ParamsOf<C>) => string | undefined,
  member?: TextMember,
]

const none = () => undefined
const own = (params: { readonly text?: string }) => params.text
const internal = () => 'The request was rejected because an internal exception occurred. The request can be retried.'

const signatureText =
  'The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method. Consult the service documentation for details.'

const dialect = {
  CredentialsMissing: [400, 'MissingAuthenticationTokenException', () => 'Missing Authentication Token'],
  CredentialsIncomplete: [400, 'IncompleteSignatureException', own],
  CredentialsUnknown: [
    400,
    'UnrecognizedClientException',
    () => 'The security token included in the request is invalid.',
  ],
  CredentialsExpired: [400, 'ExpiredTokenException', () => 'The security token included in the request is expired'],
  SignatureMismatch: [400, 'InvalidSignatureException', (params) => params.text ?? signatureText],
  AccessDenied: [400, 'AccessDeniedException', accessDeniedText, 'Message'],
  CiphertextKeyInaccessible: [
    400,
    'AccessDeniedException',
    () =>
      'The ciphertext refers to a customer master key that does not exist, does not exist in this region, or you are not allowed to access.',
    'Message',
  ],
  ValidationFailed: [400, 'ValidationException', own],
  KeyNotFound: [400, 'NotFoundException', own],
  NotFound: [400, 'NotFoundException', own],
  AlreadyExists: [400, 'AlreadyExistsException', own],
  LimitExceeded: [400, 'LimitExceededException', own],
  Throttled: [
    400,
    'ThrottlingException',
    () => 'You have exceeded the rate at which you may call KMS. Reduce the frequency of your calls.',
  ],
  DryRun: [400, 'DryRunOperationException', () => 'The request would have succeeded, but the DryRun option is set.'],
  PolicyMalformed: [400, 'MalformedPolicyDocumentException', own],
  Unsupported: [400, 'UnsupportedOperationException', own],
  MarkerInvalid: [400, 'InvalidMarkerException', none],
  NotAuthorized: [400, 'NotAuthorizedException', none],
  TagInvalid: [400, 'TagException', own],
  KeyDisabled: [400, 'DisabledException', (params) => `${params.keyArn} is disabled.`],
  KeyStateInvalid: [400, 'KMSInvalidStateException', stateText],
  KeyUsageInvalid: [400, 'InvalidKeyUsageException', own],
  IncorrectKey: [
    400,
    'IncorrectKeyException',
    () => 'The key ID in the request does not identify a CMK that can perform this operation.',
  ],
  CiphertextInvalid: [400, 'InvalidCiphertextException', none],
  SignatureInvalid: [400, 'KMSInvalidSignatureException', none],
  MacInvalid: [400, 'KMSInvalidMacException', none],
  KeyMaterialIncorrect: [400, 'IncorrectKeyMaterialException', none],
  ImportTokenInvalid: [400, 'InvalidImportTokenException', none],
  ImportTokenExpired: [400, 'ExpiredImportTokenException', none],
  Conflict: [400, 'ConflictException', own],
  KeyUnavailable: [
    500,
    'KeyUnavailableException',
    () => 'The request was rejected because the specified KMS key was not available. You can retry the request.',
  ],
  HsmFailure: [500, 'KMSInternalException', internal],
  HsmBusy: [
    400,
    'ThrottlingException',
    () => 'You have exceeded the rate at which you may call KMS. Reduce the frequency of your calls.',
  ],
  DeadlineExceeded: [
    503,
    'DependencyTimeoutException',
    () => 'The system timed out while trying to fulfill the request. You can retry the request.',
  ],
  Quarantined: [500, 'KMSInternalException', internal],
  AuditUnavailable: [500, 'KMSInternalException', internal],
  CatalogUnavailable: [500, 'KMSInternalException', internal],
  IntegrityFailed: [500, 'KMSInternalException', internal],
  Internal: [500, 'KMSInternalException', internal],
  // raised by this door alone
  SerializationFailed: [400, 'SerializationException', own],
  UnknownOperation: [400, 'UnknownOperationException', none],
  RequestTooLarge: [413, 'RequestEntityTooLargeException', own],
  RequestMalformed: [400, 'MalformedHttpRequestException', own],
  RequestTimedOut: [408, 'RequestTimeoutException', own],
  GrantTokenInvalid: [400, 'InvalidGrantTokenException', own],
  GrantIdInvalid: [400, 'InvalidGrantIdException', own],
  ArnInvalid: [400, 'InvalidArnException', own],
  AliasNameInvalid: [400, 'InvalidAliasNameException', own],
  // raised by custom key stores
  CustomKeyStoreNotFound: [400, 'CustomKeyStoreNotFoundException', own],
  CustomKeyStoreInvalidState: [400, 'CustomKeyStoreInvalidStateException', own],
  CustomKeyStoreNameInUse: [400, 'CustomKeyStoreNameInUseException', own],
  CustomKeyStoreHasCMKs: [400, 'CustomKeyStoreHasCMKsException', own],
  CloudHsmClusterInUse: [400, 'CloudHsmClusterInUseException', own],
  CloudHsmClusterInvalidConfiguration: [400, 'CloudHsmClusterInvalidConfigurationException', own],
  CloudHsmClusterNotFound: [400, 'CloudHsmClusterNotFoundException', own],
  CloudHsmClusterNotRelated: [400, 'CloudHsmClusterNotRelatedException', own],
  IncorrectTrustAnchor: [400, 'IncorrectTrustAnchorException', own],
  XksKeyAlreadyInUse: [400, 'XksKeyAlreadyInUseException', own],
  XksKeyInvalidConfiguration: [400, 'XksKeyInvalidConfigurationException', own],
  XksKeyNotFound: [400, 'XksKeyNotFoundException', own],
  XksProxyIncorrectAuthenticationCredential: [400, 'XksProxyIncorrectAuthenticationCredentialException', own],
  XksProxyInvalidConfiguration: [400, 'XksProxyInvalidConfigurationException', own],
  XksProxyInvalidResponse: [400, 'XksProxyInvalidResponseException', own],
  XksProxyUriEndpointInUse: [400, 'XksProxyUriEndpointInUseException', own],
  XksProxyUriInUse: [400, 'XksProxyUriInUseException', own],
  XksProxyUriUnreachable: [400, 'XksProxyUriUnreachableException', own],
  XksProxyVpcEndpointServiceInUse: [400, 'XksProxyVpcEndpointServiceInUseException', own],
  XksProxyVpcEndpointServiceInvalidConfiguration: [400, 'XksProxyVpcEndpointServiceInvalidConfigurationException', own],
  XksProxyVpcEndpointServiceNotFound: [400, 'XksProxyVpcEndpointServiceNotFoundException', own],
} satisfies { readonly [C in ErrorCode | KmsCode | StoreCode]: Entry<C> }

function stateText(params: ErrorParams['KeyStateInvalid']): string {
  return 'text' in params ? params.text : `${params.keyArn} is ${params.condition}.`
}

/** AWS IAM User Guide, "Troubleshoot access denied error messages". */
function accessDeniedText(params: ErrorParams['AccessDenied']): string {
  // CreateKey alone is worded without a resource; lists are on "*".
  const on = params.action === 'kms:CreateKey' ? '' : ` on resource: ${params.resource ?? '*'}`
  const because = {
    'no-identity-allow': `because no identity-based policy allows the ${params.action} action`,
    'no-resource-allow': `because no resource-based policy allows the ${params.action} action`,
    'explicit-deny-identity': 'with an explicit deny in an identity-based policy',
    'explicit-deny-resource': 'with an explicit deny in a resource-based policy',
    'cross-account':
      'because the resource does not exist in this Region, no resource-based policies allow access, or a resource-based policy explicitly denies access',
  }[params.reason]
  return `User: ${params.principal} is not authorized to perform: ${params.action}${on} ${because}`
}

export interface WireError {
  readonly status: number
  /** Exception name as in `__type`. */
  readonly name: string
  readonly body: string
}

interface Worded {
  readonly status: number
  readonly name: string
  readonly text: string | undefined
  readonly member: TextMember
}

function codeOf(error: GatewayError): keyof typeof dialect {
  if (error instanceof KmsError) return error.kmsCode
  return error instanceof StoreError ? error.storeCode : error.code
}

function word(error: GatewayError): Worded {
  const code = codeOf(error)
  const [status, name, text, member = 'message'] = dialect[code] as Entry<never>
  return { status, name, text: text(error.params as never), member }
}

/** Anything that is not modelled is an internal error: its text stays in the log. */
export function renderError(cause: unknown): WireError {
  const { status, name, text, member } = word(toGatewayError(cause))
  const body = text === undefined ? { __type: name } : { __type: name, [member]: text }
  return { status, name, body: JSON.stringify(body) }
}

/** Error code and message of the audit record; CloudTrail writes AccessDenied without its suffix. */
export function describeError(error: GatewayError): { readonly code: string; readonly text: string } {
  const { name, text } = word(error)
  return { code: name === 'AccessDeniedException' ? 'AccessDenied' : name, text: text ?? '' }
}
