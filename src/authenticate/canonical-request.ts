/**
 * The canonical request of Signature Version 4 (AWS General Reference, "Create a canonical request"), from what came over the wire.
 * Characters of every string here are bytes (latin1), as Node's HTTP parser hands them over, so that the hash covers the very bytes.
 */

const unreserved = new Set(Buffer.from('ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~'))
const slash = 0x2f
const percent = 0x25

function encodeByte(byte: number): string {
  return `%${byte < 16 ? '0' : ''}${byte.toString(16).toUpperCase()}`
}

/** Percent-encodes all but unreserved characters (RFC 3986) and, in paths, `/`. */
function encodeComponent(text: string, keepSlash: boolean): string {
  let out = ''
  for (let at = 0; at < text.length; at += 1) {
    const byte = text.charCodeAt(at)
    out += unreserved.has(byte) || (keepSlash && byte === slash) ? text[at] : encodeByte(byte)
  }
  return out
}

/** Percent-decoding that leaves malformed escapes as they are. */
function decodeComponent(text: string): string {
  if (!text.includes('%')) return text
  let out = ''
  for (let at = 0; at < text.length; at += 1) {
    const hex = text.slice(at + 1, at + 3)
    if (text.charCodeAt(at) === percent && /^[0-9a-fA-F]{2}$/.test(hex)) {
      out += String.fromCharCode(Number.parseInt(hex, 16))
      at += 2
    } else {
      out += text[at]
    }
  }
  return out
}

/** Normalised and encoded once more, as every service but S3 signs it: `%20` on the wire becomes `%2520`. */
export function canonicalPath(path: string): string {
  if (path === '/' || path === '') return '/'
  const kept: string[] = []
  for (const segment of path.split('/')) {
    if (segment === '' || segment === '.') continue
    if (segment === '..') kept.pop()
    else kept.push(segment)
  }
  if (kept.length === 0) return '/'
  const isFolder = path.endsWith('/') || path.endsWith('/.') || path.endsWith('/..')
  return encodeComponent(`/${kept.join('/')}${isFolder ? '/' : ''}`, true)
}

/** Pairs encoded, then sorted by name and value. */
export function canonicalQuery(query: string): string {
  if (query === '') return ''
  const pairs: (readonly [string, string])[] = []
  for (const part of query.split('&')) {
    if (part === '') continue
    const equals = part.indexOf('=')
    const name = equals < 0 ? part : part.slice(0, equals)
    const value = equals < 0 ? '' : part.slice(equals + 1)
    pairs.push([encodeComponent(decodeComponent(name), false), encodeComponent(decodeComponent(value), false)])
  }
  pairs.sort((a, b) => compare(a[0], b[0]) || compare(a[1], b[1]))
  return pairs.map(([name, value]) => `${name}=${value}`).join('&')
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0
}

/** Trimmed, and every run of white space is one space. */
export function canonicalValue(value: string): string {
  const trimmed = value.trim()
  return trimmed.includes('  ') || trimmed.includes('\t') ? trimmed.split(/[ \t]+/).join(' ') : trimmed
}

const root = Object.freeze({ path: '/', query: '' })

/** Splits a request target into path and query; an absolute form (RFC 9112, section 3.2.2) loses scheme and authority. */
export function splitTarget(target: string): { readonly path: string; readonly query: string } {
  if (target === '/') return root
  let origin = target
  if (!origin.startsWith('/')) {
    const authority = origin.indexOf('://')
    if (authority >= 0) {
      const start = origin.indexOf('/', authority + 3)
      origin = start < 0 ? '/' : origin.slice(start)
    }
  }
  const mark = origin.indexOf('?')
  return mark < 0 ? { path: origin, query: '' } : { path: origin.slice(0, mark), query: origin.slice(mark + 1) }
}
