/** Users and roles with their policies. */
import { GatewayError } from '../error.ts'
import type { Catalog, PrincipalPolicyRecord, PrincipalRecord } from './catalog.ts'
import { ConstraintError } from './database.ts'
import { deepFreeze, noSeal } from './key-rows.ts'
import type { Ports } from './ports.ts'
import { keepVerified, sealRow, verifyRow } from './row-seal.ts'
import { everyRegion, nameOfRow, type PrincipalPolicyRow, type PrincipalRow } from './tables.ts'

type Kind = PrincipalRecord['kind']

export function openPrincipals(ports: Ports) {
  const { database, queue, caches } = ports
  const db = database.sql

  const select = (account: string, kind: Kind, name: string) =>
    db
      .selectFrom('principal')
      .selectAll()
      .where('account', '=', account)
      .where('region', '=', everyRegion)
      .where('kind', '=', kind)
      .where('name', '=', name)
      .compile()

  const selectPolicies = (account: string, kind: Kind, principal: string) =>
    db
      .selectFrom('principal_policy')
      .selectAll()
      .where('account', '=', account)
      .where('region', '=', everyRegion)
      .where('kind', '=', kind)
      .where('principal', '=', principal)

  const load = async (account: string, kind: Kind, name: string) => {
    const [[row]] = await database.read([select(account, kind, name)])
    if (row) await verifyRow(ports.seal(), 'principal', row)
    return row
  }

  return {
    async findPrincipal(account, kind, name) {
      if (!ports.isCurrent()) await ports.whenCurrent()
      return await caches.principals.find(`${account}/${kind}/${name}`, async () => {
        const row = await load(account, kind, name)
        return row && toPrincipalRecord(row)
      })
    },

    async listPrincipals(account) {
      const all = db.selectFrom('principal').selectAll()
      const query = account === undefined ? all : all.where('account', '=', account)
      const [rows] = await database.read([query.orderBy('account').orderBy('kind').orderBy('name').compile()])
      return (await keepVerified(ports, 'principal', rows)).map(toPrincipalRecord)
    },

    async createPrincipal(principal) {
      const created = queue.write(async (revision) => {
        const row = await sealRow(ports.seal(), 'principal', toPrincipalRow(principal, revision))
        return {
          statements: [{ query: db.insertInto('principal').values(row).compile(), expectRows: 1 }],
          changes: [{ table: 'principal', name: nameOfRow('principal', row) }],
          result: toPrincipalRecord(row),
        }
      })
      return await created.catch((error: unknown) => {
        if (!(error instanceof ConstraintError)) throw error
        const text = `${nounOf(principal.kind)} with name ${principal.name} already exists.`
        throw new GatewayError('AlreadyExists', { text })
      })
    },

    async setPrincipalEnabled(account, kind, name, enabled) {
      await queue.write(async (revision) => {
        const old = await load(account, kind, name)
        if (!old) throw principalNotFound(kind, name)
        const row = await sealRow(ports.seal(), 'principal', { ...old, enabled: Number(enabled), revision })
        const query = db
          .updateTable('principal')
          .set(row)
          .where('account', '=', account)
          .where('region', '=', everyRegion)
          .where('kind', '=', kind)
          .where('name', '=', name)
        return {
          statements: [{ query: query.compile(), expectRows: 1 }],
          changes: [{ table: 'principal', name: nameOfRow('principal', row) }],
          result: undefined,
        }
      })
    },

    async deletePrincipal(account, kind, name) {
      await queue.write(async () => {
        const accessKeysOf = db
          .selectFrom('access_key')
          .select('access_key_id')
          .where('account', '=', account)
          .where('region', '=', everyRegion)
          .where('kind', '=', kind)
          .where('user', '=', name)
        const [[principal], policies, accessKeys] = await database.read([
          select(account, kind, name),
          selectPolicies(account, kind, name).compile(),
          accessKeysOf.compile(),
        ])
        if (!principal) throw principalNotFound(kind, name)
        const ofPrincipal = { account, region: everyRegion, kind }
        return {
          statements: [
            db
              .deleteFrom('access_key')
              .where(({ and }) => and({ ...ofPrincipal, user: name }))
              .compile(),
            db
              .deleteFrom('principal_policy')
              .where(({ and }) => and({ ...ofPrincipal, principal: name }))
              .compile(),
            db
              .deleteFrom('principal')
              .where(({ and }) => and({ ...ofPrincipal, name }))
              .compile(),
          ].map((query) => ({ query })),
          changes: [
            { table: 'principal', name: nameOfRow('principal', principal) },
            ...policies.map((row) => ({ table: 'principal_policy', name: nameOfRow('principal_policy', row) })),
            ...accessKeys.map((row) => ({ table: 'access_key', name: row.access_key_id })),
          ],
          result: undefined,
        }
      })
    },

    async putPrincipalPolicy(policy) {
      const { account, kind, principal, name, document } = policy
      const put = queue.write(async (revision) => {
        const row = await sealRow(ports.seal(), 'principal_policy', {
          account,
          region: everyRegion,
          kind,
          principal,
          name,
          document,
          revision,
        })
        const query = db
          .insertInto('principal_policy')
          .values(row)
          .onConflict((conflict) =>
            conflict
              .columns(['account', 'region', 'kind', 'principal', 'name'])
              .doUpdateSet({ document, revision, hmac: row.hmac }),
          )
        return {
          statements: [{ query: query.compile(), expectRows: 1 }],
          changes: [{ table: 'principal_policy', name: nameOfRow('principal_policy', row) }],
          result: undefined,
        }
      })
      await put.catch((error: unknown) => {
        throw error instanceof ConstraintError ? principalNotFound(kind, principal) : error
      })
    },

    async deletePrincipalPolicy(account, kind, principal, name) {
      await queue.write(async () => {
        const [[row]] = await database.read([
          selectPolicies(account, kind, principal).where('name', '=', name).compile(),
        ])
        if (!row) throw new GatewayError('NotFound', { text: `The policy with name ${name} cannot be found.` })
        const query = db
          .deleteFrom('principal_policy')
          .where(({ and }) => and({ account, region: everyRegion, kind, principal, name }))
        return {
          statements: [{ query: query.compile(), expectRows: 1 }],
          changes: [{ table: 'principal_policy', name: nameOfRow('principal_policy', row) }],
          result: undefined,
        }
      })
    },

    async principalPolicies(account, kind, principal) {
      if (!ports.isCurrent()) await ports.whenCurrent()
      const policies = await caches.principalPolicies.find(`${account}/${kind}/${principal}`, async () => {
        const [rows] = await database.read([selectPolicies(account, kind, principal).orderBy('name').compile()])
        // one damaged policy may be the one that denies, so none is used without it
        await Promise.all(rows.map((row) => verifyRow(ports.seal(), 'principal_policy', row)))
        return Object.freeze(rows.map(toPolicyRecord))
      })
      return policies ?? []
    },
  } satisfies Partial<Catalog>
}

export function toPrincipalRecord(row: PrincipalRow): PrincipalRecord {
  return Object.freeze({
    account: row.account,
    kind: row.kind as Kind,
    name: row.name,
    principalId: row.principal_id,
    enabled: row.enabled === 1,
    createdAt: row.created_at,
    tags: deepFreeze(JSON.parse(row.tags)),
    trustPolicy: row.trust_policy,
    revision: row.revision,
  })
}

function toPrincipalRow(principal: Omit<PrincipalRecord, 'revision'>, revision: number): PrincipalRow {
  return {
    account: principal.account,
    region: everyRegion,
    kind: principal.kind,
    name: principal.name,
    principal_id: principal.principalId,
    enabled: Number(principal.enabled),
    created_at: principal.createdAt,
    tags: JSON.stringify(principal.tags),
    trust_policy: principal.trustPolicy,
    revision,
    hmac: noSeal,
  }
}

function toPolicyRecord(row: PrincipalPolicyRow): PrincipalPolicyRecord {
  return Object.freeze({
    account: row.account,
    kind: row.kind as Kind,
    principal: row.principal,
    name: row.name,
    document: row.document,
    revision: row.revision,
  })
}

function nounOf(kind: Kind): string {
  return kind === 'user' ? 'User' : 'Role'
}

export function principalNotFound(kind: Kind, name: string): GatewayError {
  return new GatewayError('NotFound', { text: `The ${kind} with name ${name} cannot be found.` })
}
