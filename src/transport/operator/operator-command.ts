/** One row of the table of commands: what it is called, what it takes, and what it does. */

export interface OperatorCommand {
  readonly noun: string
  readonly verb: string
  readonly readOnly: boolean
  /** Members of the request: all are strings unless told, all are required but those in `optional`. */
  readonly members: Readonly<Record<string, 'string' | 'boolean' | 'integer'>>
  readonly optional?: readonly string[]
  /** Members whose values must not be recorded. */
  readonly secret?: readonly string[]
  /** Members of the answer that must not be recorded. */
  readonly secretAnswer?: readonly string[]
  run(input: Readonly<Record<string, never>>): Promise<unknown>
}

/** Checked against the members of the row before a command runs. */
export type Input = Readonly<Record<string, string | boolean | number | undefined>>

export function command(
  noun: string,
  verb: string,
  row: Omit<OperatorCommand, 'noun' | 'verb' | 'run' | 'readOnly'> & { readonly readOnly?: boolean },
  run: (input: Input) => Promise<unknown>,
): OperatorCommand {
  return { noun, verb, readOnly: false, ...row, run: run as OperatorCommand['run'] }
}
