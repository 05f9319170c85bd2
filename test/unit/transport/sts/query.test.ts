import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { GatewayError } from '../../../../src/error.ts'
import { parseAssumeRole } from '../../../../src/transport/sts/assume-role-input.ts'
import { parseQuery, readList } from '../../../../src/transport/sts/query.ts'
import { StsError } from '../../../../src/transport/sts/sts-error.ts'
import { element } from '../../../../src/transport/sts/xml.ts'

describe('a query body', () => {
  it('gives back what a form encodes', () => {
    fc.assert(
      fc.property(fc.dictionary(fc.string({ minLength: 1 }), fc.string({ unit: 'grapheme' })), (parameters) => {
        const body = Buffer.from(new URLSearchParams(parameters).toString())
        expect(Object.fromEntries(parseQuery(body))).toEqual({ ...parameters })
      }),
    )
  })

  it.each([
    ['a parameter twice', 'a=1&a=2'],
    ['a percent sign and half a character', Buffer.from([0x61, 0x3d, 0xff])],
    ['too many parameters', Array.from({ length: 501 }, (_, index) => `p${index}=1`).join('&')],
    ['too many bytes', `a=${'x'.repeat(128 * 1024)}`],
  ])('is refused with %s', (_what, body) => {
    expect(() => parseQuery(Buffer.from(body as string))).toThrow(StsError)
  })

  it('holds lists up to the first gap', () => {
    const query = parseQuery(Buffer.from('T.member.1.Key=a&T.member.1.Value=b&T.member.2.Key=c&T.member.4.Key=d'))
    expect(readList(query, 'T', ['Key', 'Value'])).toEqual([
      { Key: 'a', Value: 'b' },
      { Key: 'c', Value: undefined },
    ])
  })

  it('of AssumeRole is read or refused in modelled words, whatever it holds', () => {
    const name = fc.constantFrom('RoleArn', 'RoleSessionName', 'DurationSeconds', 'Policy', 'Tags.member.1.Key', 'x')
    const value = fc.oneof(fc.string(), fc.constantFrom('arn:aws:iam::111122223333:role/r', '900', '-1', '1e3', 'ab'))
    fc.assert(
      fc.property(fc.dictionary(name, value), (parameters) => {
        try {
          const input = parseAssumeRole(new Map(Object.entries(parameters)))
          expect(input.durationSeconds).toBeGreaterThanOrEqual(900)
        } catch (error) {
          expect(error).toBeInstanceOf(GatewayError)
          expect((error as GatewayError).code).toBe('ValidationFailed')
        }
      }),
    )
  })
})

describe('an XML answer', () => {
  it('is well-formed whatever text it carries', () => {
    expect(element('A', { B: '<&>"', C: undefined, D: { E: 'x\u0000y\ud800' } }, 'urn:n')).toBe(
      '<A xmlns="urn:n"><B>&lt;&amp;&gt;&quot;</B><D><E>x?y?</E></D></A>',
    )
  })
})
