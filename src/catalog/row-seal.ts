/**
 * Seals rows and checks their seals: an HMAC made in the module over the canonical bytes of the row, its revision among them.
 *
 * A row that was changed behind the gateway's back is never used: whoever can write the catalog's file can't enable a key, widen a
 * policy or point a key at another object. What a seal can't show is that a row is missing or is an older, once valid version.
 */
import { timingSafeEqual } from 'node:crypto'
import { GatewayError, isCode } from '../error.ts'
import type { RowSeal } from './catalog.ts'
import { encodeRow, type RowValue } from './row-encoding.ts'
import { nameOfRow, type SealedTable, type SealedTables, sealedColumns } from './tables.ts'

export type Unsealed<Row> = Omit<Row, 'hmac'>

export async function sealRow<T extends SealedTable>(
  seal: RowSeal,
  table: T,
  row: Unsealed<SealedTables[T]>,
): Promise<SealedTables[T]> {
  const hmac = await seal.compute(bytesOf(table, row))
  return { ...row, hmac } as SealedTables[T]
}

/** @throws GatewayError `IntegrityFailed`, with table and row in its detail. */
export async function verifyRow<T extends SealedTable>(seal: RowSeal, table: T, row: SealedTables[T]): Promise<void> {
  let bytes: Buffer
  try {
    bytes = bytesOf(table, row)
  } catch (cause) {
    throw integrityFailed(table, row, cause)
  }
  const expected = await seal.compute(bytes)
  const { hmac } = row
  if (!(hmac instanceof Uint8Array) || hmac.length !== expected.length || !timingSafeEqual(hmac, expected)) {
    throw integrityFailed(table, row)
  }
}

interface ListReader {
  readonly seal: () => RowSeal
  readonly report: (error: GatewayError) => void
}

const checkedAtOnce = 32

/** For lists that must not end at one damaged row: those rows are reported and left out. */
export async function keepVerified<T extends SealedTable>(
  { seal, report }: ListReader,
  table: T,
  rows: readonly SealedTables[T][],
): Promise<SealedTables[T][]> {
  const kept: SealedTables[T][] = []
  for (let start = 0; start < rows.length; start += checkedAtOnce) {
    const checked = rows.slice(start, start + checkedAtOnce).map(async (row) => {
      try {
        await verifyRow(seal(), table, row)
        return [row]
      } catch (error) {
        if (!isCode(error, 'IntegrityFailed')) throw error
        report(error)
        return []
      }
    })
    kept.push(...(await Promise.all(checked)).flat())
  }
  return kept
}

export function integrityFailed<T extends SealedTable>(table: T, row: SealedTables[T], cause?: unknown): GatewayError {
  return new GatewayError('IntegrityFailed', undefined, {
    cause,
    detail: `row ${nameOfRow(table, row as never)} of table ${table} was changed outside the gateway or is damaged; restore it from a backup`,
  })
}

function bytesOf<T extends SealedTable>(table: T, row: Unsealed<SealedTables[T]>): Buffer {
  const values = row as unknown as Readonly<Record<string, RowValue>>
  return encodeRow(
    table,
    sealedColumns[table].map((column) => values[column]!),
  )
}
