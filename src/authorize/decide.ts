/**
 * The evaluation: identity policies, resource policy and grants of one request to one decision. An explicit Deny anywhere wins, else
 * something must allow, else the answer is no (IAM User Guide, "Policy evaluation logic"; AWS KMS Developer Guide, "Determining access
 * to AWS KMS keys"). There is no way round for anybody: an administrator is a principal whose identity policy allows everything, and a
 * key policy that does not name his account keeps him out.
 */

import type { Decision } from '../call.ts'
import type { Facts } from './facts.ts'
import type { Grant } from './grant.ts'
import { findGrant, findRetireReach } from './grants.ts'
import { findAllow, findDeny, type PolicyIndex } from './policy-index.ts'
import type { Name, Reach } from './principal-set.ts'
import type { Statement } from './statement.ts'

/** A policy attached to the caller. Boundaries and session policies only narrow; a request must pass every kind that is present. */
export interface AttachedPolicy {
  readonly name: string
  readonly purpose: 'permissions' | 'boundary' | 'session'
  /** Undefined when the stored document can't be read: what it denies is then unknown. */
  readonly index: PolicyIndex | undefined
}

export interface Evidence {
  readonly facts: Facts
  readonly names: readonly Name[]
  readonly attached: readonly AttachedPolicy[]
  /** Null where the kind of resource has no policy, undefined when it can't be read or there is no such resource. */
  readonly resourcePolicy: PolicyIndex | null | undefined
  readonly grants: readonly Grant[]
}

type Denied = Decision & { readonly allowed: false }
type Allowed = Decision & { readonly allowed: true }

const retireAction = 'kms:retiregrant'

export function decide(evidence: Evidence): Decision {
  const { facts, attached, resourcePolicy } = evidence
  if (facts.principal.type === 'operator') return decideOperator(facts)
  return (
    denyOfIdentity(attached, evidence) ??
    denyOfResource(evidence) ??
    allowOfPeer(facts) ??
    (resourcePolicy === null ? decideWithoutPolicy(evidence) : decideWithPolicy(evidence))
  )
}

function allowOfPeer({ demand }: Facts): Allowed | undefined {
  return demand.peer === undefined ? undefined : { allowed: true, by: 'peer', statement: demand.peer }
}

/** The operator of the local socket has proved a uid and nothing else: he may run the gateway, not use its keys. */
function decideOperator({ demand }: Facts): Decision {
  return demand.action.startsWith('hsmgate:')
    ? { allowed: true, by: 'peer', statement: 'operator socket' }
    : denied('no-identity-allow', 'operator socket')
}

function denyOfIdentity(attached: readonly AttachedPolicy[], { names, facts }: Evidence): Denied | undefined {
  for (const { name, index } of attached) {
    if (index === undefined) return denied('no-identity-allow', `identity policy ${name}: unreadable`)
    const statement = findDeny(index, names, facts)
    if (statement !== undefined)
      return denied('explicit-deny-identity', nameStatement(`identity policy ${name}`, statement))
  }
  return undefined
}

/** To a caller of another account a Deny looks like every other refusal; the statement is for the audit record. */
function denyOfResource({ resourcePolicy, names, facts }: Evidence): Denied | undefined {
  if (resourcePolicy === null) return undefined
  if (resourcePolicy === undefined) return denied(refusal(facts), 'no readable resource policy')
  const statement = findDeny(resourcePolicy, names, facts)
  if (statement === undefined) return undefined
  return denied(
    isForeign(facts) ? 'cross-account' : 'explicit-deny-resource',
    nameStatement(`${resourcePolicy.policy.kind} policy`, statement),
  )
}

function decideWithoutPolicy(evidence: Evidence): Decision {
  if (isForeign(evidence.facts)) return denied('cross-account', 'no resource policy')
  return allowOfIdentity(evidence) ?? denied('no-identity-allow', 'no matching statement')
}

function decideWithPolicy(evidence: Evidence): Decision {
  const { facts } = evidence
  // No policy gives the right to retire a grant; the grant itself does.
  const permission =
    facts.action === retireAction
      ? findRetirement(evidence)
      : (pickNearer(findKeyPermission(evidence), findGrantPermission(evidence)) ?? undefined)
  if (permission === undefined) return denied(refusal(facts), 'no matching statement')
  const { decision, reach } = permission
  if (!isForeign(facts)) {
    if (reach === 'direct') return decision
    if (reach === 'limited' && findUnpassed(evidence) === undefined) return decision
  }
  const allowed = allowOfIdentity(evidence)
  if (allowed === undefined) return denied('no-identity-allow', findUnpassed(evidence) ?? 'no matching statement')
  return isForeign(facts) ? decision : allowed
}

interface Permission {
  readonly decision: Allowed
  readonly reach: Reach
}

function findKeyPermission({ resourcePolicy, names, facts }: Evidence): Permission | undefined {
  const match = resourcePolicy ? findAllow(resourcePolicy, names, facts) : undefined
  if (match === undefined) return undefined
  const statement = nameStatement(`${resourcePolicy?.policy.kind} policy`, match.statement)
  return { decision: { allowed: true, by: 'key-policy', statement }, reach: match.reach }
}

function findGrantPermission({ grants, names, facts }: Evidence): Permission | undefined {
  const match = findGrant(grants, names, facts)
  return match && { decision: allowedByGrant(match.grant), reach: match.reach }
}

/** The demand names no grant, so the list must hold exactly the one to be retired. */
function findRetirement({ grants, names, facts }: Evidence): Permission | undefined {
  const [grant, ...others] = grants
  if (grant === undefined || others.length > 0 || grant.keyArn !== facts.demand.resource) return undefined
  const reach = findRetireReach(grant, names)
  return reach && { decision: allowedByGrant(grant), reach }
}

const distance: Readonly<Record<Reach, number>> = { direct: 0, limited: 1, account: 2 }

function pickNearer(one: Permission | undefined, other: Permission | undefined): Permission | undefined {
  if (one === undefined || other === undefined) return one ?? other
  return distance[other.reach] < distance[one.reach] ? other : one
}

/** What the caller's own account permits. The root user is that account and needs no policy of it. */
function allowOfIdentity(evidence: Evidence): Allowed | undefined {
  const { facts, names, attached } = evidence
  if (facts.principal.type === 'root') return { allowed: true, by: 'identity-policy', statement: 'root user' }
  if (findUnpassed(evidence) !== undefined) return undefined
  for (const { name, purpose, index } of attached) {
    const match = purpose === 'permissions' && index !== undefined ? findAllow(index, names, facts) : undefined
    if (match !== undefined) {
      return {
        allowed: true,
        by: 'identity-policy',
        statement: nameStatement(`identity policy ${name}`, match.statement),
      }
    }
  }
  return undefined
}

/** The kind of narrowing policy that is attached and does not allow the request, if there is one. */
function findUnpassed({ attached, names, facts }: Evidence): string | undefined {
  for (const purpose of ['boundary', 'session'] as const) {
    let isPresent = false
    let isPassed = false
    for (const each of attached) {
      if (each.purpose !== purpose) continue
      isPresent = true
      if (each.index !== undefined && findAllow(each.index, names, facts) !== undefined) isPassed = true
    }
    if (isPresent && !isPassed) return `no matching statement in the ${purpose} policy`
  }
  return undefined
}

function isForeign({ principal, demand }: Facts): boolean {
  return principal.account !== demand.resourceAccount
}

function refusal(facts: Facts): Denied['reason'] {
  return isForeign(facts) ? 'cross-account' : 'no-resource-allow'
}

function denied(reason: Denied['reason'], statement: string): Denied {
  return { allowed: false, reason, statement }
}

function allowedByGrant(grant: Grant): Allowed {
  return { allowed: true, by: 'grant', statement: `grant ${grant.grantId}`, grantId: grant.grantId }
}

/** How decisions and audit records name a statement: by Sid, or by its position from 1. */
export function nameStatement(policy: string, { sid, index }: Statement): string {
  return sid ? `${policy} "${sid}"` : `${policy} statement ${index + 1}`
}
