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
import { clusterOf, describeStore, proxyOf, sealContextOf, toSettings } from './settings.ts'
import { type CustomKeyStores, type ProxyAddress, type StoreChanges, StoreError, type StoreScope } from './stores.ts'
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
  const view = await openStoreView(catalog, (cause) => events.failed('*', cause))
  const connections = stack.use(createConnections({ ...parts, clusters }))
  const jobs = stack.use(startJobs({ catalog, connections, view, events }))
  const keys = createKeyStores({ ...parts, view, connections })

  // Connected stores stay so, whether or not their token answers now.
  const opening = view
    .all()
    .filter(({ state, type }) => state === 'CONNECTED' && type === 'AWS_CLOUDHSM')
    .map((store) => connections.open(store).catch((cause) => events.failed(store.storeId, cause)))

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
      const proxy = await planProxy(before, changes, scope)
      const cluster = planCluster(before, changes)
      const secret = changes.password ?? changes.proxy?.credential?.secret
      const secretVersion = before.secretVersion + (secret === undefined ? 0 : 1)
      const sealedSecret = secret === undefined ? undefined : await seal(secret, { storeId, secretVersion })
      await change(storeId, scope, (found, others) => {
        requireUpdatable(found, changes)
        // Somebody else changed it meanwhile: what was tried on the proxy would not be what is written.
        if (JSON.stringify(found.settings) !== JSON.stringify(before.settings)) throw overtaken()
        if (found.secretVersion !== before.secretVersion) throw overtaken()
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

  /** The proxy as it would be, tried on the proxy where AWS tries it. */
  async function planProxy(
    before: CustomKeyStoreRecord,
    { proxy: changes }: StoreChanges,
    scope: StoreScope,
  ): Promise<ProxyAddress | undefined> {
    const old = proxyOf(before)
    if (changes === undefined || old === undefined) return undefined
    const { credential, ...rest } = changes
    const given = Object.fromEntries(Object.entries(rest).filter(([, value]) => value !== undefined))
    const merged: ProxyAddress = { ...old, ...given, accessKeyId: credential?.accessKeyId ?? old.accessKeyId }
    const { vpcServiceName, vpcServiceOwner, ...common } = merged
    const next = merged.connectivity === 'PUBLIC_ENDPOINT' && changes.vpcServiceName === undefined ? common : merged
    requireSoundProxy(next, before.region)
    requireProxyFree(
      next,
      view.all().filter(({ storeId, account, region }) => {
        return storeId !== before.storeId && account === before.account && region === before.region
      }),
    )
    if (next.connectivity === 'PUBLIC_ENDPOINT' || before.state === 'CONNECTED') {
      const secret =
        credential === undefined
          ? await sealer.unseal(before.sealedSecret, sealContextOf(before))
          : Buffer.from(credential.secret)
      await probe(next, secret, 'UpdateCustomKeyStore', scope)
    }
    return next
  }

  function planCluster(before: CustomKeyStoreRecord, { clusterId }: StoreChanges) {
    const old = clusterOf(before)
    if (clusterId === undefined || old === undefined) return undefined
    if (clusterId !== old.clusterId) clusters.requireRelated(clusters.get(clusterId), old.trustAnchor)
    return { ...old, clusterId }
  }
}

/** AWS KMS API Reference, "UpdateCustomKeyStore": which properties change while the store is connected. */
function requireUpdatable({ storeId, type, state }: CustomKeyStoreRecord, changes: StoreChanges): void {
  const isOfType = type === 'AWS_CLOUDHSM' ? changes.proxy === undefined : !hasClusterChanges(changes)
  if (!isOfType) {
    throw new GatewayError('ValidationFailed', {
      text: `The request has properties that a custom key store of type ${type} does not have.`,
    })
  }
  if (state === 'DISCONNECTED') return
  const { endpoint, connectivity, vpcServiceName, vpcServiceOwner } = changes.proxy ?? {}
  const isFixed = [endpoint, connectivity, vpcServiceName, vpcServiceOwner].some((value) => value !== undefined)
  if (state !== 'CONNECTED' || isFixed || hasClusterChanges(changes)) throw invalidState(storeId, state, 'updated')
}

function hasClusterChanges({ clusterId, password }: StoreChanges): boolean {
  return clusterId !== undefined || password !== undefined
}

function requireFound(
  store: CustomKeyStoreRecord | undefined,
  storeId: string,
  { account, region }: Pick<StoreScope, 'account' | 'region'>,
): CustomKeyStoreRecord {
  if (store !== undefined && store.account === account && store.region === region) return store
  throw notFound(storeId)
}

function overtaken(): StoreError {
  return new StoreError('CustomKeyStoreInvalidState', 'The custom key store was changed by another request; try again.')
}
