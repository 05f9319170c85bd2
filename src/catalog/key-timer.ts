/** The hint when a key should be looked at next, see the migration `key-life`. */
import type { Kysely } from 'kysely'
import type { KeyName } from './catalog.ts'
import type { Statement } from './database.ts'
import type { Tables } from './tables.ts'

/** `dueAt` in epoch milliseconds; null: not at all. */
export function setTimer(
  db: Kysely<Tables>,
  { account, region, keyId: key_id }: KeyName,
  dueAt: number | null,
  revision: number,
): Statement {
  if (dueAt === null) {
    const query = db.deleteFrom('key_timer').where(({ and }) => and({ account, region, key_id }))
    return { query: query.compile() }
  }
  const query = db
    .insertInto('key_timer')
    .values({ account, region, key_id, due_at: dueAt, revision })
    .onConflict((conflict) =>
      conflict.columns(['account', 'region', 'key_id']).doUpdateSet({ due_at: dueAt, revision }),
    )
  return { query: query.compile(), expectRows: 1 }
}
