/**
 * Multi-Region keys (AWS KMS Developer Guide, "Multi-Region keys"): keys of one id in several Regions, whose materials are the same objects
 * in the module. Replication and the change of roles answer while the keys are `Creating` and `Updating`, and are finished at once
 * afterwards; what a crash leaves is finished by the next round. Every step is one write that decides on the keys as it finds them.
 */
import type { Catalog, KeyEntry, KeyName, KeyState } from '../catalog/catalog.ts'
import { GatewayError } from '../error.ts'
import { renderKeyArn } from './identifiers.ts'
import { refuseStates } from './key-state.ts'
import type { MultiRegionKeys, RelatedEvents } from './keys.ts'
import { rolesOf } from './related-deletion.ts'
import { requirePrimary } from './replica.ts'

export interface MultiRegionParts {
  readonly catalog: Catalog
  readonly partition: string
  /** Wall time in epoch milliseconds. */
  readonly now: () => number
  /** @throws GatewayError `LimitExceeded` when the account has as many keys there as it may have. */
  readonly requireRoom: (account: string, region: string) => Promise<void>
  readonly events?: RelatedEvents
}

const unreplicable: readonly KeyState[] = [
  'Disabled',
  'PendingDeletion',
  'PendingReplicaDeletion',
  'PendingImport',
  'Creating',
  'Updating',
]
const immovable = unreplicable.filter((state) => state !== 'Updating')

export function createMultiRegion(parts: MultiRegionParts): MultiRegionKeys {
  const { catalog, partition, now, events } = parts
  const arnOf = (name: KeyName) => renderKeyArn(partition, name)
  const underWay = new Map<string, Promise<void>>()

  const requireReplicable = (entry: KeyEntry) => {
    refuseStates(arnOf(entry.key), entry.key.state, unreplicable)
    requirePrimary(partition, entry)
  }

  const requireMovable = (entry: KeyEntry) => {
    refuseStates(arnOf(entry.key), entry.key.state, immovable)
    requirePrimary(partition, entry)
    // A rotation under way ends on the key where it began, and the replicas follow that one.
    if (entry.materials.some(({ state }) => state === 'Creating')) throw isUpdating(entry)
  }

  const isUpdating = ({ key }: KeyEntry) =>
    new GatewayError('KeyStateInvalid', { keyArn: arnOf(key), condition: 'updating' })

  const finishReplica = async (entry: KeyEntry) => {
    // Recorded while the row can still tell of it: a crash in between records it twice, never not at all.
    await events?.replicaCreated(entry)
    await catalog.reviseKey(entry.key, (found) =>
      found.key.state === 'Creating'
        ? { key: { state: found.key.origin === 'EXTERNAL' ? 'PendingImport' : 'Enabled' } }
        : undefined,
    )
  }

  const finishMove = async (entry: KeyEntry) => {
    const { nextPrimary } = rolesOf(entry.key.related)
    const next = (await catalog.findRelatedKeys(entry.key)).find(({ key }) => key.region === nextPrimary)
    if (next !== undefined) await events?.primaryChanged(next)
    await catalog.changeRelatedKeys(entry.key, (entries) => {
      const { nextPrimary: primary } = rolesOf(entries[0]?.key.related)
      if (primary === undefined) return undefined
      const updating = entries.filter(({ key }) => key.state === 'Updating')
      return {
        keys: Object.fromEntries(updating.map(({ key }) => [key.region, { state: 'Enabled' as const }])),
        related: { primary },
      }
    })
  }

  /** Finishes what was begun, once at a time in this gateway; others may do the same, and then one of the writes changes nothing. */
  const finish = (name: KeyName): Promise<void> => {
    const { account, keyId } = name
    const id = `${account}/${keyId}`
    const turn = (underWay.get(id) ?? Promise.resolve()).then(async () => {
      const entry = await catalog.findKey(name)
      if (entry?.key.state === 'Creating') await finishReplica(entry)
      if (entry?.key.state === 'Updating') await finishMove(entry)
    })
    const ended = turn
      .catch(() => {
        // The caller has its answer, and the next round begins again where this one ended.
      })
      .then(() => {
        if (underWay.get(id) === ended) underWay.delete(id)
      })
    underWay.set(id, ended)
    return turn
  }

  const finishSoon = (name: KeyName) => {
    finish(name).catch(() => {
      // as above
    })
  }

  return {
    relatedKeys: (entry) => catalog.findRelatedKeys(entry.key),

    async replicate(entry, { region, description, policy, tags }) {
      requireReplicable(entry)
      await parts.requireRoom(entry.key.account, region)
      const entries = await catalog.changeRelatedKeys(entry.key, (found) => {
        requireReplicable(inRegion(found, entry.key.region))
        return { add: { region, description, policy, tags, createdAt: now() } }
      })
      const replica = inRegion(entries, region)
      finishSoon(replica.key)
      return replica
    },

    async updatePrimaryRegion(entry, region) {
      requireMovable(entry)
      await catalog.changeRelatedKeys(entry.key, (found) => {
        const primary = inRegion(found, entry.key.region)
        requireMovable(primary)
        const { nextPrimary, ...roles } = rolesOf(primary.key.related)
        if (nextPrimary === region) return undefined
        if (nextPrimary !== undefined) throw isUpdating(primary)
        const next = found.find(({ key }) => key.region === region)
        const arn = arnOf({ ...entry.key, region })
        if (next === undefined) throw new GatewayError('KeyNotFound', { text: `Key '${arn}' does not exist` })
        // The documentation names no exception for the key that is the primary one already.
        if (next === primary) throw new GatewayError('Unsupported', { text: `${arn} is the primary key already.` })
        refuseStates(arn, next.key.state, ['PendingDeletion', 'Creating', 'Updating'])
        // A disabled key stays disabled: in `Updating` it could be used.
        const enabled = [primary, next].filter(({ key }) => key.state === 'Enabled')
        return {
          keys: Object.fromEntries(enabled.map(({ key }) => [key.region, { state: 'Updating' as const }])),
          related: { ...roles, nextPrimary: region },
        }
      })
      finishSoon(entry.key)
    },

    async settleRelatedKeys() {
      const names = await catalog.unfinishedRelatedKeys()
      const outcomes = await Promise.allSettled(names.map(finish))
      const failed = outcomes.find(({ status }) => status === 'rejected')
      if (failed?.status === 'rejected') throw failed.reason
    },
  }
}

function inRegion(entries: readonly KeyEntry[], region: string): KeyEntry {
  const found = entries.find(({ key }) => key.region === region)
  if (found === undefined) throw new TypeError(`related keys without one in ${region}`)
  return found
}
