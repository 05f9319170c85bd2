/**
 * Changes of a key's state by its owner. A change is acknowledged when the catalog has it durably and its caches follow; calls that
 * still wait for the module ask again before they are sent.
 */
import type { Catalog, KeyEntry, KeyState } from '../catalog/catalog.ts'
import { GatewayError } from '../error.ts'
import { renderKeyArn } from './identifiers.ts'
import { refuseStates } from './key-state.ts'
import type { KeyService } from './keys.ts'
import { planDeletion } from './related-deletion.ts'

export type LifeCycle = Pick<
  KeyService,
  'setEnabled' | 'setDescription' | 'scheduleDeletion' | 'cancelDeletion' | 'setPolicy' | 'setTags'
>

const dayMs = 24 * 60 * 60 * 1000
const pendingDeletion: readonly KeyState[] = ['PendingDeletion', 'PendingReplicaDeletion']

export function createLifeCycle(parts: {
  readonly catalog: Catalog
  readonly partition: string
  readonly now: () => number
}): LifeCycle {
  const { catalog, partition, now } = parts
  const refuse = (entry: KeyEntry, states: readonly KeyState[]): void =>
    refuseStates(renderKeyArn(partition, entry.key), entry.key.state, states)

  /** Once destruction has begun the key can't come back: a part of it may be gone. */
  const requireCancellable = (entry: KeyEntry): void => {
    const keyArn = renderKeyArn(partition, entry.key)
    if (!pendingDeletion.includes(entry.key.state))
      throw new GatewayError('KeyStateInvalid', { keyArn, condition: 'not pending deletion' })
    if (entry.materials.some(({ state }) => state === 'Destroying' || state === 'Destroyed'))
      throw new GatewayError('KeyStateInvalid', { keyArn, condition: 'pending deletion' })
  }

  /** Whether the key has replicas, and whether it is becoming the primary one, is known to the write alone. */
  const scheduleRelated = async (entry: KeyEntry, windowDays: number): Promise<KeyEntry> => {
    const own = (entries: readonly KeyEntry[]) => entries.find(({ key }) => key.region === entry.key.region) as KeyEntry
    const changed = await catalog.changeRelatedKeys(entry.key, (entries) => {
      const found = own(entries)
      refuse(found, [...pendingDeletion, 'Updating'])
      if (found.key.related?.nextPrimary === entry.key.region) {
        throw new GatewayError('KeyStateInvalid', { keyArn: renderKeyArn(partition, entry.key), condition: 'updating' })
      }
      return planDeletion(entries, found, windowDays, now())
    })
    return own(changed)
  }

  return {
    async setEnabled(entry, enabled) {
      refuse(entry, [...pendingDeletion, 'PendingImport', 'Creating', 'Updating'])
      const state = enabled ? 'Enabled' : 'Disabled'
      if (entry.key.state === state) return
      await catalog.updateKey(entry.key, { state }, (found) => refuse(found, [...pendingDeletion, 'Updating']))
    },

    async setDescription(entry, description) {
      refuse(entry, pendingDeletion)
      await catalog.updateKey(entry.key, { description })
    },

    async scheduleDeletion(entry, windowDays) {
      refuse(entry, [...pendingDeletion, 'Updating'])
      if (entry.key.related !== undefined) return scheduleRelated(entry, windowDays)
      const changes = { state: 'PendingDeletion', deletionAt: now() + windowDays * dayMs } as const
      return catalog.updateKey(entry.key, changes, (found) => refuse(found, pendingDeletion))
    },

    async cancelDeletion(entry) {
      requireCancellable(entry)
      return catalog.updateKey(entry.key, { state: 'Disabled', deletionAt: null }, requireCancellable)
    },

    async setPolicy(entry, document) {
      await catalog.putKeyPolicy(entry.key, document)
    },

    async setTags(entry, put, remove) {
      refuse(entry, pendingDeletion)
      await catalog.setTags(entry.key, put, remove)
    },
  }
}
