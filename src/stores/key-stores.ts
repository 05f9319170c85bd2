/**
 * What the key service asks: whether a key's store is connected, where a new key may go, and the proxy's encryption. A store is not deleted while a key is
 * being made in it.
 */
import type { Catalog, CustomKeyStoreName, CustomKeyStoreRecord } from '../catalog/catalog.ts'
import { GatewayError, isCode } from '../error.ts'
import { type ExternalCall, findStorePlace, type KeyStores } from '../keys/keys.ts'
import type { Connections } from './connections.ts'
import { inCryptography, inKeyCreation } from './proxy-failures.ts'
import type { ExternalKeyMetadata } from './proxy-messages.ts'
import { createRequestRate, type RequestRate } from './request-rate.ts'
import { hasCmks, invalidState, notFound } from './rules.ts'
import { clusterOf } from './settings.ts'
import { StoreError } from './stores.ts'
import type { StoreView } from './view.ts'

export interface KeyStoreParts {
  readonly catalog: Pick<Catalog, 'listKeysInCustomStores'>
  readonly view: StoreView
  readonly connections: Pick<Connections, 'proxy'>
  readonly requestsPerSecond: number
  readonly doubleEncryption: boolean
}

export interface StoresOfKeys extends KeyStores {
  /** Refuses new keys of the store until it is disposed of. @throws StoreError `CustomKeyStoreHasCMKs` while one is being made. */
  closeToNewKeys(storeId: string): Disposable
  hasKeys(store: CustomKeyStoreName): Promise<boolean>
}

export function createKeyStores(parts: KeyStoreParts): StoresOfKeys {
  const { catalog, view, connections, doubleEncryption } = parts
  const rates = new Map<string, RequestRate>()
  /** Keys that are being made, by store; and which external key each takes. */
  const making = new Map<string, Set<object>>()
  const taken = new Set<string>()
  const closed = new Set<string>()

  function getConnected(storeId: string): CustomKeyStoreRecord {
    const store = view.find(storeId)
    if (store?.state === 'CONNECTED') return store
    throw new GatewayError('KeyUnavailable', undefined, { detail: `custom key store ${storeId} is not connected` })
  }

  function take(storeId: string): void {
    let rate = rates.get(storeId)
    if (rate === undefined) {
      rate = createRequestRate(parts.requestsPerSecond)
      rates.set(storeId, rate)
    }
    if (!rate.take(performance.now())) throw new GatewayError('Throttled')
  }

  function hold(storeId: string, xksKeyId: string | undefined): Disposable {
    const external = xksKeyId === undefined ? undefined : `${storeId} ${xksKeyId}`
    if (closed.has(storeId)) throw notFound(storeId)
    if (external !== undefined && taken.has(external)) throw alreadyInUse(xksKeyId as string)
    const mark = {}
    const marks = making.get(storeId) ?? new Set()
    making.set(storeId, marks.add(mark))
    if (external !== undefined) taken.add(external)
    return {
      [Symbol.dispose]() {
        marks.delete(mark)
        if (external !== undefined) taken.delete(external)
      },
    }
  }

  async function keysOf({ account, region, storeId }: CustomKeyStoreName) {
    const keys = await catalog.listKeysInCustomStores(account, region)
    return keys.map(({ extra }) => findStorePlace(extra)).filter((place) => place?.id === storeId)
  }

  const metadataOf = ({ keyArn, operation, requester }: Pick<ExternalCall, 'keyArn' | 'operation' | 'requester'>) => ({
    kmsRequestId: requester.requestId,
    kmsOperation: operation,
    awsPrincipalArn: requester.principal.arn,
    kmsKeyArn: keyArn,
  })

  return {
    isConnected: (storeId) => view.find(storeId)?.state === 'CONNECTED',

    clusterOf(storeId) {
      const store = view.find(storeId)
      return store && clusterOf(store)?.clusterId
    },

    take,

    async reserve({ place, origin, keyArn, requester }, { account, region }, deadline) {
      const { id, xksKeyId } = place
      const store = view.find(id)
      if (store === undefined || store.account !== account || store.region !== region) throw notFound(id)
      if (store.type !== origin) {
        const text = `Origin ${origin} is not valid for a custom key store of type ${store.type}.`
        throw new GatewayError('ValidationFailed', { text })
      }
      if (store.state !== 'CONNECTED') throw invalidState(id, store.state, 'given KMS keys')
      using stack = new DisposableStack()
      stack.use(hold(id, xksKeyId))
      if (xksKeyId !== undefined) {
        if ((await keysOf(store)).some((other) => other?.xksKeyId === xksKeyId)) throw alreadyInUse(xksKeyId)
        const metadata = metadataOf({ keyArn, operation: 'CreateKey', requester })
        const proxy = await connections.proxy(store)
        requireFit(await inKeyCreation(() => proxy.keyMetadata(xksKeyId, metadata, deadline)))
      }
      const held = stack.move()
      return {
        place,
        ...(store.type === 'AWS_CLOUDHSM' ? { group: id } : {}),
        hasOwnLayer: store.type === 'AWS_CLOUDHSM' || doubleEncryption,
        explain: (cause) => (store.type === 'AWS_CLOUDHSM' ? explainToken(id, cause) : cause),
        [Symbol.dispose]: () => held.dispose(),
      }
    },

    encrypt: (call, plaintext, aad, deadline) =>
      inCryptography(async () => {
        const proxy = await connections.proxy(getConnected(call.place.id))
        return proxy.encrypt(call.place.xksKeyId as string, metadataOf(call), plaintext, aad, deadline)
      }),

    decrypt: (call, sealed, aad, deadline) =>
      inCryptography(async () => {
        const proxy = await connections.proxy(getConnected(call.place.id))
        return proxy.decrypt(call.place.xksKeyId as string, metadataOf(call), sealed, aad, deadline)
      }),

    closeToNewKeys(storeId) {
      if ((making.get(storeId)?.size ?? 0) > 0) throw hasCmks(storeId)
      closed.add(storeId)
      return {
        [Symbol.dispose]() {
          closed.delete(storeId)
          making.delete(storeId)
          rates.delete(storeId)
        },
      }
    },

    hasKeys: async (store) => (await keysOf(store)).length > 0,
  }
}

/** AWS KMS Developer Guide, "Requirements for a KMS key in an external key store". */
function requireFit({ keySpec, keyStatus, keyUsage }: ExternalKeyMetadata): void {
  const wrong = (text: string) => new StoreError('XksKeyInvalidConfiguration', text)
  if (keySpec !== 'AES_256') {
    throw wrong(
      `The key spec of the external key must be AES_256. The key spec of specified external key is ${shown(keySpec)}.`,
    )
  }
  if (keyStatus !== 'ENABLED') {
    throw wrong(
      `The status of the external key must be ENABLED. The status of specified external key is ${shown(keyStatus)}.`,
    )
  }
  if (!keyUsage.includes('ENCRYPT') || !keyUsage.includes('DECRYPT')) {
    const usage = shown(keyUsage.join(', '))
    throw wrong(
      `The key usage of the external key must include ENCRYPT and DECRYPT. The key use of specified external key is ${usage}.`,
    )
  }
}

/** A proxy's word, in as many printable characters as anybody needs. */
function shown(text: string): string {
  return text.replace(/[^ -~]/g, '?').slice(0, 64)
}

function alreadyInUse(xksKeyId: string): StoreError {
  return new StoreError(
    'XksKeyAlreadyInUse',
    `The external key ${xksKeyId} is associated with a KMS key of this external key store.`,
  )
}

/** A token that makes no key now: AWS says that the cluster has too few HSMs. */
function explainToken(storeId: string, cause: unknown): unknown {
  if (!isCode(cause, 'KeyUnavailable') && !isCode(cause, 'HsmFailure')) return cause
  const text = `The CloudHSM cluster of the custom key store ${storeId} has too few active HSMs.`
  return new StoreError('CloudHsmClusterInvalidConfiguration', text, cause)
}
