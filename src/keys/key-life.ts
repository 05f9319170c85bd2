/**
 * What becomes of a key over time: its rotation schedule, what its materials came from, when they expire. Kept in the key's own row under its
 * seal (`extra.life`); this file alone reads and writes it. Pure.
 */
import type { KeyEntry, KeyRevision, KeyState, MaterialRecord } from '../catalog/catalog.ts'
import { followsPrimary } from './replica.ts'

export type RotationType = 'AUTOMATIC' | 'ON_DEMAND'

/** What a material that is being made will be. */
export type Becoming =
  | { readonly kind: 'rotation'; readonly type: RotationType }
  | {
      readonly kind: 'import'
      readonly role: 'Current' | 'NonCurrent' | 'Pending'
      /** Number of the missing material that it brings back. */
      readonly replaces?: number
    }

export interface MaterialLife {
  /** Present while the material is being made. */
  readonly becoming?: Becoming
  /** Epoch milliseconds. */
  readonly begunAt?: number
  /** The rotation that made it current; absent for the first material. */
  readonly rotation?: { readonly type: RotationType; readonly at: number }
  readonly imported?: {
    readonly description?: string
    /** Epoch milliseconds; null: it does not expire. Absent while the material is missing. */
    readonly expiresAt?: number | null
  }
  /** Missing, but its object is still to be destroyed; with `discard` the row goes too. */
  readonly objectLeft?: 'destroy' | 'discard'
}

/** A service event that the journal does not have yet. */
export type Report =
  | {
      readonly event: 'RotateKey'
      readonly type: RotationType
      /** 64 hex. */
      readonly previous: string
      readonly current: string
    }
  | { readonly event: 'DeleteExpiredKeyMaterial'; readonly materialId?: string }

export interface KeyLife {
  readonly rotation?: { readonly periodDays: number /** Epoch milliseconds. */; readonly nextAt: number }
  readonly onDemandRotations?: number
  readonly materials?: Readonly<Record<number, MaterialLife>>
  readonly reports?: readonly Report[]
}

/** A material that stays unfinished this long was left behind by a gateway that stopped. */
const unfinishedMs = 10 * 60_000

export function lifeOf({ key }: KeyEntry): KeyLife {
  return (key.extra.life ?? {}) as KeyLife
}

export function lifeOfMaterial(entry: KeyEntry, { number }: Pick<MaterialRecord, 'number'>): MaterialLife {
  return lifeOf(entry).materials?.[number] ?? {}
}

/** Materials that belong to the key for good: neither being made nor waiting for a rotation, nor deleted while they waited. */
export function permanentMaterials(entry: KeyEntry): readonly MaterialRecord[] {
  return entry.materials.filter(
    (material) =>
      material.state !== 'Creating' &&
      material.state !== 'Pending' &&
      lifeOfMaterial(entry, material).objectLeft !== 'discard',
  )
}

export function pendingMaterial(entry: KeyEntry): MaterialRecord | undefined {
  return entry.materials.find(({ state }) => state === 'Pending')
}

export interface LifeChange extends Omit<KeyRevision, 'dueAt'> {
  readonly life: KeyLife
}

/** The revision that a change of life amounts to, with the date when this key is to be looked at next. */
export function toRevision(entry: KeyEntry, { life, key, ...change }: LifeChange): KeyRevision {
  const states = new Map(entry.materials.map(({ number, state }) => [number, state]))
  for (const [number, { state }] of Object.entries(change.materials ?? {})) {
    if (state !== undefined) states.set(Number(number), state)
  }
  if (change.remove !== undefined) states.delete(change.remove)
  if (change.add !== undefined) states.set(change.add.number, change.add.state)
  return {
    ...change,
    key: { ...key, extra: { ...entry.key.extra, life } },
    dueAt: dueAtOf(key?.state ?? entry.key.state, states, ownLife(entry, life)),
  }
}

/** When this key should be looked at as it is now; null: not before it changes. */
export function nextLookAt(entry: KeyEntry): number | null {
  const states = new Map(entry.materials.map(({ number, state }) => [number, state]))
  return dueAtOf(entry.key.state, states, ownLife(entry, lifeOf(entry)))
}

/** What is due for the key itself: a replica has a copy of its primary's life, and nothing to do about it. */
function ownLife(entry: KeyEntry, life: KeyLife): KeyLife {
  return followsPrimary(entry) ? {} : life
}

function dueAtOf(
  state: KeyState,
  materials: ReadonlyMap<number, MaterialRecord['state']>,
  { rotation, reports = [], materials: lives = {} }: KeyLife,
): number | null {
  const dates: number[] = reports.length > 0 ? [0] : []
  if (rotation !== undefined && state === 'Enabled') dates.push(rotation.nextAt)
  for (const [number, materialState] of materials) {
    const { imported, objectLeft, begunAt } = lives[number] ?? {}
    if (objectLeft !== undefined) dates.push(0)
    else if (materialState === 'Creating') dates.push((begunAt ?? 0) + unfinishedMs)
    else if (materialState !== 'Missing' && typeof imported?.expiresAt === 'number') dates.push(imported.expiresAt)
  }
  return dates.length === 0 ? null : Math.min(...dates)
}

const expiries = new WeakMap<KeyEntry, number>()

/** The first moment at which a material of the key expires; infinity when none does. Cached on the frozen entry. */
export function earliestExpiry(entry: KeyEntry): number {
  let at = expiries.get(entry)
  if (at === undefined) {
    const dates = permanentMaterials(entry)
      .filter(({ state }) => state !== 'Missing')
      .map((material) => lifeOfMaterial(entry, material).imported?.expiresAt)
      .filter((date) => typeof date === 'number')
    at = Math.min(Number.POSITIVE_INFINITY, ...dates)
    expiries.set(entry, at)
  }
  return at
}

/** The key's state at this moment: material that has expired is gone before anybody came to destroy it. */
export function stateAt(entry: KeyEntry, now: () => number): KeyState {
  const { state, origin } = entry.key
  if (state !== 'Enabled' || origin !== 'EXTERNAL') return state
  const expiry = earliestExpiry(entry)
  return expiry !== Number.POSITIVE_INFINITY && expiry <= now() ? 'PendingImport' : state
}

/** A copy of `lives` with one material's life replaced; undefined removes it. */
export function withMaterialLife(
  lives: KeyLife['materials'],
  number: number,
  life: MaterialLife | undefined,
): Readonly<Record<number, MaterialLife>> {
  const next: Record<number, MaterialLife> = { ...lives }
  if (life === undefined) delete next[number]
  else next[number] = life
  return next
}
