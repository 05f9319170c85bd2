/**
 * Connecting and disconnecting: what goes on after ConnectCustomKeyStore and DisconnectCustomKeyStore have answered. The state in the catalog says what is
 * to be done (CONNECTING, DISCONNECTING), so that it is taken up again after a crash, by whichever gateway has the store's lease; one job at a time for a
 * store. A password is handed to its token again after a crash only if it was proven right before.
 */
import type { Catalog, CustomKeyStoreChanges, CustomKeyStoreRecord } from '../catalog/catalog.ts'
import type { Connections } from './connections.ts'
import { clusterOf, toSettings } from './settings.ts'
import type { ConnectionErrorCode } from './stores.ts'
import type { StoreView } from './view.ts'

export interface JobEvents {
  /** The job of a store is over, or could not be done now and will be tried again. */
  readonly finished: (store: CustomKeyStoreRecord) => void
  readonly failed: (storeId: string, cause: unknown) => void
}

export interface Jobs extends AsyncDisposable {
  /** Does what the store's state asks for, now; `isResumed`: a gateway that stopped had begun it. */
  begin(store: CustomKeyStoreRecord, isResumed?: boolean): void
  settled(): Promise<void>
}

const leaseMs = 300_000
const roundMs = 30_000

export function startJobs(parts: {
  readonly catalog: Pick<Catalog, 'takeLease' | 'changeCustomKeyStore'>
  readonly connections: Connections
  readonly view: StoreView
  readonly events: JobEvents
}): Jobs {
  const { catalog, connections, view, events } = parts
  const last = new Map<string, Promise<void>>()
  let isClosing = false

  /** Writes unless the store has moved on from `state`. */
  async function change(
    store: CustomKeyStoreRecord,
    state: CustomKeyStoreRecord['state'],
    changes: (found: CustomKeyStoreRecord) => CustomKeyStoreChanges,
  ): Promise<CustomKeyStoreRecord | undefined> {
    const changed = await catalog.changeCustomKeyStore(store, (found) =>
      found?.state === state ? changes(found) : undefined,
    )
    view.put(store.storeId, changed)
    return changed
  }

  async function connect(store: CustomKeyStoreRecord, isResumed: boolean): Promise<void> {
    const errorCode = await tryToOpen(store, isResumed)
    // It ended because the gateway does: the next start goes on.
    if (isClosing) return
    const changed = await change(store, 'CONNECTING', (found) => {
      const cluster = clusterOf(found)
      if (errorCode !== undefined) return { state: 'FAILED', errorCode }
      if (cluster === undefined) return { state: 'CONNECTED' }
      return { state: 'CONNECTED', settings: toSettings({ ...cluster, provenSecret: found.secretVersion }) }
    })
    if (changed?.state !== 'CONNECTED') await connections.close(store.storeId)
    if (changed !== undefined) events.finished(changed)
  }

  async function tryToOpen(store: CustomKeyStoreRecord, isResumed: boolean): Promise<ConnectionErrorCode | undefined> {
    try {
      const cluster = clusterOf(store)
      const { secretVersion } = store
      if (cluster !== undefined && cluster.provenSecret !== secretVersion) {
        if (isResumed && cluster.triedSecret === secretVersion) return 'INTERNAL_ERROR'
        await change(store, 'CONNECTING', () => ({ settings: toSettings({ ...cluster, triedSecret: secretVersion }) }))
      }
      return await connections.open(store, () => !isClosing && view.find(store.storeId)?.state === 'CONNECTING')
    } catch (cause) {
      events.failed(store.storeId, cause)
      return 'INTERNAL_ERROR'
    }
  }

  async function disconnect(store: CustomKeyStoreRecord): Promise<void> {
    await connections.close(store.storeId)
    const changed = await change(store, 'DISCONNECTING', () => ({ state: 'DISCONNECTED', errorCode: null }))
    if (changed !== undefined) events.finished(changed)
  }

  async function run(storeId: string, isResumed: boolean): Promise<void> {
    try {
      const store = view.find(storeId)
      if (store === undefined) {
        await connections.close(storeId)
        return
      }
      if (store.state !== 'CONNECTING' && store.state !== 'DISCONNECTING') return
      if ((await catalog.takeLease(`custom-key-store/${storeId}`, leaseMs)) === undefined) return
      if (store.state === 'CONNECTING') await connect(store, isResumed)
      else await disconnect(store)
    } catch (cause) {
      events.failed(storeId, cause)
    }
  }

  function begin({ storeId, state }: CustomKeyStoreRecord, isResumed = false): void {
    // A token that does not answer would hold the disconnection up: its workers go at once.
    if (state === 'DISCONNECTING') void connections.close(storeId).catch((cause) => events.failed(storeId, cause))
    const turn = (last.get(storeId) ?? Promise.resolve()).then(() => run(storeId, isResumed))
    last.set(storeId, turn)
    void turn.then(() => {
      if (last.get(storeId) === turn) last.delete(storeId)
    })
  }

  /** What others left unfinished; what this gateway does is under way already. */
  const round = () => {
    for (const store of view.all()) {
      const isUnfinished = store.state === 'CONNECTING' || store.state === 'DISCONNECTING'
      if (isUnfinished && !last.has(store.storeId)) begin(store, true)
    }
  }
  round()
  const timer = setInterval(round, roundMs)

  const settled = async () => {
    while (last.size > 0) await Promise.all(last.values())
  }
  return {
    begin,
    settled,
    async [Symbol.asyncDispose]() {
      isClosing = true
      clearInterval(timer)
      await Promise.all([...last.keys()].map(connections.close))
      await settled()
    },
  }
}
