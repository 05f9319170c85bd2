// biome-ignore-all lint/suspicious/noTemplateCurlyInString: policy variables are written like this
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { createFacts } from '../../../src/authorize/facts.ts'
import { compilePattern } from '../../../src/authorize/pattern.ts'
import { PolicyError } from '../../../src/authorize/policy-error.ts'
import { demand, user } from './requests.ts'

const facts = createFacts(user('ann'), demand({ context: { 'kms:RequestAlias': 'alias/*' } }), 0)
const wild = { hasVariables: true, hasWildcards: true }
const matches = (pattern: string, value: string) => compilePattern(pattern, wild).matches(value, facts)

/** The definition of a wildcard match, by dynamic programming over all prefixes. */
function reference(pattern: string, value: string): boolean {
  let row = [true, ...new Array<boolean>(value.length).fill(false)]
  for (const char of pattern) {
    const next = [char === '*' && (row[0] as boolean)]
    for (let at = 1; at <= value.length; at++) {
      const before = row[at - 1] as boolean
      next.push(
        char === '*'
          ? (row[at] as boolean) || (next[at - 1] as boolean)
          : before && (char === '?' || char === value[at - 1]),
      )
    }
    row = next
  }
  return row[value.length] as boolean
}

describe('a wildcard pattern', () => {
  it.each([
    ['kms:*', 'kms:Decrypt', true],
    ['kms:Generate*', 'kms:Encrypt', false],
    ['kms:*Key*Pair', 'kms:GenerateDataKeyPair', true],
    ['a?c', 'abc', true],
    ['a?c', 'ac', false],
    ['*', '', true],
    ['?', '', false],
    ['', '', true],
    ['ab*ba', 'aba', false],
    ['*ab?*', 'xxabab', true],
    ['*ab?*', 'xxab', false],
  ])('%s on %s is %s', (pattern, value, expected) => {
    expect(matches(pattern, value)).toBe(expected)
  })

  it('agrees with the definition for any pattern and value', () => {
    const pattern = fc.string({ unit: fc.constantFrom('a', 'b', '*', '?'), maxLength: 14 })
    const value = fc.string({ unit: fc.constantFrom('a', 'b'), maxLength: 20 })
    fc.assert(
      fc.property(pattern, value, (text, subject) => matches(text, subject) === reference(text, subject)),
      { numRuns: 5000 },
    )
  })

  it('is linear in a value built to make a backtracking matcher explode', () => {
    const value = `${'a'.repeat(200_000)}c`
    expect(matches(`${'*a'.repeat(2000)}*b`, value)).toBe(false)
    expect(matches(`*${'a'.repeat(5000)}b*`, value)).toBe(false)
    expect(matches(`*${'a?'.repeat(31)}b*`, value)).toBe(false)
  })

  it('refuses a long run with question marks between stars, which could not be matched in linear time', () => {
    expect(() => compilePattern(`*${'a?'.repeat(40)}*`, wild)).toThrow(PolicyError)
  })

  it('treats what a variable stands for as plain text', () => {
    expect(matches('${kms:RequestAlias}', 'alias/*')).toBe(true)
    expect(matches('${kms:RequestAlias}', 'alias/other')).toBe(false)
    expect(matches('x-${aws:username}-*', 'x-ann-1')).toBe(true)
  })
})

describe('a policy variable', () => {
  it('falls back to its default only when the request has no value', () => {
    expect(matches("${aws:PrincipalTag/team, 'red'}", 'red')).toBe(true)
    expect(matches("${aws:username, 'red'}", 'ann')).toBe(true)
    expect(matches("${aws:username, 'red'}", 'red')).toBe(false)
  })

  it('without value or default matches nothing, not even a star beside it', () => {
    expect(matches('*${aws:PrincipalTag/team}*', 'anything')).toBe(false)
  })

  it('writes the special characters', () => {
    expect(matches('a${*}${?}${$}b', 'a*?$b')).toBe(true)
    expect(matches('a${*}b', 'axxb')).toBe(false)
  })

  it.each(['${', '${}', '${aws:username', '${nocolon}', '${aws:a b}', "${aws:username, 'x}", '${aws:username,x}'])(
    'of the form %s is an error',
    (text) => {
      expect(() => compilePattern(text, wild)).toThrow(PolicyError)
    },
  )

  it('is plain text in a policy of version 2008-10-17', () => {
    const pattern = compilePattern('${aws:username}', { hasVariables: false, hasWildcards: true })
    expect(pattern.literal).toBe('${aws:username}')
  })
})
