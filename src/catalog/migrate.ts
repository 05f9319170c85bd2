/**
 * Brings a database to the newest tables: each missing migration in one transaction of its own, so that a crash leaves it done or
 * not begun. Gateways that open the same new database at once don't disturb each other.
 */
import type { Kysely } from 'kysely'
import { ConstraintError, catalogUnavailable, type Database } from './database.ts'
import { migrations as known } from './migrations/list.ts'
import type { Migration } from './migrations/migration.ts'

interface MigrationTable {
  readonly migration: { readonly name: string; readonly at: number }
}

/** @throws GatewayError `CatalogUnavailable` when a newer hsmgate wrote this catalog. */
export async function migrate(
  database: Database,
  now: number,
  migrations: readonly Migration[] = known,
): Promise<void> {
  const { columnTypes } = database
  const db = database.sql as unknown as Kysely<MigrationTable>
  const createNotes = db.schema
    .createTable('migration')
    .ifNotExists()
    .addColumn('name', columnTypes.text as never, (column) => column.primaryKey().notNull())
    .addColumn('at', columnTypes.integer as never, (column) => column.notNull())
    .modifyEnd(columnTypes.tableEnd)
  const loadApplied = async () => {
    const [rows] = await database.read([db.selectFrom('migration').select('name').orderBy('name').compile()])
    return rows.map(({ name }) => name)
  }

  // IF NOT EXISTS does not keep two PostgreSQL sessions from making the same table; the look-up below tells whether it is there
  await database.write([{ query: createNotes.compile() }]).catch(ignoreConstraint)
  const applied = await loadApplied()
  const names = migrations.map(({ name }) => name)
  const foreign = applied.filter((name) => !names.includes(name))
  if (foreign.length > 0) {
    throw catalogUnavailable(
      `the catalog was written by a newer hsmgate (migration ${foreign.join(', ')}): run that version, or restore a backup of this one's`,
    )
  }
  for (const migration of migrations) {
    if (applied.includes(migration.name)) continue
    const note = db.insertInto('migration').values({ name: migration.name, at: now }).compile()
    // the note comes first: of two gateways that migrate at once, the second stops there
    const statements = [note, ...migration.statements(database)].map((query) => ({ query }))
    await database.write(statements).catch(async (error: unknown) => {
      ignoreConstraint(error)
      if (!(await loadApplied()).includes(migration.name)) throw error
    })
  }
}

function ignoreConstraint(error: unknown): void {
  if (!(error instanceof ConstraintError)) throw error
}
