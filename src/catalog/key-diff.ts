/** What turns a key's old rows into its new ones: statements and names for the change table. Pure; untouched rows are the same objects. */
import type { Kysely } from 'kysely'
import type { Statement } from './database.ts'
import type { KeyRows } from './key-rows.ts'
import { nameOfRow, type Tables, type TagRow } from './tables.ts'
import type { Change } from './write-queue.ts'

type KeyTable = 'key' | 'material' | 'policy' | 'tag'

/** Beside account, Region and key id. */
const lastKeyColumn = { key: undefined, material: 'number', policy: 'name', tag: 'tag_key' } as const

export function diffKeyRows(db: Kysely<Tables>, old: KeyRows | undefined, rows: KeyRows) {
  const statements: Statement[] = []
  const changes: Change[] = []

  const compare = <T extends KeyTable>(
    table: T,
    before: readonly Tables[T][],
    after: readonly Tables[T][],
    nameOf: (row: Tables[T]) => string,
  ) => {
    const left = new Map(before.map((row) => [nameOf(row), row]))
    for (const row of after) {
      const name = nameOf(row)
      const previous = left.get(name)
      left.delete(name)
      if (previous === row) continue
      const query = previous
        ? updateRow(db, table, row)
        : db
            .insertInto(table)
            .values(row as never)
            .compile()
      statements.push({ query, expectRows: 1 })
      changes.push({ table, name })
    }
    for (const [name, row] of left) {
      statements.push({ query: deleteRow(db, table, row), expectRows: 1 })
      changes.push({ table, name })
    }
  }

  compare('key', old ? [old.key] : [], [rows.key], (row) => nameOfRow('key', row))
  compare('material', old?.materials ?? [], rows.materials, (row) => nameOfRow('material', row))
  compare('policy', old?.policy ? [old.policy] : [], rows.policy ? [rows.policy] : [], (row) =>
    nameOfRow('policy', row),
  )
  compare('tag', old?.tags ?? [], rows.tags, nameOfTag)
  return { statements, changes }
}

export function nameOfTag(row: TagRow): string {
  return `${row.account}/${row.region}/${row.key_id}/${row.tag_key}`
}

function updateRow<T extends KeyTable>(db: Kysely<Tables>, table: T, row: Tables[T]) {
  return db
    .updateTable(table as 'key')
    .set(row as never)
    .where(({ and }) => and(primaryKey(table, row)))
    .compile()
}

function deleteRow<T extends KeyTable>(db: Kysely<Tables>, table: T, row: Tables[T]) {
  return db
    .deleteFrom(table as 'key')
    .where(({ and }) => and(primaryKey(table, row)))
    .compile()
}

function primaryKey<T extends KeyTable>(table: T, row: Tables[T]) {
  const { account, region, key_id } = row
  const last = lastKeyColumn[table]
  return { account, region, key_id, ...(last && { [last]: (row as unknown as Record<string, unknown>)[last] }) }
}
