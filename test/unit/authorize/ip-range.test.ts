import { BlockList, isIP } from 'node:net'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { isInRange, parseIp, parseIpRange } from '../../../src/authorize/ip-range.ts'

function isWithin(address: string, range: string): boolean | undefined {
  const words = parseIp(address)
  const parsed = parseIpRange(range)
  return words && parsed && isInRange(words, parsed)
}

describe('an IP range', () => {
  it.each([
    ['203.0.113.9', '203.0.113.0/24', true],
    ['203.0.114.9', '203.0.113.0/24', false],
    ['203.0.113.9', '203.0.113.9', true],
    ['203.0.113.9', '203.0.113.77/24', true],
    ['1.2.3.4', '0.0.0.0/0', true],
    ['::ffff:203.0.113.9', '203.0.113.0/24', true],
    ['203.0.113.9', '::ffff:203.0.113.0/120', true],
    ['2001:db8::1', '2001:db8::/32', true],
    ['2001:db9::1', '2001:db8::/32', false],
    ['::1', '0.0.0.0/0', false],
    ['::1', '::ffff:0:0/64', true],
    ['1.2.3.4', '::ffff:0:0/96', true],
    ['fe80::1%eth0', 'fe80::/10', true],
  ])('%s in %s is %s', (address, range, expected) => {
    expect(isWithin(address, range)).toBe(expected)
  })

  it.each(['', '1.2.3', '1.2.3.4/33', '::/129', '1.2.3.4/', '1.2.3.4/-1', '1.2.3.4/a', 'fe80::1%eth0', '10.0.0.0/8/8'])(
    'is not made of "%s"',
    (text) => {
      expect(parseIpRange(text)).toBeUndefined()
    },
  )

  it('agrees with the block list of Node', () => {
    const address = fc.oneof(fc.ipV4(), fc.ipV6())
    fc.assert(
      fc.property(address, address, fc.nat(128), (one, other, bits) => {
        const family = isIP(other) === 4 ? 'ipv4' : 'ipv6'
        const prefix = Math.min(bits, family === 'ipv4' ? 32 : 128)
        fc.pre(!/^(0*:){2,}.*ffff/i.test(one + other))
        const list = new BlockList()
        list.addSubnet(other, prefix, family)
        return isWithin(one, `${other}/${prefix}`) === (isIP(one) === isIP(other) && list.check(one, family))
      }),
    )
  })
})
