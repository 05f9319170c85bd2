/**
 * Asks the state of a key once more when its call leaves the queue, so that DisableKey holds for calls that still wait. The hot path reads the
 * catalog's cache; where that can't answer, the call comes back, the key is read again, and the call is sent once more.
 */
import type { Deadline } from '../call.ts'
import type { Catalog, KeyEntry } from '../catalog/catalog.ts'
import { GatewayError } from '../error.ts'
import { renderKeyArn } from './identifiers.ts'
import { requireUsable } from './key-state.ts'

/** The cache has nothing to say: evicted, or changed by another gateway and not read again yet. */
class Unsure extends GatewayError<'KeyUnavailable'> {
  constructor() {
    super('KeyUnavailable')
  }
}

export type WhileUsable = <T>(
  entry: KeyEntry,
  deadline: Deadline,
  use: (deadline: Deadline) => Promise<T>,
) => Promise<T>

export function createWhileUsable(catalog: Catalog, partition: string, wallMs: () => number): WhileUsable {
  function admitting(entry: KeyEntry, deadline: Deadline): Deadline {
    return {
      atMs: deadline.atMs,
      admit() {
        deadline.admit?.()
        const now = catalog.peekKey(entry.key)
        if (now === entry && entry.key.origin !== 'EXTERNAL') return
        if (now === undefined) throw new Unsure()
        requireUsable(renderKeyArn(partition, now.key), now, wallMs)
      },
    }
  }

  return async (entry, deadline, use) => {
    try {
      return await use(admitting(entry, deadline))
    } catch (cause) {
      if (!(cause instanceof Unsure)) throw cause
    }
    const now = await catalog.findKey(entry.key)
    if (now === undefined) throw new GatewayError('KeyUnavailable')
    requireUsable(renderKeyArn(partition, now.key), now, wallMs)
    return use(admitting(now, deadline))
  }
}
