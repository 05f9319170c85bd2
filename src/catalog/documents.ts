/**
 * Sealed documents by collection and name: JSON that a door keeps beside the keys, validated by its owner. One row each, read and changed whole;
 * not cached here, because their owners keep what they need in memory and follow the change table.
 */
import type { Catalog } from './catalog.ts'
import type { Ports } from './ports.ts'
import { keepVerified, sealRow, verifyRow } from './row-seal.ts'
import { type DocumentRow, everyRegion, nameOfRow } from './tables.ts'

const everyAccount = '*'

export function openDocuments(ports: Ports) {
  const { database, queue } = ports
  const db = database.sql

  const load = async (collection: string, name: string): Promise<DocumentRow | undefined> => {
    const [[row]] = await database.read([
      db
        .selectFrom('document')
        .selectAll()
        .where('account', '=', everyAccount)
        .where('region', '=', everyRegion)
        .where('collection', '=', collection)
        .where('name', '=', name)
        .compile(),
    ])
    if (row !== undefined) await verifyRow(ports.seal(), 'document', row)
    return row
  }

  return {
    async findDocument(collection, name) {
      if (!ports.isCurrent()) await ports.whenCurrent()
      return (await load(collection, name))?.body
    },

    async listDocuments(collection) {
      if (!ports.isCurrent()) await ports.whenCurrent()
      const [rows] = await database.read([
        db
          .selectFrom('document')
          .selectAll()
          .where('account', '=', everyAccount)
          .where('region', '=', everyRegion)
          .where('collection', '=', collection)
          .orderBy('name')
          .compile(),
      ])
      return (await keepVerified(ports, 'document', rows)).map(({ name, body }) => ({ name, body }))
    },

    async changeDocument(collection, name, review) {
      return await queue.write(async (revision) => {
        const old = await load(collection, name)
        const body = review(old?.body)
        if (body === undefined || (body === null && old === undefined)) {
          return { statements: [], changes: [], result: old?.body }
        }
        const of = { account: everyAccount, region: everyRegion, collection, name }
        const changes = [{ table: 'document', name: nameOfRow('document', of as DocumentRow) }]
        if (body === null) {
          const query = db
            .deleteFrom('document')
            .where('account', '=', everyAccount)
            .where('region', '=', everyRegion)
            .where('collection', '=', collection)
            .where('name', '=', name)
          return { statements: [{ query: query.compile(), expectRows: 1 }], changes, result: undefined }
        }
        const row = await sealRow(ports.seal(), 'document', { ...of, body, revision })
        const { hmac } = row
        const query = db
          .insertInto('document')
          .values(row)
          .onConflict((conflict) =>
            conflict.columns(['account', 'region', 'collection', 'name']).doUpdateSet({ body, revision, hmac }),
          )
        return { statements: [{ query: query.compile(), expectRows: 1 }], changes, result: body }
      })
    },
  } satisfies Partial<Catalog>
}
