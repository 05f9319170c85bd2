/** Aliases: movable names of keys. */
import { GatewayError } from '../error.ts'
import type { AliasRecord, Catalog } from './catalog.ts'
import { ConstraintError } from './database.ts'
import { keyNotFound } from './key-store.ts'
import type { Ports } from './ports.ts'
import type { AliasRow } from './tables.ts'

export function openAliases(ports: Ports) {
  const { database, queue, caches, partition } = ports
  const db = database.sql

  const nameOf = (account: string, region: string, name: string) => `${account}/${region}/${name}`
  const arnOf = (account: string, region: string, name: string) => `arn:${partition}:kms:${region}:${account}:${name}`

  const load = async (account: string, region: string, name: string) => {
    const [[row]] = await database.read([
      db
        .selectFrom('alias')
        .selectAll()
        .where('account', '=', account)
        .where('region', '=', region)
        .where('name', '=', name)
        .compile(),
    ])
    return row
  }

  return {
    async findAlias(account, region, name) {
      if (!ports.isCurrent()) await ports.whenCurrent()
      return await caches.aliases.find(nameOf(account, region, name), async () => {
        const row = await load(account, region, name)
        return row && toRecord(row)
      })
    },

    async listAliases(account, region, keyId, after, limit, purposes) {
      const ofRegion = db
        .selectFrom('alias')
        .selectAll()
        .where('account', '=', account)
        .where('region', '=', region)
        .where('name', '>', after ?? '')
      const ofKey = keyId === undefined ? ofRegion : ofRegion.where('key_id', '=', keyId)
      const query =
        purposes === undefined
          ? ofKey
          : ofKey.where(({ exists, selectFrom }) =>
              exists(
                selectFrom('key')
                  .select('key.key_id')
                  .whereRef('key.account', '=', 'alias.account')
                  .whereRef('key.region', '=', 'alias.region')
                  .whereRef('key.key_id', '=', 'alias.key_id')
                  .where('key.purpose', 'in', purposes),
              ),
            )
      const [rows] = await database.read([query.orderBy('name').limit(limit).compile()])
      return rows.map(toRecord)
    },

    async createAlias(alias) {
      const { account, region, name, keyId } = alias
      const created = queue.write(async (revision) => {
        const row: AliasRow = {
          account,
          region,
          name,
          key_id: keyId,
          created_at: alias.createdAt,
          updated_at: alias.updatedAt,
          revision,
        }
        return {
          statements: [{ query: db.insertInto('alias').values(row).compile(), expectRows: 1 }],
          changes: [{ table: 'alias', name: nameOf(account, region, name) }],
          result: undefined,
        }
      })
      await created.catch((error: unknown) => {
        if (!(error instanceof ConstraintError)) throw error
        if (error.kind === 'foreign-key') throw keyNotFound(ports, alias)
        const text = `An alias with the name ${arnOf(account, region, name)} already exists`
        throw new GatewayError('AlreadyExists', { text })
      })
    },

    async updateAlias(account, region, name, keyId, at) {
      const updated = queue.write(async (revision) => {
        if (!(await load(account, region, name))) {
          throw new GatewayError('NotFound', { text: `Alias ${arnOf(account, region, name)} is not found.` })
        }
        const query = db
          .updateTable('alias')
          .set({ key_id: keyId, updated_at: at, revision })
          .where('account', '=', account)
          .where('region', '=', region)
          .where('name', '=', name)
        return {
          statements: [{ query: query.compile(), expectRows: 1 }],
          changes: [{ table: 'alias', name: nameOf(account, region, name) }],
          result: undefined,
        }
      })
      await updated.catch((error: unknown) => {
        if (error instanceof ConstraintError) throw keyNotFound(ports, { account, region, keyId })
        throw error
      })
    },

    async deleteAlias(account, region, name) {
      return await queue.write(async () => {
        const isThere = (await load(account, region, name)) !== undefined
        const query = db
          .deleteFrom('alias')
          .where('account', '=', account)
          .where('region', '=', region)
          .where('name', '=', name)
        return {
          statements: [{ query: query.compile(), expectRows: 1 }],
          changes: isThere ? [{ table: 'alias', name: nameOf(account, region, name) }] : [],
          result: isThere,
        }
      })
    },
  } satisfies Partial<Catalog>
}

function toRecord(row: AliasRow): AliasRecord {
  return Object.freeze({
    account: row.account,
    region: row.region,
    name: row.name,
    keyId: row.key_id,
    createdAt: row.created_at,
    updatedAt: row.updated_at,
  })
}
