/**
 * Named leases: of all gateways on one catalog, one at a time holds each.
 *
 * The holder's clock sets the end and the taker's clock judges it, so clocks that disagree may overlap; and the lease of a gateway whose
 * heartbeat has stopped is taken before its end. What must not be done twice is therefore written with a guard, which asks for the fencing number in the
 * same transaction. Leases have no revision of their own and make no change: renewals would flood both.
 */
import type { Kysely } from 'kysely'
import type { Catalog, HeldLease } from './catalog.ts'
import { ConstraintError, catalogUnavailable, type Database, type Statement } from './database.ts'
import type { Instance } from './instance.ts'
import type { LeaseRow, Tables } from './tables.ts'
import type { WriteQueue } from './write-queue.ts'

const maxAttempts = 5

export function openLeases(
  database: Database,
  queue: Pick<WriteQueue, 'revision'>,
  { id: instance, isGone }: Pick<Instance, 'id' | 'isGone'>,
  now: () => number,
) {
  const db = database.sql

  const insert = async (name: string, expiresAt: number) => {
    const row = { name, holder: instance, fence: 1, expires_at: expiresAt, revision: await queue.revision() }
    try {
      return (await database.write([{ query: db.insertInto('lease').values(row).compile() }])).committed
    } catch (error) {
      if (error instanceof ConstraintError) return false
      throw error
    }
  }

  /** Fails when anybody else touched the lease since it was read. */
  const update = async (lease: LeaseRow, next: Partial<LeaseRow>) => {
    const query = db
      .updateTable('lease')
      .set(next)
      .where('name', '=', lease.name)
      .where('holder', '=', lease.holder)
      .where('fence', '=', lease.fence)
    // the holder may renew twice at once; a taker must not overlook a renewal
    const guarded = lease.holder === instance ? query : query.where('expires_at', '=', lease.expires_at)
    return (await database.write([{ query: guarded.compile(), expectRows: 1 }])).committed
  }

  return {
    async takeLease(name, durationMs) {
      for (let attempt = 0; attempt < maxAttempts; attempt++) {
        const at = now()
        const expiresAt = at + durationMs
        const [[lease]] = await database.read([db.selectFrom('lease').selectAll().where('name', '=', name).compile()])
        if (!lease) {
          if (await insert(name, expiresAt)) return 1
        } else if (lease.holder === instance) {
          if (await update(lease, { expires_at: expiresAt })) return lease.fence
        } else if (lease.expires_at > at && !(await isGone(lease.holder))) {
          return undefined
        } else if (await update(lease, { holder: instance, fence: lease.fence + 1, expires_at: expiresAt })) {
          return lease.fence + 1
        }
      }
      return undefined
    },

    async releaseLease({ name, fence }) {
      const query = db
        .updateTable('lease')
        .set({ expires_at: 0 })
        .where('name', '=', name)
        .where('holder', '=', instance)
        .where('fence', '=', fence)
      await database.write([{ query: query.compile() }])
    },
  } satisfies Partial<Catalog>
}

/** Goes into a write that must not take place when another gateway has taken the lease meanwhile. */
export function guardByLease(db: Kysely<Tables>, instance: string, { name, fence }: HeldLease): Statement {
  const query = db
    .updateTable('lease')
    .set({ fence })
    .where('name', '=', name)
    .where('holder', '=', instance)
    .where('fence', '=', fence)
  return {
    query: query.compile(),
    expectRows: 1,
    missed: () => catalogUnavailable(`another gateway took the lease ${name}`),
  }
}
