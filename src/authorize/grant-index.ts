/**
 * The grants of one key, arranged so that a request meets only those that could permit it: by grantee, by operation, and by one pair of
 * their constraint on the encryption context (or by its source ARN). A service that creates a grant per volume or table gives one role
 * thousands of grants that differ in nothing else.
 *
 * An index is built once per frozen list and forgotten with it; operations are added on first use.
 */

import { encryptionContextKeys, encryptionContextPrefix, type Facts, findValue, foldKey } from './facts.ts'
import { canonicalGrantee, contextOperations, type Grant } from './grant.ts'

export interface GrantIndex {
  readonly byGrantee: ReadonlyMap<string, GranteeEntry>
}

interface GranteeEntry {
  readonly grants: readonly Grant[]
  readonly byOperation: Map<string, OperationEntry>
}

interface OperationEntry {
  readonly byAnchor: ReadonlyMap<string, readonly Grant[]>
  readonly unanchored: readonly Grant[]
}

const indexes = new WeakMap<readonly Grant[], GrantIndex>()

export function indexGrants(grants: readonly Grant[]): GrantIndex {
  const known = indexes.get(grants)
  if (known !== undefined) return known
  const index: GrantIndex = {
    byGrantee: new Map(
      Array.from(
        groupBy(grants, ({ granteePrincipal }) => canonicalGrantee(granteePrincipal)).named,
        ([name, each]) => [name, { grants: each, byOperation: new Map() }],
      ),
    ),
  }
  // A list that can still change has no index that stays true.
  if (Object.isFrozen(grants)) indexes.set(grants, index)
  return index
}

/** The first grant to `grantee` for `operation` that `permits`; grants whose anchor the request lacks are not asked. */
export function findIndexed(
  index: GrantIndex,
  grantee: string,
  operation: string,
  facts: Facts,
  permits: (grant: Grant) => boolean,
): Grant | undefined {
  const entry = index.byGrantee.get(grantee)
  const candidates = entry && operationEntry(entry, operation)
  if (candidates === undefined) return undefined
  const free = candidates.unanchored.find(permits)
  if (free !== undefined || candidates.byAnchor.size === 0) return free
  for (const anchor of anchorsOf(facts)) {
    const grant = candidates.byAnchor.get(anchor)?.find(permits)
    if (grant !== undefined) return grant
  }
  return undefined
}

function operationEntry(entry: GranteeEntry, operation: string): OperationEntry | undefined {
  const known = entry.byOperation.get(operation)
  if (known !== undefined) return known
  const grants = entry.grants.filter(({ operations }) => operations.includes(operation))
  if (grants.length === 0) return undefined
  const { named, unnamed } = groupBy(grants, (grant) => anchorOf(grant, operation))
  const created = { byAnchor: named, unanchored: unnamed }
  entry.byOperation.set(operation, created)
  return created
}

/** Something the request must have for the grant to permit it. */
function anchorOf({ constraints }: Grant, operation: string): string | undefined {
  const pairs = constraints?.encryptionContextEquals ?? constraints?.encryptionContextSubset
  const [pair] = contextOperations.has(operation) ? Object.entries(pairs ?? {}) : []
  if (pair !== undefined) return contextAnchor(foldKey(pair[0]), pair[1])
  return constraints?.sourceArn === undefined ? undefined : sourceAnchor(constraints.sourceArn)
}

function anchorsOf(facts: Facts): readonly string[] {
  const anchors: string[] = []
  const source = findValue(facts, 'aws:sourcearn')
  if (typeof source === 'string') anchors.push(sourceAnchor(source))
  const keys = findValue(facts, encryptionContextKeys) ?? []
  for (const key of typeof keys === 'string' ? [keys] : keys) {
    const folded = foldKey(key)
    const value = findValue(facts, encryptionContextPrefix + folded)
    if (typeof value === 'string') anchors.push(contextAnchor(folded, value))
  }
  return anchors
}

/** The length keeps `a=b` with `c` apart from `a` with `b=c`. */
function contextAnchor(key: string, value: string): string {
  return `${key.length}=${key}=${value}`
}

function sourceAnchor(arn: string): string {
  return `source ${arn}`
}

function groupBy(grants: readonly Grant[], nameOf: (grant: Grant) => string | undefined) {
  const named = new Map<string, Grant[]>()
  const unnamed: Grant[] = []
  for (const grant of grants) {
    const name = nameOf(grant)
    const same = name === undefined ? unnamed : named.get(name)
    if (same !== undefined) same.push(grant)
    else if (name !== undefined) named.set(name, [grant])
  }
  return { named, unnamed }
}
