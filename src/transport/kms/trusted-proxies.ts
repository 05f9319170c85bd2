/** Proxies whose X-Forwarded-For is believed: addresses and networks, IPv4 in IPv6 form included. */
import { BlockList, isIPv6 } from 'node:net'

export interface TrustedProxies {
  readonly isEmpty: boolean
  has(address: string): boolean
}

/** @param entries addresses and CIDR blocks */
export function createTrustedProxies(entries: readonly string[]): TrustedProxies {
  const list = new BlockList()
  for (const entry of entries) {
    const [address = '', bits] = entry.split('/')
    const family = isIPv6(address) ? 'ipv6' : 'ipv4'
    if (bits === undefined) list.addAddress(address, family)
    else list.addSubnet(address, Number(bits), family)
  }
  return {
    isEmpty: entries.length === 0,
    has(text) {
      const address = text.startsWith('::ffff:') ? text.slice(7) : text
      return list.check(address, isIPv6(address) ? 'ipv6' : 'ipv4')
    },
  }
}
