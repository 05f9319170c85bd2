/**
 * AssumeRole: the role's trust policy says who may (STS API Reference, "AssumeRole"). The session is narrowed by a session policy and
 * carries tags, if it is given any; what is not offered here (MFA, source identities, managed policies, transitive tags) is refused,
 * because a caller who asks for it relies on it.
 */

import type { SessionIssuer } from '../../authenticate/authenticate.ts'
import { PolicyError, parsePolicy } from '../../authorize/authorize.ts'
import type { Demand } from '../../call.ts'
import type { PrincipalRecord } from '../../catalog/catalog.ts'
import { GatewayError } from '../../error.ts'
import type { Operation, Scope } from '../../pipeline.ts'
import { type AssumeRoleInput, parseAssumeRole } from './assume-role-input.ts'
import type { XmlContent } from './xml.ts'

export interface AssumeRoleParts {
  readonly sessions: SessionIssuer
  readonly findRole: (account: string, name: string) => Promise<PrincipalRecord | undefined>
}

interface Resources {
  readonly roleArn: string
  readonly account: string
  /** Undefined only where authorization denies. */
  readonly role: PrincipalRecord | undefined
}

interface Output extends XmlContent {
  readonly AssumedRoleUser: { readonly AssumedRoleId: string; readonly Arn: string }
  readonly Credentials: { readonly AccessKeyId: string; readonly Expiration: string } & XmlContent
}

const timeoutMs = 5_000
/** "Role chaining limits your session to a maximum of one hour" (IAM User Guide, "Roles terms and concepts"). */
const maxChainedSeconds = 3_600

export function assumeRole({ sessions, findRole }: AssumeRoleParts): Operation<AssumeRoleInput, Resources, XmlContent> {
  return {
    name: 'AssumeRole',
    readOnly: true,
    timeoutMs,
    parse: (raw) => parseAssumeRole(raw as ReadonlyMap<string, string>),

    async prepare(input, scope) {
      const { roleArn, account, tags } = input
      // Policies name roles by their whole ARN: another spelling of the same role would slip past a Deny.
      if (roleArn !== `arn:${scope.partition}:iam::${account}:role/${input.role}`) {
        throw new GatewayError('ValidationFailed', { text: `${roleArn} is invalid` })
      }
      const found = await findRole(account, input.role)
      const role = found?.enabled === true ? found : undefined
      const context = contextOf(input, role, scope)
      const demand = (action: string): Demand => ({
        action,
        resource: roleArn,
        resourceAccount: account,
        resourcePolicy: role?.trustPolicy ?? undefined,
        context,
      })
      const demands = [demand('sts:AssumeRole')]
      if (Object.keys(tags).length > 0) demands.push(demand('sts:TagSession'))
      return { resources: { roleArn, account, role }, demands }
    },

    async perform(input, { role }, scope): Promise<Output> {
      if (role === undefined) throw new TypeError('the assumption of an absent role was allowed')
      const { account, sessionName, durationSeconds, policy, tags } = input
      if (scope.principal.type === 'role-session' && durationSeconds > maxChainedSeconds) {
        const text =
          'The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining.'
        throw new GatewayError('ValidationFailed', { text })
      }
      if (policy !== undefined) checkPolicy(policy)
      const issued = sessions.issue({
        account,
        role: role.name,
        roleId: role.principalId,
        sessionName,
        durationSeconds,
        ...(policy === undefined ? {} : { policy }),
        ...(Object.keys(tags).length === 0 ? {} : { tags }),
      })
      return {
        AssumedRoleUser: {
          AssumedRoleId: `${role.principalId}:${sessionName}`,
          Arn: `arn:${scope.partition}:sts::${account}:assumed-role/${role.name}/${sessionName}`,
        },
        Credentials: {
          AccessKeyId: issued.accessKeyId,
          SecretAccessKey: issued.secretAccessKey,
          SessionToken: issued.sessionToken,
          Expiration: `${new Date(issued.expiresAt).toISOString().slice(0, 19)}Z`,
        },
      }
    },

    record(input, resources, output) {
      const { AssumedRoleUser: user, Credentials: credentials } = (output ?? {}) as Partial<Output>
      return {
        requestParameters: {
          roleArn: input.roleArn,
          roleSessionName: input.sessionName,
          durationSeconds: input.durationSeconds,
          ...(input.policy === undefined ? {} : { policy: input.policy }),
          ...(input.externalId === undefined ? {} : { externalId: input.externalId }),
          ...(Object.keys(input.tags).length === 0 ? {} : { principalTags: input.tags }),
        },
        // The token is a bearer secret.
        responseElements:
          user === undefined || credentials === undefined
            ? null
            : {
                credentials: { accessKeyId: credentials.AccessKeyId, expiration: credentials.Expiration },
                assumedRoleUser: { assumedRoleId: user.AssumedRoleId, arn: user.Arn },
              },
        resources:
          resources === undefined
            ? []
            : [{ account: resources.account, type: 'AWS::IAM::Role', arn: resources.roleArn }],
      }
    },
  }
}

function checkPolicy(document: string): void {
  try {
    parsePolicy('identity', document)
  } catch (cause) {
    if (cause instanceof PolicyError) throw new GatewayError('PolicyMalformed', { text: cause.message }, { cause })
    throw cause
  }
}

/** Service Authorization Reference, "Condition keys for AWS Security Token Service". */
function contextOf(input: AssumeRoleInput, role: PrincipalRecord | undefined, scope: Scope): Demand['context'] {
  const { source } = scope
  const context = new Map<string, string | readonly string[]>([
    ['aws:sourceip', source.ip],
    ['aws:useragent', source.userAgent],
    ['aws:securetransport', source.tls === undefined ? 'false' : 'true'],
    ['aws:requestedregion', scope.region],
    ['sts:rolesessionname', input.sessionName],
  ])
  if (input.externalId !== undefined) context.set('sts:externalid', input.externalId)
  for (const [key, value] of Object.entries(role?.tags ?? {}))
    context.set(`aws:resourcetag/${key.toLowerCase()}`, value)
  const keys = Object.keys(input.tags)
  for (const key of keys) context.set(`aws:requesttag/${key.toLowerCase()}`, input.tags[key] as string)
  if (keys.length > 0) context.set('aws:tagkeys', keys)
  return context
}
