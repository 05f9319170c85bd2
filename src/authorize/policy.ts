/**
 * A policy document: untrusted text in, frozen compiled form or PolicyError out. Size and characters are checked before the text is
 * parsed. Checks run in IAM's order, so that the first complaint is the one AWS would make.
 */

import { PolicyError, syntaxError } from './policy-error.ts'
import { isRecord } from './principal-set.ts'
import { type PolicyKind, parseStatement, type Statement } from './statement.ts'
import { parseStrictJson } from './strict-json.ts'

export interface Policy {
  readonly kind: PolicyKind
  readonly id: string | undefined
  readonly statements: readonly Statement[]
  /** Users, roles, sessions, accounts and unique ids that the policy names; AWS refuses a policy that names one that does not exist. */
  readonly principals: readonly string[]
}

export interface PolicyLimits {
  /** Largest document in bytes of UTF-8. */
  readonly maxBytes: number
  /** When given, ARNs of principals must be of this partition. */
  readonly partition?: string
}

/** AWS KMS quotas "Key policy document size"; IAM quotas "Role inline policies", "Role trust policy length". */
export const defaultLimits: Readonly<Record<PolicyKind, PolicyLimits>> = Object.freeze({
  key: Object.freeze({ maxBytes: 32_768 }),
  identity: Object.freeze({ maxBytes: 10_240 }),
  trust: Object.freeze({ maxBytes: 4_096 }),
})

const versions = ['2008-10-17', '2012-10-17']

/** The `pattern` of policy documents in the KMS and IAM service models. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: tab, line feed and carriage return are allowed characters of a policy
const characters = /^[\u0009\u000A\u000D\u0020-\u00FF]+$/

/**
 * Reads a policy document.
 *
 * @throws PolicyError with the text that AWS uses in MalformedPolicyDocumentException; its `problem` is `size` when the document is
 * too large.
 */
export function parsePolicy(kind: PolicyKind, text: string, limits: PolicyLimits = defaultLimits[kind]): Policy {
  if (text.length > limits.maxBytes || Buffer.byteLength(text) > limits.maxBytes) {
    throw new PolicyError('size', `Policy document exceeds the limit of ${limits.maxBytes} bytes.`)
  }
  if (!characters.test(text)) throw new PolicyError('characters', 'Syntax errors in policy.')
  const document = parseDocument(text)
  const { Version: version, Id: id, Statement: source, ...rest } = document
  if (Object.keys(rest).length > 0 || (id !== undefined && typeof id !== 'string')) throw syntaxError()
  if (version !== undefined && !versions.includes(version as string)) throw syntaxError()
  if (kind !== 'key' && version !== '2012-10-17') {
    throw new PolicyError('content', 'Policy document must be version 2012-10-17 or greater.')
  }
  const sources: readonly unknown[] = Array.isArray(source) ? source : [source]
  if (sources.length === 0) throw syntaxError()
  const rules = { kind, hasVariables: version === '2012-10-17', partition: limits.partition }
  const statements = sources.map((each, index) => parseStatement(each, index, rules))
  refuseRepeatedSids(statements)
  return Object.freeze({ kind, id, statements: Object.freeze(statements), principals: namedPrincipals(statements) })
}

function parseDocument(text: string): Record<string, unknown> {
  let document: unknown
  try {
    document = parseStrictJson(text)
  } catch {
    throw syntaxError()
  }
  if (!isRecord(document)) throw syntaxError()
  return document
}

function refuseRepeatedSids(statements: readonly Statement[]): void {
  const seen = new Set<string>()
  for (const { sid } of statements) {
    if (sid === undefined || sid === '') continue
    if (seen.has(sid)) throw new PolicyError('content', 'Statement IDs (SID) in a single policy must be unique.')
    seen.add(sid)
  }
}

function namedPrincipals(statements: readonly Statement[]): readonly string[] {
  const names = statements.flatMap(({ principals, notPrincipals }) => [...((principals ?? notPrincipals)?.names ?? [])])
  const exempt = (name: string) => name === '*' || name.startsWith('service ') || name.startsWith('federated ')
  return Object.freeze([...new Set(names)].filter((name) => !exempt(name)))
}
