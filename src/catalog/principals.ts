/** Users and roles with their policies. */
import { GatewayError } from '../error.ts'
import type { Catalog } from './catalog.ts'
import { ConstraintError } from './database.ts'
import type { Ports } from './ports.ts'
import { toPolicyRow, toPrincipalRecord, toPrincipalRow } from './principal-rows.ts'
import {
  changePrincipal,
  findPrincipalEntry,
  loadPrincipalRows,
  type PrincipalName,
  type PrincipalRows,
  principalNotFound,
} from './principal-store.ts'
import { keepVerified } from './row-seal.ts'
import { everyRegion, nameOfRow } from './tables.ts'

export function openPrincipals(ports: Ports) {
  const { database, queue } = ports
  const db = database.sql

  const change = (name: PrincipalName, next: (rows: PrincipalRows) => PrincipalRows) =>
    changePrincipal(ports, name, (old) => {
      if (!old) throw principalNotFound(name)
      return next(old)
    })

  return {
    async findPrincipal(account, kind, name) {
      return (await findPrincipalEntry(ports, { account, kind, name }))?.principal
    },

    async listPrincipals(account) {
      const all = db.selectFrom('principal').selectAll()
      const query = account === undefined ? all : all.where('account', '=', account)
      const [rows] = await database.read([query.orderBy('account').orderBy('kind').orderBy('name').compile()])
      return (await keepVerified(ports, 'principal', rows)).map(toPrincipalRecord)
    },

    async createPrincipal(principal) {
      const exists = () => {
        const noun = principal.kind === 'user' ? 'User' : 'Role'
        return new GatewayError('AlreadyExists', { text: `${noun} with name ${principal.name} already exists.` })
      }
      const created = changePrincipal(ports, principal, (old) => {
        if (old) throw exists()
        return { principal: toPrincipalRow(principal), policies: [], accessKeys: [] }
      })
      return await created.then(
        (entry) => entry.principal,
        (error: unknown) => {
          throw error instanceof ConstraintError ? exists() : error
        },
      )
    },

    async setPrincipalEnabled(account, kind, name, enabled) {
      await change({ account, kind, name }, (rows) => ({
        ...rows,
        principal: { ...rows.principal, enabled: Number(enabled) },
      }))
    },

    async putTrustPolicy(account, role, document) {
      await change({ account, kind: 'role', name: role }, (rows) => ({
        ...rows,
        principal: { ...rows.principal, trust_policy: document },
      }))
    },

    /** Verifies nothing: it is also the way to get rid of a damaged one. */
    async deletePrincipal(account, kind, name) {
      await queue.write(async () => {
        const rows = await loadPrincipalRows(ports, { account, kind, name })
        if (!rows) throw principalNotFound({ account, kind, name })
        const ofPrincipal = { account, region: everyRegion, kind }
        return {
          statements: [
            db.deleteFrom('access_key').where(({ and }) => and({ ...ofPrincipal, user: name })),
            db.deleteFrom('principal_policy').where(({ and }) => and({ ...ofPrincipal, principal: name })),
            db.deleteFrom('principal').where(({ and }) => and({ ...ofPrincipal, name })),
          ].map((query) => ({ query: query.compile() })),
          changes: [
            { table: 'principal', name: nameOfRow('principal', rows.principal) },
            ...rows.policies.map((row) => ({ table: 'principal_policy', name: nameOfRow('principal_policy', row) })),
            ...rows.accessKeys.map((row) => ({ table: 'access_key', name: row.access_key_id })),
          ],
          result: undefined,
        }
      })
    },

    async putPrincipalPolicy(policy) {
      const { account, kind, principal, name } = policy
      await change({ account, kind, name: principal }, (rows) => ({
        ...rows,
        policies: [...rows.policies.filter((row) => row.name !== name), toPolicyRow(policy)],
      }))
    },

    async deletePrincipalPolicy(account, kind, principal, name) {
      await change({ account, kind, name: principal }, (rows) => {
        const policies = rows.policies.filter((row) => row.name !== name)
        if (policies.length === rows.policies.length) {
          throw new GatewayError('NotFound', { text: `The policy with name ${name} cannot be found.` })
        }
        return { ...rows, policies }
      })
    },

    async principalPolicies(account, kind, principal) {
      return (await findPrincipalEntry(ports, { account, kind, name: principal }))?.policies ?? []
    },
  } satisfies Partial<Catalog>
}
