/**
 * Custom key stores: few rows, each under a seal of its own. They are read and written all together, because their rules (names, clusters and
 * proxies of which only one may be) span them; who needs them often keeps a copy and follows the change table.
 */

import type { Catalog, CustomKeyStoreChanges, CustomKeyStoreRecord, KeyState } from './catalog.ts'
import { asBuffer, deepFreeze, noSeal } from './key-rows.ts'
import type { Ports } from './ports.ts'
import { decodeExtra } from './related-regions.ts'
import { diffRows } from './row-diff.ts'
import { keepVerified, sealRow, verifyRow } from './row-seal.ts'
import type { CustomKeyStoreRow } from './tables.ts'

export function openCustomKeyStores(ports: Ports) {
  const { database, queue } = ports
  const db = database.sql

  const loadRows = async () => {
    const all = db.selectFrom('custom_key_store').selectAll()
    const [rows] = await database.read([all.orderBy('account').orderBy('region').orderBy('store_id').compile()])
    return rows
  }
  const loadVerified = async () => await keepVerified(ports, 'custom_key_store', await loadRows())

  return {
    async listCustomKeyStores() {
      return (await loadVerified()).map(toRecord)
    },

    createCustomKeyStore: (store, review) =>
      queue.write(async (revision) => {
        review((await loadVerified()).map(toRecord))
        const row = await sealRow(ports.seal(), 'custom_key_store', { ...toRow(store), revision })
        return { ...diffRows(db, 'custom_key_store', [], [row]), result: toRecord(row) }
      }),

    changeCustomKeyStore: (name, review) =>
      queue.write(async (revision) => {
        const rows = await loadRows()
        const isNamed = (row: CustomKeyStoreRow) =>
          row.account === name.account && row.region === name.region && row.store_id === name.storeId
        const old = rows.find(isNamed)
        if (old) await verifyRow(ports.seal(), 'custom_key_store', old)
        const others = await keepVerified(
          ports,
          'custom_key_store',
          rows.filter((row) => row !== old),
        )
        const changes = review(old && toRecord(old), others.map(toRecord))
        if (changes === undefined) return { statements: [], changes: [], result: old && toRecord(old) }
        if (!old) throw new TypeError('a store that does not exist cannot be changed')
        if (changes === 'remove') return { ...diffRows(db, 'custom_key_store', [old], []), result: undefined }
        const row = await sealRow(ports.seal(), 'custom_key_store', { ...changeRow(old, changes), revision })
        return { ...diffRows(db, 'custom_key_store', [old], [row]), result: toRecord(row) }
      }),

    async listKeysInCustomStores(account, region) {
      const [rows] = await database.read([
        db
          .selectFrom('key')
          .selectAll()
          .where('account', '=', account)
          .where('region', '=', region)
          .where('origin', 'in', ['AWS_CLOUDHSM', 'EXTERNAL_KEY_STORE'])
          .compile(),
      ])
      return rows.map((row) => ({
        account,
        region,
        keyId: row.key_id,
        state: row.state as KeyState,
        extra: decodeExtra(row).extra,
      }))
    },
  } satisfies Partial<Catalog>
}

function toRecord(row: CustomKeyStoreRow): CustomKeyStoreRecord {
  return Object.freeze({
    account: row.account,
    region: row.region,
    storeId: row.store_id,
    name: row.name,
    type: row.type as CustomKeyStoreRecord['type'],
    state: row.state as CustomKeyStoreRecord['state'],
    errorCode: row.error_code,
    settings: deepFreeze(JSON.parse(row.settings)),
    sealedSecret: asBuffer(row.sealed_secret),
    secretVersion: row.secret_version,
    createdAt: row.created_at,
    revision: row.revision,
  })
}

function toRow(store: Omit<CustomKeyStoreRecord, 'revision'>): CustomKeyStoreRow {
  return {
    account: store.account,
    region: store.region,
    store_id: store.storeId,
    name: store.name,
    type: store.type,
    state: store.state,
    error_code: store.errorCode,
    settings: JSON.stringify(store.settings),
    sealed_secret: store.sealedSecret,
    secret_version: store.secretVersion,
    created_at: store.createdAt,
    revision: 0,
    hmac: noSeal,
  }
}

function changeRow(row: CustomKeyStoreRow, changes: CustomKeyStoreChanges): CustomKeyStoreRow {
  return {
    ...row,
    name: changes.name ?? row.name,
    state: changes.state ?? row.state,
    error_code: changes.errorCode === undefined ? row.error_code : changes.errorCode,
    settings: changes.settings === undefined ? row.settings : JSON.stringify(changes.settings),
    sealed_secret: changes.sealedSecret ?? row.sealed_secret,
    secret_version: changes.secretVersion ?? row.secret_version,
  }
}
