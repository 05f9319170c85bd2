/**
 * Bindings of TLS keys. Like grants they have no seals of their own: their key names the digest of all of them under its seal. Names are
 * unique in an account, and so are tokens everywhere.
 */
import { type CreateTableBuilder, sql } from 'kysely'
import type { Migration } from './migration.ts'

export const tlsOffloadBindings: Migration = {
  name: '2026-11-22-tls-offload-bindings',
  statements({ sql: db, columnTypes: { integer, text, bytes, tableEnd } }) {
    let table: CreateTableBuilder<string, string> = db.schema.createTable('tls_binding')
    for (const [type, columns] of [
      [text, ['account', 'region', 'key_id', 'name', 'policies', 'users', 'relays']],
      [integer, ['created_at', 'revision']],
      [bytes, ['token_digest', 'spki_digest']],
    ] as const) {
      for (const column of columns) {
        table = table.addColumn(column, sql`${type}`, (definition) => definition.notNull())
      }
    }
    for (const column of ['rate_per_second', 'concurrency']) table = table.addColumn(column, sql`${integer}`)
    return [
      table
        .addPrimaryKeyConstraint('tls_binding_primary', ['account', 'region', 'key_id', 'name'] as never)
        .addForeignKeyConstraint('of_key', ['account', 'region', 'key_id'] as never, 'key', [
          'account',
          'region',
          'key_id',
        ])
        .modifyEnd(tableEnd)
        .compile(),
      db.schema.createIndex('tls_binding_by_name').on('tls_binding').columns(['account', 'name']).unique().compile(),
      db.schema.createIndex('tls_binding_by_token').on('tls_binding').column('token_digest').unique().compile(),
    ]
  },
}
