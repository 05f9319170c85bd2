/** `hsmgate role …`: roles of the gateway, asked of the running gateway. JSON has the member names of AWS IAM. */
import type { Command } from 'commander'
import type { RoleDescription } from '../../roles.ts'
import { type AccountOption, accountOption } from '../account-option.ts'
import { addAction } from '../action.ts'
import { askGateway } from '../operator-client.ts'
import { readPolicyDocument } from '../policy-document.ts'
import { formatFields, formatTable, formatTime, printable, show, type Terminal } from '../terminal.ts'

interface Policy {
  readonly name: string
  readonly document: string
}

type ShownRole = RoleDescription & { readonly policies: readonly Policy[] }

const trustOption = [
  '--trust <file>',
  'file with the trust policy: who may assume the role; - reads standard input',
] as const

export function addRole(program: Command, terminal: Terminal): void {
  const role = program.command('role').description('roles, which users and other roles assume through STS')

  const create = role
    .command('create')
    .description('make a role')
    .argument('<name>')
    .requiredOption(...trustOption)
    .option('--policy <file>', 'file with a policy: what its sessions may (default: nothing)')
    .option(...accountOption)
  addAction<AccountOption & { readonly trust: string; readonly policy?: string }, [string]>(
    create,
    async (options, name) => {
      const { account } = options
      const trust = await readPolicyDocument(options.trust, terminal)
      const document = options.policy === undefined ? undefined : await readPolicyDocument(options.policy, terminal)
      const question = { name, account, trust, document }
      const made = await askGateway<RoleDescription>(options, terminal, 'role', 'create', question)
      show(terminal, options, { Role: describeRole(made) }, () => `${made.arn}\n`)
    },
  )

  const list = role.command('list').description('list roles').option('--account <id>', 'only roles of this account')
  addAction<AccountOption, []>(list, async (options) => {
    const question = { account: options.account }
    const { roles } = await askGateway<{ roles: readonly RoleDescription[] }>(
      options,
      terminal,
      'role',
      'list',
      question,
    )
    show(terminal, options, { Roles: roles.map(describeRole) }, () =>
      formatTable(
        ['NAME', 'ACCOUNT', 'STATUS', 'CREATED', 'ARN'],
        roles.map((one) => [one.name, one.account, statusOf(one), formatTime(one.createdAt), one.arn]),
      ),
    )
  })

  const one = role
    .command('show')
    .description('show one role with its trust policy and policies')
    .argument('<name>')
    .option(...accountOption)
  addAction<AccountOption, [string]>(one, async (options, name) => {
    const question = { name, account: options.account }
    const shown = await askGateway<ShownRole>(options, terminal, 'role', 'show', question)
    const policies = shown.policies.map((each) => ({ PolicyName: each.name, PolicyDocument: parse(each.document) }))
    show(terminal, options, { Role: { ...describeRole(shown), RolePolicyList: policies } }, () => formatRole(shown))
  })

  const verbs = {
    enable: ['let a disabled role be assumed again', 'enabled'],
    disable: ['end all sessions of a role and let nobody assume it', 'disabled'],
    delete: ['delete a role with its policies; its sessions end', 'deleted'],
  } as const
  for (const [verb, [description, done]] of Object.entries(verbs)) {
    const command = role
      .command(verb)
      .description(description)
      .argument('<name>')
      .option(...accountOption)
    addAction<AccountOption, [string]>(command, async (options, name) => {
      await askGateway(options, terminal, 'role', verb, { name, account: options.account })
      show(terminal, options, {}, () => `${name}: ${done}\n`)
    })
  }

  const trust = role
    .command('trust')
    .description('put another trust policy in place of the one a role has')
    .argument('<name>')
    .requiredOption(...trustOption)
    .option(...accountOption)
  addAction<AccountOption & { readonly trust: string }, [string]>(trust, async (options, name) => {
    const document = await readPolicyDocument(options.trust, terminal)
    await askGateway(options, terminal, 'role', 'trust', { name, account: options.account, trust: document })
    show(terminal, options, {}, () => `${name}: the trust policy is in force\n`)
  })
  addRolePolicy(role, terminal)
}

interface PolicyNameOption extends AccountOption {
  readonly policyName: string
}

function addRolePolicy(role: Command, terminal: Terminal): void {
  const policy = role.command('policy').description('inline policies of a role')

  const put = policy
    .command('put')
    .description('give a role a policy, or put another document in place of the one with that name')
    .argument('<name>')
    .requiredOption('--policy-name <name>', 'name of the policy')
    .requiredOption('--document <file>', 'file with the policy document; - reads standard input')
    .option(...accountOption)
  addAction<PolicyNameOption & { readonly document: string }, [string]>(put, async (options, name) => {
    const { account, policyName } = options
    const document = await readPolicyDocument(options.document, terminal)
    await askGateway(options, terminal, 'role-policy', 'put', { name, account, policyName, document })
    show(terminal, options, {}, () => `${name}: policy ${policyName} is in force\n`)
  })

  const remove = policy
    .command('delete')
    .description('take a policy from a role')
    .argument('<name>')
    .requiredOption('--policy-name <name>', 'name of the policy')
    .option(...accountOption)
  addAction<PolicyNameOption, [string]>(remove, async (options, name) => {
    const { account, policyName } = options
    await askGateway(options, terminal, 'role-policy', 'delete', { name, account, policyName })
    show(terminal, options, {}, () => `${name}: policy ${policyName} is deleted\n`)
  })
}

function parse(document: string): unknown {
  return JSON.parse(document)
}

function statusOf({ enabled }: RoleDescription): string {
  return enabled ? 'enabled' : 'disabled'
}

function describeRole({ name, principalId, arn, createdAt, enabled, trustPolicy }: RoleDescription) {
  return {
    RoleName: name,
    RoleId: principalId,
    Arn: arn,
    CreateDate: formatTime(createdAt),
    Enabled: enabled,
    AssumeRolePolicyDocument: parse(trustPolicy),
  }
}

function formatRole(role: ShownRole): string {
  const fields = formatFields([
    ['arn', role.arn],
    ['id', role.principalId],
    ['status', statusOf(role)],
    ['created', formatTime(role.createdAt)],
  ])
  const documents = [{ name: 'trust policy', document: role.trustPolicy }, ...role.policies.map(nameDocument)]
  const texts = documents.map(
    ({ name, document }) => `\n# ${printable(name)}\n${JSON.stringify(parse(document), null, 2)}\n`,
  )
  return `${fields}${texts.join('')}`
}

function nameDocument({ name, document }: Policy) {
  return { name: `policy ${name}`, document }
}
