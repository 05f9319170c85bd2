/** Sealed documents: what a door keeps beside the keys, such as XKS stores, their keys, and how often those were used. */
import { type CreateTableBuilder, sql } from 'kysely'
import type { Migration } from './migration.ts'

export const xksStores: Migration = {
  name: '2026-11-22-xks-stores',
  statements({ sql: db, columnTypes: { integer, text, bytes, tableEnd } }) {
    let table: CreateTableBuilder<string, string> = db.schema.createTable('document')
    for (const column of ['account', 'region', 'collection', 'name', 'body']) {
      table = table.addColumn(column, sql`${text}`, (definition) => definition.notNull())
    }
    return [
      table
        .addColumn('revision', sql`${integer}`, (definition) => definition.notNull())
        .addColumn('hmac', sql`${bytes}`, (definition) => definition.notNull())
        .addPrimaryKeyConstraint('document_primary', ['account', 'region', 'collection', 'name'] as never)
        .modifyEnd(tableEnd)
        .compile(),
    ]
  },
}
