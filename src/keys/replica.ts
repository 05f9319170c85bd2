/** What a multi-Region key may not do by itself, because its primary does it for all (AWS KMS Developer Guide, "Shared properties"). Pure. */
import type { KeyEntry } from '../catalog/catalog.ts'
import { GatewayError } from '../error.ts'
import { renderKeyArn } from './identifiers.ts'

export function isReplica({ key }: KeyEntry): boolean {
  return key.related !== undefined && key.related.primary !== key.region
}

/** Whether materials, rotation and their history are the primary's, copied by every write that changes them. Imported material is not. */
export function followsPrimary(entry: KeyEntry): boolean {
  return isReplica(entry) && entry.key.origin !== 'EXTERNAL'
}

/** Whether other keys rotate with this one. */
export function hasReplicas(entry: KeyEntry): boolean {
  const { related } = entry.key
  return related !== undefined && related.regions.length > 1 && !isReplica(entry)
}

/** @throws GatewayError `Unsupported` for replicas, whatever they follow. */
export function refuseReplica(partition: string, entry: KeyEntry): void {
  if (isReplica(entry)) throw notPrimary(partition, entry)
}

/** @throws GatewayError `Unsupported` for replicas and keys of a single Region. */
export function requirePrimary(partition: string, entry: KeyEntry): void {
  if (entry.key.related === undefined || isReplica(entry)) throw notPrimary(partition, entry)
}

/** @throws GatewayError `Unsupported` */
export function refuseFollower(partition: string, entry: KeyEntry): void {
  if (followsPrimary(entry)) throw notPrimary(partition, entry)
}

function notPrimary(partition: string, { key }: KeyEntry): GatewayError {
  return new GatewayError('Unsupported', { text: `${renderKeyArn(partition, key)} is not a multi-region primary key.` })
}
