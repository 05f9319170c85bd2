/** `hsmgate xks key …`: the allow-list of a store, which says what key an external key id stands for. */
import type { Command } from 'commander'
import { addAction } from '../action.ts'
import { askGateway } from '../operator-client.ts'
import { formatTable, formatTime, show, type Terminal } from '../terminal.ts'

interface KeyOptions {
  readonly store: string
  readonly id?: string
  readonly key?: string
  readonly description?: string
  readonly group?: string
  readonly account?: string
  readonly region?: string
}

interface StoreKey {
  readonly externalKeyId: string
  readonly arn: string
  readonly isBlocked: boolean
  readonly usages?: readonly string[]
}

export function addXksKey(xks: Command, terminal: Terminal): void {
  const key = xks.command('key').description('keys of a store')

  const create = withStore(key.command('create').description('make a key of purpose xks and add it to a store'))
    .option('--id <id>', 'external key id, which AWS KMS is told (default: the key id)')
    .option('--description <text>', 'description of the key')
    .option('--group <name>', 'group of tokens (default: the default group)')
  addAction<KeyOptions, []>(create, async (options) => {
    const { store, id, description, group } = options
    const question = { store, id, description, group }
    show(terminal, options, await askGateway<StoreKey>(options, terminal, 'xks-key', 'create', question), formatAdded)
  })

  const add = withStore(key.command('add').description('add a key of purpose xks that is there, made or adopted'))
    .requiredOption('--id <id>', 'external key id, which AWS KMS is told')
    .requiredOption('--key <key>', 'key id, ARN or alias')
    .option('--account <id>', 'account (default: the first one configured)')
    .option('--region <name>', 'Region (default: the first one configured)')
  addAction<KeyOptions, []>(add, async (options) => {
    const { store, id, key: reference, account, region } = options
    const question = { store, id, key: reference, account, region }
    show(terminal, options, await askGateway<StoreKey>(options, terminal, 'xks-key', 'add', question), formatAdded)
  })

  const remove = withStore(
    key.command('remove').description('take a key from a store; the key itself stays'),
  ).requiredOption('--id <id>', 'external key id')
  addAction<KeyOptions, []>(remove, async (options) => {
    const { store, id } = options
    await askGateway(options, terminal, 'xks-key', 'remove', { store, id })
    show(terminal, options, {}, () => `${store} ${id}: removed\n`)
  })

  addKeyLife(key, terminal)

  const list = withStore(key.command('list').description('list the keys of a store'))
  addAction<KeyOptions, []>(list, async (options) => {
    const { store } = options
    const answer = await askGateway<{ keys: readonly StoreKey[] }>(options, terminal, 'xks-key', 'list', { store })
    show(terminal, options, answer, ({ keys }) =>
      formatTable(
        ['EXTERNAL KEY ID', 'STATE', 'PERMITS', 'KEY'],
        keys.map(({ externalKeyId, isBlocked, usages, arn }) => [
          externalKeyId,
          isBlocked ? 'blocked' : 'open',
          usages === undefined ? 'the key is gone' : usages.join(', '),
          arn,
        ]),
      ),
    )
  })
}

interface LifeOptions {
  readonly key: string
  readonly days?: string
  readonly account?: string
  readonly region?: string
}

interface KeyState {
  readonly arn: string
  readonly state: string
  readonly deletionAt: number | null
}

function addKeyLife(key: Command, terminal: Terminal): void {
  const verbs = {
    enable: 'let a disabled key be used again',
    disable: 'refuse all use of a key, in every store',
    'schedule-deletion': 'destroy a key after a waiting period; what it encrypted is lost then',
    'cancel-deletion': 'keep a key that waits for its deletion; it is disabled then',
  } as const
  for (const [verb, description] of Object.entries(verbs)) {
    const command = key
      .command(verb)
      .description(description)
      .requiredOption('--key <key>', 'key id, ARN or alias')
      .option('--account <id>', 'account (default: the first one configured)')
      .option('--region <name>', 'Region (default: the first one configured)')
    if (verb === 'schedule-deletion') command.option('--days <number>', 'waiting period, 7 to 30', '30')
    addAction<LifeOptions, []>(command, async (options) => {
      const { key: reference, account, region } = options
      const days = options.days === undefined ? undefined : Number(options.days)
      const question = { key: reference, account, region, days }
      const answer = await askGateway<KeyState>(options, terminal, 'xks-key', verb, question)
      show(terminal, options, answer, ({ arn, state, deletionAt }) => {
        return `${arn}: ${state}${deletionAt === null ? '' : `, to be destroyed ${formatTime(deletionAt)}`}\n`
      })
    })
  }
}

function withStore(command: Command): Command {
  return command.requiredOption('--store <name>', 'the store')
}

function formatAdded({ externalKeyId, arn }: StoreKey): string {
  return `${externalKeyId}  ${arn}\n`
}
