/**
 * Grants, loaded a key at a time and only when somebody asks: the row of a key says by its digest whether it has any, so calls on keys
 * without grants, and the loading of keys with very many, cost nothing.
 *
 * The cached set of a key serves as long as its digest is the one that the cached key names; a write replaces both at once.
 */
import { isCode } from '../error.ts'
import type { Catalog, GrantRecord, KeyName } from './catalog.ts'
import { catalogUnavailable } from './database.ts'
import {
  addGrant,
  createGrantSet,
  digestGrantRow,
  findById,
  type GrantSet,
  noGrants,
  removeGrant,
  toGrantRecord,
  toGrantRow,
} from './grant-set.ts'
import type { KeyRows } from './key-rows.ts'
import { draftKeyChange, findKeyEntry, keyNotFound, loadKeyRows, nameOfKey, verifyKeyRows } from './key-store.ts'
import type { Ports } from './ports.ts'
import { integrityFailed } from './row-seal.ts'
import type { Draft } from './write-queue.ts'

/** Rows read and digested in one go; the event loop turns between two. */
const rowsPerPage = 500
const maxAttempts = 10

export function openGrants(ports: Ports) {
  const { database, queue, caches, partition } = ports
  const db = database.sql

  const ofKey = ({ account, region, keyId }: KeyName) => ({ account, region, key_id: keyId })

  /** Unverified. */
  const readSet = async (name: KeyName): Promise<GrantSet> => {
    const grants: GrantRecord[] = []
    const digests: Buffer[] = []
    for (;;) {
      const [rows] = await database.read([
        db
          .selectFrom('grant')
          .selectAll()
          .where(({ and }) => and(ofKey(name)))
          .where('grant_id', '>', grants.at(-1)?.grantId ?? '')
          .orderBy('grant_id')
          .limit(rowsPerPage)
          .compile(),
      ])
      for (const row of rows) {
        digests.push(digestGrantRow(row))
        grants.push(toGrantRecord(row, partition))
      }
      if (rows.length < rowsPerPage) return createGrantSet(grants, Buffer.concat(digests))
    }
  }

  /** The grants that a verified key names. Undefined when they changed while they were read. */
  const loadSet = async (name: KeyName, rows: KeyRows): Promise<GrantSet | undefined> => {
    if (rows.grants === null) return noGrants
    const damaged = (cause: unknown) => integrityFailed('key', rows.key, cause)
    const set = await readSet(name).catch((cause: unknown) => {
      throw cause instanceof SyntaxError || cause instanceof TypeError ? damaged(cause) : cause
    })
    if (set.digest === rows.grants) return set
    const now = await loadKeyRows(ports, name)
    if (now?.grants === rows.grants) throw damaged(new Error('its grants are not those it names'))
    return undefined
  }

  const loadVerified = async (name: KeyName): Promise<GrantSet | undefined> => {
    for (let attempt = 0; attempt < maxAttempts; attempt++) {
      const rows = await loadKeyRows(ports, name)
      if (!rows) return undefined
      await verifyKeyRows(ports, rows)
      const set = await loadSet(name, rows)
      if (set) return set
    }
    throw catalogUnavailable(`the grants of key ${nameOfKey(name)} changed ${maxAttempts} times while they were read`)
  }

  /** Changes the grants of one key; `next` answers undefined to change nothing. */
  const change = <Result>(
    name: KeyName,
    next: (
      set: GrantSet,
      revision: number,
    ) => { readonly set?: GrantSet; readonly statement?: Draft<Result>['statements'][number]; readonly result: Result },
    grantId: string,
  ): Promise<Result> =>
    queue.write(async (revision): Promise<Draft<Result>> => {
      const old = await loadKeyRows(ports, name)
      if (!old) throw keyNotFound(ports, name)
      await verifyKeyRows(ports, old)
      const cached = caches.grants.peek(nameOfKey(name))
      const before = cached?.digest === old.grants ? cached : await loadSet(name, old)
      // another gateway wrote meanwhile, so this draft could not be written either
      if (!before) throw catalogUnavailable('the grants of the key changed while they were read')
      const { set, statement, result } = next(before, revision)
      if (!set || !statement) return { statements: [], changes: [], result }
      const draft = await draftKeyChange(ports, name, old, { ...old, grants: set.digest }, revision)
      return {
        statements: [...draft.statements, statement],
        changes: [...draft.changes, { table: 'grant', name: `${nameOfKey(name)}/${grantId}` }],
        result,
        keep: (at) => {
          draft.keep?.(at)
          if (ports.isNewest(at)) caches.grants.put(nameOfKey(name), set)
        },
      }
    })

  const findGrants = async (name: KeyName): Promise<readonly GrantRecord[]> => {
    const entry = await findKeyEntry(ports, name)
    if (!entry || entry.grants === null) return noGrants.grants
    const cacheName = nameOfKey(name)
    const cached = caches.grants.peek(cacheName)
    if (cached?.digest === entry.grants) return cached.grants
    if (cached) caches.grants.drop(cacheName)
    return ((await caches.grants.find(cacheName, () => loadVerified(name))) ?? noGrants).grants
  }

  const readRetirable = async (
    region: string,
    principal: string,
    after: Parameters<Catalog['listRetirableGrants']>[2],
    limit: number,
  ) => {
    const all = db
      .selectFrom('grant')
      .select(['account', 'key_id', 'grant_id'])
      .where('region', '=', region)
      .where('retiring', '=', principal)
    const query = after
      ? all.where(({ eb, or, and }) =>
          or([
            eb('account', '>', after.account),
            and([eb('account', '=', after.account), eb('key_id', '>', after.keyId)]),
            and([
              eb('account', '=', after.account),
              eb('key_id', '=', after.keyId),
              eb('grant_id', '>', after.grantId),
            ]),
          ]),
        )
      : all
    const ordered = query.orderBy('account').orderBy('key_id').orderBy('grant_id')
    const [rows] = await database.read([ordered.limit(limit).compile()])
    return rows
  }

  const reportDamage = (error: unknown): readonly GrantRecord[] => {
    if (!isCode(error, 'IntegrityFailed')) throw error
    ports.report(error)
    return []
  }

  return {
    findGrants,

    peekGrants(name) {
      if (!ports.isCurrent()) return undefined
      const cacheName = nameOfKey(name)
      const entry = caches.keys.peek(cacheName)
      if (!entry) return undefined
      if (entry.grants === null) return noGrants.grants
      const set = caches.grants.peek(cacheName)
      return set?.digest === entry.grants ? set.grants : undefined
    },

    createGrant: (grant, review) =>
      change<GrantRecord>(
        grant,
        (before, revision) => {
          const existing = review(before.grants)
          if (existing) return { result: existing }
          const row = toGrantRow(grant, revision)
          const record = toGrantRecord(row, partition)
          return {
            set: addGrant(before, record, digestGrantRow(row)),
            statement: { query: db.insertInto('grant').values(row).compile(), expectRows: 1 },
            result: record,
          }
        },
        grant.grantId,
      ),

    deleteGrant: (name, grantId) =>
      change<boolean>(
        name,
        (before) => {
          const set = removeGrant(before, grantId)
          if (set === before) return { result: false }
          const query = db.deleteFrom('grant').where(({ and }) => and({ ...ofKey(name), grant_id: grantId }))
          return { set, statement: { query: query.compile(), expectRows: 1 }, result: true }
        },
        grantId,
      ),

    findGrant: async (name, grantId) => findById(await findGrants(name), grantId),

    async listRetirableGrants(region, principal, after, limit) {
      const found: GrantRecord[] = []
      let last = after
      while (found.length < limit) {
        const rows = await readRetirable(region, principal, last, limit)
        // the rows only say where to look: what counts are the verified grants of each key
        for (const row of rows) {
          const name = { account: row.account, region, keyId: row.key_id }
          const grant = findById(await findGrants(name).catch(reportDamage), row.grant_id)
          if (grant && (grant.retiringPrincipal ?? grant.retiringServicePrincipal) === principal) found.push(grant)
        }
        const end = rows.at(-1)
        if (!end || rows.length < limit) break
        last = { account: end.account, keyId: end.key_id, grantId: end.grant_id }
      }
      return found.slice(0, limit)
    },
  } satisfies Partial<Catalog>
}
