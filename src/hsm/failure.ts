/**
 * What a worker's failure means to the gateway: the step that its action letter (the CKR table) asks for, and the error the caller gets
 * when no step is left. Public texts are fixed here: a worker's detail is for the log.
 */
import { type ErrorCode, GatewayError } from '../error.ts'
import type { OperationName, WorkerFailure } from './frames.ts'

/**
 * `elsewhere`: once more on another worker; three in a row replace the worker. `look-elsewhere`: once more, without blame, as the object may be
 * gone for all. `replace`: once more, and the worker is replaced. `breaker`: the token is down.
 */
export type Step = 'fail' | 'elsewhere' | 'look-elsewhere' | 'replace' | 'back-off' | 'breaker' | 'operator'

const steps: Readonly<Record<string, Step>> = {
  S: 'elsewhere',
  H: 'look-elsewhere',
  L: 'replace',
  I: 'replace',
  T: 'back-off',
  D: 'breaker',
  O: 'operator',
}

export function stepOf(failure: WorkerFailure): Step {
  return steps[failure.action] ?? 'fail'
}

const texts: Partial<Record<ErrorCode, string>> = {
  KeyNotFound: 'The key does not exist in the token.',
  NotFound: 'No such object in the token.',
  AlreadyExists: 'An object with this id exists already.',
  LimitExceeded: 'The key is exhausted.',
  KeyUsageInvalid: 'The key does not permit this use.',
  Unsupported: 'The HSM does not support this operation.',
}

export function errorOf(failure: WorkerFailure, operation: OperationName): GatewayError {
  const extras = { detail: failure.detail }
  const text = texts[failure.code]
  // Adoption is an operator's call: its refusals are meant to be read.
  if (operation === 'adopt' && (failure.code === 'ValidationFailed' || failure.code === 'NotFound'))
    return new GatewayError(failure.code, { text: failure.detail }, extras)
  return new GatewayError(failure.code, (text === undefined ? undefined : { text }) as never, extras)
}
