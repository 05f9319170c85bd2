import { randomBytes } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import type { KeyEntry, MaterialRecord } from '../../../src/catalog/catalog.ts'
import {
  earliestExpiry,
  type KeyLife,
  lifeOf,
  nextLookAt,
  permanentMaterials,
  stateAt,
  toRevision,
  withMaterialLife,
} from '../../../src/keys/key-life.ts'
import { newKey } from '../../support/catalog.ts'

function entryOf(
  life: KeyLife,
  states: readonly MaterialRecord['state'][] = ['Current'],
  key: Partial<KeyEntry['key']> = {},
): KeyEntry {
  const blank = newKey({
    state: 'Enabled',
    origin: 'EXTERNAL',
    spec: 'SYMMETRIC_DEFAULT',
    extra: { other: 1, life },
    ...key,
  })
  const materials = states.map((state, i) => ({
    ...blank.key,
    ...blank.material,
    number: i + 1,
    state,
    materialId: randomBytes(32),
    revision: 1,
  }))
  return { key: { ...blank.key, revision: 1 }, materials, policy: null, tags: {}, grants: null }
}

const expiring = (expiresAt: number) => ({ imported: { expiresAt } })

describe('the state of a key', () => {
  it('is pending import from the moment that any of its materials expires', () => {
    const entry = entryOf({ materials: { 1: expiring(2000), 2: expiring(1000) } }, ['NonCurrent', 'Current'])
    expect(earliestExpiry(entry)).toBe(1000)
    expect(stateAt(entry, () => 999)).toBe('Enabled')
    expect(stateAt(entry, () => 1000)).toBe('PendingImport')
  })

  it('does not depend on material that waits for a rotation, nor on dates of missing material', () => {
    const entry = entryOf({ materials: { 1: expiring(1), 2: expiring(1) } }, ['Missing', 'Pending'])
    expect(stateAt(entry, () => 5)).toBe('Enabled')
  })

  it('asks for no time where nothing expires', () => {
    const never = () => {
      throw new Error('asked')
    }
    expect(stateAt(entryOf({}, ['Current'], { origin: 'AWS_KMS' }), never)).toBe('Enabled')
    expect(stateAt(entryOf({ materials: { 1: { imported: { expiresAt: null } } } }), never)).toBe('Enabled')
    expect(stateAt(entryOf({ materials: { 1: expiring(1) } }, ['Current'], { state: 'Disabled' }), never)).toBe(
      'Disabled',
    )
  })
})

describe('the date of the next look', () => {
  it('is that of the rotation while the key is enabled', () => {
    const life = { rotation: { periodDays: 90, nextAt: 500 } }
    expect(nextLookAt(entryOf(life))).toBe(500)
    expect(nextLookAt(entryOf(life, ['Current'], { state: 'Disabled' }))).toBeNull()
  })

  it('is the first of all that is due, and now for what was cut off or not told yet', () => {
    const rotation = { periodDays: 90, nextAt: 500 }
    expect(nextLookAt(entryOf({ rotation, materials: { 1: expiring(300) } }))).toBe(300)
    expect(nextLookAt(entryOf({ rotation, materials: { 1: { objectLeft: 'destroy' } } }, ['Missing']))).toBe(0)
    expect(nextLookAt(entryOf({ rotation, reports: [{ event: 'DeleteExpiredKeyMaterial' }] }))).toBe(0)
  })

  it('gives an unfinished material ten minutes', () => {
    const life: KeyLife = { materials: { 1: { begunAt: 1000, becoming: { kind: 'rotation', type: 'ON_DEMAND' } } } }
    expect(nextLookAt(entryOf(life, ['Creating']))).toBe(1000 + 10 * 60_000)
  })

  it('is counted from the key as a revision leaves it', () => {
    const life = { rotation: { periodDays: 90, nextAt: 500 } }
    const entry = entryOf({}, ['Current'], { state: 'Disabled' })
    expect(toRevision(entry, { life }).dueAt).toBeNull()
    expect(toRevision(entry, { life, key: { state: 'Enabled' } }).dueAt).toBe(500)
    const dated = { materials: { 1: expiring(7) } }
    expect(toRevision(entry, { life: dated }).dueAt).toBe(7)
    expect(toRevision(entry, { life: dated, materials: { 1: { state: 'Missing' } } }).dueAt).toBeNull()
    expect(toRevision(entry, { life: dated, remove: 1 }).dueAt).toBeNull()
  })
})

describe('a revision', () => {
  it('keeps what others have written beside it', () => {
    const entry = entryOf({})
    const life = { onDemandRotations: 1 }
    expect(toRevision(entry, { life }).key?.extra).toEqual({ other: 1, life })
    expect(lifeOf(entry)).toEqual({})
  })
})

describe('materials of a key', () => {
  it('belong to it once they are neither being made nor waiting, and not when they are discarded', () => {
    const life: KeyLife = { materials: { 4: { objectLeft: 'discard' } } }
    const entry = entryOf(life, ['NonCurrent', 'Missing', 'Current', 'Missing', 'Pending', 'Creating'])
    expect(permanentMaterials(entry).map(({ number }) => number)).toEqual([1, 2, 3])
  })

  it('have their lives replaced one at a time', () => {
    const lives = { 1: expiring(1), 2: expiring(2) }
    expect(withMaterialLife(lives, 2, expiring(3))).toEqual({ 1: expiring(1), 2: expiring(3) })
    expect(withMaterialLife(lives, 1, undefined)).toEqual({ 2: expiring(2) })
    expect(lives).toEqual({ 1: expiring(1), 2: expiring(2) })
  })
})
