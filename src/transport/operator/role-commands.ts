/** Commands on roles. */
import type { RoleAdministration } from '../../roles.ts'
import { command, type Input, type OperatorCommand } from './operator-command.ts'

/** Of the policy that a role is made with. */
const defaultPolicyName = 'role'

export function createRoleCommands(roles: RoleAdministration, defaultAccount: string): readonly OperatorCommand[] {
  const account = (input: Input): string => String(input.account ?? defaultAccount)
  const role = { name: 'string', account: 'string' } as const
  const policy = { ...role, policyName: 'string' } as const
  const optional = ['account']

  return [
    command(
      'role',
      'create',
      {
        members: { ...policy, trust: 'string', document: 'string' },
        optional: ['account', 'policyName', 'document'],
      },
      (input) => {
        const { policyName = defaultPolicyName, document } = input
        const given = document === undefined ? undefined : { name: String(policyName), document: String(document) }
        return roles.createRole(account(input), String(input.name), String(input.trust), given)
      },
    ),
    command('role', 'list', { members: { account: 'string' }, optional, readOnly: true }, async (input) => ({
      roles: await roles.listRoles(input.account === undefined ? undefined : String(input.account)),
    })),
    command('role', 'show', { members: role, optional, readOnly: true }, (input) =>
      roles.getRole(account(input), String(input.name)),
    ),
    command('role', 'enable', { members: role, optional }, (input) =>
      roles.setRoleEnabled(account(input), String(input.name), true),
    ),
    command('role', 'disable', { members: role, optional }, (input) =>
      roles.setRoleEnabled(account(input), String(input.name), false),
    ),
    command('role', 'delete', { members: role, optional }, (input) =>
      roles.deleteRole(account(input), String(input.name)),
    ),
    command('role', 'trust', { members: { ...role, trust: 'string' }, optional }, (input) =>
      roles.putTrustPolicy(account(input), String(input.name), String(input.trust)),
    ),
    command('role-policy', 'put', { members: { ...policy, document: 'string' }, optional }, (input) =>
      roles.putRolePolicy(account(input), String(input.name), String(input.policyName), String(input.document)),
    ),
    command('role-policy', 'delete', { members: policy, optional }, (input) =>
      roles.deleteRolePolicy(account(input), String(input.name), String(input.policyName)),
    ),
  ]
}
