/**
 * What this gateway holds open for its custom key stores: a group of workers for each connected AWS_CLOUDHSM store, a client for the proxy of each
 * EXTERNAL_KEY_STORE. Says nothing about the state of a store; jobs.ts and the catalog do. Owns workers, connections and unsealed secrets.
 */
import { randomUUID } from 'node:crypto'
import { deadlineIn } from '../call.ts'
import type { CustomKeyStoreRecord } from '../catalog/catalog.ts'
import type { TokenGroups } from '../hsm/port.ts'
import { type Clusters, connectionErrorOfToken, findAbsence } from './clusters.ts'
import { createProxyClient, type ProxyClient, type ProxyTransport } from './proxy-client.ts'
import { connectionErrorOf } from './proxy-failures.ts'
import { clusterOf, proxyOf, sealContextOf } from './settings.ts'
import type { ConnectionErrorCode } from './stores.ts'

export interface ConnectionParts {
  readonly hsm: TokenGroups
  readonly clusters: Clusters
  readonly transport: ProxyTransport
  readonly sealer: {
    seal(secret: Uint8Array, context: string): Promise<Buffer>
    unseal(sealed: Uint8Array, context: string): Promise<Buffer>
  }
  /** A group serves: keys whose creation was cut off in it can be settled. */
  readonly opened: (group: string) => Promise<void>
}

export interface Connections extends AsyncDisposable {
  /**
   * Tries the token or the proxy, unless it is not wanted any more; undefined: it is there. What was opened stays open until it is closed, also after an
   * error.
   */
  open(store: CustomKeyStoreRecord, isWanted?: () => boolean): Promise<ConnectionErrorCode | undefined>
  close(storeId: string): Promise<void>
  /** Stores that were opened here and not closed, or whose proxy was asked. */
  opened(): readonly string[]
  /** The client as the store's settings are now. */
  proxy(store: CustomKeyStoreRecord): Promise<ProxyClient>
}

interface OpenProxy {
  /** The store as it was last asked for: the same object needs no comparison. */
  store: CustomKeyStoreRecord
  readonly version: string
  readonly client: Promise<ProxyClient>
}

const probeLimitMs = 5000

export function createConnections(parts: ConnectionParts): Connections {
  const { hsm, clusters, transport, sealer } = parts
  /** Asked for, and open or on the way. */
  const groups = new Set<string>()
  const proxies = new Map<string, OpenProxy>()

  const unseal = (store: CustomKeyStoreRecord) => sealer.unseal(store.sealedSecret, sealContextOf(store))

  async function openToken(store: CustomKeyStoreRecord): Promise<ConnectionErrorCode | undefined> {
    const { storeId, secretVersion } = store
    const cluster = clusters.find(clusterOf(store)?.clusterId ?? '')
    if (cluster === undefined) return 'CLUSTER_NOT_FOUND'
    const absence = findAbsence(cluster)
    if (absence !== undefined) return absence
    const pin = {
      identity: { inode: storeId, changeTimeNs: String(secretVersion), bytes: 0 },
      load: () => unseal(store),
    }
    const opening = await hsm.openGroup(storeId, { ...cluster.token, pinFile: '', pin })
    if (!opening.ready) return connectionErrorOfToken(opening)
    await parts.opened(storeId)
    return undefined
  }

  async function openProxy(store: CustomKeyStoreRecord): Promise<ConnectionErrorCode | undefined> {
    const metadata = { kmsRequestId: randomUUID(), kmsOperation: 'ConnectCustomKeyStore' }
    try {
      await (await proxy(store)).health(metadata, deadlineIn(probeLimitMs))
      return undefined
    } catch (cause) {
      return connectionErrorOf(cause)
    }
  }

  function proxy(store: CustomKeyStoreRecord): Promise<ProxyClient> {
    const open = proxies.get(store.storeId)
    if (open?.store === store) return open.client
    const version = `${store.secretVersion} ${JSON.stringify(store.settings)}`
    if (open?.version === version) {
      open.store = store
      return open.client
    }
    if (open !== undefined) dispose(open)
    const address = proxyOf(store)
    if (address === undefined) throw new TypeError(`${store.storeId} has no proxy`)
    const client = unseal(store).then((secret) => createProxyClient(address, secret, store.region, transport))
    proxies.set(store.storeId, { store, version, client })
    // a module that could not unseal is asked again by the next call
    client.catch(() => {
      if (proxies.get(store.storeId)?.client === client) proxies.delete(store.storeId)
    })
    return client
  }

  async function close(storeId: string): Promise<void> {
    const open = proxies.get(storeId)
    proxies.delete(storeId)
    if (open !== undefined) dispose(open)
    if (groups.delete(storeId)) await hsm.closeGroup(storeId)
  }

  return {
    async open(store, isWanted = () => true) {
      await close(store.storeId)
      // who closes from here on finds what is being opened
      if (!isWanted()) return 'INTERNAL_ERROR'
      if (store.type === 'AWS_CLOUDHSM') groups.add(store.storeId)
      return store.type === 'AWS_CLOUDHSM' ? openToken(store) : openProxy(store)
    },
    close,
    proxy,
    opened: () => [...groups, ...proxies.keys()],
    async [Symbol.asyncDispose]() {
      await Promise.all([...groups, ...proxies.keys()].map(close))
    },
  }
}

function dispose({ client }: OpenProxy): void {
  client.then(
    (open) => open[Symbol.dispose](),
    () => {},
  )
}
