/** Custom key stores, under a seal each, and an index of the keys that live in them. */
import { type CreateTableBuilder, sql } from 'kysely'
import type { Migration } from './migration.ts'

export const customKeyStores: Migration = {
  name: '2026-11-22-custom-key-stores',
  statements({ sql: db, columnTypes: { integer, text, bytes, tableEnd } }) {
    let store: CreateTableBuilder<string, string> = db.schema.createTable('custom_key_store')
    for (const [type, columns] of [
      [text, ['account', 'region', 'store_id', 'name', 'type', 'state', 'settings']],
      [integer, ['secret_version', 'created_at', 'revision']],
      [bytes, ['sealed_secret', 'hmac']],
    ] as const) {
      for (const column of columns) {
        store = store.addColumn(column, sql`${type}`, (definition) => definition.notNull())
      }
    }
    return [
      store
        .addColumn('error_code', sql`${text}`)
        .addPrimaryKeyConstraint('custom_key_store_primary', ['account', 'region', 'store_id'] as never)
        .modifyEnd(tableEnd)
        .compile(),
      db.schema.createIndex('key_by_origin').on('key').columns(['account', 'region', 'origin']).compile(),
    ]
  },
}
