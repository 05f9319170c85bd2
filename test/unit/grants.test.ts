import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { createAuthorizer, permitsChild } from '../../src/authorize/authorize.ts'
import type { Demand, GrantTerms, Principal } from '../../src/call.ts'
import type { GrantRecord } from '../../src/catalog/catalog.ts'
import { createGrantFinder } from '../../src/grants.ts'

const account = '111122223333'
const keyId = '11111111-2222-4333-8444-555555555555'
const keyArn = `arn:aws:kms:us-east-1:${account}:key/${keyId}`
const userOf = (name: string): Principal => ({
  type: 'user',
  arn: `arn:aws:iam::${account}:user/${name}`,
  account,
  principalId: `AIDA${name.toUpperCase()}AAAAAAAA`,
  userName: name,
})
const policy =
  '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::111122223333:root"},"Action":"kms:*","Resource":"*"}]}'

function recordOf(grantId: string, terms: GrantTerms, name = 'ann'): GrantRecord {
  const granteePrincipal = userOf(name).arn
  const common = { account, region: 'us-east-1', keyId, keyArn, grantId, name: '', granteePrincipal }
  return Object.freeze({ ...common, ...terms, issuingAccount: account, createdAt: 0 })
}

function demandOf(action: string, context: Record<string, string> = {}, more: Partial<Demand> = {}): Demand {
  const keys = Object.keys(context)
  const entries: [string, string | string[]][] = keys.map((key) => [
    `kms:encryptioncontext:${key.toLowerCase()}`,
    context[key] as string,
  ])
  if (keys.length > 0) entries.push(['kms:encryptioncontextkeys', keys])
  return {
    action,
    resource: keyArn,
    resourceAccount: account,
    resourcePolicy: policy,
    context: new Map(entries),
    ...more,
  }
}

function authorizerOf(grants: readonly GrantRecord[], isWarm = true) {
  const list = Object.freeze([...grants])
  const finder = createGrantFinder({
    peekGrants: () => (isWarm ? list : undefined),
    findGrants: async () => list,
  })
  return createAuthorizer({ identityPolicies: () => [], grants: finder })
}

const operation = fc.constantFrom('Encrypt', 'Decrypt', 'GenerateDataKey', 'DescribeKey', 'CreateGrant', 'RetireGrant')
const pairs = fc.dictionary(fc.constantFrom('app', 'App', 'tier'), fc.constantFrom('a', 'b', 'A'), { maxKeys: 2 })
const terms: fc.Arbitrary<GrantTerms> = fc.record(
  {
    operations: fc.uniqueArray(operation, { minLength: 1, maxLength: 4 }),
    constraints: fc.oneof(fc.record({ encryptionContextEquals: pairs }), fc.record({ encryptionContextSubset: pairs })),
  },
  { requiredKeys: ['operations'] },
)
const context = fc.dictionary(fc.constantFrom('app', 'App', 'tier', 'more'), fc.constantFrom('a', 'b', 'A'), {
  maxKeys: 3,
})

/** The rules in the words of the documentation, without an index. */
function isPermitted({ operations, constraints }: GrantTerms, name: string, given: Record<string, string>): boolean {
  if (!operations.includes(name)) return false
  const { encryptionContextEquals: equals, encryptionContextSubset: subset } = constraints ?? {}
  if ((equals === undefined && subset === undefined) || name === 'DescribeKey') return true
  const folded = (map: Record<string, string>) =>
    Object.entries(map).map(([key, value]) => `${key.toLowerCase()}=${value}`)
  // keys that differ only by case make a context that no constraint can be matched with
  const keys = Object.keys(given).map((key) => key.toLowerCase())
  if (new Set(keys).size < keys.length) return false
  const has = new Set(folded(given))
  if (subset !== undefined) return folded(subset).every((pair) => has.has(pair))
  return Object.keys(equals ?? {}).length === keys.length && folded(equals ?? {}).every((pair) => has.has(pair))
}

describe('grants', () => {
  it('permit exactly what one of them permits, to their grantee alone', () => {
    const used = fc.constantFrom('Encrypt', 'Decrypt', 'GenerateDataKey', 'DescribeKey')
    fc.assert(
      fc.property(fc.array(terms, { maxLength: 6 }), used, context, (all, name, given) => {
        const authorizer = authorizerOf(all.map((each, index) => recordOf(`g${index}`, each)))
        const demand = demandOf(`kms:${name}`, given)
        const decision = authorizer.decide(userOf('ann'), demand)
        expect(decision).toMatchObject({ allowed: all.some((each) => isPermitted(each, name, given)) })
        expect(authorizer.decide(userOf('bob'), demand)).toMatchObject({ allowed: false })
      }),
      { numRuns: 500 },
    )
  })

  it('made through a grant never permit what that grant does not', () => {
    const used = fc.constantFrom('Encrypt', 'Decrypt', 'GenerateDataKey')
    fc.assert(
      fc.property(terms, terms, used, context, (parent, child, name, given) => {
        if (!permitsChild(recordOf('p', parent), child)) return
        if (isPermitted(child, name, given)) expect(isPermitted(parent, name, given)).toBe(true)
      }),
      { numRuns: 2000 },
    )
  })

  it('are decided synchronously once they are warm, and the same when they are not', async () => {
    const grant = recordOf('g', { operations: ['Encrypt'] })
    const demand = demandOf('kms:Encrypt')
    const warm = authorizerOf([grant]).decide(userOf('ann'), demand)
    expect(warm).toEqual({ allowed: true, by: 'grant', statement: 'grant g', grantId: 'g' })
    const cold = authorizerOf([grant], false).decide(userOf('ann'), demand)
    expect(cold).toBeInstanceOf(Promise)
    expect(await cold).toEqual(warm)
  })

  it('are retired by themselves alone: another grant of the caller does not help', () => {
    const own = recordOf('own', { operations: ['RetireGrant'] })
    const foreign = recordOf('foreign', { operations: ['Encrypt'] }, 'bob')
    const authorizer = authorizerOf([own, foreign])
    const retire = (grantId: string | undefined) =>
      authorizer.decide(userOf('ann'), demandOf('kms:RetireGrant', {}, grantId === undefined ? {} : { grantId }))
    expect(retire('own')).toMatchObject({ allowed: true, grantId: 'own' })
    for (const id of ['foreign', 'missing', undefined]) expect(retire(id)).toMatchObject({ allowed: false })
  })

  it('on other keys, and other resources than keys, are not looked at', () => {
    const finder = createGrantFinder({
      peekGrants: ({ keyId: id }) => (id === keyId ? [recordOf('g', { operations: ['Encrypt'] })] : []),
      findGrants: () => Promise.reject(new Error('not asked')),
    })
    expect(finder(demandOf('kms:Encrypt'))).toHaveLength(1)
    for (const resource of ['*', keyArn.replace('key/', 'alias/'), `${keyArn}x`, 'arn:aws:iam::111122223333:role/r']) {
      expect(finder(demandOf('kms:Encrypt', {}, { resource }))).toHaveLength(0)
    }
  })
})
