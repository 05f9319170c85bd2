/**
 * Named leases: of all gateways on one catalog, one at a time holds each.
 *
 * The holder's clock sets the end and the taker's clock judges it, so clocks that disagree may overlap. What a lease protects must
 * therefore carry the fencing number and refuse one that is lower than it has seen. Leases have no revision of their own and make no
 * change: renewals would flood both.
 */
import type { Catalog } from './catalog.ts'
import { ConstraintError, type Database } from './database.ts'
import type { LeaseRow } from './tables.ts'
import type { WriteQueue } from './write-queue.ts'

const maxAttempts = 5

export function openLeases(
  database: Database,
  queue: Pick<WriteQueue, 'revision'>,
  instance: string,
  now: () => number,
  /** No other gateway shares the catalog: who held a lease before is gone, however far its clock had run ahead. */
  isAlone = false,
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
        } else if (lease.expires_at > at && !isAlone) {
          return undefined
        } else if (await update(lease, { holder: instance, fence: lease.fence + 1, expires_at: expiresAt })) {
          return lease.fence + 1
        }
      }
      return undefined
    },
  } satisfies Partial<Catalog>
}
