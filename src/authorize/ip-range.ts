/**
 * IP addresses and CIDR ranges for IpAddress conditions (RFC 4632, RFC 4291). IPv4-mapped IPv6 addresses count as IPv4, since a
 * dual-stack listener reports IPv4 clients so.
 */

import { isIP } from 'node:net'

export interface IpRange {
  readonly words: readonly number[]
  readonly prefixBits: number
}

const wordBits = 16

/** An address or range, or undefined when the text is neither. An address alone is a range of one. */
export function parseIpRange(text: string): IpRange | undefined {
  const slash = text.indexOf('/')
  const address = slash === -1 ? text : text.slice(0, slash)
  if (address.includes('%')) return undefined
  const raw = parseWords(address)
  if (raw === undefined) return undefined
  const rawBits = raw.length * wordBits
  const bits = slash === -1 ? rawBits : parsePrefix(text.slice(slash + 1))
  if (bits === undefined || bits > rawBits) return undefined
  const words = unmap(raw)
  if (words.length === raw.length) return { words, prefixBits: bits }
  // A mapped range shorter than ::ffff:0:0/96 also holds IPv6 addresses: keep it as IPv6.
  return bits < 96 ? { words: raw, prefixBits: bits } : { words, prefixBits: bits - 96 }
}

/** The 16-bit words of an address: two for IPv4, eight for IPv6. */
export function parseIp(text: string): readonly number[] | undefined {
  const zone = text.indexOf('%')
  const words = parseWords(zone === -1 ? text : text.slice(0, zone))
  return words && unmap(words)
}

export function isInRange(words: readonly number[], range: IpRange): boolean {
  if (words.length !== range.words.length) return false
  let bits = range.prefixBits
  for (let at = 0; bits > 0; at++, bits -= wordBits) {
    const mask = bits >= wordBits ? 0xffff : (0xffff << (wordBits - bits)) & 0xffff
    if (((words[at] as number) & mask) !== ((range.words[at] as number) & mask)) return false
  }
  return true
}

function parsePrefix(text: string): number | undefined {
  return /^\d{1,3}$/.test(text) ? Number(text) : undefined
}

function unmap(words: readonly number[]): readonly number[] {
  const isMapped = words.length === 8 && words[5] === 0xffff && words.slice(0, 5).every((word) => word === 0)
  return isMapped ? words.slice(6) : words
}

function parseWords(text: string): readonly number[] | undefined {
  const family = isIP(text)
  if (family === 4) return ipv4Words(text)
  if (family !== 6) return undefined
  const lastColon = text.lastIndexOf(':')
  const dotted = text.includes('.') ? ipv4Words(text.slice(lastColon + 1)) : undefined
  const hex = dotted === undefined ? text : text.slice(0, lastColon + 1).replace(/([^:]):$/, '$1')
  const [left = '', right] = hex.split('::')
  const head = hexWords(left)
  if (right === undefined) return [...head, ...(dotted ?? [])]
  const tail = [...hexWords(right), ...(dotted ?? [])]
  return [...head, ...new Array<number>(8 - head.length - tail.length).fill(0), ...tail]
}

function ipv4Words(text: string): readonly number[] {
  const [a = 0, b = 0, c = 0, d = 0] = text.split('.').map(Number)
  return [(a << 8) | b, (c << 8) | d]
}

function hexWords(text: string): number[] {
  return text === '' ? [] : text.split(':').map((word) => Number.parseInt(word, 16))
}
