/**
 * Grants: what they permit and to whom (AWS KMS Developer Guide, "Grants in AWS KMS"). A grant only ever allows. The store of grants is
 * elsewhere; here they are plain values, found through the index of grant-index.ts.
 */

import { encryptionContextKeys, encryptionContextPrefix, type Facts, findValue, foldKey } from './facts.ts'
import { type ContextPairs, canonicalGrantee, contextOperations, type Grant } from './grant.ts'
import { findIndexed, indexGrants } from './grant-index.ts'
import type { Name, Reach } from './principal-set.ts'

export interface GrantMatch {
  readonly grant: Grant
  readonly reach: Reach
}

const unconstrainedOperations = new Set(['CreateGrant', 'DescribeKey', 'RetireGrant'])

const actionPrefix = 'kms:'

/** The grant that permits the request and reaches the caller most directly, if any. */
export function findGrant(grants: readonly Grant[], names: readonly Name[], facts: Facts): GrantMatch | undefined {
  if (grants.length === 0 || !facts.action.startsWith(actionPrefix)) return undefined
  const operation = facts.demand.action.slice(actionPrefix.length)
  const index = indexGrants(grants)
  const isPermitted = (grant: Grant) => permits(grant, operation, facts)
  for (const name of names) {
    const grant = findIndexed(index, name.text, operation, facts, isPermitted)
    if (grant !== undefined) return { grant, reach: name.reach }
  }
  return undefined
}

/**
 * How far the caller may retire a grant: as its retiring principal, as a grantee whose operations include RetireGrant, or through the
 * account that issued it ("Retiring and revoking grants").
 */
export function findRetireReach(grant: Grant, names: readonly Name[]): Reach | undefined {
  const mayRetire = (name: string) =>
    name === canonicalGrantee(grant.retiringPrincipal) ||
    name === grant.issuingAccount ||
    (grant.operations.includes('RetireGrant') && name === canonicalGrantee(grant.granteePrincipal))
  return names.find(({ text }) => mayRetire(text))?.reach
}

/**
 * Whether a grant made through `parent` gives no more than it: operations a subset, encryption-context constraint equally strict or
 * stricter, same source. Subset may gain pairs or become Equals, never the reverse.
 */
export function isNoBroader(child: Pick<Grant, 'operations' | 'constraints'>, parent: Grant): boolean {
  if (!child.operations.every((operation) => parent.operations.includes(operation))) return false
  const { encryptionContextEquals: equals, encryptionContextSubset: subset, sourceArn } = parent.constraints ?? {}
  if (sourceArn !== undefined && child.constraints?.sourceArn !== sourceArn) return false
  const childEquals = child.constraints?.encryptionContextEquals
  if (equals !== undefined && (childEquals === undefined || !isSamePairs(childEquals, equals))) return false
  if (subset === undefined) return true
  const childPairs = [childEquals, child.constraints?.encryptionContextSubset]
  return childPairs.some((pairs) => pairs !== undefined && includesPairs(pairs, subset))
}

function permits(grant: Grant, operation: string, facts: Facts): boolean {
  if (grant.keyArn !== facts.demand.resource || !grant.operations.includes(operation)) return false
  if (operation === 'CreateGrant' && !offersOnly(grant, facts)) return false
  const { encryptionContextEquals: equals, encryptionContextSubset: subset, sourceArn } = grant.constraints ?? {}
  if (sourceArn !== undefined && findValue(facts, 'aws:sourcearn') !== sourceArn) return false
  if ((equals === undefined && subset === undefined) || unconstrainedOperations.has(operation)) return true
  if (!contextOperations.has(operation) || facts.isContextAmbiguous) return false
  if (equals !== undefined && !(hasPairs(facts, equals) && contextSize(facts) === Object.keys(equals).length))
    return false
  return subset === undefined || hasPairs(facts, subset)
}

/** The operations of the grant to be made are known from its condition key; without it the parent gives nothing. */
function offersOnly(grant: Grant, facts: Facts): boolean {
  const offered = findValue(facts, 'kms:grantoperations')
  if (offered === undefined) return false
  const operations = typeof offered === 'string' ? [offered] : offered
  return operations.every((operation) => grant.operations.includes(operation))
}

/** Keys of a constraint compare without regard to case, values exactly (KMS API Reference, "GrantConstraints"). */
function hasPairs(facts: Facts, pairs: ContextPairs): boolean {
  for (const key in pairs) {
    if (findValue(facts, encryptionContextPrefix + foldKey(key)) !== pairs[key]) return false
  }
  return true
}

function contextSize(facts: Facts): number {
  const keys = findValue(facts, encryptionContextKeys)
  return keys === undefined ? 0 : typeof keys === 'string' ? 1 : keys.length
}

function includesPairs(pairs: ContextPairs, wanted: ContextPairs): boolean {
  const folded = new Map(Object.entries(pairs).map(([key, value]) => [foldKey(key), value]))
  return Object.entries(wanted).every(([key, value]) => folded.get(foldKey(key)) === value)
}

function isSamePairs(pairs: ContextPairs, wanted: ContextPairs): boolean {
  return Object.keys(pairs).length === Object.keys(wanted).length && includesPairs(pairs, wanted)
}
