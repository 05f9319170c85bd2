/**
 * What an operator does to roles: a trust policy says who may assume one, its own policies what its sessions may. Roles have no access
 * keys; a change of a role holds for its sessions at once.
 */
import { randomBytes } from 'node:crypto'
import { PolicyError, parsePolicy } from './authorize/authorize.ts'
import type { Catalog, PrincipalRecord } from './catalog/catalog.ts'
import { GatewayError } from './error.ts'
import { principalExists } from './identities.ts'

export interface RoleDescription {
  readonly account: string
  readonly name: string
  readonly arn: string
  readonly principalId: string
  readonly enabled: boolean
  readonly createdAt: number
  readonly trustPolicy: string
}

export interface RoleAdministration {
  /**
   * Without a policy its sessions may nothing.
   * @throws GatewayError `ValidationFailed`, `AlreadyExists`, `PolicyMalformed`.
   */
  createRole(
    account: string,
    name: string,
    trustPolicy: string,
    policy?: { readonly name: string; readonly document: string },
  ): Promise<RoleDescription>
  listRoles(account?: string): Promise<readonly RoleDescription[]>
  /** @throws GatewayError `NotFound`. */
  getRole(
    account: string,
    name: string,
  ): Promise<RoleDescription & { readonly policies: readonly { readonly name: string; readonly document: string }[] }>
  /** Disabled, it has no sessions and gives none. */
  setRoleEnabled(account: string, name: string, enabled: boolean): Promise<void>
  deleteRole(account: string, name: string): Promise<void>
  putTrustPolicy(account: string, name: string, document: string): Promise<void>
  putRolePolicy(account: string, role: string, policyName: string, document: string): Promise<void>
  deleteRolePolicy(account: string, role: string, policyName: string): Promise<void>
}

export interface RoleParts {
  readonly catalog: Catalog
  readonly partition: string
  readonly accounts: readonly string[]
  /** Epoch milliseconds. */
  readonly now: () => number
}

/** IAM User Guide, "IAM and AWS STS quotas": the most that can be asked for. */
const maxTrustBytes = 4_096
const base32 = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567'

export function roleArn(partition: string, account: string, name: string): string {
  return `arn:${partition}:iam::${account}:role/${name}`
}

export function createRoleAdministration({ catalog, partition, accounts, now }: RoleParts): RoleAdministration {
  function describe(role: PrincipalRecord): RoleDescription {
    const { account, name, principalId, enabled, createdAt, trustPolicy } = role
    const arn = roleArn(partition, account, name)
    return { account, name, arn, principalId, enabled, createdAt, trustPolicy: trustPolicy ?? '' }
  }

  async function getRole(account: string, name: string): Promise<PrincipalRecord> {
    const role = await catalog.findPrincipal(account, 'role', name)
    if (role === undefined) throw new GatewayError('NotFound', { text: `The role with name ${name} cannot be found.` })
    return role
  }

  /** Principals that a trust policy names must exist, as for key policies. */
  async function checkTrust(document: string): Promise<void> {
    const { principals } = parse('trust', document, { maxBytes: maxTrustBytes, partition })
    for (const name of principals) {
      if (await principalExists(catalog, { accounts }, name)) continue
      throw new GatewayError('PolicyMalformed', { text: `Invalid principal in policy: ${name}` })
    }
  }

  return {
    async createRole(account, name, trustPolicy, policy) {
      if (!accounts.includes(account)) {
        throw new GatewayError('ValidationFailed', { text: `Account ${account} is not configured.` })
      }
      // IAM User Guide, "IAM name requirements".
      if (!/^[\w+=,.@-]{1,64}$/.test(name)) {
        throw new GatewayError('ValidationFailed', {
          text: 'A role name has 1 to 64 letters, digits and any of _+=,.@-',
        })
      }
      await checkTrust(trustPolicy)
      if (policy !== undefined) parse('identity', policy.document)
      const role = await catalog.createPrincipal({
        account,
        kind: 'role',
        name,
        principalId: `AROA${Array.from(randomBytes(17), (byte) => base32[byte & 31]).join('')}`,
        enabled: true,
        createdAt: now(),
        tags: {},
        trustPolicy,
      })
      if (policy !== undefined) await catalog.putPrincipalPolicy({ account, kind: 'role', principal: name, ...policy })
      return describe(role)
    },

    async listRoles(account) {
      return (await catalog.listPrincipals(account)).filter(({ kind }) => kind === 'role').map(describe)
    },

    async getRole(account, name) {
      const role = await getRole(account, name)
      const policies = await catalog.principalPolicies(account, 'role', name)
      return { ...describe(role), policies: policies.map((row) => ({ name: row.name, document: row.document })) }
    },

    async setRoleEnabled(account, name, enabled) {
      await getRole(account, name)
      await catalog.setPrincipalEnabled(account, 'role', name, enabled)
    },

    async deleteRole(account, name) {
      await getRole(account, name)
      await catalog.deletePrincipal(account, 'role', name)
    },

    async putTrustPolicy(account, name, document) {
      await getRole(account, name)
      await checkTrust(document)
      await catalog.putTrustPolicy(account, name, document)
    },

    async putRolePolicy(account, role, policyName, document) {
      await getRole(account, role)
      parse('identity', document)
      await catalog.putPrincipalPolicy({ account, kind: 'role', principal: role, name: policyName, document })
    },

    async deleteRolePolicy(account, role, policyName) {
      await getRole(account, role)
      await catalog.deletePrincipalPolicy(account, 'role', role, policyName)
    },
  }
}

function parse(
  kind: 'identity' | 'trust',
  document: string,
  limits?: { readonly maxBytes: number; readonly partition: string },
) {
  try {
    return parsePolicy(kind, document, limits)
  } catch (cause) {
    if (cause instanceof PolicyError) throw new GatewayError('PolicyMalformed', { text: cause.message }, { cause })
    throw cause
  }
}
