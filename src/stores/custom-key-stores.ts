/**
 * The six operations on custom key stores, and what the key service asks of them. Rules that span stores (names, clusters, proxies of which only one may
 * be) are checked by the write itself. Safe for any number of concurrent calls.
 */
import { randomBytes } from 'node:crypto'
import type { Catalog, CustomKeyStoreRecord } from '../catalog/catalog.ts'
import { GatewayError } from '../error.ts'
import type { Hsm } from '../hsm/port.ts'
import { type ClusterConfig, createClusters } from './clusters.ts'
import { type ConnectionParts, createConnections } from './connections.ts'
import { type JobEvents, startJobs } from './jobs.ts'
import { createKeyStores } from './key-stores.ts'
import { createProxyClient, type ProxyTransport } from './proxy-client.ts'
import { inManagement } from './proxy-failures.ts'
import {
  hasCmks,
  invalidState,
  notFound,
  requireClusterFree,
  requireNameFree,
  requireProxyFree,
  requireSoundProxy,
} from './rules.ts'
import { describeStore, sealContextOf, toSettings } from './settings.ts'
import type { CustomKeyStores, ProxyAddress, StoreChanges, StoreScope } from './stores.ts'
import { planCluster, planProxy, requireSame, requireUpdatable } from './updates.ts'
import { openStoreView } from './view.ts'

export interface CustomKeyStoreParts extends Pick<ConnectionParts, 'sealer' | 'opened'> {
  readonly catalog: Catalog
  readonly hsm: Hsm & ConnectionParts['hsm']
  readonly clusters: readonly ClusterConfig[]
  readonly transport: ProxyTransport
  /** Cryptographic requests for the keys of one store. */
  readonly requestsPerSecond: number
  /** Whether new keys of external key stores get a layer of our own. */
  readonly doubleEncryption: boolean
  /** Epoch milliseconds. */
  readonly now: () => number
  readonly events: JobEvents
}

/** AWS KMS Developer Guide, "Resource quotas". */
const storesPerRegion = 10

export async function openCustomKeyStores(parts: CustomKeyStoreParts): Promise<CustomKeyStores> {
  const { catalog, hsm, sealer, transport, events, now } = parts
  const clusters = createClusters(parts.clusters)
  await using stack = new AsyncDisposableStack()
  const connections = stack.use(createConnections({ ...parts, clusters }))
  const view = stack.use(
    await openStoreView(catalog, { changed: follow, failed: (cause) => events.failed('*', cause) }),
  )
  const jobs = stack.use(startJobs({ catalog, connections, view, events }))
  const keys = createKeyStores({ ...parts, view, connections })

  // Connected stores stay so, whether or not their token answers now.
  const opening = view.all().filter(isConnectedToken).map(openHere)

  async function openHere(store: CustomKeyStoreRecord): Promise<void> {
    const isWanted = () => view.find(store.storeId)?.state === 'CONNECTED'
    await connections.open(store, isWanted).catch((cause) => events.failed(store.storeId, cause))
  }

  /** What another gateway connected is opened here too, and what it disconnected closed; its own jobs see to what this one does. */
  function follow(): void {
    const opened = new Set(connections.opened())
    for (const store of view.all()) if (isConnectedToken(store) && !opened.has(store.storeId)) void openHere(store)
    for (const storeId of opened) {
      const state = view.find(storeId)?.state ?? 'DISCONNECTED'
      if (state === 'DISCONNECTED') connections.close(storeId).catch((cause) => events.failed(storeId, cause))
    }
  }

  /** The store as this gateway knows it; the write decides in the end. */
  function get(storeId: string, scope: Pick<StoreScope, 'account' | 'region'>): CustomKeyStoreRecord {
    return requireFound(view.find(storeId), storeId, scope)
  }

  async function change(
    storeId: string,
    scope: StoreScope,
    review: (
      found: CustomKeyStoreRecord,
      others: readonly CustomKeyStoreRecord[],
    ) => ReturnType<Parameters<Catalog['changeCustomKeyStore']>[1]>,
  ): Promise<CustomKeyStoreRecord | undefined> {
    const { account, region } = get(storeId, scope)
    const changed = await catalog.changeCustomKeyStore({ account, region, storeId }, (found, others) =>
      review(requireFound(found, storeId, scope), others),
    )
    view.put(storeId, changed)
    return changed
  }

  /** Seals a secret for a store; the text can't be wiped, its bytes are. */
  async function seal(secret: string, name: Parameters<typeof sealContextOf>[0]): Promise<Buffer> {
    const bytes = Buffer.from(secret)
    try {
      return await sealer.seal(bytes, sealContextOf(name))
    } finally {
      bytes.fill(0)
    }
  }

  async function probe(address: ProxyAddress, secret: Buffer, operation: string, scope: StoreScope): Promise<void> {
    using client = createProxyClient(address, secret, scope.region, transport)
    const metadata = { kmsRequestId: scope.requestId, kmsOperation: operation }
    await inManagement(() => client.health(metadata, scope.deadline))
  }

  /** As AWS does: a public proxy is always tried, one behind a VPC endpoint service while the store is connected. */
  async function tryProxy(
    before: CustomKeyStoreRecord,
    proxy: ProxyAddress,
    { proxy: changes }: StoreChanges,
    scope: StoreScope,
  ): Promise<void> {
    const { storeId, account, region } = before
    requireSoundProxy(proxy, region)
    const others = view.all().filter((store) => store.storeId !== storeId)
    requireProxyFree(
      proxy,
      others.filter((store) => store.account === account && store.region === region),
    )
    if (proxy.connectivity !== 'PUBLIC_ENDPOINT' && before.state !== 'CONNECTED') return
    const secret =
      changes?.credential === undefined
        ? await sealer.unseal(before.sealedSecret, sealContextOf(before))
        : Buffer.from(changes.credential.secret)
    await probe(proxy, secret, 'UpdateCustomKeyStore', scope)
  }

  const owned = stack.move()
  return {
    isStrict: transport.isStrict,
    keyStores: keys,
    async settled() {
      await Promise.all([...opening, jobs.settled()])
    },

    async create(store, scope) {
      const { account, region } = scope
      const storeId = `cks-${randomBytes(9).toString('hex').slice(0, 17)}`
      const review = (existing: readonly CustomKeyStoreRecord[]) => {
        const local = existing.filter((other) => other.account === account && other.region === region)
        requireNameFree(store.name, local)
        if (local.length >= storesPerRegion) {
          throw new GatewayError('LimitExceeded', { text: `There are ${storesPerRegion} custom key stores already.` })
        }
        if (store.type === 'AWS_CLOUDHSM') requireClusterFree(store.cluster.clusterId, existing)
        else requireProxyFree(store.proxy, local)
      }
      if (store.type === 'AWS_CLOUDHSM') {
        const cluster = clusters.get(store.cluster.clusterId)
        review(view.all())
        clusters.requireTrustAnchor(cluster, store.cluster.trustAnchor)
      } else {
        requireSoundProxy(store.proxy, region)
        review(view.all())
        // A proxy behind a VPC endpoint service is asked when the store is connected.
        if (store.proxy.connectivity === 'PUBLIC_ENDPOINT') {
          await probe(store.proxy, Buffer.from(store.secret), 'CreateCustomKeyStore', scope)
        }
      }
      const secret = store.type === 'AWS_CLOUDHSM' ? store.password : store.secret
      const record = await catalog.createCustomKeyStore(
        {
          account,
          region,
          storeId,
          name: store.name,
          type: store.type,
          state: 'DISCONNECTED',
          errorCode: null,
          settings: toSettings(store.type === 'AWS_CLOUDHSM' ? store.cluster : store.proxy),
          sealedSecret: await seal(secret, { storeId, secretVersion: 1 }),
          secretVersion: 1,
          createdAt: now(),
        },
        review,
      )
      view.put(storeId, record)
      return storeId
    },

    async connect(storeId, scope) {
      const changed = await change(storeId, scope, ({ state }) => {
        if (state === 'CONNECTED' || state === 'CONNECTING') return undefined
        if (state !== 'DISCONNECTED') throw invalidState(storeId, state, 'connected')
        return { state: 'CONNECTING', errorCode: null }
      })
      if (changed?.state === 'CONNECTING') jobs.begin(changed)
    },

    async disconnect(storeId, scope) {
      const changed = await change(storeId, scope, ({ state }) => {
        if (state === 'DISCONNECTED' || state === 'DISCONNECTING') throw invalidState(storeId, state, 'disconnected')
        return { state: 'DISCONNECTING', errorCode: null }
      })
      if (changed !== undefined) jobs.begin(changed)
    },

    async update(storeId, changes, scope) {
      const before = get(storeId, scope)
      requireUpdatable(before, changes)
      const proxy = planProxy(before, changes)
      if (proxy !== undefined) await tryProxy(before, proxy, changes, scope)
      const cluster = planCluster(clusters, before, changes)
      const secret = changes.password ?? changes.proxy?.credential?.secret
      const secretVersion = before.secretVersion + (secret === undefined ? 0 : 1)
      const sealedSecret = secret === undefined ? undefined : await seal(secret, { storeId, secretVersion })
      await change(storeId, scope, (found, others) => {
        requireUpdatable(found, changes)
        requireSame(before, found)
        const local = others.filter(({ account, region }) => account === found.account && region === found.region)
        if (changes.name !== undefined) requireNameFree(changes.name, local)
        if (changes.clusterId !== undefined) requireClusterFree(changes.clusterId, others)
        if (proxy !== undefined) requireProxyFree(proxy, local)
        const settings = proxy ?? cluster
        return {
          ...(changes.name === undefined ? {} : { name: changes.name }),
          ...(settings === undefined ? {} : { settings: toSettings(settings) }),
          ...(sealedSecret === undefined ? {} : { sealedSecret, secretVersion }),
        }
      })
    },

    async delete(storeId, scope) {
      const { account, region } = get(storeId, scope)
      using _closed = keys.closeToNewKeys(storeId)
      const hasKeys = await keys.hasKeys({ account, region, storeId })
      await change(storeId, scope, ({ state }) => {
        if (state !== 'DISCONNECTED') throw invalidState(storeId, state, 'deleted')
        if (hasKeys) throw hasCmks(storeId)
        return 'remove'
      })
      await connections.close(storeId)
    },

    describe({ storeId, name }, { account, region }) {
      const local = view.all().filter((store) => store.account === account && store.region === region)
      const found = local.filter(
        (store) => (storeId === undefined || store.storeId === storeId) && (name === undefined || store.name === name),
      )
      if (found.length === 0 && (storeId !== undefined || name !== undefined)) {
        throw notFound(storeId ?? (name as string))
      }
      return found.map(describeStore).sort((a, b) => (a.storeId < b.storeId ? -1 : 1))
    },

    async random(storeId, bytes, scope) {
      const store = get(storeId, scope)
      if (store.type !== 'AWS_CLOUDHSM') throw new GatewayError('Unsupported', {})
      if (store.state !== 'CONNECTED') throw invalidState(storeId, store.state, 'used')
      keys.take(storeId)
      return hsm.random(storeId, bytes, scope.deadline)
    },

    async [Symbol.asyncDispose]() {
      await owned.disposeAsync()
      await Promise.all(opening)
    },
  }
}

function isConnectedToken({ state, type }: CustomKeyStoreRecord): boolean {
  return state === 'CONNECTED' && type === 'AWS_CLOUDHSM'
}

function requireFound(
  store: CustomKeyStoreRecord | undefined,
  storeId: string,
  { account, region }: Pick<StoreScope, 'account' | 'region'>,
): CustomKeyStoreRecord {
  if (store !== undefined && store.account === account && store.region === region) return store
  throw notFound(storeId)
}
