import { describe, expect, it } from 'vitest'
import { createFacts } from '../../../src/authorize/facts.ts'
import { createPolicyCache } from '../../../src/authorize/policy-cache.ts'
import { findAllow } from '../../../src/authorize/policy-index.ts'
import { namesOf } from '../../../src/authorize/principal-set.ts'
import { demand, document, onKey, user } from './requests.ts'

const policyOf = (nth: number) => document(onKey({ Sid: `s${nth}` }))

describe('the cache of policies', () => {
  it('compiles a text once, and again only after much other text was in use', () => {
    const cache = createPolicyCache(10 * policyOf(0).length)
    const first = cache.find('key', policyOf(0))
    for (let nth = 1; nth < 8; nth++) cache.find('key', policyOf(nth))
    expect(cache.find('key', policyOf(0))).toBe(first)
    for (let nth = 10; nth < 40; nth++) {
      cache.find('key', policyOf(nth))
      cache.find('key', policyOf(0))
    }
    expect(cache.find('key', policyOf(0))).toBe(first)
    for (let nth = 40; nth < 60; nth++) cache.find('key', policyOf(nth))
    expect(cache.find('key', policyOf(0))).not.toBe(first)
    expect(cache.find('key', policyOf(0))?.policy.principals).toEqual(first?.policy.principals)
  })

  it('keeps kinds apart and remembers what cannot be read', () => {
    const cache = createPolicyCache(1000)
    expect(cache.find('identity', policyOf(0))).toBeUndefined()
    expect(cache.find('identity', policyOf(0))).toBeUndefined()
    expect(cache.find('key', policyOf(0))).toBeDefined()
  })

  it('holds even a policy larger than itself for the request at hand', () => {
    expect(createPolicyCache(10).find('key', policyOf(0))).toBeDefined()
  })
})

describe('the index of a policy', () => {
  it('does not grow with actions that callers invent', () => {
    const index = createPolicyCache(1000).find('key', policyOf(0))
    if (index === undefined) throw new TypeError('the policy is readable')
    const ann = user('ann')
    for (let nth = 0; nth < 2000; nth++) {
      findAllow(index, namesOf(ann), createFacts(ann, demand({ action: `kms:Action${nth}` }), 0))
    }
    expect(index.byAction.size).toBeLessThanOrEqual(256)
  })
})
