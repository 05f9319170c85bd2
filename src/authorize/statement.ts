/**
 * One statement of a policy: text to frozen value, and whether it speaks of a request. Whom it speaks of is principal-set.ts.
 */

import { compileArnPattern } from './arn.ts'
import { type Condition, compileCondition, type Effect } from './condition.ts'
import type { Facts } from './facts.ts'
import { compilePattern, type Pattern } from './pattern.ts'
import { PolicyError, syntaxError } from './policy-error.ts'
import { invalidPrincipals, isRecord, type PrincipalSet, parsePrincipals } from './principal-set.ts'

export type PolicyKind = 'identity' | 'key' | 'trust'

export interface StatementRules {
  readonly kind: PolicyKind
  readonly hasVariables: boolean
  readonly partition: string | undefined
}

/** A set of patterns and whether it names what is meant (`Action`) or what is not (`NotAction`). */
interface Patterns {
  readonly isNot: boolean
  /** A lone `*` is among them. */
  readonly isAnything: boolean
  readonly exact: ReadonlySet<string>
  readonly others: readonly Pattern[]
}

export interface Statement {
  readonly sid: string | undefined
  /** Position in its policy, from 0. */
  readonly index: number
  readonly effect: Effect
  readonly principals: PrincipalSet | undefined
  readonly notPrincipals: PrincipalSet | undefined
  /** Undefined in a key policy statement that lacks the element: AWS accepts it, and it has no effect. */
  readonly actions: Patterns | undefined
  readonly resources: Patterns | undefined
  readonly conditions: readonly Condition[]
}

const elements = new Set([
  'Sid',
  'Effect',
  'Principal',
  'NotPrincipal',
  'Action',
  'NotAction',
  'Resource',
  'NotResource',
  'Condition',
])

/** @throws PolicyError */
export function parseStatement(source: unknown, index: number, rules: StatementRules): Statement {
  if (!isRecord(source) || !Object.keys(source).every((name) => elements.has(name))) throw syntaxError()
  const { Sid: sid, Effect: effect } = source
  if (sid !== undefined && typeof sid !== 'string') throw syntaxError()
  if (effect !== 'Allow' && effect !== 'Deny') throw syntaxError()
  refuseBoth(source, 'Principal')
  refuseBoth(source, 'Action')
  refuseBoth(source, 'Resource')
  const conditions = parseConditions(source.Condition, rules.hasVariables)
  checkSid(sid, rules.kind)
  return Object.freeze({
    sid,
    index,
    effect,
    ...parseWho(source, effect, rules),
    actions: parseActions(source, rules.kind),
    resources: parseResources(source, rules),
    conditions,
  })
}

export function speaksOfAction(statement: Statement, action: string, facts: Facts): boolean {
  return statement.actions !== undefined && isMeant(statement.actions, action, facts, statement.effect)
}

/** Whether the statement speaks of the resource and all its conditions hold. Action and principal are the caller's to check. */
export function appliesTo(statement: Statement, facts: Facts): boolean {
  const { resources, effect, conditions } = statement
  if (resources === undefined || !isMeant(resources, facts.demand.resource, facts, effect)) return false
  for (const condition of conditions) {
    if (!condition.holds(facts, effect)) return false
  }
  return true
}

function isMeant(patterns: Patterns, value: string, facts: Facts, effect: Effect): boolean {
  if (patterns.isAnything || patterns.exact.has(value)) return !patterns.isNot
  for (const pattern of patterns.others) {
    if (pattern.matches(value, facts)) return !patterns.isNot
    // An exception that can't be read spares nothing from a Deny and leaves nothing to an Allow.
    if (patterns.isNot && effect === 'Allow' && !pattern.isResolved(facts)) return false
  }
  return patterns.isNot
}

function parseWho(source: Record<string, unknown>, effect: Effect, { kind, partition }: StatementRules) {
  const { Principal: listed, NotPrincipal: spared } = source
  if (kind === 'identity') {
    if (listed === undefined && spared === undefined) return { principals: undefined, notPrincipals: undefined }
    throw new PolicyError('content', 'Policy document should not specify a principal.')
  }
  if (listed !== undefined) return { principals: parsePrincipals(listed, partition), notPrincipals: undefined }
  if (spared === undefined) throw invalidPrincipals()
  // IAM User Guide, "NotPrincipal": only with Deny.
  if (effect === 'Allow') throw new PolicyError('content', 'Allow with NotPrincipal is not allowed.')
  return { principals: undefined, notPrincipals: parsePrincipals(spared, partition) }
}

const trustActionText =
  'Trust Policy statement actions can only be sts:AssumeRole, sts:AssumeRoleWithSAML,  and sts:AssumeRoleWithWebIdentity'

function parseActions(source: Record<string, unknown>, kind: PolicyKind): Patterns | undefined {
  const isNot = source.NotAction !== undefined
  const texts = asTexts(isNot ? source.NotAction : source.Action)
  if (texts.length === 0) {
    if (kind === 'key') return undefined
    throw new PolicyError('content', kind === 'trust' ? trustActionText : 'Policy statement must contain actions.')
  }
  for (const text of texts) {
    checkAction(text)
    if (kind === 'trust' && (isNot || !text.toLowerCase().startsWith('sts:')))
      throw new PolicyError('content', trustActionText)
  }
  return compileAll(isNot, texts, (text) =>
    compilePattern(text.toLowerCase(), { hasVariables: false, hasWildcards: true }),
  )
}

function checkAction(text: string): void {
  if (text === '*') return
  const [vendor = '', name, ...rest] = text.split(':')
  if (name === undefined) {
    throw new PolicyError('content', 'Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc.')
  }
  if (rest.length > 0) throw new PolicyError('content', 'Actions/Condition can contain only one colon.')
  if (vendor !== '*' && !/^[A-Za-z0-9.-]+$/.test(vendor))
    throw new PolicyError('content', `Vendor ${vendor} is not valid`)
  if (name === '') throw syntaxError()
}

function parseResources(source: Record<string, unknown>, { kind, hasVariables }: StatementRules): Patterns | undefined {
  const isNot = source.NotResource !== undefined
  const element = isNot ? source.NotResource : source.Resource
  if (kind === 'trust') {
    if (element !== undefined) throw new PolicyError('content', 'Has prohibited field Resource.')
    return everyResource
  }
  const texts = asTexts(element)
  if (texts.length === 0) {
    if (kind === 'key') return undefined
    throw new PolicyError('content', 'Policy statement must contain resources.')
  }
  return compileAll(isNot, texts, (text) => {
    const pattern = text === '*' ? anything : compileArnPattern(text, hasVariables)
    if (pattern === undefined) throw new PolicyError('content', `Resource ${text} must be in ARN format or "*".`)
    return pattern
  })
}

const anything = compilePattern('*', { hasVariables: false, hasWildcards: true })
const everyResource = compileAll(false, ['*'], () => anything)

function compileAll(isNot: boolean, texts: readonly string[], compile: (text: string) => Pattern): Patterns {
  const patterns = texts.map(compile)
  const literals = patterns.flatMap(({ literal }) => (literal === undefined ? [] : [literal]))
  const others = patterns.filter(({ literal }) => literal === undefined)
  const isAnything = texts.includes('*')
  return Object.freeze({ isNot, isAnything, exact: new Set(literals), others: Object.freeze(others) })
}

function parseConditions(source: unknown, hasVariables: boolean): readonly Condition[] {
  if (source === undefined) return []
  if (!isRecord(source)) throw syntaxError()
  const conditions: Condition[] = []
  for (const [operator, lines] of Object.entries(source)) {
    if (!isRecord(lines)) throw syntaxError()
    for (const [key, values] of Object.entries(lines)) {
      if (!/^[^:]+:./.test(key)) {
        throw new PolicyError('content', 'Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc.')
      }
      conditions.push(compileCondition(operator, key, conditionValues(values), hasVariables))
    }
  }
  return Object.freeze(conditions)
}

/** JSON numbers and booleans stand for their text. No value at all would make a negated operator hold for everybody. */
function conditionValues(source: unknown): readonly string[] {
  const values: readonly unknown[] = Array.isArray(source) ? source : [source]
  if (values.length === 0) throw syntaxError()
  return values.map((value) => {
    if (typeof value === 'string') return value
    if (typeof value === 'number' || typeof value === 'boolean') return String(value)
    throw syntaxError()
  })
}

function asTexts(source: unknown): readonly string[] {
  if (source === undefined) return []
  const texts = Array.isArray(source) ? source : [source]
  if (!texts.every((text) => typeof text === 'string')) throw syntaxError()
  return texts
}

function refuseBoth(source: Record<string, unknown>, element: string): void {
  if (source[element] !== undefined && source[`Not${element}`] !== undefined) throw syntaxError()
}

function checkSid(sid: string | undefined, kind: PolicyKind): void {
  // Key policies allow spaces in a Sid; IAM's own policies don't.
  if (sid === undefined || kind === 'key' || /^[0-9A-Za-z]*$/.test(sid)) return
  throw new PolicyError(
    'content',
    'Statement IDs (SID) must be alpha-numeric. Check that your input satisfies the regular expression [0-9A-Za-z]*',
  )
}
