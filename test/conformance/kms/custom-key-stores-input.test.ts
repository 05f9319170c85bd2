/** AWS KMS API Reference: members of the operations on custom key stores at, under and over their limits, and the rules between them. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { clusterId, clusterToken, createCertificates, passwordOf } from '../../support/custom-key-stores.ts'
import { startGateway, type TestGateway } from '../../support/gateway.ts'
import { type Call, createCall, refusal, succeed } from '../../support/kms-call.ts'
import { createTestToken, type TestToken } from '../../support/softhsm.ts'

let certificates: Awaited<ReturnType<typeof createCertificates>>
let main: TestToken
let cluster: TestToken
let gateway: TestGateway
let call: Call
let password: string

beforeAll(async () => {
  ;[main, cluster, certificates] = await Promise.all([
    createTestToken(),
    createTestToken('hsmgate-cluster'),
    createCertificates(),
  ])
  password = await passwordOf(cluster)
  gateway = await startGateway({
    token: main,
    config: {
      tokens: {
        softhsm: { module: main.module, label: main.label, pinFile: main.pinFile, profile: 'softhsm', env: main.env },
        cluster: clusterToken(cluster),
      },
    },
  })
  call = createCall(gateway)
})

afterAll(async () => {
  await gateway?.[Symbol.asyncDispose]()
  await Promise.all([main, cluster, certificates].map((each) => each?.[Symbol.asyncDispose]()))
})

const service = 'com.amazonaws.vpce.us-east-1.vpce-svc-0123456789abcdef0'
const clusterRequest = () => ({
  CustomKeyStoreName: 'cluster',
  CloudHsmClusterId: clusterId,
  TrustAnchorCertificate: certificates.ca,
  KeyStorePassword: password,
})
/** A store that is not asked for before it is connected. */
const proxyRequest = (name: string) => ({
  CustomKeyStoreName: name,
  CustomKeyStoreType: 'EXTERNAL_KEY_STORE',
  XksProxyConnectivity: 'VPC_ENDPOINT_SERVICE',
  XksProxyUriEndpoint: `https://${name}.invalid`,
  XksProxyUriPath: '/kms/xks/v1',
  XksProxyVpcEndpointServiceName: `${service.slice(0, -name.length)}${name}`,
  XksProxyAuthenticationCredential: { AccessKeyId: 'A'.repeat(20), RawSecretAccessKey: 's'.repeat(43) },
})

describe('a member beyond its limits', () => {
  const credential = { AccessKeyId: 'A'.repeat(20), RawSecretAccessKey: 's'.repeat(43) }

  it.each([
    ['CreateCustomKeyStore', 'customKeyStoreName', { CustomKeyStoreName: '' }],
    ['CreateCustomKeyStore', 'customKeyStoreName', { CustomKeyStoreName: 'n'.repeat(257) }],
    ['CreateCustomKeyStore', 'customKeyStoreType', { CustomKeyStoreType: 'OTHER' }],
    ['CreateCustomKeyStore', 'cloudHsmClusterId', { CloudHsmClusterId: 'cluster-aaaaaaaaaa' }],
    ['CreateCustomKeyStore', 'cloudHsmClusterId', { CloudHsmClusterId: `cluster-${'a'.repeat(17)}` }],
    ['CreateCustomKeyStore', 'cloudHsmClusterId', { CloudHsmClusterId: 'cluster-aaaaaaaaaa1' }],
    ['CreateCustomKeyStore', 'trustAnchorCertificate', { TrustAnchorCertificate: '' }],
    ['CreateCustomKeyStore', 'trustAnchorCertificate', { TrustAnchorCertificate: 'c'.repeat(5001) }],
    ['CreateCustomKeyStore', 'keyStorePassword', { KeyStorePassword: 'sixsix' }],
    ['CreateCustomKeyStore', 'keyStorePassword', { KeyStorePassword: 'p'.repeat(33) }],
    ['CreateCustomKeyStore', 'xksProxyConnectivity', { XksProxyConnectivity: 'PRIVATE' }],
    ['CreateCustomKeyStore', 'xksProxyUriEndpoint', { XksProxyUriEndpoint: 'https://a' }],
    ['CreateCustomKeyStore', 'xksProxyUriEndpoint', { XksProxyUriEndpoint: `https://${'a'.repeat(121)}` }],
    ['CreateCustomKeyStore', 'xksProxyUriEndpoint', { XksProxyUriEndpoint: 'http://proxy.example.com' }],
    ['CreateCustomKeyStore', 'xksProxyUriEndpoint', { XksProxyUriEndpoint: 'https://proxy.example.com:8601' }],
    ['CreateCustomKeyStore', 'xksProxyUriEndpoint', { XksProxyUriEndpoint: 'https://user@example.com' }],
    ['CreateCustomKeyStore', 'xksProxyUriPath', { XksProxyUriPath: '/kms/xks/v' }],
    ['CreateCustomKeyStore', 'xksProxyUriPath', { XksProxyUriPath: '/kms/xks/v100' }],
    ['CreateCustomKeyStore', 'xksProxyUriPath', { XksProxyUriPath: '/a/../kms/xks/v1' }],
    ['CreateCustomKeyStore', 'xksProxyUriPath', { XksProxyUriPath: `/${'a'.repeat(117)}/kms/xks/v1` }],
    ['CreateCustomKeyStore', 'xksProxyVpcEndpointServiceName', { XksProxyVpcEndpointServiceName: 'vpce-svc-1' }],
    ['CreateCustomKeyStore', 'xksProxyVpcEndpointServiceOwner', { XksProxyVpcEndpointServiceOwner: '12345678901' }],
    ['UpdateCustomKeyStore', 'customKeyStoreId', { NewCustomKeyStoreName: 'n' }],
    ['UpdateCustomKeyStore', 'customKeyStoreId', { CustomKeyStoreId: 'c'.repeat(65) }],
    ['UpdateCustomKeyStore', 'newCustomKeyStoreName', { CustomKeyStoreId: 'cks-1', NewCustomKeyStoreName: '' }],
    ['ConnectCustomKeyStore', 'customKeyStoreId', {}],
    ['DisconnectCustomKeyStore', 'customKeyStoreId', { CustomKeyStoreId: '' }],
    ['DeleteCustomKeyStore', 'customKeyStoreId', { CustomKeyStoreId: null }],
    ['DescribeCustomKeyStores', 'limit', { Limit: 0 }],
    ['DescribeCustomKeyStores', 'limit', { Limit: 1001 }],
    ['DescribeCustomKeyStores', 'marker', { Marker: '' }],
    ['CreateKey', 'xksKeyId', { Origin: 'EXTERNAL_KEY_STORE', CustomKeyStoreId: 'cks-1', XksKeyId: 'a/b' }],
    ['CreateKey', 'xksKeyId', { Origin: 'EXTERNAL_KEY_STORE', CustomKeyStoreId: 'cks-1', XksKeyId: 'a'.repeat(129) }],
  ] as const)('is named: %s %s %#', async (operation, member, request) => {
    const name = operation === 'CreateCustomKeyStore' ? { CustomKeyStoreName: 'name' } : {}
    const answer = await refusal(call(operation, { ...name, ...request }))
    expect(answer.__type).toBe('ValidationException')
    expect(answer.message).toContain(`'${member}'`)
  })

  it.each([
    ['accessKeyId', { AccessKeyId: 'A'.repeat(19) }],
    ['accessKeyId', { AccessKeyId: 'A'.repeat(31) }],
    ['accessKeyId', { AccessKeyId: `${'A'.repeat(20)}1` }],
    ['rawSecretAccessKey', { RawSecretAccessKey: 's'.repeat(42) }],
    ['rawSecretAccessKey', { RawSecretAccessKey: 's'.repeat(65) }],
    ['rawSecretAccessKey', { RawSecretAccessKey: `${'s'.repeat(43)}!` }],
  ] as const)('of a credential is named and not shown: %s %#', async (member, change) => {
    const request = { CustomKeyStoreName: 'n', XksProxyAuthenticationCredential: { ...credential, ...change } }
    const answer = await refusal(call('CreateCustomKeyStore', request))
    expect(answer.message).toContain(`'xksProxyAuthenticationCredential.${member}'`)
    expect(answer.message).not.toContain(Object.values(change)[0])
  })

  it('of a wrong type is refused before that', async () => {
    for (const request of [
      { CustomKeyStoreName: 5 },
      { CustomKeyStoreName: 'n', XksProxyAuthenticationCredential: 'x' },
      { CustomKeyStoreName: 'n', KeyStorePassword: ['p'] },
    ]) {
      expect((await refusal(call('CreateCustomKeyStore', request))).__type).toBe('SerializationException')
    }
  })
})

describe('members that do not belong together', () => {
  it.each([
    ['CloudHsmClusterId', {}],
    ['TrustAnchorCertificate', {}],
    ['KeyStorePassword', {}],
    ['XksProxyUriPath', { XksProxyUriPath: '/kms/xks/v1' }],
  ] as const)('make a cluster store invalid: %s', async (member, more) => {
    const request: Record<string, unknown> = { ...clusterRequest(), ...more }
    if (!Object.hasOwn(more, member)) delete request[member]
    const answer = await refusal(call('CreateCustomKeyStore', request))
    expect(answer).toMatchObject({ __type: 'ValidationException', message: expect.stringContaining(member) })
  })

  it.each([
    ['XksProxyConnectivity', { XksProxyConnectivity: undefined }],
    ['XksProxyUriEndpoint', { XksProxyUriEndpoint: undefined }],
    ['XksProxyUriPath', { XksProxyUriPath: undefined }],
    ['XksProxyAuthenticationCredential', { XksProxyAuthenticationCredential: undefined }],
    ['XksProxyVpcEndpointServiceName', { XksProxyVpcEndpointServiceName: undefined }],
    ['VPC endpoint service', { XksProxyConnectivity: 'PUBLIC_ENDPOINT' }],
    ['CloudHsmClusterId', { CloudHsmClusterId: clusterId }],
    ['KeyStorePassword', { KeyStorePassword: 'password' }],
  ] as const)('make an external store invalid: %s', async (member, change) => {
    const answer = await refusal(call('CreateCustomKeyStore', { ...proxyRequest('a'), ...change }))
    expect(answer).toMatchObject({ __type: 'ValidationException', message: expect.stringContaining(member) })
  })
})

describe('members at their limits', () => {
  it('are taken, up to ten stores in a Region', async () => {
    const atLimits = {
      ...clusterRequest(),
      CustomKeyStoreName: 'n'.repeat(256),
      // not the token's own, so it is never handed over
      KeyStorePassword: 'p'.repeat(32),
    }
    await succeed(call('CreateCustomKeyStore', atLimits))
    for (let count = 0; count < 9; count++) await succeed(call('CreateCustomKeyStore', proxyRequest(`p${count}`)))
    const shared = {
      ...proxyRequest('new'),
      XksProxyVpcEndpointServiceName: proxyRequest('p1').XksProxyVpcEndpointServiceName,
    }
    expect((await refusal(call('CreateCustomKeyStore', shared))).__type).toBe('LimitExceededException')
    const elsewhere = createCall(gateway, { region: 'eu-west-1' })
    const inUse = await refusal(elsewhere('CreateCustomKeyStore', clusterRequest()))
    expect(inUse.__type).toBe('CloudHsmClusterInUseException')
  })

  it('show in pages, without secrets', async () => {
    const seen: string[] = []
    let Marker: unknown
    do {
      const page = await succeed(
        call('DescribeCustomKeyStores', { Limit: 4, ...(Marker === undefined ? {} : { Marker }) }),
      )
      for (const store of page.CustomKeyStores as { CustomKeyStoreId: string }[]) seen.push(store.CustomKeyStoreId)
      expect(JSON.stringify(page)).not.toMatch(/s{43}|p{32}/)
      expect(page.Truncated).toBe(page.NextMarker !== undefined)
      Marker = page.NextMarker
    } while (Marker !== undefined)
    expect(seen).toHaveLength(10)
    expect(seen).toEqual([...new Set(seen)].sort())
  })

  it('that belong to one VPC endpoint service alone are refused', async () => {
    const { CustomKeyStores: [store] = [] } = (await succeed(
      call('DescribeCustomKeyStores', { CustomKeyStoreName: 'p0' }),
    )) as { CustomKeyStores?: { CustomKeyStoreId: string }[] }
    const update = (changes: object) =>
      refusal(call('UpdateCustomKeyStore', { CustomKeyStoreId: store?.CustomKeyStoreId, ...changes }))
    const { XksProxyVpcEndpointServiceName, XksProxyUriEndpoint } = proxyRequest('p1')
    expect((await update({ XksProxyVpcEndpointServiceName })).__type).toBe('XksProxyVpcEndpointServiceInUseException')
    expect((await update({ XksProxyUriEndpoint })).__type).toBe('XksProxyUriInUseException')
    expect((await update({ NewCustomKeyStoreName: 'p1' })).__type).toBe('CustomKeyStoreNameInUseException')
    // a public endpoint is asked at once, and this name leads nowhere
    const unreachable = await update({ XksProxyConnectivity: 'PUBLIC_ENDPOINT' })
    expect(unreachable.__type).toBe('XksProxyUriUnreachableException')
  })
})
