/** Which keys live in custom key stores. Pure. */
import type { KeyEntry } from '../catalog/catalog.ts'
import { findStorePlace, type StorePlace } from './keys.ts'

export function isInStore({ key: { origin } }: KeyEntry): boolean {
  return origin === 'AWS_CLOUDHSM' || origin === 'EXTERNAL_KEY_STORE'
}

/** @throws TypeError for an ordinary key. */
export function placeOf({ key }: Pick<KeyEntry, 'key'>): StorePlace {
  const place = findStorePlace(key.extra)
  if (place === undefined) throw new TypeError(`key ${key.keyId} names no custom key store`)
  return place
}
