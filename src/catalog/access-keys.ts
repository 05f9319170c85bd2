/** Access keys of users, found by their ids alone. Their secrets are sealed before they come here. */
import { GatewayError } from '../error.ts'
import type { AccessKeyRecord, Catalog } from './catalog.ts'
import { ConstraintError } from './database.ts'
import { asBuffer, noSeal } from './key-rows.ts'
import type { Ports } from './ports.ts'
import { principalNotFound, toPrincipalRecord } from './principals.ts'
import { keepVerified, sealRow, verifyRow } from './row-seal.ts'
import { type AccessKeyRow, everyRegion } from './tables.ts'

export function openAccessKeys(ports: Ports) {
  const { database, queue, caches } = ports
  const db = database.sql

  const select = (accessKeyId: string) =>
    db.selectFrom('access_key').selectAll().where('access_key_id', '=', accessKeyId).compile()

  const notFound = (accessKeyId: string) =>
    new GatewayError('NotFound', { text: `The Access Key with id ${accessKeyId} cannot be found.` })

  return {
    async findCredential(accessKeyId) {
      if (!ports.isCurrent()) await ports.whenCurrent()
      return await caches.credentials.find(accessKeyId, async () => {
        const [[accessKey], [principal]] = await database.read([
          select(accessKeyId),
          db
            .selectFrom('principal')
            .innerJoin('access_key', (join) =>
              join
                .onRef('access_key.account', '=', 'principal.account')
                .onRef('access_key.region', '=', 'principal.region')
                .onRef('access_key.kind', '=', 'principal.kind')
                .onRef('access_key.user', '=', 'principal.name'),
            )
            .selectAll('principal')
            .where('access_key.access_key_id', '=', accessKeyId)
            .compile(),
        ])
        if (!accessKey || !principal) return undefined
        const seal = ports.seal()
        await Promise.all([verifyRow(seal, 'access_key', accessKey), verifyRow(seal, 'principal', principal)])
        return Object.freeze({ accessKey: toRecord(accessKey), principal: toPrincipalRecord(principal) })
      })
    },

    async createAccessKey(accessKey) {
      const created = queue.write(async (revision) => {
        const row = await sealRow(ports.seal(), 'access_key', toRow(accessKey, revision))
        return {
          statements: [{ query: db.insertInto('access_key').values(row).compile(), expectRows: 1 }],
          changes: [{ table: 'access_key', name: row.access_key_id }],
          result: toRecord(row),
        }
      })
      return await created.catch((error: unknown) => {
        if (!(error instanceof ConstraintError)) throw error
        if (error.kind === 'foreign-key') throw principalNotFound('user', accessKey.user)
        throw new GatewayError('AlreadyExists', { text: `Access Key ${accessKey.accessKeyId} already exists.` })
      })
    },

    async listAccessKeys(account, user) {
      const all = db.selectFrom('access_key').selectAll().where('account', '=', account)
      const query = user === undefined ? all : all.where('user', '=', user)
      const [rows] = await database.read([query.orderBy('access_key_id').compile()])
      return (await keepVerified(ports, 'access_key', rows)).map(toRecord)
    },

    async activeAccessKeys() {
      const [rows] = await database.read([
        db.selectFrom('access_key').selectAll().where('active', '=', 1).orderBy('access_key_id').compile(),
      ])
      return (await keepVerified(ports, 'access_key', rows)).map(toRecord)
    },

    async setAccessKeyActive(accessKeyId, active) {
      await queue.write(async (revision) => {
        const [[old]] = await database.read([select(accessKeyId)])
        if (!old) throw notFound(accessKeyId)
        const seal = ports.seal()
        await verifyRow(seal, 'access_key', old)
        const row = await sealRow(seal, 'access_key', { ...old, active: Number(active), revision })
        const query = db.updateTable('access_key').set(row).where('access_key_id', '=', accessKeyId)
        return {
          statements: [{ query: query.compile(), expectRows: 1 }],
          changes: [{ table: 'access_key', name: accessKeyId }],
          result: undefined,
        }
      })
    },

    async deleteAccessKey(accessKeyId) {
      await queue.write(async () => {
        const [[row]] = await database.read([select(accessKeyId)])
        if (!row) throw notFound(accessKeyId)
        const query = db.deleteFrom('access_key').where('access_key_id', '=', accessKeyId)
        return {
          statements: [{ query: query.compile(), expectRows: 1 }],
          changes: [{ table: 'access_key', name: accessKeyId }],
          result: undefined,
        }
      })
    },
  } satisfies Partial<Catalog>
}

function toRecord(row: AccessKeyRow): AccessKeyRecord {
  return Object.freeze({
    accessKeyId: row.access_key_id,
    account: row.account,
    user: row.user,
    sealedSecret: asBuffer(row.sealed_secret),
    active: row.active === 1,
    createdAt: row.created_at,
    revision: row.revision,
  })
}

function toRow(accessKey: Omit<AccessKeyRecord, 'revision'>, revision: number): AccessKeyRow {
  return {
    account: accessKey.account,
    region: everyRegion,
    access_key_id: accessKey.accessKeyId,
    kind: 'user',
    user: accessKey.user,
    sealed_secret: accessKey.sealedSecret,
    active: Number(accessKey.active),
    created_at: accessKey.createdAt,
    revision,
    hmac: noSeal,
  }
}
