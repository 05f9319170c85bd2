import { createHmac } from 'node:crypto'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { createHmacKey, hmac } from '../../../src/authenticate/hmac-sha256.ts'

describe('hmac', () => {
  it('computes test case 2 of RFC 4231', () => {
    expect(hmac(createHmacKey(Buffer.from('Jefe')), 'what do ya want for nothing?', 'hex')).toBe(
      '5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843',
    )
  })

  it('agrees with OpenSSL for any key and any sequence of messages', () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ maxLength: 200 }),
        fc.array(fc.uint8Array({ maxLength: 1200 }), { minLength: 1, maxLength: 4 }),
        (secret, messages) => {
          const key = createHmacKey(secret)
          for (const message of messages) {
            const text = Buffer.from(message).toString('latin1')
            const expected = createHmac('sha256', secret).update(message).digest()
            expect(hmac(key, text, 'hex')).toBe(expected.toString('hex'))
            expect(hmac(key, text, 'buffer')).toEqual(expected)
          }
        },
      ),
    )
  })
})
