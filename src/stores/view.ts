/**
 * The stores as this gateway knows them, in memory, so that the state of a key can be told at once. Who writes a store puts it here; what other gateways
 * write is read again when the catalog tells of it, one read after another, so that none brings back what an earlier one saw.
 */
import type { Catalog, CustomKeyStoreRecord } from '../catalog/catalog.ts'
import { createTurns } from '../in-turn.ts'

export interface StoreView extends Disposable {
  find(storeId: string): CustomKeyStoreRecord | undefined
  /** By account, Region and id. */
  all(): readonly CustomKeyStoreRecord[]
  /** Undefined: it is gone. An older version than the known one changes nothing. */
  put(storeId: string, store: CustomKeyStoreRecord | undefined): void
}

const retryMs = 1000

/** `changed`: what others wrote was read. */
export async function openStoreView(
  catalog: Pick<Catalog, 'listCustomKeyStores' | 'onChange'>,
  { changed, failed }: { readonly changed: () => void; readonly failed: (cause: unknown) => void },
): Promise<StoreView> {
  let stores = new Map<string, CustomKeyStoreRecord>()
  /** When a store was put here last, counted in puts and loads. */
  const putAt = new Map<string, number>()
  const inTurn = createTurns()
  let count = 0
  let isAsked = false
  let isClosed = false

  const load = async () => {
    const begunAt = ++count
    const next = new Map((await catalog.listCustomKeyStores()).map((store) => [store.storeId, store]))
    // What was put meanwhile is newer than what was read.
    for (const [storeId, at] of putAt) {
      const store = stores.get(storeId)
      if (at < begunAt) continue
      if (store === undefined) next.delete(storeId)
      else next.set(storeId, store)
    }
    stores = next
  }
  const follow = () => {
    // one that has not begun will see it all
    if (isAsked || isClosed) return
    isAsked = true
    const reading = inTurn(() => {
      isAsked = false
      return load()
    })
    reading.then(changed, (cause) => {
      failed(cause)
      if (!isClosed) setTimeout(follow, retryMs).unref()
    })
  }
  await load()
  catalog.onChange(({ table, name, revision }) => {
    if (table !== 'custom_key_store' && table !== '*') return
    const known = stores.get(name.slice(name.lastIndexOf('/') + 1))
    if (known === undefined || known.revision < revision || table === '*') follow()
  })

  return {
    find: (storeId) => stores.get(storeId),
    all: () => [...stores.values()],
    put(storeId, store) {
      putAt.set(storeId, ++count)
      const known = stores.get(storeId)
      if (store === undefined) stores.delete(storeId)
      else if (known === undefined || known.revision <= store.revision) stores.set(storeId, store)
    },
    [Symbol.dispose]() {
      isClosed = true
    },
  }
}
