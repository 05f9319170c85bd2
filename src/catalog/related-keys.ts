/** Multi-Region keys: several keys of one id, changed as a unit in one transaction. */
import { GatewayError } from '../error.ts'
import type { Catalog, KeyEntry, KeyName, NewReplica, RelatedRegions, RelatedRevision } from './catalog.ts'
import { followPrimary, joinDrafts, loadRelatedRows } from './key-changes.ts'
import { draftKeyRemoval } from './key-removal.ts'
import { applyRevision } from './key-revisions.ts'
import { changeKeyRow, type KeyRows, noSeal, toEntry, toPolicyRow, toTagRows } from './key-rows.ts'
import { draftKeyChange, findKeyEntry, keyNotFound, loadKeyRows, verifyKeyRows } from './key-store.ts'
import { setTimer } from './key-timer.ts'
import type { Ports } from './ports.ts'
import { decodeExtra, encodeExtra, withRelated } from './related-regions.ts'
import { keepVerified } from './row-seal.ts'
import type { Draft } from './write-queue.ts'

export function openRelatedKeys(ports: Ports) {
  const { database, queue, partition } = ports
  const db = database.sql

  const requireFree = async (name: KeyName) => {
    if (!(await loadKeyRows(ports, name))) return
    const text = `Key 'arn:${partition}:kms:${name.region}:${name.account}:key/${name.keyId}' already exists`
    throw new GatewayError('AlreadyExists', { text })
  }

  const draft = async (
    name: KeyName,
    before: readonly KeyRows[],
    wanted: RelatedRevision,
    revision: number,
  ): Promise<Draft<readonly KeyEntry[]>> => {
    const { add, remove } = wanted
    if (add) await requireFree({ ...name, region: add.region })
    const { regions, ...roles } = relatedOf(before)
    const related: RelatedRegions = {
      ...(wanted.related ?? roles),
      regions: [...regions.filter((region) => region !== remove), ...(add ? [add.region] : [])].sort(),
    }
    const drafts: Draft<KeyEntry | undefined>[] = []
    for (const rows of before) {
      const { region } = rows.key
      if (region === remove) {
        drafts.push({ ...(await draftKeyRemoval(ports, rows)), result: undefined })
        continue
      }
      const revised = wanted.revisions?.[region]
      const next = revised === undefined ? rows : applyRevision({ ...name, region }, rows, revised, revision)
      const key = withRelated(changeKeyRow(next.key, wanted.keys?.[region] ?? {}), related)
      drafts.push(await draftKeyChange(ports, { ...name, region }, rows, { ...next, key }, revision))
      if (revised?.dueAt !== undefined) {
        const look = setTimer(db, { ...name, region }, revised.dueAt, revision)
        drafts.push({ statements: [look], changes: [], result: undefined })
      }
    }
    if (add) {
      const primary = before.find(({ key }) => key.region === related.primary)
      if (!primary) throw new TypeError(`key ${name.keyId} has no primary`)
      const replica = replicaOf(primary, add, related, revision)
      drafts.push(await draftKeyChange(ports, { ...name, region: add.region }, undefined, replica, revision))
    }
    // What is due for a primary key is due for another one now.
    const turned = related.primary === roles.primary ? [] : [related.primary, roles.primary]
    const looks = turned.map((region) => setTimer(db, { ...name, region }, 0, revision))
    drafts.push({ statements: looks, changes: [], result: undefined })
    const entries = drafts.flatMap(({ result }) => result ?? [])
    return joinDrafts(
      drafts,
      entries.sort((a, b) => (a.key.region < b.key.region ? -1 : 1)),
    )
  }

  return {
    async findRelatedKeys(name) {
      const entry = await findKeyEntry(ports, name)
      if (!entry) return []
      const related = (entry.key.related?.regions ?? [name.region]).map(async (region) => {
        const other = region === name.region ? entry : await findKeyEntry(ports, { ...name, region })
        return other ?? region
      })
      const found = await Promise.all(related)
      if (found.every((other) => typeof other !== 'string')) return found
      // Missing, or changed while they were read: the rows of one moment tell.
      const rows = await loadKeyRows(ports, name)
      if (!rows) return []
      await verifyKeyRows(ports, rows)
      return (await loadRelatedRows(ports, rows)).map(toEntry)
    },

    changeRelatedKeys: (name, review) =>
      queue.write(async (revision): Promise<Draft<readonly KeyEntry[]>> => {
        const own = await loadKeyRows(ports, name)
        if (!own) throw keyNotFound(ports, name)
        await verifyKeyRows(ports, own)
        if (own.key.multi_region !== 1) throw new TypeError(`key ${name.keyId} is not a multi-Region key`)
        const before = await loadRelatedRows(ports, own)
        const entries = before.map(toEntry)
        const wanted = review(entries)
        if (!wanted) return { statements: [], changes: [], result: entries }
        return await draft(name, before, wanted, revision)
      }),

    async unfinishedRelatedKeys() {
      const [rows] = await database.read([
        db
          .selectFrom('key')
          .selectAll()
          .where('state', 'in', ['Creating', 'Updating'])
          .where('multi_region', '=', 1)
          .compile(),
      ])
      const begun = (await keepVerified(ports, 'key', rows)).filter((row) => {
        const related = decodeExtra(row).related as RelatedRegions
        return row.state === 'Updating' || related.primary !== row.region
      })
      return begun.map(({ account, region, key_id }) => ({ account, region, keyId: key_id }))
    },

    async isObjectShared({ account, region, keyId, number, objectId }) {
      if (objectId.length === 0) return false
      const [rows] = await database.read([
        db
          .selectFrom('material')
          .select(['account', 'region', 'key_id', 'number'])
          .where('object_id', '=', objectId)
          .where('state', '!=', 'Destroyed')
          .compile(),
      ])
      return rows.some(
        (row) => row.account !== account || row.region !== region || row.key_id !== keyId || row.number !== number,
      )
    },
  } satisfies Partial<Catalog>
}

function relatedOf(rows: readonly KeyRows[]): RelatedRegions {
  return decodeExtra((rows[0] as KeyRows).key).related as RelatedRegions
}

function replicaOf(primary: KeyRows, add: NewReplica, related: RelatedRegions, revision: number): KeyRows {
  const { account, key_id: keyId } = primary.key
  const { region, description, policy, tags, createdAt } = add
  const name = { account, region, keyId }
  const bare: KeyRows = {
    key: {
      ...primary.key,
      region,
      state: 'Creating',
      description,
      created_at: createdAt,
      deletion_at: null,
      current_material: 0,
      extra: encodeExtra({}, related),
      revision: 0,
      hmac: noSeal,
    },
    materials: [],
    policy: toPolicyRow(name, policy),
    tags: toTagRows(name, tags),
    grants: null,
    tlsBindings: null,
  }
  if (primary.key.origin === 'EXTERNAL') return bare
  const key = withRelated(primary.key, related)
  return followPrimary({ ...primary, key }, bare, revision)
}
