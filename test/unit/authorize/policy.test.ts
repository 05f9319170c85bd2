// biome-ignore-all lint/suspicious/noTemplateCurlyInString: policy variables are written like this
import { describe, expect, it } from 'vitest'
import { defaultKeyPolicy, PolicyError, parsePolicy } from '../../../src/authorize/authorize.ts'
import { document, onIdentity, onKey, rootArn } from './requests.ts'

type Kind = 'identity' | 'key' | 'trust'

function problemOf(kind: Kind, text: string): [string, string] | undefined {
  try {
    parsePolicy(kind, text)
    return undefined
  } catch (error) {
    if (error instanceof PolicyError) return [error.problem, error.message]
    throw error
  }
}

const syntax = 'Syntax errors in policy.'
const badPrincipals = 'Policy contains a statement with one or more invalid principals.'
const noVendor = 'Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc.'
const legacy = 'The policy failed legacy parsing'
const trust = { Effect: 'Allow', Principal: { AWS: rootArn }, Action: 'sts:AssumeRole' }

describe('a key policy', () => {
  it('is refused above 32,768 bytes, before it is parsed', () => {
    const fitting = (bytes: number) => `${' '.repeat(bytes - document(onKey()).length)}${document(onKey())}`
    expect(problemOf('key', fitting(32_768))).toBeUndefined()
    expect(problemOf('key', fitting(32_769))?.[0]).toBe('size')
    expect(problemOf('key', '{'.repeat(40_000))?.[0]).toBe('size')
    expect(problemOf('key', `"${'é'.repeat(20_000)}"`)?.[0]).toBe('size')
  })

  it.each(['\u0000', '\u0007', '\u0100', '\u20ac', '\ud83d\ude00'])(
    'is refused when it holds the character %j',
    (char) => {
      expect(problemOf('key', document(onKey({ Sid: 'x' })).replace('"x"', `"${char}"`))).toEqual([
        'characters',
        syntax,
      ])
    },
  )

  it.each([
    ['', 'characters'],
    ['{', 'syntax'],
    ['null', 'syntax'],
    ['[]', 'syntax'],
    ['"text"', 'syntax'],
    ['{}', 'syntax'],
    ['{"Statement":[]}', 'syntax'],
    ['{"Statement":[null]}', 'syntax'],
    ['{"Statement":"x"}', 'syntax'],
    [JSON.stringify({ Version: '2013-10-17', Statement: onKey() }), 'syntax'],
    [JSON.stringify({ Version: '2012-10-17', Statement: onKey(), Extra: 1 }), 'syntax'],
    [JSON.stringify({ Version: '2012-10-17', Id: 7, Statement: onKey() }), 'syntax'],
    [document(onKey()).replace('"Effect":"Allow"', '"Effect":"Deny","Effect":"Allow"'), 'syntax'],
  ])('is refused for its shape: %s', (text, problem) => {
    expect(problemOf('key', text)?.[0]).toBe(problem)
  })

  it.each([
    [{ Effect: 'allow' }, syntax],
    [{ Effect: undefined }, syntax],
    [{ Sid: 1 }, syntax],
    [{ Efect: 'Deny' }, syntax],
    [{ NotAction: 'kms:x', Action: 'kms:y' }, syntax],
    [{ NotResource: '*' }, syntax],
    [{ NotPrincipal: '*', Principal: '*' }, syntax],
    [{ Action: 7 }, syntax],
    [{ Action: ['kms:*', null] }, syntax],
    [{ Action: 'Decrypt' }, noVendor],
    [{ Action: 'kms:a:b' }, 'Actions/Condition can contain only one colon.'],
    [{ Action: 'k ms:a' }, 'Vendor k ms is not valid'],
    [{ Action: 'kms:' }, syntax],
    [{ Resource: 'key/1' }, 'Resource key/1 must be in ARN format or "*".'],
    [{ Resource: 'arn:aws:kms:*' }, 'Resource arn:aws:kms:* must be in ARN format or "*".'],
    [{ Resource: 'arn:aws:kms:us-east-1:1:key/${' }, syntax],
    [{ Condition: [] }, syntax],
    [{ Condition: { StringEquals: 'x' } }, syntax],
    [{ Condition: { StringEquals: { 'aws:a': [] } } }, syntax],
    [{ Condition: { StringEquals: { 'aws:a': null } } }, syntax],
    [{ Condition: { StringEquals: { 'aws:a': [['x']] } } }, syntax],
    [{ Condition: { StringEquals: { username: 'x' } } }, noVendor],
    [{ Condition: { StringEqual: { 'aws:a': 'x' } } }, syntax],
    [{ Condition: { 'ForSomeValues:StringEquals': { 'aws:a': 'x' } } }, syntax],
    [{ Condition: { constructor: { 'aws:a': 'x' } } }, syntax],
    [{ Condition: { NullIfExists: { 'aws:a': 'true' } } }, syntax],
    [{ Condition: { 'ForAnyValue:Null': { 'aws:a': 'true' } } }, syntax],
    [{ Condition: { Null: { 'aws:a': 'maybe' } } }, syntax],
    [{ Condition: { Bool: { 'aws:a': 'yes' } } }, legacy],
    [{ Condition: { NumericEquals: { 'aws:a': 'ten' } } }, legacy],
    [{ Condition: { DateLessThan: { 'aws:a': 'tomorrow' } } }, legacy],
    [{ Condition: { NotIpAddress: { 'aws:SourceIp': '10.0.0.0/40' } } }, legacy],
    [{ Condition: { BinaryEquals: { 'aws:a': '***' } } }, legacy],
    [{ Condition: { ArnNotLike: { 'aws:a': 'role/x' } } }, legacy],
  ])('is refused for a statement with %j', (changes, text) => {
    expect(problemOf('key', document(onKey(changes)))?.[1]).toBe(text)
  })

  it.each([
    '*',
    { AWS: '*' },
    { AWS: '111122223333' },
    { AWS: ['arn:aws:iam::111122223333:root', 'arn:aws-cn:iam::111122223333:user/path/ann'] },
    { AWS: 'arn:aws:iam::111122223333:role/aws-service-role/x.amazonaws.com/Y' },
    { AWS: 'arn:aws:sts::111122223333:assumed-role/deploy/run-1' },
    { AWS: 'arn:aws:sts::111122223333:federated-user/bob' },
    { AWS: 'AIDACKCEVSQ6C2EXAMPLE' },
    { Service: ['s3.amazonaws.com'] },
    { Federated: 'cognito-identity.amazonaws.com', AWS: '111122223333' },
  ])('accepts the principal %j', (principal) => {
    expect(problemOf('key', document(onKey({ Principal: principal })))).toBeUndefined()
  })

  it.each([
    undefined,
    'arn:aws:iam::111122223333:root',
    {},
    [],
    { AWS: [] },
    { AWS: null },
    { AWS: { x: 1 } },
    { AWS: '11112222333' },
    { AWS: 'arn:aws:iam::111122223333:*' },
    { AWS: 'arn:aws:iam::111122223333:user/*' },
    { AWS: 'arn:aws:iam::111122223333:user/' },
    { AWS: 'arn:aws:iam::111122223333:group/admins' },
    { AWS: 'arn:aws:iam::*:root' },
    { AWS: 'arn:aws:iam::111122223333:user/${aws:username}*' },
    { AWS: 'arn:aws:sts::111122223333:assumed-role/deploy' },
    { AWS: 'ann' },
    { Service: '*' },
    { Service: 'example.com' },
    { CanonicalUser: 'x' },
    { aws: '*' },
  ])('refuses the principal %j', (principal) => {
    expect(problemOf('key', document(onKey({ Principal: principal })))).toEqual(['principals', badPrincipals])
  })

  it('refuses principals of another partition when its own is known', () => {
    const text = document(onKey({ Principal: { AWS: 'arn:aws-cn:iam::111122223333:root' } }))
    expect(() => parsePolicy('key', text, { maxBytes: 32_768, partition: 'aws' })).toThrow(badPrincipals)
    expect(parsePolicy('key', text, { maxBytes: 32_768, partition: 'aws-cn' }).principals).toEqual(['111122223333'])
  })

  it('refuses to allow everybody but a few', () => {
    const text = document(onKey({ NotPrincipal: { AWS: rootArn }, Principal: undefined }))
    expect(problemOf('key', text)?.[1]).toBe('Allow with NotPrincipal is not allowed.')
  })

  it('may repeat no Sid, may leave it empty, and may put spaces in it', () => {
    expect(problemOf('key', document(onKey({ Sid: 'a b' }), onKey({ Sid: 'a b' })))?.[1]).toBe(
      'Statement IDs (SID) in a single policy must be unique.',
    )
    expect(
      problemOf('key', document(onKey({ Sid: '' }), onKey({ Sid: '' }), onKey({ Sid: 'Enable IAM' }))),
    ).toBeUndefined()
  })

  it('may lack Version, Action and Resource', () => {
    const bare = { Effect: 'Allow', Principal: '*' }
    expect(problemOf('key', JSON.stringify({ Statement: bare }))).toBeUndefined()
    expect(problemOf('key', JSON.stringify({ Statement: [{ ...bare, Action: [], Resource: [] }] }))).toBeUndefined()
  })

  it('tells whom it names, accounts by their id', () => {
    const policy = parsePolicy(
      'key',
      document(
        onKey({
          Principal: { AWS: [rootArn, '*', 'arn:aws:iam::111122223333:user/ann'], Service: 's3.amazonaws.com' },
        }),
        onKey({ Effect: 'Deny', NotPrincipal: { AWS: 'arn:aws:iam::444455556666:root' }, Principal: undefined }),
      ),
    )
    expect(policy.principals).toEqual(['111122223333', 'arn:aws:iam::111122223333:user/ann', '444455556666'])
  })

  it('is frozen once compiled', () => {
    const policy = parsePolicy('key', document(onKey({ Condition: { Bool: { 'aws:SecureTransport': true } } })))
    const [statement] = policy.statements
    for (const part of [
      policy,
      policy.statements,
      statement,
      statement?.conditions,
      statement?.conditions[0],
      statement?.actions,
    ]) {
      expect(Object.isFrozen(part)).toBe(true)
    }
  })
})

describe('an identity policy', () => {
  it.each([
    [{ Principal: '*' }, 'Policy document should not specify a principal.'],
    [{ NotPrincipal: '*' }, 'Policy document should not specify a principal.'],
    [{ Action: undefined }, 'Policy statement must contain actions.'],
    [{ Action: [] }, 'Policy statement must contain actions.'],
    [{ Resource: undefined }, 'Policy statement must contain resources.'],
    [
      { Sid: 'a b' },
      'Statement IDs (SID) must be alpha-numeric. Check that your input satisfies the regular expression [0-9A-Za-z]*',
    ],
  ])('is refused for a statement with %j', (changes, text) => {
    expect(problemOf('identity', document(onIdentity(changes)))?.[1]).toBe(text)
  })

  it('needs the version that has variables', () => {
    const text = 'Policy document must be version 2012-10-17 or greater.'
    expect(problemOf('identity', JSON.stringify({ Statement: onIdentity() }))?.[1]).toBe(text)
    expect(problemOf('identity', JSON.stringify({ Version: '2008-10-17', Statement: onIdentity() }))?.[1]).toBe(text)
    expect(problemOf('identity', document(onIdentity()))).toBeUndefined()
  })
})

describe('a trust policy', () => {
  it('names principals and actions of STS, and no resource', () => {
    expect(problemOf('trust', document(trust))).toBeUndefined()
    expect(problemOf('trust', document({ ...trust, Principal: undefined }))?.[1]).toBe(badPrincipals)
    expect(problemOf('trust', document({ ...trust, Action: 'kms:*' }))?.[1]).toMatch(/^Trust Policy statement actions/)
    expect(problemOf('trust', document({ ...trust, Action: undefined, NotAction: 'sts:x' }))?.[1]).toMatch(
      /^Trust Policy/,
    )
    expect(problemOf('trust', document({ ...trust, Resource: '*' }))?.[1]).toBe('Has prohibited field Resource.')
  })
})

describe('the default key policy', () => {
  it('is what AWS returns for a key created without one, byte for byte', () => {
    expect(defaultKeyPolicy('111122223333', 'aws')).toBe(
      '{\n  "Version" : "2012-10-17",\n  "Id" : "key-default-1",\n  "Statement" : [ {\n    "Sid" : "Enable IAM User Permissions",\n' +
        '    "Effect" : "Allow",\n    "Principal" : {\n      "AWS" : "arn:aws:iam::111122223333:root"\n    },\n' +
        '    "Action" : "kms:*",\n    "Resource" : "*"\n  } ]\n}',
    )
  })

  it('is a policy that delegates to its account', () => {
    const policy = parsePolicy('key', defaultKeyPolicy('444455556666', 'aws-us-gov'), {
      maxBytes: 32_768,
      partition: 'aws-us-gov',
    })
    expect(policy.principals).toEqual(['444455556666'])
  })
})
