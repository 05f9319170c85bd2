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
import { readList } from './query.ts'
import { broken, throwProblems } from './sts-error.ts'
import type { XmlContent } from './xml.ts'

export interface AssumeRoleParts {
  readonly sessions: SessionIssuer
  readonly findRole: (account: string, name: string) => Promise<PrincipalRecord | undefined>
}

interface Input {
  readonly roleArn: string
  readonly account: string
  readonly role: string
  readonly sessionName: string
  readonly durationSeconds: number
  readonly policy?: string
  readonly externalId?: string
  readonly tags: Readonly<Record<string, string>>
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
const defaultSeconds = 3_600
const minSeconds = 900
const maxSeconds = 43_200
/** "Role chaining limits your session to a maximum of one hour" (IAM User Guide, "Roles terms and concepts"). */
const maxChainedSeconds = 3_600
const maxPolicyChars = 2_048
const maxTags = 50

const refused = [
  'SerialNumber',
  'TokenCode',
  'SourceIdentity',
  'PolicyArns.member.1.arn',
  'TransitiveTagKeys.member.1',
  'ProvidedContexts.member.1.ProviderArn',
]

export function assumeRole({ sessions, findRole }: AssumeRoleParts): Operation<Input, Resources, XmlContent> {
  return {
    name: 'AssumeRole',
    readOnly: true,
    timeoutMs,
    parse: (raw) => parseInput(raw as ReadonlyMap<string, string>),

    async prepare(input, scope) {
      const { roleArn, account, tags } = input
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

function parseInput(query: ReadonlyMap<string, string>): Input {
  const problems: string[] = []
  const roleArn = read('roleArn', 'RoleArn', { min: 20, max: 2048, isRequired: true }) ?? ''
  const sessionName =
    read('roleSessionName', 'RoleSessionName', { min: 2, max: 64, pattern: /^[\w+=,.@-]*$/, isRequired: true }) ?? ''
  const policy = read('policy', 'Policy', { min: 1, max: maxPolicyChars })
  const externalId = read('externalId', 'ExternalId', { min: 2, max: 1224, pattern: /^[\w+=,.@:/-]*$/ })
  const durationSeconds = readDuration()
  const tags = readTags()
  throwProblems(problems)
  for (const name of refused) {
    if (query.has(name)) throw invalid(`${name.split('.', 1)[0]} is not supported.`)
  }
  const [, account, role] = /^arn:[^:]+:iam::(\d{12}):role\/([\w+=,.@-]+)$/.exec(roleArn) ?? []
  if (account === undefined || role === undefined) throw invalid(`${roleArn} is invalid`)
  return {
    roleArn,
    account,
    role,
    sessionName,
    durationSeconds,
    tags,
    ...(policy === undefined ? {} : { policy }),
    ...(externalId === undefined ? {} : { externalId }),
  }

  function read(
    member: string,
    name: string,
    limits: { readonly min: number; readonly max: number; readonly pattern?: RegExp; readonly isRequired?: boolean },
  ): string | undefined {
    const value = query.get(name)
    if (value === undefined) {
      if (limits.isRequired === true) problems.push(broken(member, undefined, 'Member must not be null'))
      return undefined
    }
    if (value.length < limits.min) {
      problems.push(broken(member, value, `Member must have length greater than or equal to ${limits.min}`))
    }
    if (value.length > limits.max) {
      problems.push(broken(member, value, `Member must have length less than or equal to ${limits.max}`))
    } else if (limits.pattern?.test(value) === false) {
      problems.push(broken(member, value, `Member must satisfy regular expression pattern: ${limits.pattern.source}`))
    }
    return value
  }

  function readDuration(): number {
    const text = query.get('DurationSeconds')
    if (text === undefined) return defaultSeconds
    const seconds = /^\d{1,9}$/.test(text) ? Number(text) : Number.NaN
    if (!(seconds >= minSeconds)) {
      problems.push(broken('durationSeconds', text, `Member must have value greater than or equal to ${minSeconds}`))
    }
    if (seconds > maxSeconds) {
      problems.push(broken('durationSeconds', text, `Member must have value less than or equal to ${maxSeconds}`))
    }
    return seconds
  }

  /** Keys are compared without regard to case, as conditions compare them. */
  function readTags(): Readonly<Record<string, string>> {
    const tags: Record<string, string> = {}
    const folded = new Set<string>()
    const items = readList(query, 'Tags', ['Key', 'Value'])
    if (items.length > maxTags) {
      problems.push(broken('tags', `${items.length} tags`, `Member must have length less than or equal to ${maxTags}`))
    }
    items.slice(0, maxTags).forEach(({ Key: key, Value: value }, index) => {
      const at = `tags.${index + 1}.member`
      if (key === undefined || !/^[\p{L}\p{Z}\p{N}_.:/=+\-@]{1,128}$/u.test(key)) {
        problems.push(
          broken(`${at}.key`, key, 'Member must satisfy regular expression pattern: [\\p{L}\\p{Z}\\p{N}_.:/=+\\-@]+'),
        )
      } else if (value === undefined || !/^[\p{L}\p{Z}\p{N}_.:/=+\-@]{0,256}$/u.test(value)) {
        problems.push(
          broken(
            `${at}.value`,
            value,
            'Member must satisfy regular expression pattern: [\\p{L}\\p{Z}\\p{N}_.:/=+\\-@]*',
          ),
        )
      } else {
        if (folded.has(key.toLowerCase()))
          throw invalid('Duplicate tag keys found. Please note that Tag keys are case insensitive.')
        folded.add(key.toLowerCase())
        Object.defineProperty(tags, key, { value, enumerable: true })
      }
    })
    return Object.freeze(tags)
  }
}

function invalid(text: string): GatewayError {
  return new GatewayError('ValidationFailed', { text })
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
function contextOf(input: Input, role: PrincipalRecord | undefined, scope: Scope): Demand['context'] {
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
