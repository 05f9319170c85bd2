import { randomBytes } from 'node:crypto'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { createGrantTokens } from '../../../src/keys/grant-tokens.ts'

const tokens = createGrantTokens(randomBytes(32))
const named = fc.record({
  account: fc.string({ unit: fc.constantFrom(...'0123456789'), minLength: 12, maxLength: 12 }),
  region: fc.constantFrom('us-east-1', 'eu-west-1', 'ap-southeast-3'),
  keyId: fc.oneof(fc.uuid(), fc.constant(`mrk-${'0a'.repeat(16)}`)),
  grantId: fc.uint8Array({ minLength: 32, maxLength: 32 }).map((bytes) => Buffer.from(bytes).toString('hex')),
})

describe('a grant token', () => {
  it('names the grant it was made for, and is another one each time', () => {
    fc.assert(
      fc.property(named, (grant) => {
        const token = tokens.encode(grant)
        expect(tokens.parse(token)).toEqual(grant)
        expect(tokens.encode(grant)).not.toBe(token)
        expect(token).toMatch(/^[A-Za-z0-9+/]+={0,2}$/)
      }),
    )
  })

  it('is unknown after any change, in any other spelling, and to any other gateway', () => {
    const others = createGrantTokens(randomBytes(32))
    fc.assert(
      fc.property(named, fc.nat(), fc.integer({ min: 1, max: 255 }), (grant, position, mask) => {
        const token = tokens.encode(grant)
        const bytes = Buffer.from(token, 'base64')
        const at = position % bytes.length
        bytes[at] = (bytes[at] as number) ^ mask
        expect(tokens.parse(bytes.toString('base64'))).toBeUndefined()
        expect(tokens.parse(`${token}\n`)).toBeUndefined()
        expect(tokens.parse(token.slice(4))).toBeUndefined()
        expect(others.parse(token)).toBeUndefined()
      }),
    )
  })

  it('that somebody made up is unknown, whatever it is', () => {
    fc.assert(
      fc.property(fc.oneof(fc.string(), fc.base64String({ maxLength: 8192, size: 'max' })), (token) => {
        expect(tokens.parse(token)).toBeUndefined()
      }),
    )
  })
})
