import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { encodeRow, type RowValue } from '../../../src/catalog/row-encoding.ts'

const value: fc.Arbitrary<RowValue> = fc.oneof(
  fc.constant(null),
  fc.maxSafeInteger(),
  fc.string({ unit: 'binary', maxLength: 12 }),
  fc.uint8Array({ maxLength: 12 }),
  // values that a careless encoding takes for each other
  fc.constantFrom('', '0', '1', 'null', 0, 1, 2, 3, new Uint8Array(0), Uint8Array.of(0), Uint8Array.of(2, 0, 0, 0, 0)),
)
const row = fc.record({
  table: fc.constantFrom('key', 'material', 'ke', ''),
  values: fc.array(value, { maxLength: 6 }),
})

describe('the canonical encoding of a row', () => {
  it('never gives two different rows the same bytes', () => {
    fc.assert(
      fc.property(row, row, (a, b) => {
        const isSame = JSON.stringify(tagged(a)) === JSON.stringify(tagged(b))
        expect(encodeRow(a.table, a.values).equals(encodeRow(b.table, b.values))).toBe(isSame)
      }),
      { numRuns: 3_000 },
    )
  })

  it('can be decoded to the row it came from, whatever the row', () => {
    fc.assert(
      fc.property(row, (original) => {
        const { table, values } = original
        expect(tagged(decodeRow(encodeRow(table, values)))).toEqual(tagged({ table, values }))
      }),
      { numRuns: 1_000 },
    )
  })

  it('tells where one column ends and the next begins', () => {
    expect(encodeRow('key', ['ab', 'c'])).not.toEqual(encodeRow('key', ['a', 'bc']))
  })

  it('tells text from bytes and numbers from text', () => {
    expect(encodeRow('key', ['a'])).not.toEqual(encodeRow('key', [Buffer.from('a')]))
    expect(encodeRow('key', [1])).not.toEqual(encodeRow('key', ['1']))
  })

  it('is fixed for ever, because stored seals depend on it', () => {
    const bytes = encodeRow('key', [null, -2, 'é', Uint8Array.of(255)])
    expect(bytes.toString('hex')).toBe(
      `${Buffer.from('hsmgate row 1').toString('hex')}000000036b657900000004` +
        '00' +
        '01fffffffffffffffe' +
        '0200000002c3a9' +
        '0300000001ff',
    )
  })

  it.each([1.5, Number.NaN, 2 ** 53, '\ud800', undefined, true, 1n])('refuses %s', (bad) => {
    expect(() => encodeRow('key', [bad as never])).toThrow(TypeError)
  })
})

function tagged({ table, values }: { readonly table: string; readonly values: readonly RowValue[] }) {
  return [
    table,
    values.map((v) => (v instanceof Uint8Array ? ['bytes', Buffer.from(v).toString('hex')] : [typeof v, v])),
  ]
}

/** The inverse exists, so the encoding loses nothing. */
function decodeRow(bytes: Buffer) {
  let rest = bytes.subarray(Buffer.byteLength('hsmgate row 1'))
  const take = (length: number) => {
    expect(rest.length).toBeGreaterThanOrEqual(length)
    const taken = rest.subarray(0, length)
    rest = rest.subarray(length)
    return taken
  }
  const takeSized = () => take(take(4).readUInt32BE())
  const decodeValue = (tag: number | undefined): RowValue => {
    if (tag === 0) return null
    if (tag === 1) return Number(take(8).readBigInt64BE())
    return tag === 2 ? takeSized().toString() : takeSized()
  }
  const table = takeSized().toString()
  const values = Array.from({ length: take(4).readUInt32BE() }, () => decodeValue(take(1)[0]))
  expect(rest).toHaveLength(0)
  return { table, values }
}
