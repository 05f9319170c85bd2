/**
 * What is known about one request while it is decided: principal, demand, time. Condition keys and policy variables both read here.
 *
 * Keys that describe the principal come from the authenticated Principal and win over the context, so that no door can be talked
 * into another identity; all others come from the context, which is keyed in lower case because condition keys ignore case
 * (IAM User Guide, "IAM JSON policy elements: Condition").
 */

import type { Demand, Principal } from '../call.ts'

export interface Facts {
  readonly principal: Principal
  readonly demand: Demand
  readonly nowMs: number
  /** The action in lower case, as statements are indexed. */
  readonly action: string
  /** The encryption context has two keys that differ only by case: conditions on it can't be trusted. */
  readonly isContextAmbiguous: boolean
}

export type ContextValue = string | readonly string[]

export const encryptionContextPrefix = 'kms:encryptioncontext:'
export const encryptionContextKeys = 'kms:encryptioncontextkeys'
/** Names of the key's aliases; in identity policies alone. */
export const resourceAliases = 'kms:resourcealiases'

const principalTagPrefix = 'aws:principaltag/'

export function createFacts(principal: Principal, demand: Demand, nowMs: number): Facts {
  return {
    principal,
    demand,
    nowMs,
    action: demand.action.toLowerCase(),
    get isContextAmbiguous() {
      return hasAmbiguousContext(demand)
    },
  }
}

/** The value of a condition key (given in lower case), or undefined when the request has none. */
export function findValue(facts: Facts, key: string): ContextValue | undefined {
  return valueFinder(key)(facts)
}

/** {@link findValue} for one key, with the kind of key settled beforehand. */
export function valueFinder(key: string): (facts: Facts) => ContextValue | undefined {
  const ofPrincipal = principalKeys.get(key)
  if (ofPrincipal !== undefined) return ofPrincipal
  if (key.startsWith(principalTagPrefix)) {
    const tag = key.slice(principalTagPrefix.length)
    return ({ principal }) => findTag(principal, tag)
  }
  const ofRequest = requestKeys.get(key)
  if (ofRequest !== undefined) return (facts) => facts.demand.context.get(key) ?? ofRequest(facts)
  return ({ demand }) => demand.context.get(key)
}

/** IAM User Guide, "AWS global condition context keys". For a role session aws:PrincipalArn is the role, not the session. */
const principalKeys: ReadonlyMap<string, (facts: Facts) => string | undefined> = new Map([
  ['aws:principalarn', ({ principal }: Facts) => principal.roleArn ?? principal.arn],
  ['aws:principalaccount', ({ principal }: Facts) => principal.account],
  ['aws:userid', ({ principal }: Facts) => principal.principalId],
  ['aws:username', ({ principal }: Facts) => (principal.type === 'user' ? principal.userName : undefined)],
  ['aws:principaltype', ({ principal }: Facts) => principalTypes[principal.type]],
  ['aws:principalisawsservice', () => 'false'],
  [
    'aws:tokenissuetime',
    ({ principal: { issuedAt } }: Facts) =>
      issuedAt === undefined ? undefined : new Date(issuedAt * 1000).toISOString(),
  ],
])

const principalTypes = {
  user: 'User',
  'role-session': 'AssumedRole',
  root: 'Account',
  operator: undefined,
  'key-store': undefined,
} as const

/** Keys that the context may state (a simulation does) and that are otherwise known here. */
const requestKeys: ReadonlyMap<string, (facts: Facts) => string | undefined> = new Map([
  ['aws:currenttime', ({ nowMs }: Facts) => new Date(nowMs).toISOString()],
  ['aws:epochtime', ({ nowMs }: Facts) => String(Math.floor(nowMs / 1000))],
  ['aws:resourceaccount', ({ demand }: Facts) => (demand.resource === '*' ? undefined : demand.resourceAccount)],
  ['aws:viaawsservice', () => 'false'],
])

function findTag(principal: Principal, key: string): string | undefined {
  for (const name in principal.tags) {
    if (name.toLowerCase() === key) return principal.tags[name]
  }
  return undefined
}

function hasAmbiguousContext({ context }: Demand): boolean {
  const keys = context.get(encryptionContextKeys)
  if (keys === undefined || typeof keys === 'string' || keys.length < 2) return false
  return new Set(keys.map(foldKey)).size < keys.length
}

/** Encryption-context keys are compared as condition keys are: without regard to case. */
export function foldKey(key: string): string {
  return key.toLowerCase()
}
