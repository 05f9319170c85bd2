import { describe, expect, it } from 'vitest'
import { createAuthorizer, maxResourceAliases } from '../../src/authorize/authorize.ts'
import type { Demand, Principal } from '../../src/call.ts'
import type { Catalog } from '../../src/catalog/catalog.ts'
import { createAliasFinder } from '../../src/resource-aliases.ts'

const arn = 'arn:aws:kms:us-east-1:000000000000:key/00000000-0000-4000-8000-000000000000'
const demand = { action: 'kms:Encrypt', resource: arn, context: new Map() } as unknown as Demand

/** A catalog whose key has `count` aliases; tells how often it was asked, and that aliases changed. */
function catalogWith(count: number) {
  const asked: string[] = []
  let notify: (change: { readonly table: string }) => void = () => {}
  const catalog = {
    async listAliases(account: string, region: string, keyId: string, _after: undefined, limit: number) {
      asked.push(`${account}/${region}/${keyId}`)
      return Array.from({ length: Math.min(count, limit) }, (_, at) => ({ name: `alias/${at}` }))
    },
    onChange(listener: typeof notify) {
      notify = listener
    },
  } as unknown as Catalog
  return { catalog, asked, changed: (table: string) => notify({ table }) }
}

const alice = {
  type: 'user',
  arn: 'arn:aws:iam::000000000000:user/alice',
  account: '000000000000',
  principalId: 'AIDAEXAMPLE',
  userName: 'alice',
  tags: {},
} as Principal

describe('the aliases of a key, for authorization', () => {
  it('are read once and then known synchronously, until aliases change', async () => {
    const { catalog, asked, changed } = catalogWith(2)
    const find = createAliasFinder(catalog, 51)
    const first = find(demand)
    expect(first).toBeInstanceOf(Promise)
    expect(await first).toEqual(['alias/0', 'alias/1'])
    expect(find(demand)).toEqual(['alias/0', 'alias/1'])
    changed('key')
    expect(find(demand)).toEqual(['alias/0', 'alias/1'])
    expect(asked).toEqual(['000000000000/us-east-1/00000000-0000-4000-8000-000000000000'])
    changed('alias')
    expect(await find(demand)).toHaveLength(2)
    expect(asked).toHaveLength(2)
  })

  it('that changed while they were read are not kept', async () => {
    const { catalog, asked, changed } = catalogWith(1)
    const find = createAliasFinder(catalog, 51)
    const reading = find(demand)
    changed('alias')
    await reading
    await find(demand)
    expect(asked).toHaveLength(2)
  })

  it('are none for what is no key', () => {
    const { catalog, asked } = catalogWith(1)
    const find = createAliasFinder(catalog, 51)
    expect(find({ ...demand, resource: '*' })).toEqual([])
    expect(asked).toEqual([])
  })

  it('are looked up only where a policy asks, and too many of them satisfy no Allow', async () => {
    const policy = (Condition: object) =>
      JSON.stringify({ Version: '2012-10-17', Statement: [{ Effect: 'Allow', Action: '*', Resource: '*', Condition }] })
    for (const [count, Condition, allowed, lookUps] of [
      [maxResourceAliases, { 'ForAnyValue:StringEquals': { 'kms:ResourceAliases': 'alias/49' } }, true, 1],
      [maxResourceAliases + 1, { 'ForAnyValue:StringEquals': { 'kms:ResourceAliases': 'alias/0' } }, false, 1],
      [3, {}, true, 0],
    ] as const) {
      const { catalog, asked } = catalogWith(count)
      const authorizer = createAuthorizer({
        identityPolicies: () => [{ name: 'test', document: policy(Condition) }],
        resourceAliases: createAliasFinder(catalog, maxResourceAliases + 1),
      })
      const keyPolicy = JSON.stringify({
        Version: '2012-10-17',
        Statement: [
          { Effect: 'Allow', Principal: { AWS: 'arn:aws:iam::000000000000:root' }, Action: 'kms:*', Resource: '*' },
        ],
      })
      const asking = { ...demand, resourceAccount: '000000000000', resourcePolicy: keyPolicy }
      expect((await authorizer.decide(alice, asking)).allowed).toBe(allowed)
      expect(asked).toHaveLength(lookUps)
    }
  })
})
