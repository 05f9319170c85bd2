/** What UpdateCustomKeyStore may change when, and what a store's settings become (AWS KMS API Reference, "UpdateCustomKeyStore"). Pure. */
import type { CustomKeyStoreRecord } from '../catalog/catalog.ts'
import { GatewayError } from '../error.ts'
import type { Clusters } from './clusters.ts'
import { invalidState } from './rules.ts'
import { type ClusterSettings, clusterOf, proxyOf } from './settings.ts'
import { type ProxyAddress, type StoreChanges, StoreError } from './stores.ts'

/** All properties of a store that is disconnected; of one that is connected its name, and the credential and path of its proxy. */
export function requireUpdatable({ storeId, type, state }: CustomKeyStoreRecord, changes: StoreChanges): void {
  const isOfType = type === 'AWS_CLOUDHSM' ? changes.proxy === undefined : !hasClusterChanges(changes)
  if (!isOfType) {
    const text = `The request has properties that a custom key store of type ${type} does not have.`
    throw new GatewayError('ValidationFailed', { text })
  }
  if (state === 'DISCONNECTED') return
  const { endpoint, connectivity, vpcServiceName, vpcServiceOwner } = changes.proxy ?? {}
  const isFixed = [endpoint, connectivity, vpcServiceName, vpcServiceOwner].some((value) => value !== undefined)
  if (state !== 'CONNECTED' || isFixed || hasClusterChanges(changes)) throw invalidState(storeId, state, 'updated')
}

function hasClusterChanges({ clusterId, password }: StoreChanges): boolean {
  return clusterId !== undefined || password !== undefined
}

/** What was tried on a proxy must be what is written. @throws StoreError */
export function requireSame(before: CustomKeyStoreRecord, found: CustomKeyStoreRecord): void {
  const isSame = JSON.stringify(found.settings) === JSON.stringify(before.settings)
  if (isSame && found.secretVersion === before.secretVersion) return
  const text = 'The custom key store was changed by another request meanwhile; try again.'
  throw new StoreError('CustomKeyStoreInvalidState', text)
}

/** Undefined when nothing of the proxy changes. */
export function planProxy(before: CustomKeyStoreRecord, { proxy: changes }: StoreChanges): ProxyAddress | undefined {
  const old = proxyOf(before)
  if (changes === undefined || old === undefined) return undefined
  const { credential, ...rest } = changes
  const given = Object.fromEntries(Object.entries(rest).filter(([, value]) => value !== undefined))
  const merged: ProxyAddress = { ...old, ...given, accessKeyId: credential?.accessKeyId ?? old.accessKeyId }
  if (merged.connectivity !== 'PUBLIC_ENDPOINT' || changes.vpcServiceName !== undefined) return merged
  // a store that turns public leaves its VPC endpoint service
  const { vpcServiceName: _name, vpcServiceOwner: _owner, ...address } = merged
  return address
}

/** @throws StoreError `CloudHsmClusterNotFound`, `CloudHsmClusterNotRelated` */
export function planCluster(
  clusters: Clusters,
  before: CustomKeyStoreRecord,
  { clusterId }: StoreChanges,
): ClusterSettings | undefined {
  const old = clusterOf(before)
  if (clusterId === undefined || old === undefined) return undefined
  if (clusterId !== old.clusterId) clusters.requireRelated(clusters.get(clusterId), old.trustAnchor)
  return { ...old, clusterId }
}
