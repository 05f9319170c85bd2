/**
 * TLS bindings: capability tokens of the signing socket, each of one key. Written with their key, so that its seal names them all; read from the
 * database each time, since the gateway itself keeps in memory what is in force.
 */
import { GatewayError, isCode } from '../error.ts'
import { digestTlsBindings, sortByName, toTlsBindingRecord, toTlsBindingRow } from './binding-set.ts'
import type { Catalog, KeyName, TlsBindingRecord } from './catalog.ts'
import { ConstraintError, catalogUnavailable, type Statement } from './database.ts'
import type { KeyRows } from './key-rows.ts'
import { draftKeyChange, keyNotFound, loadKeyRows, nameOfKey, verifyKeyRows } from './key-store.ts'
import type { Ports } from './ports.ts'
import { integrityFailed } from './row-seal.ts'
import type { TlsBindingRow } from './tables.ts'
import type { Draft } from './write-queue.ts'

const maxAttempts = 10
/** A list of keys is read in pages of so many. */
const keysPerPage = 100

export function openTlsBindings(ports: Ports) {
  const { database, queue } = ports
  const db = database.sql

  const ofKey = ({ account, region, keyId }: KeyName) => ({ account, region, key_id: keyId })

  /** The rows of a verified key, or undefined when they changed while they were read. @throws GatewayError `IntegrityFailed` */
  const loadSet = async (name: KeyName, rows: KeyRows): Promise<readonly TlsBindingRow[] | undefined> => {
    const [unsorted] = await database.read([
      db
        .selectFrom('tls_binding')
        .selectAll()
        .where(({ and }) => and(ofKey(name)))
        .compile(),
    ])
    const set = sortByName(unsorted)
    const damaged = (cause: unknown) => integrityFailed('key', rows.key, cause)
    let digest: string | null
    try {
      digest = digestTlsBindings(set)
    } catch (cause) {
      throw damaged(cause)
    }
    if (digest === rows.tlsBindings) return set
    const now = await loadKeyRows(ports, name)
    if (now?.tlsBindings === rows.tlsBindings) throw damaged(new Error('its TLS bindings are not those it names'))
    return undefined
  }

  const loadVerified = async (name: KeyName): Promise<readonly TlsBindingRecord[]> => {
    for (let attempt = 0; attempt < maxAttempts; attempt++) {
      const rows = await loadKeyRows(ports, name)
      if (!rows) return []
      await verifyKeyRows(ports, rows)
      const set = await loadSet(name, rows)
      if (set) return set.map(toTlsBindingRecord)
    }
    throw catalogUnavailable(`the TLS bindings of key ${nameOfKey(name)} changed ${maxAttempts} times while read`)
  }

  /** Unverified: where to look. */
  const locate = async (account: string, name: string): Promise<KeyName | undefined> => {
    const [[row]] = await database.read([
      db
        .selectFrom('tls_binding')
        .select(['account', 'region', 'key_id'])
        .where(({ and }) => and({ account, name }))
        .compile(),
    ])
    return row && { account: row.account, region: row.region, keyId: row.key_id }
  }

  /** Unverified. */
  const keysWithBindings = async (account: string | undefined, after: KeyName | undefined) => {
    const all = db.selectFrom('tls_binding').select(['account', 'region', 'key_id']).distinct()
    const own = account === undefined ? all : all.where('account', '=', account)
    const rest = after
      ? own.where(({ eb, or, and }) =>
          or([
            eb('account', '>', after.account),
            and([eb('account', '=', after.account), eb('region', '>', after.region)]),
            and([eb('account', '=', after.account), eb('region', '=', after.region), eb('key_id', '>', after.keyId)]),
          ]),
        )
      : own
    const [rows] = await database.read([
      rest.orderBy('account').orderBy('region').orderBy('key_id').limit(keysPerPage).compile(),
    ])
    return rows.map((row) => ({ account: row.account, region: row.region, keyId: row.key_id }))
  }

  /** Changes the bindings of one key; `next` answers undefined to change nothing. */
  const change = (
    key: KeyName,
    name: string,
    next: (
      before: readonly TlsBindingRow[],
      revision: number,
    ) => { readonly set: readonly TlsBindingRow[]; readonly statement: Statement } | undefined,
  ): Promise<boolean> =>
    queue.write(async (revision): Promise<Draft<boolean>> => {
      const old = await loadKeyRows(ports, key)
      if (!old) throw keyNotFound(ports, key)
      await verifyKeyRows(ports, old)
      const before = await loadSet(key, old)
      // another gateway wrote meanwhile, so this draft could not be written either
      if (!before) throw catalogUnavailable('the TLS bindings of the key changed while they were read')
      const wanted = next(before, revision)
      if (!wanted) return { statements: [], changes: [], result: false }
      const rows = { ...old, tlsBindings: digestTlsBindings(wanted.set) }
      const draft = await draftKeyChange(ports, key, old, rows, revision)
      return {
        ...draft,
        statements: [...draft.statements, wanted.statement],
        changes: [...draft.changes, { table: 'tls_binding', name: `${nameOfKey(key)}/${name}` }],
        result: true,
      }
    })

  return {
    async createTlsBinding(binding, review) {
      const { account, name } = binding
      const exists = () =>
        new GatewayError('AlreadyExists', { text: `A binding with the name ${name} exists in account ${account}.` })
      if (await locate(account, name)) throw exists()
      let made: TlsBindingRow | undefined
      await change(binding, name, (before, revision) => {
        review?.(before.map(toTlsBindingRecord))
        made = toTlsBindingRow(binding, revision)
        const query = db.insertInto('tls_binding').values(made).compile()
        return { set: sortByName([...before, made]), statement: { query, expectRows: 1 } }
      }).catch((cause: unknown) => {
        throw cause instanceof ConstraintError ? exists() : cause
      })
      return toTlsBindingRecord(made as TlsBindingRow)
    },

    async findTlsBinding(account, name) {
      const key = await locate(account, name)
      return key && (await loadVerified(key)).find((binding) => binding.name === name)
    },

    async listTlsBindings(account) {
      const found: TlsBindingRecord[] = []
      let page: readonly KeyName[] = []
      do {
        page = await keysWithBindings(account, page.at(-1))
        for (const key of page) {
          const bindings = await loadVerified(key).catch((error: unknown) => {
            if (!isCode(error, 'IntegrityFailed')) throw error
            ports.report(error)
            return []
          })
          found.push(...bindings)
        }
      } while (page.length === keysPerPage)
      return found
    },

    async deleteTlsBinding(account, name) {
      const key = await locate(account, name)
      if (!key) return false
      return await change(key, name, (before) => {
        const set = before.filter((row) => row.name !== name)
        if (set.length === before.length) return undefined
        const query = db.deleteFrom('tls_binding').where(({ and }) => and({ ...ofKey(key), name }))
        return { set, statement: { query: query.compile(), expectRows: 1 } }
      })
    },
  } satisfies Partial<Catalog>
}
