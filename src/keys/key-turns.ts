/** One change of a key's materials at a time within this gateway; changes of other gateways are met by the catalog's reviews. */
import type { KeyName } from '../catalog/catalog.ts'

export type KeyTurns = <T>(name: KeyName, change: () => Promise<T>) => Promise<T>

export function createKeyTurns(): KeyTurns {
  const last = new Map<string, Promise<unknown>>()
  return (name, change) => {
    const key = `${name.account}/${name.region}/${name.keyId}`
    const turn = (last.get(key) ?? Promise.resolve()).then(change)
    const settled = turn.then(
      () => {},
      () => {},
    )
    last.set(key, settled)
    settled.then(() => {
      if (last.get(key) === settled) last.delete(key)
    })
    return turn
  }
}
