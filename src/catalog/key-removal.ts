/** What it takes to remove one key with all that belongs to it. Verifies nothing: it is also the way to get rid of a damaged one. */
import type { KeyRows } from './key-rows.ts'
import { nameOfKey } from './key-store.ts'
import type { Ports } from './ports.ts'
import type { RowDiff } from './row-diff.ts'
import { nameOfRow } from './tables.ts'

export async function draftKeyRemoval({ database }: Ports, rows: KeyRows): Promise<RowDiff> {
  const db = database.sql
  const { account, region, key_id } = rows.key
  const key = nameOfKey({ account, region, keyId: key_id })
  const [aliases] = await database.read([
    db
      .selectFrom('alias')
      .select('name')
      .where(({ and }) => and({ account, region, key_id }))
      .compile(),
  ])
  return {
    statements: (
      ['last_usage', 'key_timer', 'alias', 'tls_binding', 'grant', 'tag', 'policy', 'material', 'key'] as const
    ).map((table) => ({
      query: db
        .deleteFrom(table)
        .where('account', '=', account)
        .where('region', '=', region)
        .where('key_id', '=', key_id)
        .compile(),
    })),
    changes: [
      { table: 'key', name: key },
      ...rows.materials.map((row) => ({ table: 'material', name: nameOfRow('material', row) })),
      ...(rows.policy ? [{ table: 'policy', name: nameOfRow('policy', rows.policy) }] : []),
      ...rows.tags.map((row) => ({ table: 'tag', name: nameOfRow('tag', row) })),
      ...aliases.map((alias) => ({ table: 'alias', name: `${account}/${region}/${alias.name}` })),
      // all at once: there may be tens of thousands
      ...(rows.grants === null ? [] : [{ table: 'grant', name: `${key}/*` }]),
      ...(rows.tlsBindings === null ? [] : [{ table: 'tls_binding', name: `${key}/*` }]),
    ],
  }
}
