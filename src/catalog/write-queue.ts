/**
 * The one road of all writes: one at a time within this gateway, each one transaction with a revision of its own and a row in the
 * change table for every row it touches.
 *
 * Rows are read, checked and sealed before the transaction begins, because the module is asked for every seal. The transaction then
 * begins by moving the revision counter from the value that was read: if another gateway moved it in between, nothing is written and
 * the write is prepared again. So what `prepare` reads is what it changes.
 */
import { GatewayError } from '../error.ts'
import { ConstraintError, catalogUnavailable, type Database, type Statement } from './database.ts'

export interface Change {
  readonly table: string
  readonly name: string
}

export interface Draft<Result> {
  readonly statements: readonly Statement[]
  readonly changes: readonly Change[]
  readonly result: Result
  /** Called when the draft is durable and the caches have dropped what changed, before anybody is told. */
  readonly keep?: (revision: number) => void
}

export interface WriteQueue {
  /**
   * @throws GatewayError `Throttled` when too many writes wait, `CatalogUnavailable` when the engine fails; whether the write took place
   * may then be unknown, and the caches have dropped what it touches.
   * @throws ConstraintError
   */
  write<Result>(prepare: (revision: number) => Promise<Draft<Result>>): Promise<Result>
  /** The counter that every snapshot can be dated by. */
  revision(): Promise<number>
}

export interface WriteQueueOptions {
  readonly database: Database
  readonly instance: string
  readonly now: () => number
  readonly changed: (changes: readonly Change[], revision: number, keep: () => void) => void
  /** Resolves when every other gateway has read the change, or may no longer use what it read before. */
  readonly acknowledged: (revision: number) => Promise<void>
}

const maxWaiting = 1_000
const maxAttempts = 100
/** How many revisions the change table keeps. A gateway that fell further behind empties its caches. */
const keptRevisions = 10_000
const trimEvery = 1_000

export function createWriteQueue(options: WriteQueueOptions): WriteQueue {
  const { database, instance, now } = options
  const db = database.sql
  let last: Promise<unknown> = Promise.resolve()
  let waiting = 0

  const revision = async () => {
    const [[counter]] = await database.read([
      db.selectFrom('counter').select('value').where('name', '=', 'revision').compile(),
    ])
    return counter!.value
  }

  const bookkeeping = (changes: readonly Change[], before: number): Statement[] => {
    const next = before + 1
    const counter = db
      .updateTable('counter')
      .set({ value: next })
      .where('name', '=', 'revision')
      .where('value', '=', before)
    const statements: Statement[] = [{ query: counter.compile(), expectRows: 1 }]
    const at = now()
    for (const change of changes) {
      statements.push({
        query: db
          .insertInto('change')
          .values({ ...change, revision: next, instance, at })
          .compile(),
      })
    }
    if (next % trimEvery === 0 && next > keptRevisions) {
      const floor = next - keptRevisions
      statements.push(
        { query: db.deleteFrom('change').where('revision', '<=', floor).compile() },
        { query: db.updateTable('counter').set({ value: floor }).where('name', '=', 'trimmed').compile() },
      )
    }
    return statements
  }

  const attempt = async <Result>(prepare: (revision: number) => Promise<Draft<Result>>) => {
    for (let count = 0; count < maxAttempts; count++) {
      const before = await revision()
      const draft = await prepare(before + 1)
      if (draft.changes.length === 0) return { result: draft.result, revision: before }
      const drop = (keep?: () => void) => options.changed(draft.changes, before + 1, keep ?? (() => {}))
      const statements = [...bookkeeping(draft.changes, before), ...draft.statements]
      const outcome = await database.write(statements).catch((error: unknown) => {
        if (!(error instanceof ConstraintError)) drop()
        throw error
      })
      if (outcome.committed) {
        drop(() => draft.keep?.(before + 1))
        return { result: draft.result, revision: before + 1 }
      }
      if (outcome.missed === 0) continue
      // all others were prepared from rows of this very revision, but for those that ask about something else
      const { missed } = statements[outcome.missed]!
      throw missed?.() ?? new TypeError(`statement ${outcome.missed} does not fit the rows it was prepared from`)
    }
    throw catalogUnavailable(`other gateways changed the catalog ${maxAttempts} times while one write was prepared`)
  }

  return {
    revision,
    async write(prepare) {
      if (waiting >= maxWaiting)
        throw new GatewayError('Throttled', undefined, { detail: 'too many catalog writes wait' })
      waiting++
      const turn = last.then(() => attempt(prepare))
      last = turn.catch(() => {})
      try {
        const written = await turn
        await options.acknowledged(written.revision)
        return written.result
      } finally {
        waiting--
      }
    },
  }
}
