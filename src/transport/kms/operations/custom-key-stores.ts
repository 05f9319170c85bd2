/**
 * Custom key stores (AWS KMS API Reference). This gateway has none yet, so every store that a request names does not exist, and none can be made.
 * Requests are validated and authorized as they will be.
 */
import { GatewayError } from '../../../error.ts'
import type { Operation } from '../../../pipeline.ts'
import { demandWithoutKey } from '../conditions.ts'
import { invalid, KmsError } from '../kms-error.ts'
import { decodeMarker } from '../pagination.ts'
import { readInput, recordInput } from '../request-body.ts'
import { enumeration, type Infer, integer, type Schema, string, structure } from '../schema.ts'
import { changeTimeoutMs, type KmsOutput } from './key-operation.ts'
import { customKeyStoreId, marker } from './members.ts'

const storeName = string({ min: 1, max: 256 })
const clusterId = string({ min: 19, max: 24, pattern: /^cluster-[2-7a-zA-Z]{11,16}$/ })
const password = string({ min: 7, max: 32, sensitive: true }).unrecorded()
const credential = structure({
  AccessKeyId: string({ min: 20, max: 30, pattern: /^[A-Z2-7]+$/, sensitive: true }).required(),
  RawSecretAccessKey: string({ min: 43, max: 64, pattern: /^[a-zA-Z0-9/+=]+$/, sensitive: true }).required(),
}).unrecorded()
const proxy = {
  XksProxyUriEndpoint: string({ min: 10, max: 128, pattern: /^https:\/\/[a-zA-Z0-9.-]+$/ }),
  XksProxyUriPath: string({ min: 10, max: 128, pattern: /^(\/[a-zA-Z0-9/_-]+)?\/kms\/xks\/v\d{1,2}$/ }),
  XksProxyVpcEndpointServiceName: string({
    min: 20,
    max: 64,
    pattern: /^(com|eu)\.amazonaws\.vpce\.[a-z]+-([a-z]+-){1,2}\d+\.vpce-svc-[0-9a-z]+$/,
  }),
  XksProxyVpcEndpointServiceOwner: string({ min: 12, max: 12, pattern: /^[0-9]+$/ }),
  XksProxyAuthenticationCredential: credential,
  XksProxyConnectivity: enumeration(['PUBLIC_ENDPOINT', 'VPC_ENDPOINT_SERVICE']),
}

function storeOperation<I>(
  name: string,
  readOnly: boolean,
  input: Schema<I>,
  answer: (request: I) => Readonly<Record<string, unknown>>,
): Operation<I, null, KmsOutput> {
  return {
    name,
    readOnly,
    timeoutMs: changeTimeoutMs,
    parse: (raw) => readInput(input, raw),
    async prepare(_request, scope) {
      return { resources: null, demands: [demandWithoutKey(`kms:${name}`, scope, { hasCallerAccount: true })] }
    },
    perform: async (request) => ({ members: answer(request) }),
    record: (request) => ({ requestParameters: recordInput(input, request), responseElements: null, resources: [] }),
  }
}

function noSuchStore(): never {
  throw new KmsError('CustomKeyStoreNotFound')
}

const byId = structure({ CustomKeyStoreId: customKeyStoreId.required() })
export const connectCustomKeyStore = () => storeOperation('ConnectCustomKeyStore', false, byId, noSuchStore)
export const deleteCustomKeyStore = () => storeOperation('DeleteCustomKeyStore', false, byId, noSuchStore)
export const disconnectCustomKeyStore = () => storeOperation('DisconnectCustomKeyStore', false, byId, noSuchStore)

const update = structure({
  CustomKeyStoreId: customKeyStoreId.required(),
  NewCustomKeyStoreName: storeName,
  KeyStorePassword: password,
  CloudHsmClusterId: clusterId,
  ...proxy,
})
export const updateCustomKeyStore = () => storeOperation('UpdateCustomKeyStore', false, update, noSuchStore)

const create = structure({
  CustomKeyStoreName: storeName.required(),
  CustomKeyStoreType: enumeration(['AWS_CLOUDHSM', 'EXTERNAL_KEY_STORE']),
  CloudHsmClusterId: clusterId,
  TrustAnchorCertificate: string({ min: 1, max: 5000 }),
  KeyStorePassword: password,
  ...proxy,
})
export const createCustomKeyStore = () =>
  storeOperation('CreateCustomKeyStore', false, create, () => {
    throw new GatewayError('Unsupported', { text: 'This gateway has no custom key stores.' })
  })

const describeStores = structure({
  CustomKeyStoreId: customKeyStoreId,
  CustomKeyStoreName: storeName,
  Limit: integer({ min: 1, max: 1000 }),
  Marker: marker,
})

function describe(request: Infer<typeof describeStores>): Readonly<Record<string, unknown>> {
  const { CustomKeyStoreId: id, CustomKeyStoreName: name } = request
  if (id !== undefined && name !== undefined) {
    throw invalid('You cannot specify CustomKeyStoreId and CustomKeyStoreName in the same request.')
  }
  if (id !== undefined || name !== undefined) noSuchStore()
  decodeMarker('DescribeCustomKeyStores', request.Marker)
  return { CustomKeyStores: [], Truncated: false }
}
export const describeCustomKeyStores = () => storeOperation('DescribeCustomKeyStores', true, describeStores, describe)
