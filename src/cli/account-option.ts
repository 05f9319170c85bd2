/** The option by which commands on users name the account that the user belongs to. */

export interface AccountOption {
  readonly account?: string
}

export const accountOption = ['--account <id>', 'account of the user (default: the first one configured)'] as const
