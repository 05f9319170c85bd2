/**
 * `hsmgate principal key …`: access keys of users. The secret of a new one is printed once and can't be had again. JSON has the member
 * names of AWS IAM (API Reference, "AccessKey" and "AccessKeyMetadata").
 */
import type { Command } from 'commander'
import type { AccessKeyDescription } from '../../administration.ts'
import { type AccountOption, accountOption } from '../account-option.ts'
import { addAction } from '../action.ts'
import { formatProfile } from '../credentials-file.ts'
import { loadEffectiveConfig } from '../effective-config.ts'
import { askGateway } from '../operator-client.ts'
import { formatTable, formatTime, show, type Terminal } from '../terminal.ts'

type NewAccessKey = AccessKeyDescription & { readonly secretAccessKey: string }

export function addPrincipalKey(principal: Command, terminal: Terminal): void {
  const key = principal.command('key').description('access keys of a user')

  const create = key
    .command('create')
    .description('make an access key; its secret is printed this once')
    .argument('<name>')
    .option(...accountOption)
  addAction<AccountOption, [string]>(create, async (options, name) => {
    const region = loadEffectiveConfig(options, terminal).regions[0]!
    const question = { name, account: options.account }
    const made = await askGateway<NewAccessKey>(options, terminal, 'principal-key', 'create', question)
    const AccessKey = { ...describeAccessKey(made), SecretAccessKey: made.secretAccessKey }
    show(terminal, options, { AccessKey }, () => formatProfile(made.user, { ...made, region }))
  })

  const list = key
    .command('list')
    .description('list access keys')
    .argument('[name]', 'only those of this user')
    .option(...accountOption)
  addAction<AccountOption, [string | undefined]>(list, async (options, name) => {
    const question = { name, account: options.account }
    const { accessKeys } = await askGateway<{ accessKeys: readonly AccessKeyDescription[] }>(
      options,
      terminal,
      'principal-key',
      'list',
      question,
    )
    show(terminal, options, { AccessKeyMetadata: accessKeys.map(describeAccessKey) }, () =>
      formatTable(
        ['ACCESS KEY ID', 'USER', 'STATUS', 'CREATED'],
        accessKeys.map(({ accessKeyId, user, active, createdAt }) => [
          accessKeyId,
          user,
          active ? 'active' : 'inactive',
          formatTime(createdAt),
        ]),
      ),
    )
  })

  const verbs = {
    enable: ['accept an access key again', 'active'],
    disable: ['refuse an access key from now on', 'inactive'],
    delete: ['delete an access key', 'deleted'],
  } as const
  for (const [verb, [description, done]] of Object.entries(verbs)) {
    const command = key.command(verb).description(description).argument('<access-key-id>')
    addAction<object, [string]>(command, async (options, accessKeyId) => {
      await askGateway(options, terminal, 'principal-key', verb, { accessKeyId })
      show(terminal, options, {}, () => `${accessKeyId}: ${done}\n`)
    })
  }
}

function describeAccessKey({ user, accessKeyId, active, createdAt }: AccessKeyDescription) {
  const Status = active ? 'Active' : 'Inactive'
  return { UserName: user, AccessKeyId: accessKeyId, Status, CreateDate: formatTime(createdAt) }
}
