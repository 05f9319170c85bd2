import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { PolicyError, parsePolicy } from '../../../src/authorize/authorize.ts'
import {
  account,
  attach,
  decide,
  demand,
  document,
  keyArn,
  otherAccount,
  root,
  rootArn,
  session,
  user,
} from './requests.ts'

const principal = fc.constantFrom(
  user('ann'),
  user('eve', otherAccount),
  session('deploy', 'run'),
  root(),
  root(otherAccount),
)

const action = fc.constantFrom('kms:Decrypt', 'kms:Encrypt', 'kms:De*', 'kms:?ncrypt', '*', 'KMS:*', 's3:GetObject')
const resource = fc.constantFrom('*', keyArn, 'arn:aws:kms:*:*:key/*', `arn:aws:kms:us-east-1:${account}:alias/*`)
const condition = fc.constantFrom(
  undefined,
  { StringEquals: { 'test:key': 'a' } },
  { StringNotEquals: { 'test:key': 'a' } },
  { 'ForAnyValue:StringLike': { 'test:list': ['x*', 'y'] } },
  { 'ForAllValues:StringEquals': { 'test:list': 'x' } },
  { Null: { 'test:key': 'true' } },
  { StringEqualsIfExists: { 'test:key': 'a' }, Bool: { 'test:flag': 'true' } },
  { 'ForAnyValue:StringEquals': { 'kms:EncryptionContextKeys': 'App' } },
)
const oneOrMore = (texts: fc.Arbitrary<string>) => fc.oneof(texts, fc.array(texts, { minLength: 1, maxLength: 3 }))
const what = fc.oneof(
  fc.record({ Action: oneOrMore(action), Resource: oneOrMore(resource) }),
  fc.record({ NotAction: oneOrMore(action), NotResource: oneOrMore(resource) }),
)
const who = fc.oneof(
  fc.constant({ Principal: '*' }),
  oneOrMore(
    fc.constantFrom(
      rootArn,
      account,
      otherAccount,
      user('ann').arn,
      user('eve', otherAccount).arn,
      'arn:aws:iam::111122223333:role/deploy',
    ),
  ).map((AWS) => ({ Principal: { AWS } })),
)
const unlisted = fc.constantFrom(rootArn, user('ann').arn).map((AWS) => ({ NotPrincipal: { AWS: [AWS, rootArn] } }))

type Statement = Readonly<Record<string, unknown>>
const build = (effect: 'Allow' | 'Deny', ...parts: fc.Arbitrary<Statement>[]): fc.Arbitrary<Statement> =>
  fc
    .tuple(condition, ...parts)
    .map(([when, ...rest]) => Object.assign({ Effect: effect }, when && { Condition: when }, ...rest))
const allowKey = build('Allow', who, what)
const allowIdentity = build('Allow', what)
const keyStatement = fc.oneof(
  { weight: 3, arbitrary: allowKey },
  { weight: 1, arbitrary: build('Deny', fc.oneof(who, unlisted), what) },
)
const identityStatement = fc.oneof(
  { weight: 3, arbitrary: allowIdentity },
  { weight: 1, arbitrary: build('Deny', what) },
)

const context = fc.constantFrom<Readonly<Record<string, string | readonly string[]>>>(
  {},
  { 'test:key': 'a' },
  { 'test:key': 'b', 'test:flag': 'true' },
  { 'test:list': ['x', 'y'] },
  { 'kms:EncryptionContextKeys': ['App'], 'kms:EncryptionContext:App': '1' },
  { 'kms:EncryptionContextKeys': ['App', 'APP'], 'kms:EncryptionContext:App': ['1', '2'] },
)

const scene = fc.record({
  principal,
  context,
  onKey: fc.array(keyStatement, { minLength: 1, maxLength: 5 }),
  onIdentity: fc.array(identityStatement, { minLength: 1, maxLength: 5 }),
  hasGrant: fc.boolean(),
})
type Scene = typeof scene extends fc.Arbitrary<infer T> ? T : never

function judge(given: Scene, onKey = given.onKey, onIdentity = given.onIdentity) {
  const grants = given.hasGrant
    ? [
        {
          grantId: 'g',
          keyArn,
          granteePrincipal: given.principal.arn,
          issuingAccount: account,
          operations: ['Decrypt'],
        },
      ]
    : []
  const asked = demand({ context: given.context, resourcePolicy: document(...onKey) })
  return decide(given.principal, asked, { policies: [attach(...onIdentity)], grants })
}

describe('the evaluation of any policies', () => {
  it('reaches both answers, so that the properties below say something', () => {
    const answers = fc.sample(scene, { numRuns: 300, seed: 1 }).map((given) => judge(given).allowed)
    expect(new Set(answers)).toEqual(new Set([true, false]))
  })

  it('never allows what a Deny statement covers', () => {
    const everything = { Effect: 'Deny', Action: 'kms:*', Resource: '*' }
    fc.assert(
      fc.property(scene, fc.nat(5), (given, at) => {
        const inKey = judge(given, given.onKey.toSpliced(at, 0, { ...everything, Principal: '*' }))
        const inIdentity = judge(given, given.onKey, given.onIdentity.toSpliced(at, 0, everything))
        expect([inKey.allowed, inIdentity.allowed]).toEqual([false, false])
      }),
    )
  })

  it('never takes access away when an Allow is added', () => {
    fc.assert(
      fc.property(scene, allowKey, allowIdentity, (given, moreOnKey, moreOnIdentity) => {
        fc.pre(judge(given).allowed)
        expect(judge(given, [...given.onKey, moreOnKey]).allowed).toBe(true)
        expect(judge(given, [moreOnKey, ...given.onKey], [moreOnIdentity, ...given.onIdentity]).allowed).toBe(true)
      }),
    )
  })

  it('never gives access when a Deny is added', () => {
    const deny = build('Deny', what)
    fc.assert(
      fc.property(scene, deny, (given, more) => {
        fc.pre(!judge(given).allowed)
        expect(judge(given, given.onKey, [...given.onIdentity, more]).allowed).toBe(false)
      }),
    )
  })

  it('does not depend on the order of statements', () => {
    fc.assert(
      fc.property(
        scene.chain((given) =>
          fc.tuple(
            fc.constant(given),
            fc.shuffledSubarray(given.onKey, { minLength: given.onKey.length }),
            fc.shuffledSubarray(given.onIdentity, { minLength: given.onIdentity.length }),
          ),
        ),
        ([given, onKey, onIdentity]) => {
          const [one, other] = [judge(given), judge(given, onKey, onIdentity)]
          expect({ ...other, statement: '' }).toEqual({ ...one, statement: '' })
        },
      ),
    )
  })

  it('gives the same answer from statements of one policy and from one policy each', () => {
    fc.assert(
      fc.property(scene, (given) => {
        const asked = demand({ context: given.context, resourcePolicy: document(...given.onKey) })
        const together = decide(given.principal, asked, { policies: [attach(...given.onIdentity)] })
        const apart = decide(given.principal, asked, {
          policies: given.onIdentity.map((statement) => attach(statement)),
        })
        expect(apart.allowed).toBe(together.allowed)
      }),
    )
  })
})

describe('hostile input', () => {
  const kinds = ['identity', 'key', 'trust'] as const
  const isHandled = (text: string) => {
    for (const kind of kinds) {
      try {
        parsePolicy(kind, text)
      } catch (error) {
        expect(error).toBeInstanceOf(PolicyError)
      }
    }
  }

  it('of any characters yields a policy or a PolicyError', () => {
    fc.assert(fc.property(fc.oneof(fc.string(), fc.string({ unit: 'binary' }), fc.json()), isHandled))
  })

  it('in the shape of a policy yields a policy or a PolicyError, and a decision', () => {
    const text = fc.oneof(
      fc.string({ maxLength: 12 }),
      action,
      resource,
      fc.string({ unit: fc.constantFrom('$', '{', '}', '*', '?', ':', 'a', "'", ','), maxLength: 20 }),
      fc.constantFrom('true', '10', '2026-01-01', '10.0.0.0/8', 'arn:aws:kms:::', '__proto__'),
    )
    const value = fc.oneof(text, fc.array(text, { maxLength: 3 }), fc.jsonValue({ maxDepth: 2 }))
    const operator = fc.oneof(
      fc.constantFrom(
        'StringLike',
        'Bool',
        'Null',
        'ArnLike',
        'IpAddress',
        'DateEquals',
        'NumericEquals',
        'BinaryEquals',
      ),
      text,
    )
    const prefixed = fc.tuple(
      fc.constantFrom('', 'ForAnyValue:', 'ForAllValues:'),
      operator,
      fc.constantFrom('', 'IfExists'),
    )
    const conditions = fc.dictionary(
      prefixed.map((parts) => parts.join('')),
      fc.oneof(fc.dictionary(fc.oneof(fc.constantFrom('aws:SourceIp', 'kms:x'), text), value), value),
    )
    const statement = fc.record(
      {
        Sid: value,
        Effect: fc.oneof(fc.constantFrom('Allow', 'Deny'), value),
        Principal: fc.oneof(
          fc.constant('*'),
          fc.dictionary(fc.constantFrom('AWS', 'Service', '__proto__'), value),
          value,
        ),
        NotPrincipal: value,
        Action: fc.oneof(action, value),
        NotAction: value,
        Resource: fc.oneof(resource, value),
        NotResource: value,
        Condition: fc.oneof(conditions, value),
      },
      { requiredKeys: ['Effect'] },
    )
    const source = fc.record({
      Version: fc.oneof({ weight: 9, arbitrary: fc.constant('2012-10-17') }, { weight: 1, arbitrary: value }),
      Statement: fc.oneof(statement, fc.array(statement, { maxLength: 3 }), value),
    })
    fc.assert(
      fc.property(source, principal, (policy, caller) => {
        const hostile = JSON.stringify(policy)
        isHandled(hostile)
        const policies = [{ name: 'hostile', document: hostile }]
        const decision = decide(caller, demand({ resourcePolicy: hostile }), { policies })
        expect(typeof decision.allowed).toBe('boolean')
      }),
      { numRuns: 1000 },
    )
  })
})
