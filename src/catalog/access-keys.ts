/** Access keys of users, found by their ids alone. Their secrets are sealed before they come here. */
import { GatewayError } from '../error.ts'
import type { Catalog } from './catalog.ts'
import { ConstraintError } from './database.ts'
import type { Ports } from './ports.ts'
import { toAccessKeyRecord, toAccessKeyRow } from './principal-rows.ts'
import { changePrincipal, findPrincipalEntry, type PrincipalName, principalNotFound } from './principal-store.ts'
import { keepVerified } from './row-seal.ts'
import type { AccessKeyRow } from './tables.ts'

export function openAccessKeys(ports: Ports) {
  const { database, caches } = ports
  const db = database.sql

  /** Says only where to look; what is found there is verified with its user. */
  const findUser = async (accessKeyId: string): Promise<PrincipalName | undefined> => {
    const [[row]] = await database.read([
      db.selectFrom('access_key').select(['account', 'user']).where('access_key_id', '=', accessKeyId).compile(),
    ])
    return row && { account: row.account, kind: 'user', name: row.user }
  }

  const change = async (
    accessKeyId: string,
    next: (others: readonly AccessKeyRow[], changed: AccessKeyRow) => readonly AccessKeyRow[],
  ) => {
    const notFound = () =>
      new GatewayError('NotFound', { text: `The Access Key with id ${accessKeyId} cannot be found.` })
    const user = await findUser(accessKeyId)
    if (!user) throw notFound()
    await changePrincipal(ports, user, (old) => {
      const changed = old?.accessKeys.find((row) => row.access_key_id === accessKeyId)
      if (!old || !changed) throw notFound()
      return {
        ...old,
        accessKeys: next(
          old.accessKeys.filter((row) => row !== changed),
          changed,
        ),
      }
    })
  }

  return {
    async findCredential(accessKeyId) {
      if (!ports.isCurrent()) await ports.whenCurrent()
      return await caches.credentials.find(accessKeyId, async () => {
        const user = await findUser(accessKeyId)
        const entry = user && (await findPrincipalEntry(ports, user))
        const accessKey = entry?.accessKeys.find((known) => known.accessKeyId === accessKeyId)
        return accessKey && Object.freeze({ accessKey, principal: entry!.principal })
      })
    },

    async createAccessKey(accessKey) {
      const { account, user, accessKeyId } = accessKey
      const name: PrincipalName = { account, kind: 'user', name: user }
      const created = changePrincipal(ports, name, (old) => {
        if (!old) throw principalNotFound(name)
        return { ...old, accessKeys: [...old.accessKeys, toAccessKeyRow(accessKey)] }
      })
      const entry = await created.catch((error: unknown) => {
        if (!(error instanceof ConstraintError)) throw error
        throw new GatewayError('AlreadyExists', { text: `Access Key ${accessKeyId} already exists.` })
      })
      return entry.accessKeys.find((known) => known.accessKeyId === accessKeyId)!
    },

    async listAccessKeys(account, user) {
      const all = db.selectFrom('access_key').selectAll().where('account', '=', account)
      const query = user === undefined ? all : all.where('user', '=', user)
      const [rows] = await database.read([query.orderBy('access_key_id').compile()])
      return (await keepVerified(ports, 'access_key', rows)).map(toAccessKeyRecord)
    },

    async activeAccessKeys() {
      const [rows] = await database.read([
        db.selectFrom('access_key').selectAll().where('active', '=', 1).orderBy('access_key_id').compile(),
      ])
      return (await keepVerified(ports, 'access_key', rows)).map(toAccessKeyRecord)
    },

    async setAccessKeyActive(accessKeyId, active) {
      await change(accessKeyId, (others, changed) => [...others, { ...changed, active: Number(active) }])
    },

    async deleteAccessKey(accessKeyId) {
      await change(accessKeyId, (others) => others)
    },
  } satisfies Partial<Catalog>
}
