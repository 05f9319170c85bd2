/** What turns old rows into new ones: statements and names for the change table. Pure; untouched rows are the same objects. */
import type { Kysely } from 'kysely'
import type { Statement } from './database.ts'
import { type NamedTable, nameOfRow, type Tables } from './tables.ts'
import type { Change } from './write-queue.ts'

const primaryKeys: { readonly [T in NamedTable]: readonly (keyof Tables[T])[] } = {
  key: ['account', 'region', 'key_id'],
  material: ['account', 'region', 'key_id', 'number'],
  policy: ['account', 'region', 'key_id', 'name'],
  tag: ['account', 'region', 'key_id', 'tag_key'],
  grant: ['account', 'region', 'key_id', 'grant_id'],
  principal: ['account', 'region', 'kind', 'name'],
  principal_policy: ['account', 'region', 'kind', 'principal', 'name'],
  access_key: ['account', 'region', 'access_key_id'],
  custom_key_store: ['account', 'region', 'store_id'],
  document: ['account', 'region', 'collection', 'name'],
}

export interface RowDiff {
  readonly statements: readonly Statement[]
  readonly changes: readonly Change[]
}

export function diffRows<T extends NamedTable>(
  db: Kysely<Tables>,
  table: T,
  before: readonly Tables[T][],
  after: readonly Tables[T][],
): RowDiff {
  const statements: Statement[] = []
  const changes: Change[] = []
  const left = new Map(before.map((row) => [nameOfRow(table, row), row]))
  for (const row of after) {
    const name = nameOfRow(table, row)
    const previous = left.get(name)
    left.delete(name)
    if (previous === row) continue
    // Kysely can't type a table that is itself a parameter; rows and table come as a pair
    const query = previous
      ? db
          .updateTable(table as 'key')
          .set(row as never)
          .where(({ and }) => and(primaryKeyOf(table, row)))
      : db.insertInto(table as 'key').values(row as never)
    statements.push({ query: query.compile(), expectRows: 1 })
    changes.push({ table, name })
  }
  for (const [name, row] of left) {
    const query = db.deleteFrom(table as 'key').where(({ and }) => and(primaryKeyOf(table, row)))
    statements.push({ query: query.compile(), expectRows: 1 })
    changes.push({ table, name })
  }
  return { statements, changes }
}

/** In the order given: owners before what refers to them, except where rows go away. */
export function joinDiffs(...diffs: readonly RowDiff[]): RowDiff {
  return {
    statements: diffs.flatMap(({ statements }) => statements),
    changes: diffs.flatMap(({ changes }) => changes),
  }
}

function primaryKeyOf<T extends NamedTable>(table: T, row: Tables[T]): Record<string, never> {
  return Object.fromEntries(primaryKeys[table].map((column) => [column, row[column] as never]))
}
