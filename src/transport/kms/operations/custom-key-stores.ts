/** Custom key stores (AWS KMS API Reference): validation, authorization and rendering; what they are is src/stores' business. */
import type { Operation } from '../../../pipeline.ts'
import type { CustomKeyStores, NewStore, ProxyChanges, StoreDescription, StoreScope } from '../../../stores/stores.ts'
import { StoreError } from '../../../stores/stores.ts'
import { demandWithoutKey } from '../conditions.ts'
import { invalid } from '../kms-error.ts'
import { epochSeconds, recordOutput } from '../metadata.ts'
import { decodeMarker, pageEnd } from '../pagination.ts'
import { readInput, recordInput } from '../request-body.ts'
import { enumeration, type Infer, integer, type Schema, string, structure } from '../schema.ts'
import { changeTimeoutMs, type KmsOutput, type KmsParts } from './key-operation.ts'
import { customKeyStoreId, marker } from './members.ts'

const storeName = string({ min: 1, max: 256 })
const clusterId = string({ min: 19, max: 24, pattern: /^cluster-[2-7a-zA-Z]{11,16}$/ })
const password = string({ min: 7, max: 32, sensitive: true }).unrecorded()
const credential = structure({
  AccessKeyId: string({ min: 20, max: 30, pattern: /^[A-Z2-7]+$/, sensitive: true }).required(),
  RawSecretAccessKey: string({ min: 43, max: 64, pattern: /^[a-zA-Z0-9/+=]+$/, sensitive: true }).required(),
}).unrecorded()

/** A port is not AWS's: only where the configuration allows more than AWS does. */
const endpoints = {
  strict: string({ min: 10, max: 128, pattern: /^https:\/\/[a-zA-Z0-9.-]+$/ }),
  withPort: string({ min: 10, max: 128, pattern: /^https:\/\/[a-zA-Z0-9.-]+(:[0-9]{1,5})?$/ }),
}

const proxyMembers = (XksProxyUriEndpoint: Schema<string, false>) => ({
  XksProxyUriEndpoint,
  XksProxyUriPath: string({ min: 10, max: 128, pattern: /^(\/[a-zA-Z0-9/_-]+)?\/kms\/xks\/v\d{1,2}$/ }),
  XksProxyVpcEndpointServiceName: string({
    min: 20,
    max: 64,
    pattern: /^(com|eu)\.amazonaws\.vpce\.[a-z]+-([a-z]+-){1,2}\d+\.vpce-svc-[0-9a-z]+$/,
  }),
  XksProxyVpcEndpointServiceOwner: string({ min: 12, max: 12, pattern: /^[0-9]+$/ }),
  XksProxyAuthenticationCredential: credential,
  XksProxyConnectivity: enumeration(['PUBLIC_ENDPOINT', 'VPC_ENDPOINT_SERVICE']),
})

const createInput = (endpoint: Schema<string, false>) =>
  structure({
    CustomKeyStoreName: storeName.required(),
    CustomKeyStoreType: enumeration(['AWS_CLOUDHSM', 'EXTERNAL_KEY_STORE']).default('AWS_CLOUDHSM'),
    CloudHsmClusterId: clusterId,
    TrustAnchorCertificate: string({ min: 1, max: 5000 }),
    KeyStorePassword: password,
    ...proxyMembers(endpoint),
  })
const createInputs = { strict: createInput(endpoints.strict), withPort: createInput(endpoints.withPort) }
type CreateInput = Infer<typeof createInputs.strict>

const updateInput = (endpoint: Schema<string, false>) =>
  structure({
    CustomKeyStoreId: customKeyStoreId.required(),
    NewCustomKeyStoreName: storeName,
    KeyStorePassword: password,
    CloudHsmClusterId: clusterId,
    ...proxyMembers(endpoint),
  })
const updateInputs = { strict: updateInput(endpoints.strict), withPort: updateInput(endpoints.withPort) }
type UpdateInput = Infer<typeof updateInputs.strict>

const byId = structure({ CustomKeyStoreId: customKeyStoreId.required() })

const describeInput = structure({
  CustomKeyStoreId: customKeyStoreId,
  CustomKeyStoreName: storeName,
  Limit: integer({ min: 1, max: 1000 }),
  Marker: marker,
})
const defaultLimit = 1000

interface StoreOperation<I> {
  readonly name: string
  readonly readOnly?: true
  readonly input: Schema<I>
  /** Rules across members. @throws GatewayError */
  check?(request: I): void
  perform(request: I, stores: CustomKeyStores, scope: StoreScope): Promise<KmsOutput>
}

function storeOperation<I>({ stores }: KmsParts, definition: StoreOperation<I>): Operation<I, null, KmsOutput> {
  const { name, readOnly = false, input } = definition
  return {
    name,
    readOnly,
    timeoutMs: changeTimeoutMs,
    parse(raw) {
      const request = readInput(input, raw)
      definition.check?.(request)
      return request
    },
    async prepare(_request, scope) {
      return { resources: null, demands: [demandWithoutKey(`kms:${name}`, scope, { hasCallerAccount: true })] }
    },
    async perform(request, _resources, scope) {
      if (stores === undefined) throw new StoreError('CustomKeyStoreNotFound')
      return definition.perform(request, stores, scope)
    },
    record: (request, _resources, output) => ({
      requestParameters: recordInput(input, request),
      responseElements:
        name === 'CreateCustomKeyStore' && output?.members != null ? recordOutput(output.members) : null,
      resources: [],
      ...(output?.additionalEventData === undefined ? {} : { additionalEventData: output.additionalEventData }),
    }),
  }
}

/** Which store it was: the request names it by its id alone. */
function named(stores: CustomKeyStores, storeId: string, scope: StoreScope): KmsOutput['additionalEventData'] {
  const [store] = stores.describe({ storeId }, scope)
  return {
    customKeyStoreName: store?.name,
    ...(store?.cluster === undefined ? {} : { clusterId: store.cluster.clusterId }),
  }
}

export const connectCustomKeyStore = (parts: KmsParts) =>
  storeOperation(parts, {
    name: 'ConnectCustomKeyStore',
    input: byId,
    async perform({ CustomKeyStoreId: storeId }, stores, scope) {
      await stores.connect(storeId, scope)
      return { members: {}, additionalEventData: named(stores, storeId, scope) }
    },
  })

export const disconnectCustomKeyStore = (parts: KmsParts) =>
  storeOperation(parts, {
    name: 'DisconnectCustomKeyStore',
    input: byId,
    async perform({ CustomKeyStoreId: storeId }, stores, scope) {
      await stores.disconnect(storeId, scope)
      return { members: {}, additionalEventData: named(stores, storeId, scope) }
    },
  })

export const deleteCustomKeyStore = (parts: KmsParts) =>
  storeOperation(parts, {
    name: 'DeleteCustomKeyStore',
    input: byId,
    async perform({ CustomKeyStoreId: storeId }, stores, scope) {
      const additionalEventData = named(stores, storeId, scope)
      await stores.delete(storeId, scope)
      return { members: {}, additionalEventData }
    },
  })

export const createCustomKeyStore = (parts: KmsParts) =>
  storeOperation(parts, {
    name: 'CreateCustomKeyStore',
    input: createInputs[parts.stores?.isStrict === false ? 'withPort' : 'strict'],
    check: planStore,
    async perform(request, stores, scope) {
      return { members: { CustomKeyStoreId: await stores.create(planStore(request), scope) } }
    },
  })

const clusterMembers = ['CloudHsmClusterId', 'TrustAnchorCertificate', 'KeyStorePassword'] as const
const requiredProxyMembers = [
  'XksProxyConnectivity',
  'XksProxyUriEndpoint',
  'XksProxyUriPath',
  'XksProxyAuthenticationCredential',
] as const
const everyProxyMember = [
  ...requiredProxyMembers,
  'XksProxyVpcEndpointServiceName',
  'XksProxyVpcEndpointServiceOwner',
] as const

/** @throws GatewayError `ValidationFailed` unless the members are those of the type. */
function planStore(request: CreateInput): NewStore {
  const { CustomKeyStoreType: type, CustomKeyStoreName: name } = request
  const isCluster = type === 'AWS_CLOUDHSM'
  for (const member of isCluster ? clusterMembers : requiredProxyMembers) {
    if (request[member] === undefined) throw invalid(`${member} is required for a custom key store of type ${type}.`)
  }
  for (const member of isCluster ? everyProxyMember : clusterMembers) {
    if (request[member] !== undefined) throw invalid(`${member} is not valid for a custom key store of type ${type}.`)
  }
  if (isCluster) {
    const { CloudHsmClusterId, TrustAnchorCertificate, KeyStorePassword } = request as Required<CreateInput>
    return {
      name,
      type,
      cluster: { clusterId: CloudHsmClusterId, trustAnchor: TrustAnchorCertificate },
      password: KeyStorePassword,
    }
  }
  const { XksProxyVpcEndpointServiceName: vpcServiceName, XksProxyVpcEndpointServiceOwner: vpcServiceOwner } = request
  const given = request as Required<CreateInput>
  const { AccessKeyId: accessKeyId, RawSecretAccessKey: secret } = given.XksProxyAuthenticationCredential
  return {
    name,
    type: 'EXTERNAL_KEY_STORE',
    proxy: {
      connectivity: given.XksProxyConnectivity,
      endpoint: given.XksProxyUriEndpoint,
      path: given.XksProxyUriPath,
      accessKeyId,
      ...(vpcServiceName === undefined ? {} : { vpcServiceName }),
      ...(vpcServiceOwner === undefined ? {} : { vpcServiceOwner }),
    },
    secret,
  }
}

export const updateCustomKeyStore = (parts: KmsParts) =>
  storeOperation(parts, {
    name: 'UpdateCustomKeyStore',
    input: updateInputs[parts.stores?.isStrict === false ? 'withPort' : 'strict'],
    check(request) {
      const changes = Object.entries(request).filter(([, value]) => value !== undefined)
      if (changes.length < 2) throw invalid('Specify at least one property of the custom key store to change.')
    },
    async perform(request, stores, scope) {
      const { CustomKeyStoreId: storeId, NewCustomKeyStoreName: name } = request
      const { CloudHsmClusterId: newCluster, KeyStorePassword: newPassword } = request
      const proxy = proxyChanges(request)
      await stores.update(
        storeId,
        {
          ...(name === undefined ? {} : { name }),
          ...(newCluster === undefined ? {} : { clusterId: newCluster }),
          ...(newPassword === undefined ? {} : { password: newPassword }),
          ...(Object.keys(proxy).length === 0 ? {} : { proxy }),
        },
        scope,
      )
      return { members: {}, additionalEventData: named(stores, storeId, scope) }
    },
  })

function proxyChanges(request: UpdateInput): ProxyChanges {
  const { XksProxyAuthenticationCredential: given } = request
  const changes = {
    connectivity: request.XksProxyConnectivity,
    endpoint: request.XksProxyUriEndpoint,
    path: request.XksProxyUriPath,
    vpcServiceName: request.XksProxyVpcEndpointServiceName,
    vpcServiceOwner: request.XksProxyVpcEndpointServiceOwner,
    credential: given && { accessKeyId: given.AccessKeyId, secret: given.RawSecretAccessKey },
  }
  return Object.fromEntries(Object.entries(changes).filter(([, value]) => value !== undefined))
}

export const describeCustomKeyStores = (parts: KmsParts) =>
  storeOperation(parts, {
    name: 'DescribeCustomKeyStores',
    readOnly: true,
    input: describeInput,
    check({ CustomKeyStoreId: id, CustomKeyStoreName: name }) {
      if (id === undefined || name === undefined) return
      throw invalid('You cannot specify CustomKeyStoreId and CustomKeyStoreName in the same request.')
    },
    async perform(request, stores, scope) {
      const { CustomKeyStoreId: storeId, CustomKeyStoreName: name, Limit: limit = defaultLimit } = request
      const after = decodeMarker('DescribeCustomKeyStores', request.Marker) ?? ''
      const filter = { ...(storeId === undefined ? {} : { storeId }), ...(name === undefined ? {} : { name }) }
      const left = stores.describe(filter, scope).filter((store) => store.storeId > after)
      const page = left.slice(0, limit)
      const end = pageEnd('DescribeCustomKeyStores', page.at(-1)?.storeId, left.length > page.length)
      return { members: { CustomKeyStores: page.map(render), ...end } }
    },
  })

function render(store: StoreDescription): Readonly<Record<string, unknown>> {
  const { storeId, name, type, state, errorCode, createdAt, cluster, proxy } = store
  return {
    CustomKeyStoreId: storeId,
    CustomKeyStoreName: name,
    CustomKeyStoreType: type,
    ConnectionState: state,
    ConnectionErrorCode: errorCode,
    CreationDate: epochSeconds(createdAt),
    CloudHsmClusterId: cluster?.clusterId,
    TrustAnchorCertificate: cluster?.trustAnchor,
    XksProxyConfiguration: proxy && {
      Connectivity: proxy.connectivity,
      AccessKeyId: proxy.accessKeyId,
      UriEndpoint: proxy.endpoint,
      UriPath: proxy.path,
      VpcEndpointServiceName: proxy.vpcServiceName,
      VpcEndpointServiceOwner: proxy.vpcServiceOwner,
    },
  }
}
