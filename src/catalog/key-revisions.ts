/**
 * Changes of a key and its materials that must happen together: rotation, import, expiry. What is to change is decided on the key as the
 * write finds it, so two changes at once can't overwrite each other.
 */
import type { Catalog, KeyEntry, KeyName, KeyRevision } from './catalog.ts'
import { draftFollowedChange } from './key-changes.ts'
import { changeKeyRow, type KeyRows, toEntry, toMaterialRow } from './key-rows.ts'
import { keyNotFound, loadKeyRows, verifyKeyRows } from './key-store.ts'
import { setTimer } from './key-timer.ts'
import type { Ports } from './ports.ts'
import type { MaterialRow } from './tables.ts'
import type { Draft } from './write-queue.ts'

export function openKeyRevisions(ports: Ports) {
  const { database, queue } = ports
  const db = database.sql

  return {
    reviseKey: (name, review) =>
      queue.write(async (revision): Promise<Draft<KeyEntry>> => {
        const old = await loadKeyRows(ports, name)
        if (!old) throw keyNotFound(ports, name)
        await verifyKeyRows(ports, old)
        const before = toEntry(old)
        const wanted = review(before)
        if (!wanted) return { statements: [], changes: [], result: before }
        const draft = await draftFollowedChange(ports, name, old, applyRevision(name, old, wanted, revision), revision)
        if (wanted.dueAt === undefined) return draft
        // A date alone changes nothing that anybody caches: it needs no revision.
        if (draft.statements.length === 0) {
          await database.write([setTimer(db, name, wanted.dueAt, revision)])
          return draft
        }
        return { ...draft, statements: [...draft.statements, setTimer(db, name, wanted.dueAt, revision)] }
      }),

    async dueKeys(before, limit) {
      const [rows] = await database.read([
        db
          .selectFrom('key_timer')
          .select(['account', 'region', 'key_id'])
          .where('due_at', '<=', before)
          .orderBy('due_at')
          .limit(limit)
          .compile(),
      ])
      return rows.map(({ account, region, key_id }) => ({ account, region, keyId: key_id }))
    },

    async putUsages(usages) {
      if (usages.length === 0) return
      const revision = await queue.revision()
      await database.write(
        usages.map(({ account, region, keyId, operation, at, eventId, requestId }) => {
          const row = { operation, at, event_id: eventId, request_id: requestId, revision }
          const query = db
            .insertInto('last_usage')
            .values({ account, region, key_id: keyId, ...row })
            // another gateway may have seen a later use
            .onConflict((conflict) =>
              conflict.columns(['account', 'region', 'key_id']).doUpdateSet(row).where('last_usage.at', '<=', at),
            )
          return { query: query.compile() }
        }),
      )
    },

    async findUsage({ account, region, keyId }) {
      const [[row]] = await database.read([
        db
          .selectFrom('last_usage')
          .selectAll()
          .where(({ and }) => and({ account, region, key_id: keyId }))
          .compile(),
      ])
      return (
        row && {
          account,
          region,
          keyId,
          operation: row.operation,
          at: row.at,
          eventId: row.event_id,
          requestId: row.request_id,
        }
      )
    },
  } satisfies Partial<Catalog>
}

/** The rows of a key as `wanted` makes them. */
export function applyRevision(name: KeyName, rows: KeyRows, wanted: KeyRevision, revision: number): KeyRows {
  const { key = {}, materials = {}, add, remove } = wanted
  const kept = rows.materials.filter((row) => row.number !== remove)
  const changed = kept.map((row) => {
    const changes = materials[row.number]
    return changes === undefined ? row : changeMaterialRow(row, changes)
  })
  return {
    ...rows,
    key: changeKeyRow(rows.key, key),
    materials: add === undefined ? changed : [...changed, toMaterialRow(name, add, revision)],
  }
}

function changeMaterialRow(row: MaterialRow, changes: NonNullable<KeyRevision['materials']>[number]): MaterialRow {
  return {
    ...row,
    state: changes.state ?? row.state,
    object_id: changes.objectId ?? row.object_id,
    material_id: changes.materialId ?? row.material_id,
    public_key: changes.publicKey ?? row.public_key,
    construction: changes.construction ?? row.construction,
  }
}
