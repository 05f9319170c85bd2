/** Keys, their materials, policies and tags: the part of the catalog that every cryptographic call goes through. */
import { GatewayError } from '../error.ts'
import type { KeySpec } from '../hsm/port.ts'
import type {
  Catalog,
  HeldLease,
  KeyEntry,
  KeyName,
  KeyRecord,
  MaterialRecord,
  NewKey,
  NewMaterial,
} from './catalog.ts'
import { changeKey } from './key-changes.ts'
import { draftKeyRemoval } from './key-removal.ts'
import {
  asBuffer,
  changeKeyRow,
  type KeyRows,
  toEntry,
  toKeyRow,
  toMaterialRecord,
  toMaterialRow,
  toPolicyRow,
  toTagRows,
} from './key-rows.ts'
import { findKeyEntry, isUnsealedSystemKey, keyNotFound, loadKeyRows, nameOfKey, verifyKeyRows } from './key-store.ts'
import type { Ports } from './ports.ts'
import { integrityFailed, keepVerified } from './row-seal.ts'
import { type MaterialRow, nameOfRow } from './tables.ts'

export function openKeys(ports: Ports) {
  const { database, queue, caches } = ports
  const db = database.sql
  /** The rows behind entries that were handed out unverified. */
  const unverified = new WeakMap<KeyEntry, KeyRows>()

  const change = (name: KeyName, next: (rows: KeyRows, revision: number) => KeyRows, lease?: HeldLease) =>
    changeKey(
      ports,
      name,
      (old, revision) => {
        if (!old) throw keyNotFound(ports, name)
        return next(old, revision)
      },
      lease,
    )

  const changeMaterial = (
    name: KeyName,
    number: number,
    next: (rows: KeyRows, material: MaterialRow) => KeyRows,
    lease?: HeldLease,
  ) =>
    change(
      name,
      (rows) => {
        const material = rows.materials.find((row) => row.number === number)
        if (!material) throw new TypeError(`key ${nameOfKey(name)} has no material ${number}`)
        return next(rows, material)
      },
      lease,
    )

  /** Whether nobody else makes this material now: who began it is gone, or is this gateway. */
  const isLeftBehind = async (row: MaterialRow): Promise<boolean> => {
    const [[change]] = await database.read([
      db
        .selectFrom('change')
        .select('instance')
        .where('revision', '=', row.revision)
        .where('table', '=', 'material')
        .where('name', '=', nameOfRow('material', row))
        .compile(),
    ])
    // forgotten: thousands of revisions old
    return change === undefined || (await ports.isGone(change.instance))
  }

  const insert = ({ key, material, policy, tags }: Omit<NewKey, 'material'> & { material: NewMaterial | null }) =>
    changeKey(ports, key, (old, revision) => {
      if (old) throw new GatewayError('AlreadyExists', { text: `Key ${key.keyId} already exists` })
      return {
        key: toKeyRow(key),
        materials: material === null ? [] : [toMaterialRow(key, material, revision)],
        policy: policy === null ? null : toPolicyRow(key, policy),
        tags: toTagRows(key, tags),
        grants: null,
        tlsBindings: null,
      }
    })

  const remove = (name: KeyName, mayRemove: (rows: KeyRows) => Promise<boolean>) =>
    queue.write(async () => {
      const rows = await loadKeyRows(ports, name)
      if (!rows) throw keyNotFound(ports, name)
      if (!(await mayRemove(rows))) return { statements: [], changes: [], result: false }
      return { ...(await draftKeyRemoval(ports, rows)), result: true }
    })

  return {
    async findUnverified(name) {
      if (name.account !== 'system') throw new TypeError('only system keys can be read unverified')
      const rows = await loadKeyRows(ports, name)
      if (!rows) return undefined
      // nothing unverified may say that an object is to be destroyed
      if (rows.key.state === 'Creating' && rows.materials.some(({ state }) => state !== 'Creating')) {
        throw integrityFailed('key', rows.key, new Error('it is unfinished, but its materials are not'))
      }
      const entry = toEntry(rows)
      unverified.set(entry, rows)
      return entry
    },

    async verifyEntry(entry) {
      const rows = unverified.get(entry)
      if (!rows) throw new TypeError('this entry did not come from findUnverified')
      await verifyKeyRows(ports, rows)
    },

    peekKey: (name) => (ports.isCurrent() ? caches.keys.peek(nameOfKey(name)) : undefined),

    findKey: (name) => findKeyEntry(ports, name),

    async listKeys(account, region, after, limit, purposes) {
      const page = db
        .selectFrom('key')
        .select('key_id')
        .where('account', '=', account)
        .where('region', '=', region)
        .where('key_id', '>', after ?? '')
        .where('state', '!=', 'Creating')
        .orderBy('key_id')
        .limit(limit)
      const [rows] = await database.read([
        (purposes === undefined ? page : page.where('purpose', 'in', purposes)).compile(),
      ])
      return rows.map((row) => row.key_id)
    },

    async countKeys(account, region) {
      const [rows] = await database.read([
        db
          .selectFrom('key')
          .select((query) => query.fn.countAll<number>().as('count'))
          .where('account', '=', account)
          .where('region', '=', region)
          .compile(),
      ])
      return Number(rows[0]?.count ?? 0)
    },

    beginKey: (key) =>
      insert({ ...key, key: { ...key.key, state: 'Creating' }, material: { ...key.material, state: 'Creating' } }),

    insertKey: insert,

    beginMaterial: (name, material) =>
      change(name, (rows, revision) => ({
        ...rows,
        materials: [...rows.materials, toMaterialRow(name, { ...material, state: 'Creating' }, revision)],
      })),

    finishMaterial: (name, number, result) =>
      changeMaterial(name, number, (rows, finished) => ({
        ...rows,
        key: { ...rows.key, state: result.state, current_material: number },
        materials: rows.materials.map((row) => {
          if (row === finished) {
            return {
              ...row,
              state: 'Current',
              material_id: result.materialId,
              public_key: result.publicKey,
              construction: result.construction,
            }
          }
          return row.state === 'Current' ? { ...row, state: 'NonCurrent' } : row
        }),
      })),

    async abandonMaterial(name, number) {
      const isGone = await remove(name, async (rows) => {
        if (rows.key.state !== 'Creating' || rows.materials.some((row) => row.number !== number)) return false
        if (!isUnsealedSystemKey(rows)) await verifyKeyRows(ports, rows)
        return true
      })
      if (isGone) return
      await changeMaterial(name, number, (old, abandoned) => {
        if (abandoned.state !== 'Creating') throw new TypeError('a material that was acknowledged cannot be abandoned')
        return { ...old, materials: old.materials.filter((row) => row !== abandoned) }
      })
    },

    updateMaterial: (name, number, changes, review, lease) =>
      changeMaterial(
        name,
        number,
        (rows, changed) => {
          review?.(toEntry(rows))
          return {
            ...rows,
            materials: rows.materials.map((row) => (row === changed ? { ...row, state: changes.state } : row)),
          }
        },
        lease,
      ),

    updateKey: (name, changes, review) =>
      change(name, (rows) => {
        review?.(toEntry(rows))
        return { ...rows, key: changeKeyRow(rows.key, changes) }
      }),

    putKeyPolicy: (name, document) => change(name, (rows) => ({ ...rows, policy: toPolicyRow(name, document) })),

    setTags: (name, put, removed) =>
      change(name, (rows) => ({
        ...rows,
        tags: [
          ...rows.tags.filter((row) => !Object.hasOwn(put, row.tag_key) && !removed.includes(row.tag_key)),
          ...toTagRows(name, put),
        ].sort((a, b) => (a.tag_key < b.tag_key ? -1 : 1)),
      })),

    async removeKey(name) {
      await remove(name, async () => true)
    },

    async unsettledMaterials() {
      const [rows] = await database.read([
        db
          .selectFrom('material')
          .selectAll()
          .where('state', 'in', ['Creating', 'Destroying'])
          .orderBy('ordinal')
          .compile(),
      ])
      const sealed = rows.filter((row) => row.account !== 'system' || row.hmac.length > 0)
      const verified = await keepVerified(ports, 'material', sealed)
      const isFree = await Promise.all(verified.map((row) => row.state !== 'Creating' || isLeftBehind(row)))
      return verified.filter((_, index) => isFree[index]).map(toMaterialRecord)
    },

    async dueDeletions(before) {
      const [rows] = await database.read([
        db
          .selectFrom('key')
          .selectAll()
          .where('state', '=', 'PendingDeletion')
          .where('deletion_at', '<=', before)
          .orderBy('deletion_at')
          .compile(),
      ])
      const due = await keepVerified(ports, 'key', rows)
      return due.map(({ account, region, key_id }) => ({ account, region, keyId: key_id }))
    },

    async objectIds(after, limit) {
      const [rows] = await database.read([
        db
          .selectFrom('material')
          .innerJoin('key', (join) =>
            join
              .onRef('key.account', '=', 'material.account')
              .onRef('key.region', '=', 'material.region')
              .onRef('key.key_id', '=', 'material.key_id'),
          )
          .select([
            'material.ordinal',
            'material.account',
            'material.region',
            'material.key_id',
            'material.object_id',
            'material.label',
            'material.state',
            'key.group',
            'key.spec',
            'key.custody',
          ])
          .where('material.ordinal', '>', after ?? 0)
          .orderBy('material.ordinal')
          .limit(limit)
          .compile(),
      ])
      return rows.map((row) => ({
        row: row.ordinal,
        account: row.account,
        region: row.region,
        keyId: row.key_id,
        objectId: asBuffer(row.object_id),
        label: row.label,
        state: row.state as MaterialRecord['state'],
        group: row.group,
        spec: row.spec as KeySpec,
        custody: row.custody as KeyRecord['custody'],
      }))
    },
  } satisfies Partial<Catalog>
}
