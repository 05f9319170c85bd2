import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { addEncryptionContext, type Grant, permitsChild } from '../../../src/authorize/authorize.ts'
import {
  account,
  administrator,
  attach,
  decide,
  demand,
  document,
  keyArn,
  onIdentity,
  onKey,
  otherAccount,
  root,
  rootArn,
  session,
  user,
} from './requests.ts'

const ann = user('ann')
const bob = user('bob')
const run = session('deploy', 'run')
const stranger = user('eve', otherAccount)

function grant(changes: Partial<Grant> = {}): Grant {
  return {
    grantId: 'g1',
    keyArn,
    granteePrincipal: ann.arn,
    issuingAccount: account,
    operations: ['Decrypt', 'DescribeKey'],
    ...changes,
  }
}

function may(principal: typeof ann, given: Partial<Grant>, asked: Parameters<typeof demand>[0] = {}): boolean {
  return decide(principal, demand(asked), { grants: [grant(given)] }).allowed
}

function contextOf(pairs: Readonly<Record<string, string>>): Record<string, string | readonly string[]> {
  const context = new Map<string, string | readonly string[]>()
  addEncryptionContext(context, Object.entries(pairs))
  return Object.fromEntries(context)
}

describe('a grant', () => {
  it('allows its grantee its operations on its key, and is named', () => {
    expect(decide(ann, demand(), { grants: [grant()] })).toEqual({
      allowed: true,
      by: 'grant',
      statement: 'grant g1',
      grantId: 'g1',
    })
    expect(may(bob, {})).toBe(false)
    expect(may(ann, {}, { action: 'kms:Encrypt' })).toBe(false)
    expect(may(ann, {}, { action: 's3:Decrypt' })).toBe(false)
    expect(may(ann, { keyArn: keyArn.replace('1234', '4321') })).toBe(false)
  })

  it('works under a key policy that names nobody of the account', () => {
    expect(may(ann, {}, { resourcePolicy: document(onKey({ Principal: { AWS: bob.arn } })) })).toBe(true)
  })

  it('yields to an explicit Deny of either policy', () => {
    const resourcePolicy = document(onKey(), onKey({ Effect: 'Deny', Principal: '*' }))
    expect(decide(ann, demand({ resourcePolicy }), { grants: [grant()] })).toMatchObject({
      reason: 'explicit-deny-resource',
    })
    const policies = [attach(onIdentity({ Effect: 'Deny' }))]
    expect(decide(ann, demand(), { grants: [grant()], policies })).toMatchObject({ reason: 'explicit-deny-identity' })
  })

  it('reaches all sessions of a role, one session, or through the account whom its policies allow', () => {
    expect(may(run, { granteePrincipal: run.roleArn as string })).toBe(true)
    expect(may(run, { granteePrincipal: run.arn })).toBe(true)
    expect(may(run, { granteePrincipal: session('deploy', 'walk').arn })).toBe(false)
    for (const granteePrincipal of [rootArn, account]) {
      const resourcePolicy = document(onKey({ Principal: { AWS: bob.arn } }))
      expect(may(root(), { granteePrincipal }, { resourcePolicy })).toBe(true)
      expect(may(ann, { granteePrincipal }, { resourcePolicy })).toBe(false)
      const setting = { grants: [grant({ granteePrincipal })], policies: [administrator] }
      expect(decide(ann, demand({ resourcePolicy }), setting).allowed).toBe(true)
    }
  })

  it('needs a policy of the grantee’s own account across accounts', () => {
    const grants = [grant({ granteePrincipal: stranger.arn })]
    expect(decide(stranger, demand(), { grants })).toMatchObject({ allowed: false, reason: 'no-identity-allow' })
    expect(decide(stranger, demand(), { grants, policies: [administrator] })).toMatchObject({
      allowed: true,
      by: 'grant',
    })
  })

  it('for everybody or for a service reaches no caller', () => {
    expect(may(ann, { granteePrincipal: '*' })).toBe(false)
    const { granteePrincipal: _, ...forService } = grant()
    expect(decide(ann, demand(), { grants: [forService] }).allowed).toBe(false)
  })
})

describe('a grant constraint', () => {
  const equals = { constraints: { encryptionContextEquals: { App: 'x', team: 'red' } } }
  const subset = { constraints: { encryptionContextSubset: { App: 'x' } } }

  it('EncryptionContextEquals wants the same pairs', () => {
    expect(may(ann, equals, { context: contextOf({ team: 'red', App: 'x' }) })).toBe(true)
    expect(may(ann, equals, { context: contextOf({ App: 'x' }) })).toBe(false)
    expect(may(ann, equals, { context: contextOf({ App: 'x', team: 'red', more: '1' }) })).toBe(false)
    expect(may(ann, equals, { context: contextOf({ App: 'x', team: 'Red' }) })).toBe(false)
    expect(may(ann, equals)).toBe(false)
  })

  it('EncryptionContextSubset wants its pairs among others', () => {
    expect(may(ann, subset, { context: contextOf({ App: 'x', more: '1' }) })).toBe(true)
    expect(may(ann, subset, { context: contextOf({ App: 'y', more: '1' }) })).toBe(false)
    expect(may(ann, subset)).toBe(false)
  })

  it('compares keys without regard to case and values exactly', () => {
    expect(may(ann, subset, { context: contextOf({ aPP: 'x' }) })).toBe(true)
    expect(may(ann, subset, { context: contextOf({ App: 'X' }) })).toBe(false)
  })

  it('is never met by a context whose keys collide but for case', () => {
    expect(may(ann, subset, { context: contextOf({ App: 'x', APP: 'x' }) })).toBe(false)
    expect(may(ann, equals, { context: contextOf({ App: 'x', APP: 'x' }) })).toBe(false)
    expect(may(ann, subset, { context: contextOf({ App: 'x', other: '1', OTHER: '2' }) })).toBe(false)
  })

  it('on the context is ignored for DescribeKey and never met by operations without a context', () => {
    expect(may(ann, subset, { action: 'kms:DescribeKey' })).toBe(true)
    expect(
      may(ann, { ...subset, operations: ['Sign'] }, { action: 'kms:Sign', context: contextOf({ App: 'x' }) }),
    ).toBe(false)
  })

  it('SourceArn binds DescribeKey too', () => {
    const sourceArn = `arn:aws:s3:::bucket`
    const given = { constraints: { sourceArn } }
    expect(may(ann, given, { context: { 'aws:SourceArn': sourceArn } })).toBe(true)
    expect(may(ann, given, { action: 'kms:DescribeKey', context: { 'aws:SourceArn': `${sourceArn}2` } })).toBe(false)
    expect(may(ann, given)).toBe(false)
  })
})

describe('CreateGrant through a grant', () => {
  const parent = { operations: ['CreateGrant', 'Decrypt', 'Encrypt'] }
  const offering = (...operations: string[]) => ({
    action: 'kms:CreateGrant',
    context: { 'kms:GrantOperations': operations },
  })

  it('passes on only operations that the parent has', () => {
    expect(may(ann, parent, offering('Decrypt', 'Encrypt'))).toBe(true)
    expect(may(ann, parent, offering('Decrypt', 'Sign'))).toBe(false)
    expect(may(ann, parent, { action: 'kms:CreateGrant' })).toBe(false)
    expect(may(ann, { operations: ['Decrypt'] }, offering('Decrypt'))).toBe(false)
  })

  it.each([
    [{}, {}, true],
    [{}, { encryptionContextSubset: { a: '1' } }, true],
    [{ encryptionContextSubset: { a: '1' } }, {}, false],
    [{ encryptionContextSubset: { a: '1' } }, { encryptionContextSubset: { A: '1', b: '2' } }, true],
    [{ encryptionContextSubset: { a: '1' } }, { encryptionContextSubset: { b: '2' } }, false],
    [{ encryptionContextSubset: { a: '1' } }, { encryptionContextEquals: { a: '1' } }, true],
    [{ encryptionContextEquals: { a: '1' } }, { encryptionContextEquals: { a: '1' } }, true],
    [{ encryptionContextEquals: { a: '1' } }, { encryptionContextEquals: { a: '1', b: '2' } }, false],
    [{ encryptionContextEquals: { a: '1' } }, { encryptionContextSubset: { a: '1' } }, false],
    [{ sourceArn: 'arn:aws:s3:::b' }, {}, false],
    [{ sourceArn: 'arn:aws:s3:::b' }, { sourceArn: 'arn:aws:s3:::b' }, true],
  ])('from constraint %j to %j is permitted: %s', (constraints, child, expected) => {
    expect(permitsChild(grant({ constraints }), { operations: ['Decrypt'], constraints: child })).toBe(expected)
    expect(permitsChild(grant({ constraints }), { operations: ['Sign'], constraints: child })).toBe(false)
  })

  it('never permits a child that admits a context which its parent refuses', () => {
    const pairs = fc.dictionary(fc.constantFrom('a', 'b', 'C'), fc.constantFrom('1', '2'), {
      minKeys: 1,
      noNullPrototype: true,
    })
    const constraint = fc.oneof(
      fc.constant({}),
      pairs.map((encryptionContextEquals) => ({ encryptionContextEquals })),
      pairs.map((encryptionContextSubset) => ({ encryptionContextSubset })),
    )
    fc.assert(
      fc.property(constraint, constraint, pairs, (mine, child, context) => {
        fc.pre(permitsChild(grant({ constraints: mine }), { operations: ['Decrypt'], constraints: child }))
        const admits = (constraints: Grant['constraints']) =>
          may(ann, constraints ? { constraints } : {}, { context: contextOf(context) })
        expect(admits(child) && !admits(mine)).toBe(false)
      }),
    )
  })
})

describe('retiring a grant', () => {
  const retire = (
    principal: typeof ann,
    given: Partial<Grant>,
    setting = {},
    policy = document(onKey({ Principal: { AWS: user('zoe').arn } })),
  ) =>
    decide(principal, demand({ action: 'kms:RetireGrant', resourcePolicy: policy }), {
      grants: [grant(given)],
      ...setting,
    }).allowed

  it('is for its retiring principal', () => {
    expect(retire(bob, { retiringPrincipal: bob.arn })).toBe(true)
    expect(retire(ann, { retiringPrincipal: bob.arn })).toBe(false)
  })

  it('is for the grantee only if the grant says so', () => {
    expect(retire(ann, { operations: ['Decrypt', 'RetireGrant'] })).toBe(true)
    expect(retire(ann, {})).toBe(false)
  })

  it('is for the root user of the issuing account, and for those its policies allow', () => {
    expect(retire(root(), {})).toBe(true)
    expect(retire(bob, {})).toBe(false)
    expect(retire(bob, {}, { policies: [attach(onIdentity({ Action: 'kms:RetireGrant' }))] })).toBe(true)
  })

  it('is given to nobody by a key policy, but can be denied by one', () => {
    expect(retire(stranger, {}, { policies: [administrator] }, document(onKey({ Principal: '*' })))).toBe(false)
    expect(retire(bob, { retiringPrincipal: bob.arn }, {}, document(onKey({ Effect: 'Deny', Principal: '*' })))).toBe(
      false,
    )
  })

  it('does not extend to a grant on another key', () => {
    expect(retire(bob, { retiringPrincipal: bob.arn, keyArn: keyArn.replace('1234', '4321') })).toBe(false)
  })

  it('does not extend to other grants that happen to be handed over', () => {
    const grants = [grant({ retiringPrincipal: bob.arn }), grant({ grantId: 'g2' })]
    expect(decide(bob, demand({ action: 'kms:RetireGrant' }), { grants }).allowed).toBe(false)
  })
})
