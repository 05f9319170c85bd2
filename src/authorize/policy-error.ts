/**
 * The one failure of reading a policy document. `message` is the text AWS puts into MalformedPolicyDocumentException; a door renders
 * `problem: 'size'` as its limit error instead. The document itself is never part of the text beyond the element that AWS echoes.
 */

export type PolicyProblem = 'size' | 'characters' | 'syntax' | 'principals' | 'content'

export class PolicyError extends Error {
  readonly problem: PolicyProblem

  constructor(problem: PolicyProblem, message: string) {
    super(message)
    this.name = 'PolicyError'
    this.problem = problem
  }
}

export function syntaxError(): PolicyError {
  return new PolicyError('syntax', 'Syntax errors in policy.')
}

/** AWS says this of dates, partial ARNs and other values that its grammar accepts and its evaluator does not. */
export function legacyParsingError(): PolicyError {
  return new PolicyError('content', 'The policy failed legacy parsing')
}
