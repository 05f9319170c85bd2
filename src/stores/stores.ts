/**
 * The face of custom key stores: a second token as AWS_CLOUDHSM, the proxy of an external key manager as EXTERNAL_KEY_STORE. Independent of any
 * wire: the KMS door words what is thrown here, the key service is told by `KeyStores` of its own face what stands behind a key.
 *
 * Connecting and disconnecting are jobs that go on after the call; a store that is CONNECTED stays so, whatever becomes of its token or proxy.
 */
import type { Deadline } from '../call.ts'
import type { CustomKeyStoreRecord } from '../catalog/catalog.ts'
import { GatewayError } from '../error.ts'
import type { KeyStores, Locale } from '../keys/keys.ts'

/** Refusals that only custom key stores know: the names of AWS's exceptions. They travel as any GatewayError and are told apart by `storeCode`. */
export type StoreCode =
  | 'CustomKeyStoreNotFound'
  | 'CustomKeyStoreInvalidState'
  | 'CustomKeyStoreNameInUse'
  | 'CustomKeyStoreHasCMKs'
  | 'CloudHsmClusterInUse'
  | 'CloudHsmClusterInvalidConfiguration'
  | 'CloudHsmClusterNotFound'
  | 'CloudHsmClusterNotRelated'
  | 'IncorrectTrustAnchor'
  | 'XksKeyAlreadyInUse'
  | 'XksKeyInvalidConfiguration'
  | 'XksKeyNotFound'
  | 'XksProxyIncorrectAuthenticationCredential'
  | 'XksProxyInvalidConfiguration'
  | 'XksProxyInvalidResponse'
  | 'XksProxyUriEndpointInUse'
  | 'XksProxyUriInUse'
  | 'XksProxyUriUnreachable'
  | 'XksProxyVpcEndpointServiceInUse'
  | 'XksProxyVpcEndpointServiceInvalidConfiguration'
  | 'XksProxyVpcEndpointServiceNotFound'

export class StoreError extends GatewayError<'ValidationFailed'> {
  readonly storeCode: StoreCode

  constructor(storeCode: StoreCode, text?: string, cause?: unknown) {
    super('ValidationFailed', text === undefined ? {} : { text }, { detail: storeCode, cause })
    this.name = 'StoreError'
    this.storeCode = storeCode
  }
}

/** Why a connection failed (AWS KMS API Reference, "CustomKeyStoresListEntry", ConnectionErrorCode); those of AWS's own networks can't occur. */
export type ConnectionErrorCode =
  | 'CLUSTER_NOT_FOUND'
  | 'INSUFFICIENT_CLOUDHSM_HSMS'
  | 'INTERNAL_ERROR'
  | 'INVALID_CREDENTIALS'
  | 'NETWORK_ERRORS'
  | 'USER_LOCKED_OUT'
  | 'USER_LOGGED_IN'
  | 'USER_NOT_FOUND'
  | 'XKS_PROXY_ACCESS_DENIED'
  | 'XKS_PROXY_INVALID_CONFIGURATION'
  | 'XKS_PROXY_INVALID_RESPONSE'
  | 'XKS_PROXY_INVALID_TLS_CONFIGURATION'
  | 'XKS_PROXY_NOT_REACHABLE'
  | 'XKS_PROXY_TIMED_OUT'
  | 'XKS_VPC_ENDPOINT_SERVICE_INVALID_CONFIGURATION'
  | 'XKS_VPC_ENDPOINT_SERVICE_NOT_FOUND'

export interface Cluster {
  readonly clusterId: string
  /** PEM, as it was given. */
  readonly trustAnchor: string
}

export interface ProxyAddress {
  readonly connectivity: 'PUBLIC_ENDPOINT' | 'VPC_ENDPOINT_SERVICE'
  /** `https://` and a host name. */
  readonly endpoint: string
  readonly path: string
  readonly accessKeyId: string
  readonly vpcServiceName?: string
  /** Account id. */
  readonly vpcServiceOwner?: string
}

export type StoreDescription = Pick<CustomKeyStoreRecord, 'storeId' | 'name' | 'type' | 'state' | 'createdAt'> & {
  readonly errorCode?: string
  readonly cluster?: Cluster
  readonly proxy?: ProxyAddress
}

export interface ProxyChanges {
  readonly connectivity?: ProxyAddress['connectivity']
  readonly endpoint?: string
  readonly path?: string
  readonly credential?: { readonly accessKeyId: string; readonly secret: string }
  readonly vpcServiceName?: string
  readonly vpcServiceOwner?: string
}

export type NewStore = { readonly name: string } & (
  | { readonly type: 'AWS_CLOUDHSM'; readonly cluster: Cluster; readonly password: string }
  | { readonly type: 'EXTERNAL_KEY_STORE'; readonly proxy: ProxyAddress; readonly secret: string }
)

export interface StoreChanges {
  readonly name?: string
  readonly clusterId?: string
  readonly password?: string
  readonly proxy?: ProxyChanges
}

/** Where a request is from, and its id, which proxies log. */
export interface StoreScope extends Locale {
  readonly requestId: string
  readonly deadline: Deadline
}

/** All reject with StoreError or GatewayError; an id of another account or Region is one that does not exist. */
export interface CustomKeyStores extends AsyncDisposable {
  /** Whether proxies are reached only as AWS reaches them: port 443, public authorities. */
  readonly isStrict: boolean
  /** Answers the new store's id. A proxy with a public endpoint is asked for its health first. */
  create(store: NewStore, scope: StoreScope): Promise<string>
  /** Resolves when the connection has been begun. */
  connect(storeId: string, scope: StoreScope): Promise<void>
  disconnect(storeId: string, scope: StoreScope): Promise<void>
  /** What a proxy's store becomes is tried on the proxy first; nothing changes when that fails. */
  update(storeId: string, changes: StoreChanges, scope: StoreScope): Promise<void>
  delete(storeId: string, scope: StoreScope): Promise<void>
  /** By ascending id. @throws StoreError `CustomKeyStoreNotFound` when a filter matches nothing. */
  describe(
    filter: { readonly storeId?: string; readonly name?: string },
    scope: Pick<StoreScope, 'account' | 'region'>,
  ): readonly StoreDescription[]
  /** Random bytes of the token of a CloudHSM store. */
  random(storeId: string, bytes: number, scope: StoreScope): Promise<Buffer>
  /** What the key service is given. */
  readonly keyStores: KeyStores
  /** Resolves when every connection and disconnection that was begun here is over. */
  settled(): Promise<void>
}
