/** The parameters of AssumeRole, with the limits of the API model, and the framework's words for what breaks them. */
import { GatewayError } from '../../error.ts'
import { readList } from './query.ts'
import { broken, throwProblems } from './sts-error.ts'

export interface AssumeRoleInput {
  readonly roleArn: string
  readonly account: string
  readonly role: string
  readonly sessionName: string
  readonly durationSeconds: number
  readonly policy?: string
  readonly externalId?: string
  readonly tags: Readonly<Record<string, string>>
}

const defaultSeconds = 3_600
const minSeconds = 900
const maxSeconds = 43_200
const maxPolicyChars = 2_048
const maxTags = 50

/** Not offered; a caller who asks for it relies on it. */
const refused = [
  'SerialNumber',
  'TokenCode',
  'SourceIdentity',
  'PolicyArns.member.1.arn',
  'TransitiveTagKeys.member.1',
  'ProvidedContexts.member.1.ProviderArn',
]

/** @throws GatewayError `ValidationFailed` that lists every broken constraint. */
export function parseAssumeRole(query: ReadonlyMap<string, string>): AssumeRoleInput {
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
