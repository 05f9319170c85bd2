import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { parseStrictJson } from '../../../src/authorize/strict-json.ts'

describe('strict JSON', () => {
  it('reads whatever JSON.parse reads', () => {
    fc.assert(
      fc.property(fc.json(), (text) => {
        expect(parseStrictJson(text)).toEqual(JSON.parse(text))
      }),
    )
  })

  it.each([
    '{"a":1,"a":2}',
    '{"a":1,"\\u0061":2}',
    '{"x":[{"a":{},"b":[1,{"c":1}],"a":3}]}',
    '{"a":"}","a":"{"}',
    '{"__proto__":1,"__proto__":2}',
  ])('refuses the repeated name in %s', (text) => {
    expect(() => parseStrictJson(text)).toThrow(SyntaxError)
  })

  it.each(['[{"a":1},{"a":1}]', '{"a":{"a":{"a":"a"}}}', '{"a":"\\"a\\":1,","b":["a","a","a"]}'])(
    'accepts %s',
    (text) => {
      expect(parseStrictJson(text)).toEqual(JSON.parse(text))
    },
  )

  it('survives the deepest nesting a document can hold', () => {
    const depth = 16_000
    expect(() => parseStrictJson('['.repeat(depth) + ']'.repeat(depth))).not.toThrow()
  })
})
