// biome-ignore-all lint/suspicious/noTemplateCurlyInString: policy variables are written like this
import { describe, expect, it } from 'vitest'
import { defaultKeyPolicy } from '../../../src/authorize/authorize.ts'
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
  operator,
  otherAccount,
  root,
  rootArn,
  session,
  user,
} from './requests.ts'

const ann = user('ann')
const stranger = user('eve', otherAccount)
const run = session('deploy', 'run')
const otherRoot = `arn:aws:iam::${otherAccount}:root`
const readOnly = onIdentity({ Action: ['kms:Describe*', 'kms:List*'] })

describe('a key under the default policy', () => {
  const resourcePolicy = defaultKeyPolicy(account, 'aws')

  it('is governed by the identity policies of its account', () => {
    expect(decide(ann, demand({ resourcePolicy }), { policies: [administrator] })).toEqual({
      allowed: true,
      by: 'identity-policy',
      statement: 'identity policy administrator statement 1',
    })
    expect(decide(ann, demand({ resourcePolicy }), { policies: [attach(readOnly)] })).toEqual({
      allowed: false,
      reason: 'no-identity-allow',
      statement: 'no matching statement',
    })
  })

  it('obeys the root user of its account without a policy', () => {
    expect(decide(root(), demand({ resourcePolicy }))).toMatchObject({
      allowed: true,
      by: 'key-policy',
      statement: 'key policy "Enable IAM User Permissions"',
    })
  })

  it('is closed to another account, whatever that account allows', () => {
    expect(decide(stranger, demand({ resourcePolicy }), { policies: [administrator] })).toMatchObject({
      allowed: false,
      reason: 'cross-account',
    })
    expect(decide(root(otherAccount), demand({ resourcePolicy }))).toMatchObject({ reason: 'cross-account' })
  })
})

describe('a key policy', () => {
  it('that does not name the account locks out the administrator and the root user', () => {
    const resourcePolicy = document(onKey({ Principal: { AWS: user('bob').arn } }))
    const asked = demand({ action: 'kms:DescribeKey', resourcePolicy })
    expect(decide(ann, asked, { policies: [administrator] })).toEqual({
      allowed: false,
      reason: 'no-resource-allow',
      statement: 'no matching statement',
    })
    expect(decide(root(), asked)).toMatchObject({ allowed: false, reason: 'no-resource-allow' })
    expect(decide(user('bob'), asked)).toMatchObject({ allowed: true, by: 'key-policy' })
  })

  it('names the account by number or root ARN alike', () => {
    for (const AWS of [account, rootArn]) {
      const asked = demand({ resourcePolicy: document(onKey({ Principal: { AWS } })) })
      expect(decide(ann, asked, { policies: [administrator] }).allowed).toBe(true)
      expect(decide(ann, asked).allowed).toBe(false)
    }
  })

  it('delegates only the actions it names', () => {
    const resourcePolicy = document(onKey({ Action: 'kms:Describe*' }))
    expect(
      decide(ann, demand({ resourcePolicy, action: 'kms:DescribeKey' }), { policies: [administrator] }).allowed,
    ).toBe(true)
    expect(decide(ann, demand({ resourcePolicy }), { policies: [administrator] })).toMatchObject({
      reason: 'no-resource-allow',
    })
  })

  it.each([
    ['a user by ARN', ann, { AWS: ann.arn }],
    ['a user by unique id', ann, { AWS: ann.principalId }],
    ['everybody', ann, '*'],
    ['every identity', ann, { AWS: '*' }],
    ['all sessions of a role', run, { AWS: run.roleArn }],
    ['a role by unique id', run, { AWS: 'AROADEPLOY00000000' }],
    ['one session', run, { AWS: run.arn }],
  ])('allows %s without an identity policy', (_, principal, Principal) => {
    expect(decide(principal, demand({ resourcePolicy: document(onKey({ Principal })) })).allowed).toBe(true)
  })

  it.each([
    ['another user', { AWS: user('bob').arn }],
    ['another session of the same role', { AWS: session('deploy', 'walk').arn }],
    ['a role of the same name elsewhere', { AWS: session('deploy', 'run', otherAccount).roleArn }],
    ['a service', { Service: 's3.amazonaws.com' }],
    ['a federated identity provider', { Federated: 'cognito-identity.amazonaws.com' }],
  ])('that names %s does not allow the session', (_, Principal) => {
    expect(decide(run, demand({ resourcePolicy: document(onKey({ Principal })) })).allowed).toBe(false)
  })

  it('matches actions without regard to case and with wildcards', () => {
    const allows = (Action: unknown) =>
      decide(ann, demand({ resourcePolicy: document(onKey({ Principal: '*', Action })) })).allowed
    expect(allows('KMS:dec*')).toBe(true)
    expect(allows(['kms:Encrypt', 'kms:Decryp?'])).toBe(true)
    expect(allows('*:*')).toBe(true)
    expect(allows('kms:Encrypt')).toBe(false)
    expect(allows('s3:*')).toBe(false)
  })

  it('means everything but what NotAction and NotResource list', () => {
    const allows = (changes: object) =>
      decide(ann, demand({ resourcePolicy: document(onKey({ Principal: '*', ...changes })) })).allowed
    expect(allows({ NotAction: 'kms:Encrypt' })).toBe(true)
    expect(allows({ NotAction: 'kms:*crypt' })).toBe(false)
    expect(allows({ NotResource: 'arn:aws:kms:eu-west-1:*:*', Resource: undefined })).toBe(true)
    expect(allows({ NotResource: keyArn, Resource: undefined })).toBe(false)
    expect(allows({ NotResource: '*', Resource: undefined })).toBe(false)
  })

  it('may name its own key as resource; a statement on another key has no effect', () => {
    const allows = (Resource: string) =>
      decide(ann, demand({ resourcePolicy: document(onKey({ Principal: '*', Resource })) })).allowed
    expect(allows(keyArn)).toBe(true)
    expect(allows(keyArn.replace('1234abcd', '*'))).toBe(true)
    expect(allows(keyArn.replace('1234', '4321'))).toBe(false)
  })

  it('ignores a statement without action or resource, even a Deny', () => {
    const resourcePolicy = document(
      onKey({ Principal: '*' }),
      onKey({ Effect: 'Deny', Principal: '*', Action: undefined }),
      onKey({ Effect: 'Deny', Principal: '*', Resource: undefined }),
    )
    expect(decide(ann, demand({ resourcePolicy })).allowed).toBe(true)
    expect(
      decide(ann, demand({ resourcePolicy: document(onKey({ Principal: '*', Action: undefined })) })).allowed,
    ).toBe(false)
  })

  it('in version 2008-10-17 takes variables for plain text', () => {
    const Statement = onKey({ Principal: '*', Condition: { StringEquals: { 'test:key': '${aws:username}' } } })
    const asked = (Version: string, value: string) =>
      demand({ resourcePolicy: JSON.stringify({ Version, Statement }), context: { 'test:key': value } })
    expect(decide(ann, asked('2012-10-17', 'ann')).allowed).toBe(true)
    expect(decide(ann, asked('2008-10-17', 'ann')).allowed).toBe(false)
    expect(decide(ann, asked('2008-10-17', '${aws:username}')).allowed).toBe(true)
  })

  it('that cannot be read denies everybody', () => {
    const asked = demand({ resourcePolicy: '{"Statement":' })
    expect(decide(root(), asked)).toMatchObject({ allowed: false, reason: 'no-resource-allow' })
    expect(decide(stranger, asked)).toMatchObject({ allowed: false, reason: 'cross-account' })
  })
})

describe('an explicit Deny', () => {
  it('in the key policy beats every Allow', () => {
    const resourcePolicy = document(
      onKey({ Principal: '*' }),
      onKey({ Sid: 'no', Effect: 'Deny', Principal: { AWS: ann.arn } }),
    )
    expect(decide(ann, demand({ resourcePolicy }), { policies: [administrator] })).toEqual({
      allowed: false,
      reason: 'explicit-deny-resource',
      statement: 'key policy "no"',
    })
    expect(decide(user('bob'), demand({ resourcePolicy })).allowed).toBe(true)
  })

  it('in an identity policy beats the key policy and is named by policy and statement', () => {
    const policies = [administrator, { name: 'brake', document: document(readOnly, onIdentity({ Effect: 'Deny' })) }]
    expect(decide(ann, demand({ resourcePolicy: document(onKey({ Principal: '*' })) }), { policies })).toEqual({
      allowed: false,
      reason: 'explicit-deny-identity',
      statement: 'identity policy brake statement 2',
    })
  })

  it('on an account hits all its users and roles', () => {
    const resourcePolicy = document(onKey({ Principal: '*' }), onKey({ Effect: 'Deny' }))
    for (const principal of [ann, run, root()]) {
      expect(decide(principal, demand({ resourcePolicy }), { policies: [administrator] }).allowed).toBe(false)
    }
  })

  it('on a role hits its sessions', () => {
    const resourcePolicy = document(
      onKey({ Principal: { AWS: run.arn } }),
      onKey({ Effect: 'Deny', Principal: { AWS: run.roleArn } }),
    )
    expect(decide(run, demand({ resourcePolicy }))).toMatchObject({ reason: 'explicit-deny-resource' })
  })

  it('is not told apart to a caller of another account', () => {
    const resourcePolicy = document(
      onKey({ Principal: '*' }),
      onKey({ Effect: 'Deny', Principal: { AWS: otherAccount } }),
    )
    expect(decide(stranger, demand({ resourcePolicy }), { policies: [administrator] })).toMatchObject({
      reason: 'cross-account',
    })
  })

  it('with NotPrincipal spares only who is listed with his account', () => {
    const spares = (...AWS: string[]) => {
      const resourcePolicy = document(
        onKey({ Principal: '*' }),
        onKey({ Effect: 'Deny', NotPrincipal: { AWS }, Principal: undefined }),
      )
      return (principal: typeof ann) => decide(principal, demand({ resourcePolicy })).allowed
    }
    expect(spares(ann.arn, rootArn)(ann)).toBe(true)
    expect(spares(ann.arn)(ann)).toBe(false)
    expect(spares(rootArn)(ann)).toBe(false)
    expect(spares(rootArn)(root())).toBe(true)
    expect(spares(rootArn, run.roleArn as string, run.arn)(run)).toBe(true)
    expect(spares(rootArn, run.roleArn as string)(run)).toBe(false)
    expect(spares('*')(run)).toBe(true)
  })
})

describe('an identity policy', () => {
  it('on an alias gives nothing on the key, and on the key nothing on the alias', () => {
    const aliasArn = `arn:aws:kms:us-east-1:${account}:alias/app`
    const onAlias = demand({ action: 'kms:UpdateAlias', resource: aliasArn, resourcePolicy: null })
    const may = (Resource: string, asked: ReturnType<typeof demand>) =>
      decide(ann, asked, { policies: [attach(onIdentity({ Resource }))] }).allowed
    expect(may(aliasArn, onAlias)).toBe(true)
    expect(may(aliasArn, demand({ action: 'kms:Encrypt' }))).toBe(false)
    expect(may(keyArn, onAlias)).toBe(false)
    expect(may(keyArn, demand({ action: 'kms:Encrypt' }))).toBe(true)
  })

  it('takes wildcards and variables within the parts of a resource', () => {
    const may = (Resource: string) => decide(ann, demand(), { policies: [attach(onIdentity({ Resource }))] }).allowed
    expect(may('arn:aws:kms:*:*:key/*')).toBe(true)
    expect(may('arn:aws:kms:us-?ast-1:${aws:PrincipalAccount}:key/1234*')).toBe(true)
    expect(may('arn:aws:kms:us-east-1:${aws:PrincipalTag/account}:key/*')).toBe(false)
    expect(may('arn:aws:kms:*:key/*:*')).toBe(false)
    expect(may('arn:aws:kms:eu-*:*:key/*')).toBe(false)
  })

  it('whose NotResource holds an unresolved variable allows nothing and denies everything', () => {
    const NotResource = 'arn:aws:kms:*:*:key/${aws:PrincipalTag/key}'
    expect(decide(ann, demand(), { policies: [attach(onIdentity({ NotResource }))] }).allowed).toBe(false)
    const policies = [administrator, attach(onIdentity({ NotResource, Effect: 'Deny' }))]
    expect(decide(ann, demand(), { policies })).toMatchObject({ reason: 'explicit-deny-identity' })
  })

  it('alone decides where the resource has no policy', () => {
    const asked = demand({ action: 'kms:CreateKey', resource: '*', resourcePolicy: null })
    expect(decide(ann, asked, { policies: [administrator] }).allowed).toBe(true)
    expect(decide(ann, asked, { policies: [attach(onIdentity({ Resource: keyArn }))] })).toMatchObject({
      reason: 'no-identity-allow',
    })
    expect(decide(ann, asked)).toMatchObject({ reason: 'no-identity-allow' })
    expect(decide(root(), asked).allowed).toBe(true)
    expect(decide(stranger, asked, { policies: [administrator] })).toMatchObject({ reason: 'cross-account' })
  })

  it('that cannot be read might deny, so it does', () => {
    const policies = [administrator, { name: 'torn', document: '{"Version"' }]
    expect(decide(ann, demand({ resourcePolicy: document(onKey({ Principal: '*' })) }), { policies })).toEqual({
      allowed: false,
      reason: 'no-identity-allow',
      statement: 'identity policy torn: unreadable',
    })
  })
})

describe('a caller of another account', () => {
  it('needs the key policy and a policy of his own account', () => {
    const resourcePolicy = document(onKey({ Principal: { AWS: otherRoot } }))
    expect(decide(stranger, demand({ resourcePolicy }), { policies: [administrator] })).toMatchObject({
      allowed: true,
      by: 'key-policy',
    })
    expect(decide(stranger, demand({ resourcePolicy }))).toMatchObject({ allowed: false, reason: 'no-identity-allow' })
    expect(decide(root(otherAccount), demand({ resourcePolicy })).allowed).toBe(true)
  })

  it('needs a policy of his own account even when the key policy names him', () => {
    for (const Principal of ['*', { AWS: stranger.arn }]) {
      const resourcePolicy = document(onKey({ Principal }))
      expect(decide(stranger, demand({ resourcePolicy })).allowed).toBe(false)
      expect(decide(stranger, demand({ resourcePolicy }), { policies: [administrator] }).allowed).toBe(true)
    }
  })

  it('learns nothing of a key that does not exist', () => {
    expect(decide(stranger, demand({ resourcePolicy: undefined }), { policies: [administrator] })).toMatchObject({
      allowed: false,
      reason: 'cross-account',
    })
  })
})

describe('a permissions boundary or session policy', () => {
  const narrow = { name: 'narrow', purpose: 'session' as const, document: document(readOnly) }

  it('narrows what identity policies allow', () => {
    expect(decide(run, demand(), { policies: [administrator, narrow] })).toEqual({
      allowed: false,
      reason: 'no-identity-allow',
      statement: 'no matching statement in the session policy',
    })
    expect(decide(run, demand({ action: 'kms:DescribeKey' }), { policies: [administrator, narrow] }).allowed).toBe(true)
  })

  it('allows nothing by itself', () => {
    expect(decide(run, demand({ action: 'kms:DescribeKey' }), { policies: [narrow] }).allowed).toBe(false)
  })

  it('narrows a key policy that names the role, not one that names the session', () => {
    const naming = (AWS: string | undefined) => demand({ resourcePolicy: document(onKey({ Principal: { AWS } })) })
    expect(decide(run, naming(run.roleArn), { policies: [narrow] }).allowed).toBe(false)
    expect(decide(run, naming(run.arn), { policies: [narrow] }).allowed).toBe(true)
  })

  it('denies explicitly like any other policy', () => {
    const policies = [{ ...narrow, purpose: 'boundary' as const, document: document(onIdentity({ Effect: 'Deny' })) }]
    expect(
      decide(run, demand({ resourcePolicy: document(onKey({ Principal: { AWS: run.arn } })) }), { policies }),
    ).toMatchObject({
      reason: 'explicit-deny-identity',
    })
  })
})

describe('an operator of the local socket', () => {
  it('may run the gateway and use no key', () => {
    const asked = (action: string) => demand({ action, resource: '*', resourcePolicy: null })
    expect(decide(operator, asked('hsmgate:PrincipalCreate'))).toEqual({
      allowed: true,
      by: 'peer',
      statement: 'operator socket',
    })
    expect(decide(operator, asked('kms:CreateKey')).allowed).toBe(false)
    expect(decide(operator, demand({ resourcePolicy: document(onKey({ Principal: '*' })) })).allowed).toBe(false)
  })
})

describe('a trust policy', () => {
  const roleArn = `arn:aws:iam::${account}:role/deploy`
  const assume = (AWS: string, condition = {}) =>
    demand({
      action: 'sts:AssumeRole',
      resource: roleArn,
      resourcePolicy: document({ Effect: 'Allow', Principal: { AWS }, Action: 'sts:AssumeRole', Condition: condition }),
    })

  it('admits whom it names, and through the account whom identity policies allow', () => {
    expect(decide(ann, assume(ann.arn)).allowed).toBe(true)
    expect(decide(ann, assume(rootArn)).allowed).toBe(false)
    expect(
      decide(ann, assume(rootArn), { policies: [attach(onIdentity({ Action: 'sts:*', Resource: roleArn }))] }).allowed,
    ).toBe(true)
  })

  it('admits another account only with a policy there', () => {
    expect(decide(stranger, assume(otherRoot)).allowed).toBe(false)
    expect(decide(stranger, assume(otherRoot), { policies: [administrator] }).allowed).toBe(true)
    expect(
      decide(stranger, assume(otherRoot, { Bool: { 'aws:SecureTransport': true } }), { policies: [administrator] })
        .allowed,
    ).toBe(false)
  })
})
