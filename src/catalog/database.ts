/**
 * What the catalog needs from a database engine: several queries on one snapshot, several statements in one durable transaction.
 *
 * Both go over as one batch, so that no transaction ever stays open while the gateway does something else. Kysely builds the SQL
 * (`sql`, which executes nothing itself), so queries stay portable between engines.
 */
import type { CompiledQuery, Kysely, RawBuilder } from 'kysely'
import { GatewayError } from '../error.ts'
import type { Tables } from './tables.ts'

export interface Statement {
  readonly query: CompiledQuery
  /** Rolls the whole batch back unless the statement touches so many rows. */
  readonly expectRows?: number
  /** What a statement that touched another number of rows tells, where it was written to find that out. */
  readonly missed?: () => Error
}

type RowsOf<Q> = Q extends CompiledQuery<infer Row> ? readonly Row[] : never

/** `committed` is durable; else `missed` is the number of the statement that touched another number of rows than expected. */
export type WriteOutcome = { readonly committed: true } | { readonly committed: false; readonly missed: number }

export interface Database extends AsyncDisposable {
  readonly sql: Kysely<Tables>
  readonly columnTypes: ColumnTypes
  /** Runs all queries on one snapshot. Never waits for a writer. */
  read<const Queries extends readonly CompiledQuery<unknown>[]>(
    queries: Queries,
  ): Promise<{ readonly [Index in keyof Queries]: RowsOf<Queries[Index]> }>
  /** Runs all statements in one transaction; resolves when it is on disk. */
  write(statements: readonly Statement[]): Promise<WriteOutcome>
}

/** The names of the three column types, and what ends a CREATE TABLE statement. */
export interface ColumnTypes {
  readonly integer: RawBuilder<unknown>
  readonly text: RawBuilder<unknown>
  readonly bytes: RawBuilder<unknown>
  readonly tableEnd: RawBuilder<unknown>
}

/** A statement that would have broken a constraint; its batch was rolled back. Failures of the engine are `CatalogUnavailable`. */
export class ConstraintError extends Error {
  readonly kind: 'unique' | 'foreign-key'

  constructor(kind: 'unique' | 'foreign-key', cause: unknown) {
    super(`${kind} constraint`, { cause })
    this.name = 'ConstraintError'
    this.kind = kind
  }
}

/** `detail` names the remedy; it goes to the log only. */
export function catalogUnavailable(detail: string, cause?: unknown): GatewayError<'CatalogUnavailable'> {
  return new GatewayError('CatalogUnavailable', undefined, { detail, cause })
}
