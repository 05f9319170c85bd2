/**
 * Grants lose the seal of their own: their key names the digest of all of them under its seal. No grant was ever written to the first
 * table, so it is made anew.
 */
import { type CreateTableBuilder, sql } from 'kysely'
import type { Migration } from './migration.ts'

export const grantsOfKeys: Migration = {
  name: '2026-11-22-grants-of-keys',
  statements({ sql: db, columnTypes: { integer, text, tableEnd } }) {
    let grant: CreateTableBuilder<string, string> = db.schema.createTable('grant')
    for (const column of ['account', 'region', 'key_id', 'grant_id', 'grantee', 'issuing_account', 'operations']) {
      grant = grant.addColumn(column, sql`${text}`, (definition) => definition.notNull())
    }
    for (const column of ['name', 'retiring', 'constraints']) grant = grant.addColumn(column, sql`${text}`)
    for (const column of ['created_at', 'revision']) {
      grant = grant.addColumn(column, sql`${integer}`, (definition) => definition.notNull())
    }
    return [
      db.schema.dropTable('grant').compile(),
      grant
        .addPrimaryKeyConstraint('grant_primary', ['account', 'region', 'key_id', 'grant_id'] as never)
        .addForeignKeyConstraint('of_key', ['account', 'region', 'key_id'] as never, 'key', [
          'account',
          'region',
          'key_id',
        ])
        .modifyEnd(tableEnd)
        .compile(),
      db.schema
        .createIndex('grant_by_retiring')
        .on('grant')
        .columns(['region', 'retiring', 'account', 'key_id', 'grant_id'])
        .compile(),
    ]
  },
}
