import { describe, expect, it } from 'vitest'
import { createAuthorizer, defaultKeyPolicy } from '../../../src/authorize/authorize.ts'
import type { Decision, Demand } from '../../../src/call.ts'
import { account, demand, document, onKey, user } from './requests.ts'

/** Somebody whose token a binding allows; no user of the catalog, so nobody is asked for his policies. */
const web = { ...user('web'), arn: `arn:aws:iam::${account}:user/hsmgate/tls/web` }
const peer = 'tls binding web: tls13-server'

function decide(changes: Partial<Omit<Demand, 'context'>> = {}): Decision | Promise<Decision> {
  const unasked = () => Promise.reject(new Error('nobody asks for these'))
  return createAuthorizer({ identityPolicies: unasked, grants: unasked }).decide(
    web,
    demand({ action: 'kms:Sign', peer, resourcePolicy: defaultKeyPolicy(account, 'aws'), ...changes }),
  )
}
const deny = (Principal: unknown, more: object = {}) =>
  document(onKey({ Sid: 'stop', Effect: 'Deny', Action: 'kms:Sign', Principal, ...more }))

describe('a peer whose binding allows the call', () => {
  it('is allowed at once, by his binding, whatever the key policy allows', () => {
    const allowed = { allowed: true, by: 'peer', statement: peer }
    expect(decide()).toEqual(allowed)
    expect(decide({ resourcePolicy: document(onKey({ Principal: { AWS: user('somebody').arn } })) })).toEqual(allowed)
    expect(decide({ resourcePolicy: null })).toEqual(allowed)
  })

  it.each([
    ['him', { AWS: web.arn }],
    ['his account', { AWS: `arn:aws:iam::${account}:root` }],
    ['everybody', '*'],
  ])('is refused by an explicit Deny of %s', (_whom, principal) => {
    const decision = decide({ resourcePolicy: deny(principal) })
    expect(decision).toMatchObject({ allowed: false, reason: 'explicit-deny-resource' })
    expect((decision as Decision).statement).toContain('stop')
  })

  it('is not refused by a Deny of somebody else or of something else', () => {
    expect(decide({ resourcePolicy: deny({ AWS: `${web.arn}-2` }) })).toMatchObject({ allowed: true })
    expect(decide({ resourcePolicy: deny('*', { Action: 'kms:Decrypt' }) })).toMatchObject({ allowed: true })
  })

  it('is refused when the key policy cannot be read, or the key is gone', () => {
    expect(decide({ resourcePolicy: '{' })).toMatchObject({ allowed: false })
    expect(decide({ resourcePolicy: undefined })).toMatchObject({ allowed: false })
  })
})
