/**
 * Two unsealed tables beside the keys: when a key's next rotation or expiry is due, and when it was last used. Neither decides anything. The
 * first says where to look, and what is true stands in the sealed row of the key; the second only informs.
 */
import { type CreateTableBuilder, sql } from 'kysely'
import type { Migration } from './migration.ts'

export const keyLife: Migration = {
  name: '2026-11-22-key-life',
  statements({ sql: db, columnTypes: { integer, text, tableEnd } }) {
    const table = (name: string, texts: readonly string[], integers: readonly string[]) => {
      let builder: CreateTableBuilder<string, string> = db.schema.createTable(name)
      for (const column of ['account', 'region', 'key_id', ...texts]) {
        builder = builder.addColumn(column, sql`${text}`, (definition) => definition.notNull())
      }
      for (const column of integers) {
        builder = builder.addColumn(column, sql`${integer}`, (definition) => definition.notNull())
      }
      return builder
        .addPrimaryKeyConstraint(`${name}_primary`, ['account', 'region', 'key_id'] as never)
        .modifyEnd(tableEnd)
        .compile()
    }
    return [
      table('key_timer', [], ['due_at', 'revision']),
      db.schema.createIndex('key_timer_by_date').on('key_timer').column('due_at').compile(),
      table('last_usage', ['operation', 'event_id', 'request_id'], ['at', 'revision']),
    ]
  },
}
