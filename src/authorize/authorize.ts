/**
 * The face of authorization: AWS's policy language and its evaluation over a principal, a demand, policies and grants.
 *
 * Pure: no I/O, no clock but the one handed in. Policies are compiled once and kept in a bounded cache by their text; a decision is
 * synchronous whenever the caller's policies and the key's grants are at hand, and touches only the statements and grants that can matter.
 */

import type { Decision, Demand, Principal } from '../call.ts'
import { maxComparableAliases as maxComparable } from './condition.ts'
import { type AttachedPolicy, type Evidence, decide as evaluate } from './decide.ts'
import { defaultKeyPolicy as renderDefaultKeyPolicy } from './default-policy.ts'
import { addEncryptionContext as addContextKeys } from './encryption-context.ts'
import { type AppliedStatement, findApplied } from './explain.ts'
import { resourceAliases as aliasesKey, createFacts } from './facts.ts'
import type { Grant as GrantValue } from './grant.ts'
import { isNoBroader } from './grants.ts'
import { type Policy, type PolicyLimits, parsePolicy as readPolicy } from './policy.ts'
import { createPolicyCache } from './policy-cache.ts'
import { PolicyError as PolicyFailure } from './policy-error.ts'
import { namesOf } from './principal-set.ts'
import type { PolicyKind } from './statement.ts'

/** A key with more aliases than this satisfies no condition on them (AWS KMS Developer Guide, "kms:ResourceAliases"). */
export const maxResourceAliases = maxComparable

/** Raised by {@link parsePolicy} alone: `problem` says what is wrong, `message` is AWS's text for it. */
export const PolicyError = PolicyFailure
export type PolicyError = PolicyFailure

/** A grant as the evaluation sees it; lists of grants are indexed by grantee once if they are frozen. */
export type Grant = GrantValue

/** A policy attached to a principal. `purpose` is `permissions` unless it only narrows what others permit. */
export interface IdentityPolicy {
  readonly name: string
  readonly document: string
  readonly purpose?: AttachedPolicy['purpose']
}

export interface AuthorizerParts {
  /** All policies attached to a principal, inline and managed. Answer synchronously when they are cached. */
  readonly identityPolicies: (principal: Principal) => readonly IdentityPolicy[] | Promise<readonly IdentityPolicy[]>
  /**
   * Grants on the demanded key; for `kms:RetireGrant` exactly the grant to be retired, for `kms:CreateGrant` only those that
   * {@link permitsChild} accepts as parents. Hand out the same frozen list as long as nothing changed, synchronously when it is cached.
   */
  readonly grants?: (demand: Demand, principal: Principal) => readonly Grant[] | Promise<readonly Grant[]>
  /**
   * Names of the demanded key's aliases, `maxResourceAliases` and one at most; asked only where a policy of the caller depends on them. Answer
   * synchronously when they are cached.
   */
  readonly resourceAliases?: (demand: Demand) => readonly string[] | Promise<readonly string[]>
  readonly nowMs?: () => number
  /** Bound of the cache of compiled policies, in characters of policy text per kind of policy. */
  readonly cacheCharacters?: number
}

export interface Explanation {
  readonly decision: Decision
  /** Every statement and grant that applies to the request, decisive or not. */
  readonly applied: readonly AppliedStatement[]
}

export interface Authorizer {
  /** Never throws for anything a policy, principal or demand may contain; what can't be read denies. */
  decide(principal: Principal, demand: Demand): Decision | Promise<Decision>
  explain(principal: Principal, demand: Demand): Promise<Explanation>
}

export function createAuthorizer(parts: AuthorizerParts): Authorizer {
  const { identityPolicies, grants = () => noGrants, resourceAliases, nowMs = Date.now } = parts
  const cache = createPolicyCache(parts.cacheCharacters ?? defaultCacheCharacters)

  /** A peer whose binding allows the call is no user of the catalog: it has neither policies nor grants. */
  const policiesOf = (principal: Principal, { peer }: Demand) =>
    principal.type === 'operator' || peer !== undefined ? noPolicies : identityPolicies(principal)
  const grantsOn = (principal: Principal, demand: Demand) =>
    demand.peer === undefined ? grants(demand, principal) : noGrants

  function gather(
    principal: Principal,
    demand: Demand,
    policies: readonly IdentityPolicy[],
    granted: readonly Grant[],
  ): Evidence {
    const { resourcePolicy } = demand
    return {
      facts: createFacts(principal, demand, nowMs()),
      names: namesOf(principal),
      attached: policies.map(({ name, document, purpose = 'permissions' }) => ({
        name,
        purpose,
        index: cache.find('identity', document),
      })),
      resourcePolicy:
        typeof resourcePolicy === 'string' ? cache.find(resourceKind(demand), resourcePolicy) : resourcePolicy,
      grants: granted,
    }
  }

  /** The evidence with the key's aliases, where a policy asks for them. A door or a simulation may have stated them. */
  function complete(evidence: Evidence): Evidence | Promise<Evidence> {
    const { facts, attached } = evidence
    const { demand } = facts
    const isAsked = attached.some(({ index }) => index?.asksForAliases)
    if (!isAsked || resourceAliases === undefined || demand.context.has(aliasesKey)) return evidence
    const withNames = (names: readonly string[]): Evidence => {
      // a key without aliases has no such condition key
      if (names.length === 0) return evidence
      const context = new Map(demand.context).set(aliasesKey, names)
      return { ...evidence, facts: { ...facts, demand: { ...demand, context } } }
    }
    const names = resourceAliases(demand)
    return names instanceof Promise ? names.then(withNames) : withNames(names)
  }

  function evidenceOf(principal: Principal, demand: Demand): Evidence | Promise<Evidence> {
    const policies = policiesOf(principal, demand)
    const granted = grantsOn(principal, demand)
    if (!(policies instanceof Promise || granted instanceof Promise)) {
      return complete(gather(principal, demand, policies, granted))
    }
    return Promise.all([policies, granted]).then((found) => complete(gather(principal, demand, ...found)))
  }

  return {
    decide(principal, demand) {
      const evidence = evidenceOf(principal, demand)
      return evidence instanceof Promise ? evidence.then(evaluate) : evaluate(evidence)
    },
    async explain(principal, demand) {
      const evidence = await evidenceOf(principal, demand)
      return { decision: evaluate(evidence), applied: findApplied(evidence) }
    },
  }
}

/**
 * Checks and compiles a policy document: `identity` for one attached to a principal, `key` for a key policy, `trust` for a role's trust
 * policy. Limits default to AWS's quotas. Whether the `principals` it names exist is for the caller to check.
 *
 * @throws PolicyError
 */
export function parsePolicy(kind: PolicyKind, text: string, limits?: PolicyLimits): Policy {
  return readPolicy(kind, text, limits)
}

/** The key policy AWS gives a key that is created without one, in AWS's layout. */
export function defaultKeyPolicy(account: string, partition: string): string {
  return renderDefaultKeyPolicy(account, partition)
}

/** Adds the `kms:EncryptionContext:` keys and `kms:EncryptionContextKeys` of a request to its condition context. */
export function addEncryptionContext(
  context: Map<string, string | readonly string[]>,
  pairs: Iterable<readonly [key: string, value: string]>,
): void {
  addContextKeys(context, pairs)
}

/** Whether a grant created through `parent` would give no more than it (AWS KMS Developer Guide, "Granting CreateGrant permission"). */
export function permitsChild(parent: Grant, child: Pick<Grant, 'operations' | 'constraints'>): boolean {
  return isNoBroader(child, parent)
}

const defaultCacheCharacters = 16 * 1024 * 1024
const noPolicies: readonly IdentityPolicy[] = Object.freeze([])
const noGrants: readonly Grant[] = Object.freeze([])

function resourceKind(demand: Demand): PolicyKind {
  return demand.action.startsWith('sts:') ? 'trust' : 'key'
}
