/**
 * Grants: what they permit and to whom (AWS KMS Developer Guide, "Grants in AWS KMS"). A grant only ever allows. The store of grants is
 * elsewhere; here they are plain values, found by grantee through an index that is built once per frozen list.
 */

import { encryptionContextKeys, encryptionContextPrefix, type Facts, findValue, foldKey } from './facts.ts'
import type { Name, Reach } from './principal-set.ts'

export type ContextPairs = Readonly<Record<string, string>>

export interface GrantConstraints {
  readonly encryptionContextEquals?: ContextPairs
  readonly encryptionContextSubset?: ContextPairs
  readonly sourceArn?: string
}

export interface Grant {
  readonly grantId: string
  readonly keyArn: string
  /** An ARN or a 12-digit account; absent where a service is the grantee, which no caller of the gateway is. */
  readonly granteePrincipal?: string
  readonly retiringPrincipal?: string
  /** The account in which the grant was created. */
  readonly issuingAccount: string
  /** Names of grant operations: `Decrypt`, `ReEncryptFrom`, ... */
  readonly operations: readonly string[]
  readonly constraints?: GrantConstraints
}

export interface GrantMatch {
  readonly grant: Grant
  readonly reach: Reach
}

/** Operations that carry an encryption context; constraints on it bind these, and CreateGrant by way of the child grant. */
const contextOperations = new Set([
  'Encrypt',
  'Decrypt',
  'GenerateDataKey',
  'GenerateDataKeyWithoutPlaintext',
  'GenerateDataKeyPair',
  'GenerateDataKeyPairWithoutPlaintext',
  'ReEncryptFrom',
  'ReEncryptTo',
])

const unconstrainedOperations = new Set(['CreateGrant', 'DescribeKey', 'RetireGrant'])

const actionPrefix = 'kms:'

/** The grant that permits the request and reaches the caller most directly, if any. */
export function findGrant(grants: readonly Grant[], names: readonly Name[], facts: Facts): GrantMatch | undefined {
  if (grants.length === 0 || !facts.action.startsWith(actionPrefix)) return undefined
  const operation = facts.demand.action.slice(actionPrefix.length)
  const byGrantee = indexByGrantee(grants)
  for (const name of names) {
    const candidates = byGrantee.get(name.text)
    const grant = candidates?.find((each) => permits(each, operation, facts))
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

const indexes = new WeakMap<readonly Grant[], ReadonlyMap<string, readonly Grant[]>>()

function indexByGrantee(grants: readonly Grant[]): ReadonlyMap<string, readonly Grant[]> {
  const known = indexes.get(grants)
  if (known !== undefined) return known
  const index = new Map<string, Grant[]>()
  for (const grant of grants) {
    const grantee = canonicalGrantee(grant.granteePrincipal)
    if (grantee === undefined) continue
    const same = index.get(grantee)
    if (same === undefined) index.set(grantee, [grant])
    else same.push(grant)
  }
  // A list that can still change has no index that stays true.
  if (Object.isFrozen(grants)) indexes.set(grants, index)
  return index
}

/** Grants name accounts by id or by root ARN; `*` is no grantee. */
function canonicalGrantee(principal: string | undefined): string | undefined {
  if (principal === undefined || principal === '*') return undefined
  return /^arn:[a-z-]+:iam::(\d{12}):root$/.exec(principal)?.[1] ?? principal
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
