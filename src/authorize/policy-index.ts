/**
 * A policy arranged for decisions: per action the statements that speak of it, per principal name the statements that name it. Filled on
 * first use of an action; a decision then looks at the few statements that can matter instead of at all.
 */

import type { Principal } from '../call.ts'
import { type Facts, resourceAliases } from './facts.ts'
import type { Policy } from './policy.ts'
import { isSpared, type Name, type Reach } from './principal-set.ts'
import { appliesTo, type Statement, speaksOfAction } from './statement.ts'

export interface PolicyIndex {
  readonly policy: Policy
  /** A statement depends on the aliases of the key, which nobody looks up unless one does. */
  readonly asksForAliases: boolean
  readonly byAction: Map<string, ActionEntry>
}

interface ActionEntry {
  readonly allow: Bucket
  readonly deny: Bucket
}

interface Bucket {
  readonly byName: ReadonlyMap<string, readonly Statement[]>
  /** Statements that name nobody: all of an identity policy, and NotPrincipal. */
  readonly unnamed: readonly Statement[]
}

export interface Match {
  readonly statement: Statement
  readonly reach: Reach
}

/** Real actions are some sixty; a caller who invents names must not grow the index. */
const maxActions = 256

export function indexPolicy(policy: Policy): PolicyIndex {
  const asksForAliases = policy.statements.some(({ conditions }) =>
    conditions.some(({ key }) => key === resourceAliases),
  )
  return { policy, asksForAliases, byAction: new Map() }
}

/** The Deny that hits the request, if any. */
export function findDeny(index: PolicyIndex, names: readonly Name[], facts: Facts): Statement | undefined {
  const { deny } = entryOf(index, facts)
  for (const statement of deny.unnamed) {
    if (hitsUnnamed(statement, facts.principal) && appliesTo(statement, facts)) return statement
  }
  if (deny.byName.size === 0) return undefined
  for (const name of names) {
    const statement = findApplying(deny.byName.get(name.text), facts)
    if (statement !== undefined) return statement
  }
  return undefined
}

/** The Allow that reaches the caller most directly, if any. */
export function findAllow(index: PolicyIndex, names: readonly Name[], facts: Facts): Match | undefined {
  const { allow } = entryOf(index, facts)
  const unnamed = findApplying(allow.unnamed, facts)
  if (unnamed !== undefined) return { statement: unnamed, reach: 'direct' }
  for (const name of names) {
    const statement = findApplying(allow.byName.get(name.text), facts)
    if (statement !== undefined) return { statement, reach: name.reach }
  }
  return undefined
}

/** Every statement that applies to the request, Allow and Deny, in the order of the policy. */
export function findMatches(index: PolicyIndex, names: readonly Name[], facts: Facts): readonly Match[] {
  return index.policy.statements.flatMap((statement) => {
    if (!speaksOfAction(statement, facts.action, facts) || !appliesTo(statement, facts)) return []
    if (statement.principals === undefined) {
      return hitsUnnamed(statement, facts.principal) ? [{ statement, reach: 'direct' as const }] : []
    }
    const name = names.find(({ text }) => statement.principals?.names.has(text))
    return name === undefined ? [] : [{ statement, reach: name.reach }]
  })
}

function hitsUnnamed({ notPrincipals }: Statement, principal: Principal): boolean {
  return notPrincipals === undefined || !isSpared(notPrincipals, principal)
}

function findApplying(statements: readonly Statement[] | undefined, facts: Facts): Statement | undefined {
  if (statements === undefined) return undefined
  for (const statement of statements) {
    if (appliesTo(statement, facts)) return statement
  }
  return undefined
}

function entryOf(index: PolicyIndex, facts: Facts): ActionEntry {
  const known = index.byAction.get(facts.action)
  if (known !== undefined) return known
  const statements = index.policy.statements.filter((statement) => speaksOfAction(statement, facts.action, facts))
  const entry: ActionEntry = {
    allow: createBucket(statements.filter(({ effect }) => effect === 'Allow')),
    deny: createBucket(statements.filter(({ effect }) => effect === 'Deny')),
  }
  if (index.byAction.size >= maxActions) index.byAction.clear()
  index.byAction.set(facts.action, entry)
  return entry
}

function createBucket(statements: readonly Statement[]): Bucket {
  const byName = new Map<string, Statement[]>()
  const unnamed: Statement[] = []
  for (const statement of statements) {
    if (statement.principals === undefined) unnamed.push(statement)
    for (const name of statement.principals?.names ?? []) {
      const named = byName.get(name)
      if (named === undefined) byName.set(name, [statement])
      else named.push(statement)
    }
  }
  return { byName, unnamed }
}
