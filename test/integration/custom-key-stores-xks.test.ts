/**
 * hsmgate against hsmgate: gateway A is the KMS, with the AWS SDK in front of it and an external key store whose proxy is gateway B. What goes wrong
 * between them or at B shows at A as AWS KMS shows it, and goes away without anybody touching A.
 */

import { readFileSync } from 'node:fs'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import {
  CreateCustomKeyStoreCommand,
  type CreateCustomKeyStoreCommandInput,
  CreateKeyCommand,
  DecryptCommand,
  DeleteCustomKeyStoreCommand,
  DescribeKeyCommand,
  EncryptCommand,
  GenerateDataKeyCommand,
  GenerateDataKeyPairCommand,
  GenerateRandomCommand,
  type KMSClient,
  ReEncryptCommand,
  ScheduleKeyDeletionCommand,
  UpdateCustomKeyStoreCommand,
} from '@aws-sdk/client-kms'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { connectStore, createCertificates, describeStore, disconnectStore } from '../support/custom-key-stores.ts'
import { startGateway, type TestGateway } from '../support/gateway.ts'
import { startTcpFront, type TcpFront } from '../support/tcp-front.ts'

type Certificates = Awaited<ReturnType<typeof createCertificates>>
interface Credential {
  readonly accessKeyId: string
  readonly secretAccessKey: string
}

let certificates: Certificates
let a: TestGateway
let b: TestGateway
let front: TcpFront
let kms: KMSClient
let credential: Credential
let storeId: string
let keyId: string

const portOfB = () => Number(new URL(b.gateway.endpoints.xks as string).port)
const endpoint = () => `https://localhost:${front.port}`
const path = '/proxy/kms/xks/v1'
const text = (bytes: Uint8Array | undefined) => Buffer.from(bytes ?? []).toString()

function storeRequest(changes: Partial<CreateCustomKeyStoreCommandInput> = {}): CreateCustomKeyStoreCommandInput {
  return {
    CustomKeyStoreName: 'external',
    CustomKeyStoreType: 'EXTERNAL_KEY_STORE',
    XksProxyConnectivity: 'PUBLIC_ENDPOINT',
    XksProxyUriEndpoint: endpoint(),
    XksProxyUriPath: path,
    XksProxyAuthenticationCredential: {
      AccessKeyId: credential.accessKeyId,
      RawSecretAccessKey: credential.secretAccessKey,
    },
    ...changes,
  }
}

const refused = (name: string, message: string | RegExp = /./) => ({
  name,
  $metadata: { httpStatusCode: 400 },
  message: expect.stringMatching(message),
})
const create = (changes: Partial<CreateCustomKeyStoreCommandInput> = {}) =>
  kms.send(new CreateCustomKeyStoreCommand(storeRequest(changes)))
const createKey = (XksKeyId: string) =>
  kms.send(new CreateKeyCommand({ Origin: 'EXTERNAL_KEY_STORE', CustomKeyStoreId: storeId, XksKeyId }))
const encrypt = (more: { readonly EncryptionContext?: Record<string, string> } = {}) =>
  kms.send(new EncryptCommand({ KeyId: keyId, Plaintext: Buffer.from('secret'), ...more }))

/** For as long as the test lasts, B answers wrongly; `0ms` ends it. */
const fault = (kind: string, duration = '60s') => b.ask('xks', 'fault', { store: 'proxy', kind, duration })

/** An HTTPS server with a certificate of its own, in B's place. */
async function serveInstead(pair: Certificates, answer: string | undefined, status = 200) {
  const server = createServer(
    { cert: readFileSync(`${pair.directory}/server.pem`), key: readFileSync(`${pair.directory}/server.key`) },
    (request, response) => {
      request.resume()
      if (answer !== undefined) response.writeHead(status, { 'content-type': 'application/json' }).end(answer)
    },
  )
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  front.pointAt((server.address() as AddressInfo).port)
  return {
    async [Symbol.asyncDispose]() {
      front.pointAt(portOfB())
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

beforeAll(async () => {
  certificates = await createCertificates()
  const tls = {
    certificateFile: `${certificates.directory}/server.pem`,
    keyFile: `${certificates.directory}/server.key`,
  }
  b = await startGateway({
    config: { listen: listening({ xks: { address: '127.0.0.1', port: 0, tls } }), xks: { deadlineMs: 5000 } },
  })
  front = await startTcpFront(portOfB())
  a = await startGateway({
    config: {
      listen: listening({}),
      // generous, since the tests of several files share the machine's cores
      customKeyStores: { strict: false, caFile: `${certificates.directory}/ca.pem`, timeoutMs: 2000 },
    },
  })
  kms = a.client()
  const made = await b.ask<{ credential: Credential }>('xks-store', 'create', { store: 'proxy', prefix: '/proxy' })
  credential = made.credential
  for (const id of ['one', 'two', 'blocked']) await b.ask('xks-key', 'create', { store: 'proxy', id })
})

afterAll(async () => {
  await a?.[Symbol.asyncDispose]()
  await front?.[Symbol.asyncDispose]()
  await b?.[Symbol.asyncDispose]()
  await certificates?.[Symbol.asyncDispose]()
})

function listening(more: Readonly<Record<string, unknown>>): Record<string, unknown> {
  return {
    kms: { address: '127.0.0.1', port: 0 },
    operator: { http: { address: '127.0.0.1', port: 0 } },
    ...more,
  }
}

describe('creating an external key store', () => {
  it('fails with what the proxy did', async () => {
    const secret = 'A'.repeat(43)
    const wrong = { AccessKeyId: credential.accessKeyId, RawSecretAccessKey: secret }
    await expect(create({ XksProxyAuthenticationCredential: wrong })).rejects.toMatchObject(
      refused('XksProxyIncorrectAuthenticationCredentialException', 'could not authenticate'),
    )
    await expect(create({ XksProxyUriPath: '/other/kms/xks/v1' })).rejects.toMatchObject(
      refused('XksProxyInvalidConfigurationException'),
    )
    front.pointAt(undefined)
    await expect(create()).rejects.toMatchObject(
      refused('XksProxyUriUnreachableException', 'cannot communicate with the external key store proxy'),
    )
    front.pointAt(portOfB())
    {
      await using others = await createCertificates()
      await using _server = await serveInstead(others, '{}')
      await expect(create()).rejects.toMatchObject(refused('XksProxyUriUnreachableException'))
    }
    await using _server = await serveInstead(certificates, '<html>')
    await expect(create()).rejects.toMatchObject(refused('XksProxyInvalidResponseException', 'cannot interpret'))
  })

  it('leaves nothing behind when it fails, and no secret in the record when it succeeds', async () => {
    storeId = (await create()).CustomKeyStoreId as string
    expect(await describeStore(kms, storeId)).toEqual({
      CustomKeyStoreId: storeId,
      CustomKeyStoreName: 'external',
      CustomKeyStoreType: 'EXTERNAL_KEY_STORE',
      ConnectionState: 'DISCONNECTED',
      CreationDate: expect.any(Date),
      XksProxyConfiguration: {
        Connectivity: 'PUBLIC_ENDPOINT',
        AccessKeyId: credential.accessKeyId,
        UriEndpoint: endpoint(),
        UriPath: path,
      },
    })
    expect(JSON.stringify(await a.auditRecords())).not.toContain(credential.secretAccessKey)
  })

  it('takes name, and endpoint with path, from everybody else', async () => {
    await expect(create()).rejects.toMatchObject(refused('CustomKeyStoreNameInUseException'))
    const CustomKeyStoreName = 'second'
    await expect(create({ CustomKeyStoreName })).rejects.toMatchObject(refused('XksProxyUriInUseException'))
    const vpc = {
      CustomKeyStoreName,
      XksProxyConnectivity: 'VPC_ENDPOINT_SERVICE',
      XksProxyUriPath: '/second/kms/xks/v1',
      XksProxyVpcEndpointServiceName: 'com.amazonaws.vpce.us-east-1.vpce-svc-0123456789abcdef0',
    } as const
    await expect(create(vpc)).rejects.toMatchObject(refused('XksProxyUriEndpointInUseException'))
    const elsewhere = {
      ...vpc,
      XksProxyVpcEndpointServiceName: vpc.XksProxyVpcEndpointServiceName.replace('-east', '-west'),
    }
    await expect(create(elsewhere)).rejects.toMatchObject(refused('XksProxyVpcEndpointServiceNotFoundException'))
  })
})

describe('connecting', () => {
  async function failure(): Promise<string | undefined> {
    const { ConnectionState, ConnectionErrorCode } = await connectStore(kms, storeId)
    expect(ConnectionState).toBe('FAILED')
    expect((await disconnectStore(kms, storeId)).ConnectionErrorCode).toBeUndefined()
    return ConnectionErrorCode
  }

  it('names the reason of a failure, and works once the reason is gone', async () => {
    front.pointAt(undefined)
    expect(await failure()).toBe('XKS_PROXY_NOT_REACHABLE')
    front.pointAt(portOfB())
    {
      await using others = await createCertificates()
      await using _server = await serveInstead(others, '{}')
      expect(await failure()).toBe('XKS_PROXY_INVALID_TLS_CONFIGURATION')
    }
    {
      await using _server = await serveInstead(certificates, undefined)
      expect(await failure()).toBe('XKS_PROXY_TIMED_OUT')
    }
    for (const [errorName, status, code] of [
      ['AccessDeniedException', 403, 'XKS_PROXY_ACCESS_DENIED'],
      ['AuthenticationFailedException', 401, 'INVALID_CREDENTIALS'],
      ['InvalidUriPathException', 404, 'XKS_PROXY_INVALID_CONFIGURATION'],
      ['ThrottlingException', 429, 'XKS_PROXY_NOT_REACHABLE'],
      ['InternalException', 500, 'XKS_PROXY_INVALID_RESPONSE'],
      ['DependencyTimeoutException', 503, 'XKS_PROXY_TIMED_OUT'],
      ['NeverHeardOfException', 400, 'XKS_PROXY_INVALID_RESPONSE'],
    ] as const) {
      await using _server = await serveInstead(certificates, JSON.stringify({ errorName }), status)
      expect(await failure()).toBe(code)
    }
    {
      const ekmFleetDetails = [{ id: '1', model: 'm', healthStatus: 'UNAVAILABLE' }]
      const health = { xksProxyFleetSize: 1, xksProxyVendor: 'v', xksProxyModel: 'm', ekmVendor: 'e', ekmFleetDetails }
      await using _server = await serveInstead(certificates, JSON.stringify(health))
      expect(await failure()).toBe('XKS_PROXY_NOT_REACHABLE')
    }
    expect(await connectStore(kms, storeId)).toMatchObject({ ConnectionState: 'CONNECTED' })
  })
})

describe('keys of an external key store', () => {
  it('are made only of external keys that will do', async () => {
    await expect(createKey('none')).rejects.toMatchObject(refused('XksKeyNotFoundException', 'could not find'))
    await b.ask('xks', 'block', { store: 'proxy', key: 'blocked' })
    await expect(createKey('blocked')).rejects.toMatchObject(refused('XksKeyInvalidConfigurationException'))
    front.pointAt(undefined)
    await expect(createKey('one')).rejects.toMatchObject(refused('CustomKeyStoreInvalidStateException'))
    front.pointAt(portOfB())
    const { KeyMetadata } = await createKey('one')
    keyId = KeyMetadata?.KeyId as string
    expect(KeyMetadata).toMatchObject({
      Origin: 'EXTERNAL_KEY_STORE',
      CustomKeyStoreId: storeId,
      XksKeyConfiguration: { Id: 'one' },
      KeyState: 'Enabled',
    })
    expect((await kms.send(new DescribeKeyCommand({ KeyId: keyId }))).KeyMetadata).toEqual(KeyMetadata)
    await expect(createKey('one')).rejects.toMatchObject(refused('XksKeyAlreadyInUseException'))
  })

  it('encrypt under both sides: what the proxy opens is still sealed', async () => {
    const EncryptionContext = { app: 'one' }
    const { CiphertextBlob } = await encrypt({ EncryptionContext })
    const { Plaintext } = await kms.send(new DecryptCommand({ CiphertextBlob, EncryptionContext }))
    expect(text(Plaintext)).toBe('secret')
    const blob = Buffer.from(CiphertextBlob as Uint8Array)
    const tailAt = 2 + 16 + 32
    const ivAt = tailAt + 1 + (blob[tailAt] as number)
    const lengthAt = ivAt + 1 + (blob[ivAt] as number) + 16
    // salt and IV with their lengths and the tag of the inner layer
    expect(blob.readUInt16BE(lengthAt)).toBe('secret'.length + 1 + 32 + 1 + 12 + 16)

    await expect(kms.send(new DecryptCommand({ CiphertextBlob }))).rejects.toMatchObject(
      refused('KMSInvalidStateException', 'ciphertext or additional authenticated data is corrupted'),
    )
    for (const at of [blob.length - 1, lengthAt - 1, ivAt + 1]) {
      const bad = Buffer.from(blob)
      bad[at] = (bad[at] as number) ^ 1
      const opened = kms.send(new DecryptCommand({ CiphertextBlob: bad, EncryptionContext }))
      await expect(opened).rejects.toMatchObject(refused('KMSInvalidStateException'))
    }
    for (const bad of [blob.subarray(0, -1), Buffer.concat([blob, Buffer.alloc(1)])]) {
      const opened = kms.send(new DecryptCommand({ CiphertextBlob: bad, EncryptionContext }))
      await expect(opened).rejects.toMatchObject({ name: 'InvalidCiphertextException' })
    }
  })

  it('take the longest plaintext, give data keys and re-encrypt, and the proxy learns on whose behalf', async () => {
    const Plaintext = Buffer.alloc(4096, 7)
    const { CiphertextBlob } = await kms.send(new EncryptCommand({ KeyId: keyId, Plaintext }))
    const opened = await kms.send(new DecryptCommand({ CiphertextBlob }))
    expect(Buffer.from(opened.Plaintext as Uint8Array).equals(Plaintext)).toBe(true)
    const dataKey = await kms.send(new GenerateDataKeyCommand({ KeyId: keyId, KeySpec: 'AES_256' }))
    const again = await kms.send(new DecryptCommand({ CiphertextBlob: dataKey.CiphertextBlob }))
    expect(again.Plaintext).toEqual(dataKey.Plaintext)

    const ordinary = (await kms.send(new CreateKeyCommand({}))).KeyMetadata?.KeyId as string
    const moved = await kms.send(
      new ReEncryptCommand({ CiphertextBlob: dataKey.CiphertextBlob, DestinationKeyId: ordinary }),
    )
    const back = await kms.send(new ReEncryptCommand({ CiphertextBlob: moved.CiphertextBlob, DestinationKeyId: keyId }))
    const last = await kms.send(new DecryptCommand({ CiphertextBlob: back.CiphertextBlob }))
    expect(last.Plaintext).toEqual(dataKey.Plaintext)

    const asked = (await b.auditRecords()).filter(({ event }) => event.eventSource === 'hsmgate.xks')
    expect(JSON.stringify(asked)).toContain('user/administrator')
    const records = await a.auditRecords()
    const encrypted = records.find(({ event }) => event.eventName === 'Encrypt')
    expect(encrypted?.event).toMatchObject({ additionalEventData: { customKeyStoreId: storeId, xksKeyId: 'one' } })
    expect(JSON.stringify(asked)).toContain(encrypted?.event.requestID)
  })

  it('do not do what AWS refuses for them', async () => {
    const unsupported = { name: 'UnsupportedOperationException' }
    const pair = kms.send(new GenerateDataKeyPairCommand({ KeyId: keyId, KeyPairSpec: 'ECC_NIST_P256' }))
    await expect(pair).rejects.toMatchObject(unsupported)
    const random = kms.send(new GenerateRandomCommand({ NumberOfBytes: 8, CustomKeyStoreId: storeId }))
    await expect(random).rejects.toMatchObject(unsupported)
    const EncryptionContext = { long: 'x'.repeat(8192) }
    await expect(encrypt({ EncryptionContext })).rejects.toMatchObject({ name: 'ValidationException' })
    await expect(
      kms.send(new EncryptCommand({ KeyId: keyId, Plaintext: Buffer.from('x'), DryRun: true })),
    ).rejects.toMatchObject({ name: 'DryRunOperationException' })
  })
})

describe('while the store is connected', () => {
  let blob: Uint8Array

  beforeEach(async () => {
    blob = (await encrypt()).CiphertextBlob as Uint8Array
  })

  afterEach(async () => {
    // whatever befell the proxy, it is over, the store is still connected and nobody touched A
    front.pointAt(portOfB())
    await b.ask('xks', 'unblock', { store: 'proxy' })
    expect(await describeStore(kms, storeId)).toMatchObject({ ConnectionState: 'CONNECTED' })
    expect((await kms.send(new DescribeKeyCommand({ KeyId: keyId }))).KeyMetadata?.KeyState).toBe('Enabled')
    expect(text((await kms.send(new DecryptCommand({ CiphertextBlob: blob }))).Plaintext)).toBe('secret')
  })

  const state = (message: string) => refused('KMSInvalidStateException', message)
  const decrypt = () => kms.send(new DecryptCommand({ CiphertextBlob: blob }))

  it('a restart of the proxy is over when it is over', async () => {
    await b.restart()
    await expect(encrypt()).rejects.toMatchObject(state('cannot communicate with the external key store proxy'))
    front.pointAt(portOfB())
    expect(text((await decrypt()).Plaintext)).toBe('secret')
  })

  it('a store that the proxy blocks is a disabled external key', async () => {
    await b.ask('xks', 'block', { store: 'proxy' })
    await expect(encrypt()).rejects.toMatchObject(state('the external key is not enabled'))
    await expect(decrypt()).rejects.toMatchObject(state('the external key is not enabled'))
  })

  it('a certificate that nobody vouches for ends every call', async () => {
    await using others = await createCertificates()
    await using _server = await serveInstead(others, '{}')
    await expect(encrypt()).rejects.toMatchObject(state('cannot communicate with the external key store proxy'))
  })

  it('a proxy that is too slow is told apart, after one retry', async () => {
    await using _server = await serveInstead(certificates, undefined)
    const before = front.accepted
    await expect(encrypt()).rejects.toMatchObject(state('the external key store proxy did not respond in time'))
    expect(front.accepted - before).toBe(2)
  })

  it.each([
    ['deny', 'denied access to the operation'],
    ['garbage', 'cannot interpret the response'],
    ['bad-cdiv', 'cannot interpret the response'],
    ['reset', 'cannot communicate with the external key store proxy'],
    ['429', 'very high request rate'],
  ])('the fault %s shows as AWS shows it', async (kind, message) => {
    await fault(kind)
    await expect(encrypt()).rejects.toMatchObject(state(message))
    await fault(kind, '0ms')
  })

  it('a wrong credential shows, and the right one is set without disconnecting', async () => {
    const next = await b.ask<Credential>('xks-store', 'rotate-credential', { store: 'proxy' })
    await b.ask('xks-store', 'retire-credential', { store: 'proxy', accessKeyId: credential.accessKeyId })
    await expect(encrypt()).rejects.toMatchObject(state('could not authenticate'))
    const update = (AccessKeyId: string, RawSecretAccessKey: string) =>
      kms.send(
        new UpdateCustomKeyStoreCommand({
          CustomKeyStoreId: storeId,
          XksProxyAuthenticationCredential: { AccessKeyId, RawSecretAccessKey },
        }),
      )
    await expect(update(next.accessKeyId, 'A'.repeat(43))).rejects.toMatchObject(
      refused('XksProxyIncorrectAuthenticationCredentialException'),
    )
    await update(next.accessKeyId, next.secretAccessKey)
    credential = next
    expect((await describeStore(kms, storeId)).XksProxyConfiguration?.AccessKeyId).toBe(next.accessKeyId)
    await encrypt()
  })

  it('its path may change, but only to one where a proxy is; its endpoint may not', async () => {
    const update = (changes: object) =>
      kms.send(new UpdateCustomKeyStoreCommand({ CustomKeyStoreId: storeId, ...changes }))
    await expect(update({ XksProxyUriPath: '/none/kms/xks/v1' })).rejects.toMatchObject(
      refused('XksProxyInvalidConfigurationException'),
    )
    await expect(update({ XksProxyUriEndpoint: 'https://localhost:1' })).rejects.toMatchObject(
      refused('CustomKeyStoreInvalidStateException'),
    )
    await update({ XksProxyUriPath: path, NewCustomKeyStoreName: 'external two' })
    expect(await describeStore(kms, storeId)).toMatchObject({ CustomKeyStoreName: 'external two' })
  })

  it('a restart of the KMS leaves it connected', async () => {
    await a.restart()
    kms = a.client()
    expect(text((await decrypt()).Plaintext)).toBe('secret')
  })
})

describe('a KMS that adds no layer of its own', () => {
  it('hands the plaintext to the proxy, and its keys decrypt that for good', async () => {
    await using plain = await startGateway({
      config: {
        listen: listening({}),
        customKeyStores: {
          strict: false,
          caFile: `${certificates.directory}/ca.pem`,
          timeoutMs: 2000,
          doubleEncryption: false,
        },
      },
    })
    const client = plain.client()
    const { CustomKeyStoreId = '' } = await client.send(new CreateCustomKeyStoreCommand(storeRequest()))
    expect(await connectStore(client, CustomKeyStoreId)).toMatchObject({ ConnectionState: 'CONNECTED' })
    const { KeyMetadata } = await client.send(
      new CreateKeyCommand({ Origin: 'EXTERNAL_KEY_STORE', CustomKeyStoreId, XksKeyId: 'two' }),
    )
    const KeyId = KeyMetadata?.KeyId as string
    const { CiphertextBlob } = await client.send(new EncryptCommand({ KeyId, Plaintext: Buffer.from('secret') }))
    // header, no or some metadata, IV of 12 bytes, tag, and as many bytes as the plaintext has
    const blob = Buffer.from(CiphertextBlob as Uint8Array)
    expect(blob.length).toBe(50 + 1 + (blob[50] as number) + 1 + 12 + 16 + 2 + 'secret'.length)
    expect(text((await client.send(new DecryptCommand({ CiphertextBlob }))).Plaintext)).toBe('secret')
    // another KMS key, although of the same external key, is another key
    await expect(kms.send(new DecryptCommand({ CiphertextBlob }))).rejects.toMatchObject({
      name: 'AccessDeniedException',
    })
    await client.send(new ScheduleKeyDeletionCommand({ KeyId, PendingWindowInDays: 7 }))
  })
})

describe('the end of an external key store', () => {
  it('comes after its last key, and the external key is not touched', async () => {
    expect(await disconnectStore(kms, storeId)).toMatchObject({ ConnectionState: 'DISCONNECTED' })
    expect((await kms.send(new DescribeKeyCommand({ KeyId: keyId }))).KeyMetadata?.KeyState).toBe('Unavailable')
    await expect(encrypt()).rejects.toMatchObject(refused('KMSInvalidStateException', 'is unavailable'))
    await kms.send(new ScheduleKeyDeletionCommand({ KeyId: keyId, PendingWindowInDays: 7 }))
    const remove = () => kms.send(new DeleteCustomKeyStoreCommand({ CustomKeyStoreId: storeId }))
    await expect(remove()).rejects.toMatchObject(refused('CustomKeyStoreHasCMKsException'))
  })
})
