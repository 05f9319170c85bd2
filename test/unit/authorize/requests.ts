/** Principals, demands and policies that the tests of authorization share. */

import { createAuthorizer, type Grant, type IdentityPolicy } from '../../../src/authorize/authorize.ts'
import type { Decision, Demand, Principal } from '../../../src/call.ts'

export const account = '111122223333'
export const otherAccount = '444455556666'
export const keyArn = `arn:aws:kms:us-east-1:${account}:key/1234abcd-12ab-34cd-56ef-1234567890ab`
export const rootArn = `arn:aws:iam::${account}:root`

export function user(name: string, of = account): Principal {
  const principalId = `AIDA${name.toUpperCase()}00000000`
  return { type: 'user', arn: `arn:aws:iam::${of}:user/${name}`, account: of, principalId, userName: name }
}

export function session(role: string, name: string, of = account): Principal {
  return {
    type: 'role-session',
    arn: `arn:aws:sts::${of}:assumed-role/${role}/${name}`,
    account: of,
    principalId: `AROA${role.toUpperCase()}00000000:${name}`,
    roleArn: `arn:aws:iam::${of}:role/${role}`,
    issuedAt: 1_700_000_000,
  }
}

export function root(of = account): Principal {
  return { type: 'root', arn: `arn:aws:iam::${of}:root`, account: of, principalId: of }
}

export const operator: Principal = { type: 'operator', arn: 'operator:1000', account, principalId: '1000' }

type Statement = Readonly<Record<string, unknown>>

export function document(...statements: readonly Statement[]): string {
  return JSON.stringify({ Version: '2012-10-17', Statement: statements })
}

/** A key policy statement; Allow of everything to the account unless said otherwise. */
export function onKey(changes: Statement = {}): Statement {
  const who = 'NotPrincipal' in changes ? {} : { Principal: { AWS: rootArn } }
  const what = 'NotAction' in changes ? {} : { Action: 'kms:*' }
  return { Effect: 'Allow', ...who, ...what, Resource: '*', ...changes }
}

/** An identity policy statement; Allow of everything unless said otherwise. */
export function onIdentity(changes: Statement = {}): Statement {
  const what = 'NotAction' in changes ? {} : { Action: '*' }
  const where = 'NotResource' in changes ? {} : { Resource: '*' }
  return { Effect: 'Allow', ...what, ...where, ...changes }
}

export const administrator: IdentityPolicy = { name: 'administrator', document: document(onIdentity()) }

export function attach(...statements: readonly Statement[]): IdentityPolicy {
  return { name: 'test', document: document(...statements) }
}

type Context = Readonly<Record<string, string | readonly string[]>>

export function demand(changes: Partial<Omit<Demand, 'context'>> & { readonly context?: Context } = {}): Demand {
  const { context = {}, ...rest } = changes
  return {
    action: 'kms:Decrypt',
    resource: keyArn,
    resourceAccount: account,
    resourcePolicy: document(onKey()),
    ...rest,
    context: new Map(Object.entries(context).map(([key, value]) => [key.toLowerCase(), value])),
  }
}

export interface Setting {
  readonly policies?: readonly IdentityPolicy[]
  readonly grants?: readonly Grant[]
  readonly nowMs?: number
}

export function decide(principal: Principal, asked: Demand, setting: Setting = {}): Decision {
  const { policies = [], grants = [], nowMs = Date.UTC(2026, 0, 15, 12) } = setting
  const authorizer = createAuthorizer({
    identityPolicies: () => policies,
    grants: () => grants,
    nowMs: () => nowMs,
  })
  const decision = authorizer.decide(principal, asked)
  if (decision instanceof Promise) throw new TypeError('decided asynchronously although all policies are at hand')
  return decision
}

/** Whether a user whose policy is one statement with `condition` may decrypt in `context`. */
export function holds(
  condition: Statement,
  context: Context,
  setting: Setting & { readonly principal?: Principal } = {},
): boolean {
  const policies = [attach(onIdentity({ Condition: condition }))]
  return decide(setting.principal ?? user('ann'), demand({ context }), { ...setting, policies }).allowed
}

/** Whether a Deny with `condition` stops a user who may do everything. */
export function denies(condition: Statement, context: Context): boolean {
  const policies = [administrator, attach(onIdentity({ Effect: 'Deny', Condition: condition }))]
  return !decide(user('ann'), demand({ context }), { policies }).allowed
}
