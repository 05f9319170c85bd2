/** `hsmgate policy …`: what the policies and grants that are in force come to, asked of the running gateway. */
import type { Command } from 'commander'
import { ProblemsError } from '../../problem.ts'
import type { Permitted, SimulationResult } from '../../simulation.ts'
import { addAction } from '../action.ts'
import { askGateway } from '../operator-client.ts'
import { formatFields, formatTable, show, type Terminal } from '../terminal.ts'

interface SituationOptions {
  readonly context?: readonly string[]
  readonly account?: string
  readonly region?: string
}

const contextHelp = 'condition key of the call, e.g. aws:SourceIp=192.0.2.1; may be given often, a key too'

export function addPolicy(program: Command, terminal: Terminal): void {
  const policy = program.command('policy').description('what policies and grants come to')

  const simulate = policy
    .command('simulate')
    .description('print how a call would be decided, and by which statements')
    .requiredOption('--principal <name>', 'user name, role/<name>, or the ARN of a user, role or session')
    .requiredOption('--action <action>', 'IAM action, e.g. kms:Decrypt')
    .option('--key <key>', 'key id, ARN or alias (default: no key, as for kms:CreateKey)')
  addAction<SituationOptions & { readonly principal: string; readonly action: string; readonly key?: string }, []>(
    withSituation(simulate),
    async (options) => {
      const { principal, action, key } = options
      const question = { principal, action, key, ...situationOf(options) }
      const result = await askGateway<SimulationResult>(options, terminal, 'policy', 'simulate', question)
      show(terminal, options, result, formatResult)
    },
  )

  const whoCan = policy
    .command('who-can')
    .description('list the users and roles that may do something with a key')
    .argument('<action>', 'IAM action, e.g. kms:Decrypt')
    .requiredOption('--key <key>', 'key id, ARN or alias')
  addAction<SituationOptions & { readonly key: string }, [string]>(withSituation(whoCan), async (options, action) => {
    const question = { action, key: options.key, ...situationOf(options) }
    const { principals } = await askGateway<{ principals: readonly Permitted[] }>(
      options,
      terminal,
      'policy',
      'who-can',
      question,
    )
    show(terminal, options, { principals }, () =>
      formatTable(
        ['PRINCIPAL', 'BY', 'DECIDED BY'],
        principals.map(({ principal, by, decidedBy }) => [principal, by, decidedBy]),
      ),
    )
  })
}

function withSituation(command: Command): Command {
  return command
    .option('--context <key=value>', contextHelp, (pair: string, pairs: readonly string[] = []) => [...pairs, pair])
    .option('--account <id>', 'account of the key and of names (default: the first one configured)')
    .option('--region <name>', 'Region of the key (default: the first one configured)')
}

function situationOf({ context = [], account, region }: SituationOptions) {
  const values: Record<string, string[]> = Object.create(null)
  for (const pair of context) {
    const at = pair.indexOf('=')
    if (at < 1) {
      const remedy = 'write it as kms:EncryptionContext:app=billing'
      throw new ProblemsError([{ at: `--context ${pair}`, cause: 'has no key and value', remedy }])
    }
    const name = pair.slice(0, at)
    values[name] = [...(values[name] ?? []), pair.slice(at + 1)]
  }
  const folded = Object.entries(values).map(([name, list]) => [name, list.length === 1 ? list[0] : list])
  return { context: folded.length === 0 ? undefined : JSON.stringify(Object.fromEntries(folded)), account, region }
}

function formatResult(result: SimulationResult): string {
  const fields = formatFields([
    ['decision', result.decision],
    ['decided by', result.decidedBy],
    ['principal', result.principal],
    ['resource', result.resource],
  ])
  if (result.statements.length === 0) return fields
  const rows = result.statements.map(({ effect, source, statement, reach }) => [effect, source, statement, reach])
  return `${fields}\n${formatTable(['EFFECT', 'SOURCE', 'STATEMENT', 'REACH'], rows)}`
}
