/**
 * How a request to an XKS proxy can fail, and what KMS makes of it: the exception of a management operation, that of CreateKey, the connection error
 * code, and the text, which alone tells the causes of a failed cryptographic operation apart (AWS KMS Developer Guide, "Troubleshooting external key
 * stores"; XKS proxy API specification, "Error handling").
 */
import { GatewayError } from '../error.ts'
import { type ConnectionErrorCode, type StoreCode, StoreError } from './stores.ts'

/** The proxy's own error names without `Exception`, and what it never said. */
export type FailureKind =
  | 'Validation'
  | 'InvalidState'
  | 'InvalidCiphertext'
  | 'InvalidKeyUsage'
  | 'AuthenticationFailed'
  | 'AccessDenied'
  | 'KeyNotFound'
  | 'InvalidUriPath'
  | 'Throttling'
  | 'Internal'
  | 'UnsupportedOperation'
  | 'DependencyTimeout'
  /** An answer that the specification does not know. */
  | 'Malformed'
  /** All key managers behind the proxy say that they are unavailable. */
  | 'Unhealthy'
  | 'TimedOut'
  | 'Unreachable'
  | 'Tls'

interface Meaning {
  readonly manage: StoreCode | 'Unsupported'
  readonly createKey: StoreCode
  readonly connect: ConnectionErrorCode
  readonly text: string
}

const rejected = 'The external key store proxy rejected the request because'
const again = 'If you see this error repeatedly,'
const unreachable = `AWS KMS cannot communicate with the external key store proxy. This might be a transient network issue. ${again} verify that your external key store proxy is active and is connected to the network, and that its endpoint URI is correct in your external key store.`
const uninterpretable = `AWS KMS cannot interpret the response from the external key store proxy. ${again} consult your external key store proxy administrator.`
const unhealthy =
  'The external key store proxy is in an unhealthy state. If you see this message repeatedly, notify your external key store proxy administrator.'

const invalidState = 'CustomKeyStoreInvalidState'
const invalidResponse = { manage: 'XksProxyInvalidResponse', connect: 'XKS_PROXY_INVALID_RESPONSE' } as const
const noAnswer = { manage: 'XksProxyUriUnreachable', createKey: invalidState } as const

const meanings: Readonly<Record<FailureKind, Meaning>> = {
  Validation: { ...invalidResponse, createKey: invalidState, text: uninterpretable },
  Malformed: { ...invalidResponse, createKey: invalidState, text: uninterpretable },
  InvalidState: {
    ...invalidResponse,
    createKey: 'XksKeyInvalidConfiguration',
    text: `${rejected} the external key is not enabled in the external key manager.`,
  },
  InvalidKeyUsage: {
    ...invalidResponse,
    createKey: 'XksKeyInvalidConfiguration',
    text: `${rejected} the external key does not support the requested operation.`,
  },
  InvalidCiphertext: {
    ...invalidResponse,
    createKey: invalidState,
    text: `${rejected} the specified ciphertext or additional authenticated data is corrupted, missing, or otherwise invalid.`,
  },
  AuthenticationFailed: {
    manage: 'XksProxyIncorrectAuthenticationCredential',
    createKey: invalidState,
    connect: 'INVALID_CREDENTIALS',
    text: `${rejected} it could not authenticate AWS KMS. Verify the credentials for your external key store and update if necessary.`,
  },
  AccessDenied: {
    manage: 'XksProxyInvalidResponse',
    createKey: invalidState,
    connect: 'XKS_PROXY_ACCESS_DENIED',
    text: 'The external key store proxy denied access to the operation. Verify that the user and the external key are both authorized for this operation, and try the request again.',
  },
  KeyNotFound: {
    ...invalidResponse,
    createKey: 'XksKeyNotFound',
    text: `${rejected} it could not find the external key.`,
  },
  InvalidUriPath: {
    manage: 'XksProxyInvalidConfiguration',
    createKey: invalidState,
    connect: 'XKS_PROXY_INVALID_CONFIGURATION',
    text: `${rejected} the specified URI path is not valid. Verify the URI path for your external key store and update if necessary.`,
  },
  UnsupportedOperation: {
    manage: 'Unsupported',
    createKey: invalidState,
    connect: 'XKS_PROXY_INVALID_RESPONSE',
    text: `${rejected} it does not support the requested cryptographic operation.`,
  },
  Internal: { ...invalidResponse, createKey: invalidState, text: unhealthy },
  Unhealthy: { ...noAnswer, connect: 'XKS_PROXY_NOT_REACHABLE', text: unhealthy },
  Throttling: {
    ...noAnswer,
    connect: 'XKS_PROXY_NOT_REACHABLE',
    text: 'The external key store proxy rejected the request due to a very high request rate. Reduce the frequency of your calls using KMS keys in this external key store.',
  },
  DependencyTimeout: {
    ...noAnswer,
    connect: 'XKS_PROXY_TIMED_OUT',
    text: `The external key store proxy did not respond to the request in the time allotted. Retry the request. ${again} report it to your external key store proxy administrator.`,
  },
  TimedOut: {
    ...noAnswer,
    connect: 'XKS_PROXY_TIMED_OUT',
    text: `AWS KMS rejected the request because the external key store proxy did not respond in time. Retry the request. ${again} report it to your external key store proxy administrator.`,
  },
  Unreachable: { ...noAnswer, connect: 'XKS_PROXY_NOT_REACHABLE', text: unreachable },
  Tls: { ...noAnswer, connect: 'XKS_PROXY_INVALID_TLS_CONFIGURATION', text: unreachable },
}

/** `why` is for the log: what the proxy said is never shown to callers. */
export class ProxyFailure extends Error {
  readonly kind: FailureKind

  constructor(kind: FailureKind, why: string, cause?: unknown) {
    super(`${kind}: ${why}`, { cause })
    this.name = 'ProxyFailure'
    this.kind = kind
  }
}

/** The kind of an `errorName` of the specification. */
export function kindOfErrorName(name: unknown): FailureKind | undefined {
  if (typeof name !== 'string' || !name.endsWith('Exception')) return undefined
  const kind = name.slice(0, -'Exception'.length)
  const isNamed = Object.hasOwn(meanings, kind) && !ownKinds.has(kind)
  return isNamed ? (kind as FailureKind) : undefined
}

const ownKinds: ReadonlySet<string> = new Set(['Malformed', 'Unhealthy', 'TimedOut', 'Unreachable', 'Tls'])

/** Runs what talks to a proxy; its failures become those of creating or updating a store. */
export function inManagement<T>(work: () => Promise<T>): Promise<T> {
  return translated(work, ({ manage, text }, cause) =>
    manage === 'Unsupported'
      ? new GatewayError('Unsupported', { text }, { cause })
      : new StoreError(manage, text, cause),
  )
}

/** The same for CreateKey. */
export function inKeyCreation<T>(work: () => Promise<T>): Promise<T> {
  return translated(work, ({ createKey, text }, cause) => new StoreError(createKey, text, cause))
}

/** The same for cryptographic operations. */
export function inCryptography<T>(work: () => Promise<T>): Promise<T> {
  return translated(
    work,
    ({ text }, cause) => new GatewayError('KeyStateInvalid', { text }, { cause, detail: cause.message }),
  )
}

export function connectionErrorOf(cause: unknown): ConnectionErrorCode {
  return cause instanceof ProxyFailure ? meanings[cause.kind].connect : 'INTERNAL_ERROR'
}

async function translated<T>(
  work: () => Promise<T>,
  word: (meaning: Meaning, cause: ProxyFailure) => Error,
): Promise<T> {
  try {
    return await work()
  } catch (cause) {
    throw cause instanceof ProxyFailure ? word(meanings[cause.kind], cause) : cause
  }
}
