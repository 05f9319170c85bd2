/**
 * What an operator reads when something cannot start or a command fails: where, what is wrong, and what to do about it.
 * All problems of one step are reported together. The texts hold no secret and no value of a file that might hold one.
 */

export interface Problem {
  /** A file, a key of the configuration (`tokens.main.pinFile`), an address or a command. */
  readonly at: string
  readonly cause: string
  readonly remedy: string
}

export class ProblemsError extends Error {
  readonly problems: readonly Problem[]

  constructor(problems: readonly Problem[], extras?: { readonly cause?: unknown }) {
    super(problems.map(({ at, cause }) => `${at}: ${cause}`).join('; '), { cause: extras?.cause })
    this.name = 'ProblemsError'
    this.problems = problems
  }
}

/** One paragraph for each problem, for a terminal. */
export function formatProblems(problems: readonly Problem[]): string {
  return problems.map(({ at, cause, remedy }) => `${at}: ${cause}\n  remedy: ${remedy}\n`).join('')
}
