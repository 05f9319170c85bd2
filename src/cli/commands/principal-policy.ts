/** `hsmgate principal policy …`: inline policies of users, in the policy language of AWS IAM. */
import type { Command } from 'commander'
import { ProblemsError } from '../../problem.ts'
import { type AccountOption, accountOption } from '../account-option.ts'
import { addAction } from '../action.ts'
import { askGateway } from '../operator-client.ts'
import { readPolicyDocument } from '../policy-document.ts'
import { printable, show, type Terminal } from '../terminal.ts'

interface PolicyNameOption extends AccountOption {
  readonly policyName: string
}

interface Policy {
  readonly name: string
  readonly document: string
}

export function addPrincipalPolicy(principal: Command, terminal: Terminal): void {
  const policy = principal.command('policy').description('inline policies of a user')

  const put = policy
    .command('put')
    .description('give a user a policy, or put another document in place of the one with that name')
    .argument('<name>')
    .requiredOption('--policy-name <name>', 'name of the policy')
    .requiredOption('--document <file>', 'file with the policy document; - reads standard input')
    .option(...accountOption)
  addAction<PolicyNameOption & { readonly document: string }, [string]>(put, async (options, name) => {
    const { account, policyName } = options
    const document = await readPolicyDocument(options.document, terminal)
    await askGateway(options, terminal, 'principal-policy', 'put', { name, account, policyName, document })
    show(terminal, options, {}, () => `${name}: policy ${policyName} is in force\n`)
  })

  const get = policy
    .command('get')
    .description('print the policies of a user')
    .argument('<name>')
    .option('--policy-name <name>', 'only this policy, as the document itself')
    .option(...accountOption)
  addAction<AccountOption & { readonly policyName?: string }, [string]>(get, async (options, name) => {
    const { account, policyName } = options
    const { policies } = await askGateway<{ policies: readonly Policy[] }>(
      options,
      terminal,
      'principal-policy',
      'get',
      { name, account },
    )
    const wanted = policies.filter((candidate) => policyName === undefined || candidate.name === policyName)
    if (policyName !== undefined && wanted.length === 0) {
      const remedy = `hsmgate principal policy get ${name} prints those that there are`
      throw new ProblemsError([{ at: name, cause: `has no policy ${policyName}`, remedy }])
    }
    const list = wanted.map((one) => ({ PolicyName: one.name, PolicyDocument: JSON.parse(one.document) as unknown }))
    show(terminal, options, { UserName: name, UserPolicyList: list }, () => formatPolicies(wanted, policyName))
  })

  const remove = policy
    .command('delete')
    .description('take a policy from a user')
    .argument('<name>')
    .requiredOption('--policy-name <name>', 'name of the policy')
    .option(...accountOption)
  addAction<PolicyNameOption, [string]>(remove, async (options, name) => {
    const { account, policyName } = options
    await askGateway(options, terminal, 'principal-policy', 'delete', { name, account, policyName })
    show(terminal, options, {}, () => `${name}: policy ${policyName} is deleted\n`)
  })
}

/** One policy as its document alone, so that it can go back in by `put`. */
function formatPolicies(policies: readonly Policy[], policyName: string | undefined): string {
  const documents = policies.map(({ document }) => `${JSON.stringify(JSON.parse(document), null, 2)}\n`)
  if (policyName !== undefined) return documents.join('')
  return policies.map(({ name }, index) => `# ${printable(name)}\n${documents[index]}`).join('\n')
}
