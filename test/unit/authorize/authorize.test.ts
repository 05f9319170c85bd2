import { describe, expect, it } from 'vitest'
import { createAuthorizer, defaultKeyPolicy, type Grant } from '../../../src/authorize/authorize.ts'
import {
  account,
  administrator,
  attach,
  demand,
  document,
  keyArn,
  onIdentity,
  onKey,
  operator,
  user,
} from './requests.ts'

const ann = user('ann')

describe('an authorizer', () => {
  it('decides at once when the policies are at hand and later when they are not', async () => {
    const now = createAuthorizer({ identityPolicies: () => [administrator] })
    const later = createAuthorizer({ identityPolicies: async () => [administrator] })
    const decision = now.decide(ann, demand())
    expect(decision).toMatchObject({ allowed: true })
    const pending = later.decide(ann, demand())
    expect(pending).toBeInstanceOf(Promise)
    expect(await pending).toEqual(decision)
  })

  it('passes on a failure to load the policies', async () => {
    const authorizer = createAuthorizer({ identityPolicies: () => Promise.reject(new Error('catalog unavailable')) })
    await expect(authorizer.decide(ann, demand())).rejects.toThrow('catalog unavailable')
  })

  it('looks up no policies of the local operator, who has none', async () => {
    const authorizer = createAuthorizer({ identityPolicies: () => Promise.reject(new Error('no such user')) })
    const asked = demand({ action: 'hsmgate:KeyList', resource: '*', resourcePolicy: null })
    expect(authorizer.decide(operator, asked)).toMatchObject({ allowed: true, by: 'peer' })
    expect(await authorizer.explain(operator, asked)).toMatchObject({ decision: { allowed: true }, applied: [] })
  })

  it('obeys a changed policy on the very next decision', () => {
    let policies = [administrator]
    const authorizer = createAuthorizer({ identityPolicies: () => policies })
    const asked = (resourcePolicy: string) =>
      authorizer.decide(ann, demand({ resourcePolicy, resourcePolicyRevision: 1 }))
    expect(asked(document(onKey()))).toMatchObject({ allowed: true })
    expect(asked(document(onKey({ Effect: 'Deny' })))).toMatchObject({ allowed: false })
    policies = []
    expect(asked(document(onKey()))).toMatchObject({ allowed: false })
  })

  it('obeys a grant added to a list that is not frozen', () => {
    const grantOf = (principal: typeof ann): Grant => {
      return { grantId: 'g', keyArn, granteePrincipal: principal.arn, issuingAccount: account, operations: ['Decrypt'] }
    }
    const grants = [grantOf(user('bob'))]
    const authorizer = createAuthorizer({ identityPolicies: () => [], grants: () => grants })
    expect(authorizer.decide(ann, demand())).toMatchObject({ allowed: false })
    grants.push(grantOf(ann))
    expect(authorizer.decide(ann, demand())).toMatchObject({ allowed: true })
  })

  it('keeps deciding correctly when more policies are in use than its cache holds', () => {
    const authorizer = createAuthorizer({ identityPolicies: () => [], cacheCharacters: 1000 })
    const policies = Array.from({ length: 50 }, (_, at) =>
      document(onKey({ Principal: at % 2 ? '*' : { AWS: account }, Sid: `s${at}` })),
    )
    for (const round of [1, 2, 3]) {
      for (const [at, resourcePolicy] of policies.entries()) {
        const decision = authorizer.decide(ann, demand({ resourcePolicy }))
        expect(decision, `round ${round}, policy ${at}`).toMatchObject({ allowed: at % 2 === 1 })
      }
    }
  })

  it('does not read a key policy as an identity policy, or the other way round', () => {
    const text = document(onKey({ Principal: '*' }))
    const authorizer = createAuthorizer({ identityPolicies: () => [{ name: 'misplaced', document: text }] })
    expect(authorizer.decide(ann, demand({ resourcePolicy: text }))).toMatchObject({
      allowed: false,
      statement: 'identity policy misplaced: unreadable',
    })
  })
})

describe('an explanation', () => {
  it('lists every statement and grant that applies, decisive or not', async () => {
    const brake = attach(
      onIdentity({ Sid: 'other', Effect: 'Deny', Action: 'kms:Encrypt' }),
      onIdentity({ Sid: 'brake', Effect: 'Deny', Condition: { Bool: { 'aws:SecureTransport': 'false' } } }),
    )
    const grant: Grant = {
      grantId: 'g',
      keyArn,
      granteePrincipal: ann.arn,
      issuingAccount: account,
      operations: ['Decrypt'],
    }
    const authorizer = createAuthorizer({ identityPolicies: async () => [administrator, brake], grants: () => [grant] })
    const asked = demand({
      resourcePolicy: defaultKeyPolicy(account, 'aws'),
      context: { 'aws:SecureTransport': 'false' },
    })
    expect(await authorizer.explain(ann, asked)).toEqual({
      decision: { allowed: false, reason: 'explicit-deny-identity', statement: 'identity policy test "brake"' },
      applied: [
        {
          source: 'identity-policy',
          statement: 'identity policy administrator statement 1',
          effect: 'Allow',
          reach: 'direct',
        },
        { source: 'identity-policy', statement: 'identity policy test "brake"', effect: 'Deny', reach: 'direct' },
        {
          source: 'key-policy',
          statement: 'key policy "Enable IAM User Permissions"',
          effect: 'Allow',
          reach: 'account',
        },
        { source: 'grant', statement: 'grant g', effect: 'Allow', reach: 'direct' },
      ],
    })
  })
})
