/** `hsmgate key …`: the keys of the gateway, as its catalog knows them. */
import type { Command } from 'commander'
import { addAction } from '../action.ts'
import { askGateway } from '../operator-client.ts'
import { formatFields, formatTable, formatTime, show, type Terminal } from '../terminal.ts'
import { addKeyAdoption } from './key-adoption.ts'

interface PlaceOptions {
  readonly account?: string
  readonly region?: string
}

interface Key {
  readonly keyId: string
  readonly account: string
  readonly region: string
  readonly spec: string
  readonly usage: string
  readonly purpose: string
  readonly origin: string
  readonly group: string
  readonly custody: string
  readonly state: string
  readonly description: string
  readonly createdAt: number
  readonly deletionAt: number | null
}

interface ShownKey extends Key {
  readonly adopted: boolean
  readonly extra: {
    readonly adoption?: { readonly usages: readonly string[]; readonly weaknesses: readonly string[] }
  }
  readonly arn: string
  readonly alias?: string
  readonly materials: readonly {
    readonly number: number
    readonly state: string
    readonly objectId: string
    readonly label: string | null
    readonly construction: string
    readonly createdAt: number
  }[]
  readonly policy: string | null
  readonly tags: Readonly<Record<string, string>>
}

const pageSize = 1000

export function addKey(program: Command, terminal: Terminal): void {
  const key = program.command('key').description('keys of the gateway')

  const list = withPlace(key.command('list').description('list the keys of one account and Region'))
  addAction<PlaceOptions, []>(list, async (options) => {
    const { account, region } = options
    const keys: Key[] = []
    for (;;) {
      const question = { account, region, after: keys.at(-1)?.keyId, limit: pageSize }
      const page = await askGateway<{ keys: readonly Key[] }>(options, terminal, 'key', 'list', question)
      if (page.keys.length === 0) break
      keys.push(...page.keys)
    }
    show(terminal, options, { keys }, () =>
      formatTable(
        ['KEY ID', 'SPEC', 'USAGE', 'STATE', 'GROUP', 'CREATED', 'DESCRIPTION'],
        keys.map(({ keyId, spec, usage, state, group, createdAt, description }) => [
          keyId,
          spec,
          usage,
          state,
          group,
          formatTime(createdAt),
          description,
        ]),
      ),
    )
  })

  addKeyAdoption(key, terminal)

  const one = withPlace(key.command('show').description('show one key with its backing keys, policy and tags'))
  addAction<PlaceOptions, [string]>(one.argument('<key>', 'key id, ARN or alias'), async (options, name) => {
    const { account, region } = options
    const shown = await askGateway<ShownKey>(options, terminal, 'key', 'show', { key: name, account, region })
    show(terminal, options, shown, formatKey)
  })
}

function withPlace(command: Command): Command {
  return command
    .option('--account <id>', 'account (default: the first one configured)')
    .option('--region <name>', 'Region (default: the first one configured)')
}

/** What was in the token before us is another's as well, and may be weaker than ours. */
function formatAdoption({ adopted, extra }: ShownKey): (readonly [string, string])[] {
  if (!adopted) return []
  const { usages = [], weaknesses = [] } = extra.adoption ?? {}
  const weak = weaknesses.length === 0 ? [] : [['weak', weaknesses.join(', ')] as const]
  return [['adopted', `permits ${usages.join(', ')}; deleting the key leaves the object`], ...weak]
}

function formatKey(key: ShownKey): string {
  const tags = Object.entries(key.tags).map(([name, value]) => `${name}=${value}`)
  const fields = formatFields([
    ['arn', key.arn],
    ...(key.alias === undefined ? [] : [['alias', key.alias] as const]),
    ['spec', key.spec],
    ['usage', key.usage],
    ['purpose', key.purpose],
    ['state', key.state],
    ...(key.deletionAt === null ? [] : [['deletion', formatTime(key.deletionAt)] as const]),
    ['origin', key.origin],
    ['group', key.group],
    ['custody', key.custody],
    ...formatAdoption(key),
    ['created', formatTime(key.createdAt)],
    ['description', key.description],
    ['tags', tags.join(', ')],
  ])
  const materials = formatTable(
    ['BACKING KEY', 'STATE', 'OBJECT ID', 'LABEL', 'CONSTRUCTION', 'CREATED'],
    key.materials.map(({ number, state, objectId, label, construction, createdAt }) => [
      number,
      state,
      objectId,
      label ?? '-',
      construction,
      formatTime(createdAt),
    ]),
  )
  const policy = key.policy === null ? '' : `\npolicy\n${JSON.stringify(JSON.parse(key.policy), null, 2)}\n`
  return `${fields}\n${materials}${policy}`
}
