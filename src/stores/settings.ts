/** What the catalog's open column holds of a store, by its type. This file alone reads and writes it. Pure. */
import type { CustomKeyStoreRecord } from '../catalog/catalog.ts'
import type { Cluster, ProxyAddress, StoreDescription } from './stores.ts'

export interface ClusterSettings extends Cluster {
  /** Version of the password that was last handed to the token, and of the one that it took. */
  readonly triedSecret?: number
  readonly provenSecret?: number
}

type Stored = CustomKeyStoreRecord['settings']

export function clusterOf({ type, settings }: CustomKeyStoreRecord): ClusterSettings | undefined {
  return type === 'AWS_CLOUDHSM' ? (settings as unknown as ClusterSettings) : undefined
}

export function proxyOf({ type, settings }: CustomKeyStoreRecord): ProxyAddress | undefined {
  return type === 'EXTERNAL_KEY_STORE' ? (settings as unknown as ProxyAddress) : undefined
}

export function toSettings(value: ClusterSettings | ProxyAddress): Stored {
  return { ...value }
}

export function describeStore(store: CustomKeyStoreRecord): StoreDescription {
  const { storeId, name, type, state, createdAt, errorCode } = store
  const cluster = clusterOf(store)
  const proxy = proxyOf(store)
  return {
    storeId,
    name,
    type,
    state,
    createdAt,
    ...(state === 'FAILED' && errorCode !== null ? { errorCode } : {}),
    ...(cluster === undefined ? {} : { cluster: { clusterId: cluster.clusterId, trustAnchor: cluster.trustAnchor } }),
    ...(proxy === undefined ? {} : { proxy }),
  }
}

/** A sealed secret is of use only with its own store and version. */
export function sealContextOf({
  storeId,
  secretVersion,
}: Pick<CustomKeyStoreRecord, 'storeId' | 'secretVersion'>): string {
  return `custom-key-store\0${storeId}\0${secretVersion}`
}
