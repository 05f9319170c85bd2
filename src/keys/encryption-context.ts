/**
 * Canonical bytes of an encryption context: u32 number of pairs, then per pair u32 length, key, u32 length, value (big-endian
 * lengths, UTF-8), pairs in the byte order of their keys. Injective, so two contexts never authenticate the same bytes.
 */
export function encodeEncryptionContext(context: Readonly<Record<string, string>>): Buffer {
  const pairs = Object.entries(context).map(([key, value]) => [Buffer.from(key), Buffer.from(value)] as const)
  pairs.sort((a, b) => Buffer.compare(a[0], b[0]))
  let length = 4
  for (const [key, value] of pairs) length += 8 + key.length + value.length
  const out = Buffer.allocUnsafe(length)
  let at = out.writeUInt32BE(pairs.length, 0)
  for (const pair of pairs) {
    for (const bytes of pair) {
      at = out.writeUInt32BE(bytes.length, at)
      at += bytes.copy(out, at)
    }
  }
  return out
}
