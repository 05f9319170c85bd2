// biome-ignore-all lint/suspicious/noTemplateCurlyInString: policy variables are written like this
import { describe, expect, it } from 'vitest'
import { addEncryptionContext } from '../../../src/authorize/authorize.ts'
import { administrator, attach, decide, demand, denies, holds, onIdentity, session, user } from './requests.ts'

const binary = Buffer.from('value').toString('base64')

describe('a condition operator', () => {
  it.each([
    ['StringEquals', 'red', 'red', 'Red'],
    ['StringEqualsIgnoreCase', 'red', 'RED', 'blue'],
    ['StringLike', 'r?d*', 'redder', 'Red'],
    ['NumericEquals', '10', '10.0', '11'],
    ['NumericLessThan', '10', '9.5', '10'],
    ['NumericLessThanEquals', '10', '10', '10.1'],
    ['NumericGreaterThan', '10', '11', '10'],
    ['NumericGreaterThanEquals', '-1', '-1', '-2'],
    ['DateEquals', '2026-01-15T12:00:00Z', '1768478400', '2026-01-15T12:00:01Z'],
    ['DateLessThan', '2026-01-15T12:00:00Z', '2026-01-15T12:59:59+01:00', '2026-01-15T12:00:00Z'],
    ['DateLessThanEquals', '1768478400', '2026-01-15T12:00:00', '2026-01-16'],
    ['DateGreaterThan', '2026-01-15', '2026-01-15T00:00:01Z', '2026-01-14'],
    ['DateGreaterThanEquals', '2026-01-15', '2026-01-15', '2026-01'],
    ['Bool', 'true', 'true', 'false'],
    ['BinaryEquals', binary, binary, Buffer.from('other').toString('base64')],
    ['IpAddress', '203.0.113.0/24', '203.0.113.7', '203.0.114.7'],
    ['ArnEquals', 'arn:aws:iam::*:role/a*', 'arn:aws:iam::1:role/abc', 'arn:aws:iam::1:user/abc'],
    ['ArnLike', 'arn:aws:s3:::b?', 'arn:aws:s3:::b1', 'arn:aws:s3::x:b1'],
  ])('%s compares %s with a matching %s and another %s', (operator, operand, matching, other) => {
    const condition = { [operator]: { 'test:key': operand } }
    expect(holds(condition, { 'test:key': matching })).toBe(true)
    expect(holds(condition, { 'test:key': other })).toBe(false)
    expect(holds(condition, {})).toBe(false)
    expect(holds({ [`${operator}IfExists`]: { 'test:key': operand } }, {})).toBe(true)
    expect(holds({ [`${operator}IfExists`]: { 'test:key': operand } }, { 'test:key': other })).toBe(false)
  })

  it.each([
    ['StringNotEquals', 'red', 'red', 'Red'],
    ['StringNotEqualsIgnoreCase', 'red', 'RED', 'blue'],
    ['StringNotLike', 'r*', 'red', 'blue'],
    ['NumericNotEquals', '10', '10', '11'],
    ['DateNotEquals', '2026-01-15', '2026-01-15T00:00:00Z', '2026-01-16'],
    ['NotIpAddress', '203.0.113.0/24', '203.0.113.7', '203.0.114.7'],
    ['ArnNotEquals', 'arn:aws:iam::1:role/*', 'arn:aws:iam::1:role/a', 'arn:aws:iam::2:role/a'],
    ['ArnNotLike', 'arn:aws:iam::1:role/*', 'arn:aws:iam::1:role/a', 'arn:aws:iam::2:role/a'],
  ])('%s holds unless a value is %s, and when the key is absent', (operator, operand, matching, other) => {
    const condition = { [operator]: { 'test:key': operand } }
    expect(holds(condition, { 'test:key': matching })).toBe(false)
    expect(holds(condition, { 'test:key': other })).toBe(true)
    expect(holds(condition, {})).toBe(true)
  })

  it('takes any of its values, a negated one none of them', () => {
    expect(holds({ StringEquals: { 'test:key': ['a', 'b'] } }, { 'test:key': 'b' })).toBe(true)
    expect(holds({ StringNotEquals: { 'test:key': ['a', 'b'] } }, { 'test:key': 'b' })).toBe(false)
  })

  it('stands beside others that must all hold', () => {
    const condition = { StringEquals: { 'test:a': '1', 'test:b': '2' }, Bool: { 'test:c': true } }
    expect(holds(condition, { 'test:a': '1', 'test:b': '2', 'test:c': 'true' })).toBe(true)
    expect(holds(condition, { 'test:a': '1', 'test:b': '2', 'test:c': 'false' })).toBe(false)
    expect(holds(condition, { 'test:a': '1', 'test:c': 'true' })).toBe(false)
  })

  it('ignores the case of its key but not of its value', () => {
    expect(holds({ StringEquals: { 'KMS:EncryptionContext:App': 'x' } }, { 'kms:encryptioncontext:aPP': 'x' })).toBe(
      true,
    )
    expect(holds({ StringEquals: { 'kms:EncryptionContext:App': 'x' } }, { 'kms:encryptioncontext:app': 'X' })).toBe(
      false,
    )
  })

  it('does not let a wildcard of an ARN reach across a colon', () => {
    expect(
      holds({ ArnLike: { 'aws:SourceArn': 'arn:aws:sns:*:1:t' } }, { 'aws:SourceArn': 'arn:aws:sns:a:b:1:t' }),
    ).toBe(false)
    expect(
      holds({ ArnLike: { 'aws:SourceArn': 'arn:aws:sns:*:1:*' } }, { 'aws:SourceArn': 'arn:aws:sns:a:1:t:u' }),
    ).toBe(true)
  })

  it('takes the colons of the resource part of an ARN as they are, and a lone star for any value', () => {
    const aliasOf = (resource: string) => ({ 'aws:SourceArn': `arn:aws:logs:eu-west-1:1:${resource}` })
    const condition = { ArnLike: { 'aws:SourceArn': 'arn:aws:logs:*:1:log-group:a*:*' } }
    expect(holds(condition, aliasOf('log-group:app:stream'))).toBe(true)
    expect(holds(condition, aliasOf('log-group:web:stream'))).toBe(false)
    expect(holds({ ArnLike: { 'aws:SourceArn': '*' } }, aliasOf('log-group:app'))).toBe(true)
    expect(holds({ ArnLike: { 'aws:SourceArn': '*' } }, {})).toBe(false)
  })

  it('compares nothing with a value of the request that it cannot read', () => {
    expect(holds({ NumericLessThan: { 'test:key': '5' } }, { 'test:key': 'none' })).toBe(false)
    expect(holds({ IpAddress: { 'test:key': '0.0.0.0/0' } }, { 'test:key': 'localhost' })).toBe(false)
    expect(holds({ ArnLike: { 'test:key': 'arn:*:*:*:*:*' } }, { 'test:key': 'no arn' })).toBe(false)
  })
})

describe('Null', () => {
  it('asks whether the key is there', () => {
    expect(holds({ Null: { 'test:key': 'true' } }, {})).toBe(true)
    expect(holds({ Null: { 'test:key': 'true' } }, { 'test:key': '' })).toBe(false)
    expect(holds({ Null: { 'test:key': false } }, { 'test:key': 'x' })).toBe(true)
    expect(holds({ Null: { 'test:key': false } }, { 'test:key': [] })).toBe(false)
  })
})

describe('a set operator', () => {
  const any = { 'ForAnyValue:StringEquals': { 'aws:TagKeys': ['a', 'b'] } }
  const all = { 'ForAllValues:StringEquals': { 'aws:TagKeys': ['a', 'b'] } }

  it('ForAnyValue needs one value of the request to match', () => {
    expect(holds(any, { 'aws:TagKeys': ['x', 'b'] })).toBe(true)
    expect(holds(any, { 'aws:TagKeys': ['x', 'y'] })).toBe(false)
    expect(holds(any, { 'aws:TagKeys': 'a' })).toBe(true)
  })

  it('ForAnyValue never holds for an absent key, not even negated', () => {
    expect(holds(any, {})).toBe(false)
    expect(holds(any, { 'aws:TagKeys': [] })).toBe(false)
    expect(holds({ 'ForAnyValue:StringNotEquals': { 'aws:TagKeys': 'a' } }, {})).toBe(false)
  })

  it('ForAnyValue with a negated operator needs one value that matches none', () => {
    const condition = { 'ForAnyValue:StringNotEquals': { 'aws:TagKeys': ['a', 'b'] } }
    expect(holds(condition, { 'aws:TagKeys': ['a', 'c'] })).toBe(true)
    expect(holds(condition, { 'aws:TagKeys': ['a', 'b'] })).toBe(false)
  })

  it('ForAllValues needs every value to match and is true of an absent or empty key', () => {
    expect(holds(all, { 'aws:TagKeys': ['a', 'b', 'a'] })).toBe(true)
    expect(holds(all, { 'aws:TagKeys': ['a', 'c'] })).toBe(false)
    expect(holds(all, {})).toBe(true)
    expect(holds(all, { 'aws:TagKeys': [] })).toBe(true)
    expect(holds(all, { 'aws:TagKeys': '' })).toBe(true)
  })

  it('left out before a key of several values makes an Allow need all and a Deny content with one', () => {
    const condition = { StringEquals: { 'aws:TagKeys': 'a' } }
    expect(holds(condition, { 'aws:TagKeys': ['a', 'b'] })).toBe(false)
    expect(holds(condition, { 'aws:TagKeys': ['a', 'a'] })).toBe(true)
    expect(denies(condition, { 'aws:TagKeys': ['a', 'b'] })).toBe(true)
  })
})

describe('an encryption context', () => {
  const contextOf = (...pairs: [string, string][]) => {
    const context = new Map<string, string | readonly string[]>()
    addEncryptionContext(context, pairs)
    return Object.fromEntries(context)
  }

  it('is seen by key and by the list of its keys', () => {
    const context = contextOf(['App', 'x'], ['Team', 'red'])
    expect(
      holds({ StringEquals: { 'kms:EncryptionContext:app': 'x', 'kms:EncryptionContext:TEAM': 'red' } }, context),
    ).toBe(true)
    expect(holds({ 'ForAllValues:StringEquals': { 'kms:EncryptionContextKeys': ['App', 'Team'] } }, context)).toBe(true)
    expect(holds({ 'ForAllValues:StringEquals': { 'kms:EncryptionContextKeys': ['app', 'team'] } }, context)).toBe(
      false,
    )
  })

  it.each([
    { StringEquals: { 'kms:EncryptionContext:app': 'x' } },
    { StringNotEquals: { 'kms:EncryptionContext:app': 'z' } },
    { StringEquals: { 'kms:EncryptionContext:team': 'red' } },
    { 'ForAnyValue:StringEquals': { 'kms:EncryptionContextKeys': 'app' } },
    { 'ForAllValues:StringLike': { 'kms:EncryptionContextKeys': '*' } },
    { StringEqualsIfExists: { 'kms:EncryptionContext:other': 'x' } },
    { Null: { 'kms:EncryptionContext:app': 'false' } },
    { Null: { 'kms:EncryptionContext:app': 'true' } },
  ])('whose keys collide but for case satisfies no Allow and every Deny: %j', (condition) => {
    const context = contextOf(['app', 'x'], ['APP', 'y'], ['team', 'red'])
    expect(holds(condition, context)).toBe(false)
    expect(denies(condition, context)).toBe(true)
  })

  it('whose keys collide leaves conditions on other keys as they are', () => {
    const context = { ...contextOf(['app', 'x'], ['APP', 'y']), 'test:key': 'a' }
    expect(holds({ StringEquals: { 'test:key': 'a' } }, context)).toBe(true)
    expect(denies({ StringEquals: { 'test:key': 'b' } }, context)).toBe(false)
  })
})

describe('a key with more aliases than AWS compares', () => {
  const aliases = (count: number) => ({
    'kms:ResourceAliases': Array.from({ length: count }, (_, at) => `alias/${at}`),
  })
  const condition = { 'ForAnyValue:StringEquals': { 'kms:ResourceAliases': 'alias/1' } }

  it('is not reached through its aliases', () => {
    expect(holds(condition, aliases(50))).toBe(true)
    expect(holds(condition, aliases(51))).toBe(false)
    expect(denies({ 'ForAnyValue:StringEquals': { 'kms:ResourceAliases': 'alias/none' } }, aliases(51))).toBe(true)
  })
})

describe('a condition on the caller', () => {
  const ann = { ...user('ann'), tags: { Team: 'red' } }

  it('reads the authenticated principal, whatever the context says', () => {
    const condition = { StringEquals: { 'aws:username': 'root' } }
    expect(holds(condition, { 'aws:username': 'root' })).toBe(false)
    expect(
      holds(
        { ArnEquals: { 'aws:PrincipalArn': ann.arn } },
        { 'aws:PrincipalArn': 'arn:aws:iam::1:user/x' },
        { principal: ann },
      ),
    ).toBe(true)
    expect(
      holds(
        { StringEquals: { 'aws:PrincipalTag/admin': 'yes' } },
        { 'aws:PrincipalTag/admin': 'yes' },
        { principal: ann },
      ),
    ).toBe(false)
  })

  it('knows name, id, account, type and tags', () => {
    const condition = {
      StringEquals: {
        'aws:userid': ann.principalId,
        'aws:PrincipalAccount': ann.account,
        'aws:PrincipalType': 'User',
        'aws:PrincipalTag/team': 'red',
      },
      Bool: { 'aws:PrincipalIsAWSService': 'false', 'aws:ViaAWSService': 'false' },
      Null: { 'aws:TokenIssueTime': 'true' },
    }
    expect(holds(condition, {}, { principal: ann })).toBe(true)
  })

  it('sees the role behind a session, and when it was issued', () => {
    const condition = {
      ArnEquals: { 'aws:PrincipalArn': 'arn:aws:iam::111122223333:role/deploy' },
      DateEquals: { 'aws:TokenIssueTime': '2023-11-14T22:13:20Z' },
      Null: { 'aws:username': 'true' },
    }
    expect(holds(condition, {}, { principal: session('deploy', 'run') })).toBe(true)
  })

  it('can be a policy variable on either side', () => {
    const condition = { StringEquals: { 'aws:ResourceTag/team': '${aws:PrincipalTag/Team}' } }
    expect(holds(condition, { 'aws:ResourceTag/team': 'red' }, { principal: ann })).toBe(true)
    expect(holds(condition, { 'aws:ResourceTag/team': 'blue' }, { principal: ann })).toBe(false)
    expect(
      holds(
        { ArnEquals: { 'aws:SourceArn': '${aws:PrincipalArn}' } },
        { 'aws:SourceArn': ann.arn },
        { principal: ann },
      ),
    ).toBe(true)
  })
})

describe('a condition with a variable that the request does not fill', () => {
  const equal = { StringEquals: { 'aws:ResourceTag/team': '${aws:PrincipalTag/team}' } }
  const different = { StringNotEquals: { 'aws:ResourceTag/team': '${aws:PrincipalTag/team}' } }
  const context = { 'aws:ResourceTag/team': 'red' }

  it('opens no Allow, negated or not', () => {
    expect(holds(equal, context)).toBe(false)
    expect(holds(different, context)).toBe(false)
  })

  it('keeps a negated Deny in force', () => {
    expect(denies(different, context)).toBe(true)
    expect(denies(equal, context)).toBe(false)
  })

  it('leaves the other values of the line to match', () => {
    expect(holds({ StringEquals: { 'aws:ResourceTag/team': ['${aws:PrincipalTag/team}', 'red'] } }, context)).toBe(true)
  })
})

describe('the time of a request', () => {
  it('comes from the clock', () => {
    const condition = {
      DateGreaterThan: { 'aws:CurrentTime': '2026-01-15T11:59:59Z' },
      DateLessThan: { 'aws:CurrentTime': '2026-01-15T12:00:01Z' },
      NumericEquals: { 'aws:EpochTime': '1768478400' },
    }
    expect(holds(condition, {})).toBe(true)
  })

  it('can be set for a simulation', () => {
    const policies = [
      administrator,
      attach(onIdentity({ Effect: 'Deny', Condition: { DateGreaterThan: { 'aws:CurrentTime': '2026-06-01' } } })),
    ]
    const at = (time: string) =>
      decide(user('ann'), demand({ context: { 'aws:CurrentTime': time } }), { policies }).allowed
    expect(at('2026-05-31')).toBe(true)
    expect(at('2026-06-02')).toBe(false)
  })
})
