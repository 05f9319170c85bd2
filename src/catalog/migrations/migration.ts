/** One step from an older catalog to a newer one. Steps are never edited or removed once released. */
import type { CompiledQuery } from 'kysely'
import type { Database } from '../database.ts'

export interface Migration {
  /** Date and word; the list is in this order. */
  readonly name: string
  /** Runs in one transaction together with the note that it ran. */
  statements(database: Pick<Database, 'sql' | 'columnTypes'>): readonly CompiledQuery[]
}
