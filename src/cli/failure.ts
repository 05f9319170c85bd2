/**
 * Turns whatever ended a command into what an operator reads, and into an exit code: cause and remedy, never a stack trace unless
 * HSMGATE_DEBUG=1.
 */
import { GatewayError } from '../error.ts'
import { formatProblems, type Problem, ProblemsError } from '../problem.ts'
import { type CommonOptions, exitCodes, printable, type Terminal } from './terminal.ts'

/** No gateway answers on its operator socket: exit code 3. */
export class NoGatewayError extends ProblemsError {
  override readonly name = 'NoGatewayError'
}

/** Prints the failure and answers its exit code. */
export function reportFailure(terminal: Terminal, options: CommonOptions, failure: unknown): number {
  const problems = describeFailure(failure).map(({ at, cause, remedy }) => ({
    at: printable(at),
    cause: printable(cause),
    remedy: printable(remedy),
  }))
  terminal.err(options.json ? `${JSON.stringify({ problems })}\n` : formatProblems(problems))
  if (terminal.environment.HSMGATE_DEBUG === '1') terminal.err(`${formatStack(failure)}\n`)
  return failure instanceof NoGatewayError ? exitCodes.noGateway : exitCodes.failed
}

function describeFailure(failure: unknown): readonly Problem[] {
  if (failure instanceof ProblemsError) return failure.problems
  if (failure instanceof GatewayError) {
    const { text } = (failure.params ?? {}) as { readonly text?: string }
    return [{ at: 'hsmgate', cause: text ?? failure.message, remedy: remedyOf(failure.code) }]
  }
  const { message, code } = failure as { readonly message?: unknown; readonly code?: unknown }
  const [cause, remedy] = String(message ?? failure).split('; remedy: ')
  const unexpected = 'run it again with HSMGATE_DEBUG=1 to see where it happened'
  const isSystemError = typeof code === 'string' && code.startsWith('E')
  return [
    {
      at: 'hsmgate',
      cause: cause!.split('\n')[0]!,
      remedy: remedy ?? (isSystemError ? 'see to the file or address that is named' : unexpected),
    },
  ]
}

/** What to do about an answer of the gateway, by its code. */
export function remedyOf(code: string): string {
  switch (code) {
    case 'NotFound':
    case 'KeyNotFound':
      return 'the list commands show what there is (`hsmgate principal list`, `hsmgate key list`, `hsmgate token list`)'
    case 'AlreadyExists':
      return 'choose another name, or delete the one that is there first'
    case 'LimitExceeded':
      return 'delete one that is no longer used first'
    case 'PolicyMalformed':
      return 'correct the policy document'
    case 'ValidationFailed':
      return 'correct what the command was given'
    case 'AccessDenied':
    case 'NotAuthorized':
      return "run the command as the gateway's own user or as root"
    case 'KeyUnavailable':
    case 'HsmFailure':
    case 'Quarantined':
      return '`hsmgate token list` shows the state of the tokens'
    case 'HsmBusy':
    case 'DeadlineExceeded':
    case 'Throttled':
      return 'try again'
    case 'AuditUnavailable':
      return "free disk space for the audit journal; the gateway's log says more"
    default:
      return "the gateway's log says more"
  }
}

function formatStack(failure: unknown): string {
  if (!(failure instanceof Error)) return String(failure)
  const cause = failure.cause === undefined ? '' : `\ncaused by: ${formatStack(failure.cause)}`
  return `${failure.stack ?? failure.message}${cause}`
}
