/** `hsmgate principal …`: users of the gateway, asked of the running gateway. JSON has the member names of AWS IAM. */
import type { Command } from 'commander'
import type { UserDescription } from '../../administration.ts'
import { type AccountOption, accountOption } from '../account-option.ts'
import { addAction } from '../action.ts'
import { askGateway } from '../operator-client.ts'
import { formatTable, formatTime, show, type Terminal } from '../terminal.ts'
import { addPrincipalKey } from './principal-key.ts'
import { addPrincipalPolicy } from './principal-policy.ts'

export function addPrincipal(program: Command, terminal: Terminal): void {
  const principal = program.command('principal').description('users, their policies and access keys')

  const create = principal.command('create').description('make a user; he may do nothing until a policy lets him')
  addAction<AccountOption, [string]>(create.argument('<name>').option(...accountOption), async (options, name) => {
    const { account } = options
    const user = await askGateway<UserDescription>(options, terminal, 'principal', 'create', { name, account })
    show(terminal, options, { User: describeUser(user) }, () => `${user.arn}\n`)
  })

  const list = principal.command('list').description('list users')
  list.option('--account <id>', 'only users of this account')
  addAction<AccountOption, []>(list, async (options) => {
    const question = { account: options.account }
    const { users } = await askGateway<{ users: readonly UserDescription[] }>(
      options,
      terminal,
      'principal',
      'list',
      question,
    )
    show(terminal, options, { Users: users.map(describeUser) }, () =>
      formatTable(
        ['NAME', 'ACCOUNT', 'STATUS', 'CREATED', 'ARN'],
        users.map((user) => [
          user.name,
          user.account,
          user.enabled ? 'enabled' : 'disabled',
          formatTime(user.createdAt),
          user.arn,
        ]),
      ),
    )
  })

  const verbs = {
    enable: ['let a disabled user in again', 'enabled'],
    disable: ['refuse every call of a user from now on', 'disabled'],
    delete: ['delete a user with his policies and access keys', 'deleted'],
  } as const
  for (const [verb, [description, done]] of Object.entries(verbs)) {
    const command = principal
      .command(verb)
      .description(description)
      .argument('<name>')
      .option(...accountOption)
    addAction<AccountOption, [string]>(command, async (options, name) => {
      await askGateway(options, terminal, 'principal', verb, { name, account: options.account })
      show(terminal, options, {}, () => `${name}: ${done}\n`)
    })
  }
  addPrincipalPolicy(principal, terminal)
  addPrincipalKey(principal, terminal)
}

function describeUser({ name, principalId, arn, createdAt, enabled }: UserDescription) {
  return { UserName: name, UserId: principalId, Arn: arn, CreateDate: formatTime(createdAt), Enabled: enabled }
}
