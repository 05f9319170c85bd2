/**
 * Why a decision came out as it did: every statement and grant that applies to the request, whether or not it decided.
 */

import { type Evidence, nameStatement } from './decide.ts'
import { findGrant } from './grants.ts'
import { findMatches, type PolicyIndex } from './policy-index.ts'
import type { Reach } from './principal-set.ts'

export interface AppliedStatement {
  readonly source: 'identity-policy' | 'boundary' | 'session-policy' | 'key-policy' | 'trust-policy' | 'grant'
  /** As in `Decision.statement`. */
  readonly statement: string
  readonly effect: 'Allow' | 'Deny'
  /** `account` means that the statement only leaves the decision to the caller's account. */
  readonly reach: Reach
}

const sourceOfPurpose = { permissions: 'identity-policy', boundary: 'boundary', session: 'session-policy' } as const

export function findApplied(evidence: Evidence): readonly AppliedStatement[] {
  const { facts, names, attached, resourcePolicy, grants } = evidence
  const applied: AppliedStatement[] = []
  const add = (index: PolicyIndex, source: AppliedStatement['source'], policy: string) => {
    for (const { statement, reach } of findMatches(index, names, facts)) {
      applied.push({ source, statement: nameStatement(policy, statement), effect: statement.effect, reach })
    }
  }
  for (const { index, name, purpose } of attached) {
    if (index !== undefined) add(index, sourceOfPurpose[purpose], `identity policy ${name}`)
  }
  if (resourcePolicy) {
    const { kind } = resourcePolicy.policy
    add(resourcePolicy, kind === 'trust' ? 'trust-policy' : 'key-policy', `${kind} policy`)
  }
  for (const grant of grants) {
    const match = findGrant([grant], names, facts)
    if (match !== undefined) {
      applied.push({ source: 'grant', statement: `grant ${grant.grantId}`, effect: 'Allow', reach: match.reach })
    }
  }
  return applied
}
