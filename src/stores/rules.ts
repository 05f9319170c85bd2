/** What custom key stores must not share, and what the members of a proxy's address must agree on (AWS KMS API Reference, "CreateCustomKeyStore"). Pure. */
import type { CustomKeyStoreRecord } from '../catalog/catalog.ts'
import { GatewayError } from '../error.ts'
import { clusterOf, proxyOf } from './settings.ts'
import { type ProxyAddress, StoreError } from './stores.ts'

type Stores = readonly CustomKeyStoreRecord[]

export function notFound(name: string): StoreError {
  return new StoreError('CustomKeyStoreNotFound', `The custom key store ${name} was not found.`)
}

export function invalidState(storeId: string, state: string, deed: string): StoreError {
  const text = `The custom key store ${storeId} cannot be ${deed} while its connection state is ${state}.`
  return new StoreError('CustomKeyStoreInvalidState', text)
}

export function hasCmks(storeId: string): StoreError {
  return new StoreError('CustomKeyStoreHasCMKs', `The custom key store ${storeId} has KMS keys.`)
}

/** `local`: those of the same account and Region. */
export function requireNameFree(name: string, local: Stores): void {
  if (local.every((store) => store.name !== name)) return
  throw new StoreError('CustomKeyStoreNameInUse', `A custom key store named ${name} exists already.`)
}

/** One store for a cluster, whatever its account and Region: its keys and its password are the store's alone. */
export function requireClusterFree(clusterId: string, others: Stores): void {
  if (others.every((store) => clusterOf(store)?.clusterId !== clusterId)) return
  throw new StoreError(
    'CloudHsmClusterInUse',
    `The CloudHSM cluster ${clusterId} is associated with a custom key store.`,
  )
}

/**
 * Public proxies may share an endpoint but not its path; a VPC endpoint service and its private name belong to one store. @throws StoreError
 */
export function requireProxyFree(proxy: ProxyAddress, local: Stores): void {
  for (const store of local) {
    const other = proxyOf(store)
    if (other === undefined) continue
    const isSameEndpoint = hostOf(other) === hostOf(proxy)
    if (isSameEndpoint && other.path === proxy.path) {
      throw new StoreError(
        'XksProxyUriInUse',
        `${proxy.endpoint}${proxy.path} is the proxy of another external key store.`,
      )
    }
    const isShared = other.connectivity === 'PUBLIC_ENDPOINT' && proxy.connectivity === 'PUBLIC_ENDPOINT'
    if (isSameEndpoint && !isShared) {
      throw new StoreError(
        'XksProxyUriEndpointInUse',
        `${proxy.endpoint} is the endpoint of another external key store.`,
      )
    }
    if (proxy.vpcServiceName !== undefined && proxy.vpcServiceName === other.vpcServiceName) {
      const text = `The VPC endpoint service ${proxy.vpcServiceName} is that of another external key store.`
      throw new StoreError('XksProxyVpcEndpointServiceInUse', text)
    }
  }
}

/** @throws GatewayError `ValidationFailed`, StoreError */
export function requireSoundProxy(
  { connectivity, endpoint, vpcServiceName, vpcServiceOwner }: ProxyAddress,
  region: string,
): void {
  const port = endpoint.slice('https://'.length).split(':')[1]
  if (port !== undefined && !(Number(port) >= 1 && Number(port) <= 65_535)) {
    throw new GatewayError('ValidationFailed', { text: 'The port of XksProxyUriEndpoint is from 1 to 65535.' })
  }
  if (!URL.canParse(endpoint)) throw new GatewayError('ValidationFailed', { text: 'XksProxyUriEndpoint is not a URI.' })
  if (connectivity === 'PUBLIC_ENDPOINT') {
    if (vpcServiceName === undefined && vpcServiceOwner === undefined) return
    const text = 'A VPC endpoint service is only valid for XksProxyConnectivity VPC_ENDPOINT_SERVICE.'
    throw new GatewayError('ValidationFailed', { text })
  }
  if (vpcServiceName === undefined) {
    const text = 'XksProxyVpcEndpointServiceName is required for XksProxyConnectivity VPC_ENDPOINT_SERVICE.'
    throw new GatewayError('ValidationFailed', { text })
  }
  if (!vpcServiceName.includes(`.vpce.${region}.`)) {
    const text = `The VPC endpoint service ${vpcServiceName} was not found in Region ${region}.`
    throw new StoreError('XksProxyVpcEndpointServiceNotFound', text)
  }
}

/** Host names are compared without regard to case (RFC 3986 section 3.2.2). */
function hostOf({ endpoint }: ProxyAddress): string {
  return endpoint.toLowerCase()
}
