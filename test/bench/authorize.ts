/**
 * CPU that authorization adds to a request: a 32 KB key policy of 100 statements and 1,000 grants on the key, against the default policy
 * and no grant. Run with: node test/bench/authorize.ts
 */

import { createAuthorizer, defaultKeyPolicy, type Grant } from '../../src/authorize/authorize.ts'
import type { Demand, Principal } from '../../src/call.ts'

const account = '111122223333'
const keyArn = `arn:aws:kms:us-east-1:${account}:key/1234abcd-12ab-34cd-56ef-1234567890ab`
const maxPolicyBytes = 32_768
const budgetMicros = 20

const userArn = (name: string) => `arn:aws:iam::${account}:user/${name}`
const ann: Principal = { type: 'user', arn: userArn('ann'), account, principalId: 'AIDAANN000000000', userName: 'ann' }

const document = (statements: readonly unknown[]) => JSON.stringify({ Version: '2012-10-17', Statement: statements })

/** 100 statements filled up to the size limit with further values of a condition. */
function largePolicy(statementOf: (nth: number, filler: readonly string[]) => object): string {
  const build = (fillers: number) =>
    document(
      Array.from({ length: 100 }, (_, nth) =>
        statementOf(
          nth,
          Array.from({ length: fillers }, (_, at) => `value-${nth}-${at}`),
        ),
      ),
    )
  let fillers = 1
  while (build(fillers + 1).length <= maxPolicyBytes) fillers++
  return build(fillers)
}

/** A statement per user, the caller's the last: what a long policy looks like. */
const policyByUser = largePolicy((nth, filler) => ({
  Sid: `s${nth}`,
  Effect: 'Allow',
  Principal: { AWS: nth === 99 ? ann.arn : userArn(`user-${nth}`) },
  Action: ['kms:Decrypt', 'kms:GenerateDataKey*'],
  Resource: '*',
  Condition: { StringEquals: { 'kms:EncryptionContext:app': [...filler, 'app'] } },
}))

/** Every statement speaks of every caller and action, half of them deny, and only the last one holds: the worst a policy can be. */
const policyForAll = largePolicy((nth, filler) => ({
  Sid: `s${nth}`,
  Effect: nth % 2 === 0 ? 'Deny' : 'Allow',
  Principal: '*',
  Action: 'kms:*',
  Resource: '*',
  Condition: { StringLike: { 'kms:EncryptionContext:app': nth === 99 ? ['a*p'] : filler } },
}))

const grantOf = (nth: number, granteePrincipal: string): Grant => ({
  grantId: `g${nth}`,
  keyArn,
  granteePrincipal,
  issuingAccount: account,
  operations: ['Decrypt', 'Encrypt'],
  constraints: { encryptionContextSubset: { app: nth === 999 ? 'app' : `other-${nth}` } },
})
const list = (granteeOf: (nth: number) => string) =>
  Object.freeze(Array.from({ length: 1000 }, (_, nth) => grantOf(nth, granteeOf(nth))))
const grantsByUser = list((nth) => (nth === 999 ? ann.arn : userArn(`user-${nth}`)))
const grantsOfOne = list(() => ann.arn)

const keyOfOthers = document([{ Effect: 'Allow', Principal: { AWS: userArn('zoe') }, Action: 'kms:*', Resource: '*' }])
const defaultPolicy = defaultKeyPolicy(account, 'aws')
const administrator = document([{ Effect: 'Allow', Action: '*', Resource: '*' }])

const context = new Map<string, string | readonly string[]>([
  ['kms:encryptioncontext:app', 'app'],
  ['kms:encryptioncontextkeys', ['app']],
  ['aws:sourceip', '203.0.113.9'],
  ['aws:securetransport', 'true'],
])

function measure(name: string, resourcePolicy: () => string, grants: readonly Grant[] = []): number {
  const policies = [{ name: 'administrator', document: administrator }]
  const authorizer = createAuthorizer({ identityPolicies: () => policies, grants: () => grants })
  const ask = (): boolean => {
    const demand: Demand = {
      action: 'kms:Decrypt',
      resource: keyArn,
      resourceAccount: account,
      resourcePolicy: resourcePolicy(),
      context,
    }
    const decision = authorizer.decide(ann, demand)
    return 'allowed' in decision && decision.allowed
  }
  const rounds = 20_000
  for (let round = 0; round < rounds; round++) if (!ask()) throw new Error(`${name}: denied`)
  const before = process.cpuUsage()
  for (let round = 0; round < rounds; round++) ask()
  const { user, system } = process.cpuUsage(before)
  const micros = (user + system) / rounds
  console.log(`${name.padEnd(62)} ${micros.toFixed(2).padStart(8)} µs`)
  return micros
}

/** A new string object with the same text, as a driver hands out for a row. */
const fresh = (text: string) => () => Buffer.from(text, 'latin1').toString('latin1')

console.log(
  `key policies of ${policyByUser.length} and ${policyForAll.length} bytes, 100 statements each; CPU per decision`,
)
const base = measure('default key policy, no grants', () => defaultPolicy)
const loaded = [
  measure('100 statements by user, 1,000 grants by user', () => policyByUser, grantsByUser),
  measure('the same, the text a new string each time', fresh(policyByUser), grantsByUser),
  measure('100 statements that all concern the caller', () => policyForAll, grantsByUser),
  measure('allowed by one of 1,000 grants by user', () => keyOfOthers, grantsByUser),
  measure('allowed by the last of 1,000 grants of one grantee', () => keyOfOthers, grantsOfOne),
]
const added = Math.max(...loaded) - base
const isKept = added <= budgetMicros
console.log(`added at most: ${added.toFixed(2)} µs (budget ${budgetMicros} µs): ${isKept ? 'kept' : 'missed'}`)
process.exitCode = isKept ? 0 : 1
