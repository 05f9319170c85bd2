/**
 * The canonical bytes of a row: what its HMAC is computed over. Pure.
 *
 * Every value carries a type tag, and everything of variable size its length, so two different rows never have the same bytes: no
 * character of one column can be moved into its neighbour, and text is never taken for bytes.
 *
 *     "hsmgate row 1" | u32 length, UTF-8 table | u32 number of values | values
 *     value = 0 (null) | 1, i64 | 2, u32 length, UTF-8 | 3, u32 length, bytes          (big-endian)
 */

export type RowValue = null | number | string | Uint8Array

const domain = Buffer.from('hsmgate row 1', 'latin1')

/**
 * @throws TypeError for numbers that are no safe integers and for text that is not well-formed Unicode, because neither survives an
 * engine unchanged.
 */
export function encodeRow(table: string, values: readonly RowValue[]): Buffer {
  const parts: Uint8Array[] = [domain, ...sized(Buffer.from(table, 'utf8')), u32(values.length)]
  for (const value of values) parts.push(...encodeValue(value))
  return Buffer.concat(parts)
}

function encodeValue(value: RowValue): Uint8Array[] {
  if (value === null) return [tag(0)]
  if (typeof value === 'number') {
    if (!Number.isSafeInteger(value)) throw new TypeError(`${value} is not a safe integer`)
    const bytes = Buffer.alloc(8)
    bytes.writeBigInt64BE(BigInt(value))
    return [tag(1), bytes]
  }
  if (typeof value === 'string') {
    if (!value.isWellFormed()) throw new TypeError('text holds a lone surrogate')
    return [tag(2), ...sized(Buffer.from(value, 'utf8'))]
  }
  if (value instanceof Uint8Array) return [tag(3), ...sized(value)]
  throw new TypeError(`a row cannot hold a ${typeof value}`)
}

function sized(bytes: Uint8Array): Uint8Array[] {
  return [u32(bytes.length), bytes]
}

function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32BE(value)
  return bytes
}

function tag(value: number): Uint8Array {
  return Uint8Array.of(value)
}
