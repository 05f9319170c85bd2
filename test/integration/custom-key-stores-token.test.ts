/**
 * A second token as AWS_CLOUDHSM: what its logins answer, how often a password is tried, and that it may go away and come back. The shim counts what
 * reaches the module.
 */
import { readdir, rename } from 'node:fs/promises'
import path from 'node:path'
import {
  ConnectCustomKeyStoreCommand,
  CreateKeyCommand,
  DecryptCommand,
  DeleteCustomKeyStoreCommand,
  DescribeKeyCommand,
  EncryptCommand,
  type KMSClient,
  ListKeysCommand,
  ScheduleKeyDeletionCommand,
  UpdateCustomKeyStoreCommand,
} from '@aws-sdk/client-kms'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest'
import {
  clusterToken,
  connectStore,
  createCertificates,
  createClusterStore,
  describeStore,
  disconnectStore,
  passwordOf,
  settledStore,
} from '../support/custom-key-stores.ts'
import { startGateway, type TestGateway } from '../support/gateway.ts'
import { createMovingClock, dayMs, type MovingClock } from '../support/moving-clock.ts'
import { createShimmedToken, type ShimmedToken } from '../support/shim.ts'
import { createTestToken, type TestToken } from '../support/softhsm.ts'

// every test has a gateway and a token of its own, on cores that others use too
vi.setConfig({ testTimeout: 120_000, hookTimeout: 60_000 })
const patience = { timeout: 60_000, interval: 100 }

let certificates: Awaited<ReturnType<typeof createCertificates>>
let main: TestToken
let cluster: ShimmedToken
let clock: MovingClock
let gateway: TestGateway
let kms: KMSClient
let password: string

beforeAll(async () => {
  certificates = await createCertificates()
})

afterAll(() => certificates[Symbol.asyncDispose]())

beforeEach(async () => {
  ;[main, cluster] = await Promise.all([createTestToken(), createShimmedToken({ label: 'hsmgate-cluster' })])
  password = await passwordOf(cluster)
  clock = createMovingClock()
  gateway = await startGateway({
    token: main,
    overrides: { clock },
    config: {
      tokens: {
        softhsm: { module: main.module, label: main.label, pinFile: main.pinFile, profile: 'softhsm', env: main.env },
        cluster: clusterToken(cluster),
      },
    },
  })
  kms = gateway.client()
})

afterEach(async () => {
  cluster.clear()
  await gateway[Symbol.asyncDispose]()
  await Promise.all([main, cluster].map((each) => each[Symbol.asyncDispose]()))
})

const createStore = (given = password) =>
  createClusterStore(kms, { password: given, trustAnchor: certificates.ca, name: 'cluster' })
const setPassword = (CustomKeyStoreId: string, KeyStorePassword: string) =>
  kms.send(new UpdateCustomKeyStoreCommand({ CustomKeyStoreId, KeyStorePassword }))
const logins = () => cluster.count('C_Login')

async function createKey(CustomKeyStoreId: string): Promise<string> {
  const { KeyMetadata } = await kms.send(new CreateKeyCommand({ Origin: 'AWS_CLOUDHSM', CustomKeyStoreId }))
  return KeyMetadata?.KeyId as string
}

async function failure(storeId: string): Promise<string | undefined> {
  const { ConnectionState, ConnectionErrorCode } = await connectStore(kms, storeId)
  expect(ConnectionState).toBe('FAILED')
  await disconnectStore(kms, storeId)
  return ConnectionErrorCode
}

/** The token is gone from its module while `work` runs. */
async function withoutToken<T>(work: () => Promise<T>): Promise<T> {
  const folder = path.dirname(cluster.env.SOFTHSM2_CONF)
  const [token = ''] = await readdir(path.join(folder, 'tokens'))
  await rename(path.join(folder, 'tokens', token), path.join(folder, token))
  try {
    return await work()
  } finally {
    await rename(path.join(folder, token), path.join(folder, 'tokens', token))
  }
}

describe('the password of a store', () => {
  it('reaches the token once when it is wrong, however often the store is connected and the gateway restarted', async () => {
    const storeId = await createStore('not-the-password')
    expect(await failure(storeId)).toBe('INVALID_CREDENTIALS')
    expect(logins()).toBe(1)
    expect(await failure(storeId)).toBe('INVALID_CREDENTIALS')
    await gateway.restart()
    kms = gateway.client()
    expect(await failure(storeId)).toBe('INVALID_CREDENTIALS')
    expect(logins()).toBe(1)

    await setPassword(storeId, 'wrong-again')
    expect(await failure(storeId)).toBe('INVALID_CREDENTIALS')
    expect(logins()).toBe(2)
    await setPassword(storeId, password)
    expect(await connectStore(kms, storeId)).toMatchObject({ ConnectionState: 'CONNECTED' })
  })

  it('is given to the token once for each worker, and stands nowhere else', async () => {
    const storeId = await createStore()
    await connectStore(kms, storeId)
    // one manage and one serve worker
    expect(logins()).toBe(2)
    const records = JSON.stringify(await gateway.auditRecords())
    expect(records).not.toContain(password)
    expect(JSON.stringify(await describeStore(kms, storeId))).not.toContain(password)
  })

  it('is not tried again after a stop in the middle of its first try, but is when somebody asks', async () => {
    const storeId = await createStore()
    cluster.rules(['C_Login hang'])
    await kms.send(new ConnectCustomKeyStoreCommand({ CustomKeyStoreId: storeId }))
    await expect.poll(() => cluster.hits(0), patience).toBe(1)
    await gateway.restart()
    kms = gateway.client()
    expect(await settledStore(kms, storeId)).toMatchObject({
      ConnectionState: 'FAILED',
      ConnectionErrorCode: 'INTERNAL_ERROR',
    })
    expect(cluster.hits(0)).toBe(1)
    cluster.clear()
    await disconnectStore(kms, storeId)
    expect(await connectStore(kms, storeId)).toMatchObject({ ConnectionState: 'CONNECTED' })
  })

  it('that was right before is tried again by itself after a stop in the middle of connecting', async () => {
    const storeId = await createStore()
    await connectStore(kms, storeId)
    await disconnectStore(kms, storeId)
    cluster.rules(['C_Login hang'])
    await kms.send(new ConnectCustomKeyStoreCommand({ CustomKeyStoreId: storeId }))
    await expect.poll(() => cluster.hits(0), patience).toBe(1)
    expect(await describeStore(kms, storeId)).toMatchObject({ ConnectionState: 'CONNECTING' })
    cluster.clear()
    await gateway.restart()
    kms = gateway.client()
    expect(await settledStore(kms, storeId)).toMatchObject({ ConnectionState: 'CONNECTED' })
  })
})

describe('connecting', () => {
  it('says by its error code what the token said', async () => {
    const storeId = await createStore()
    for (const [rule, code] of [
      ['C_Login rv=CKR_PIN_LOCKED', 'USER_LOCKED_OUT'],
      ['C_Login rv=CKR_USER_PIN_NOT_INITIALIZED', 'USER_NOT_FOUND'],
      ['C_Login rv=CKR_USER_ANOTHER_ALREADY_LOGGED_IN', 'USER_LOGGED_IN'],
      ['C_Login rv=CKR_DEVICE_ERROR', 'INSUFFICIENT_CLOUDHSM_HSMS'],
      ['C_OpenSession rv=CKR_TOKEN_NOT_PRESENT', 'INSUFFICIENT_CLOUDHSM_HSMS'],
      ['C_Login crash', 'NETWORK_ERRORS'],
      ['C_Initialize rv=CKR_GENERAL_ERROR', 'INTERNAL_ERROR'],
    ] as const) {
      // each password is one that was not refused before
      await setPassword(storeId, password)
      cluster.rules([rule])
      const before = logins()
      expect([rule, await failure(storeId)]).toEqual([rule, code])
      expect(logins() - before).toBe(rule.startsWith('C_Login') ? 1 : 0)
    }
    cluster.clear()
    await setPassword(storeId, password)
    expect(await connectStore(kms, storeId)).toMatchObject({ ConnectionState: 'CONNECTED' })
  })

  it('fails without a token and works when it is there again', async () => {
    const storeId = await createStore()
    expect(await withoutToken(() => failure(storeId))).toBe('CLUSTER_NOT_FOUND')
    expect(logins()).toBe(0)
    expect(await connectStore(kms, storeId)).toMatchObject({ ConnectionState: 'CONNECTED' })
  })

  it('is cut short by a disconnection', async () => {
    const storeId = await createStore()
    cluster.rules(['C_Initialize hang'])
    await kms.send(new ConnectCustomKeyStoreCommand({ CustomKeyStoreId: storeId }))
    expect(await disconnectStore(kms, storeId)).toMatchObject({ ConnectionState: 'DISCONNECTED' })
  })
})

describe('a connected store', () => {
  const encrypt = (KeyId: string) => kms.send(new EncryptCommand({ KeyId, Plaintext: Buffer.from('x') }))
  const refused = (name: string) => ({ name, $metadata: { httpStatusCode: 400 } })

  it('stays connected while its token fails, and its keys work again when the token does', async () => {
    const storeId = await createStore()
    await connectStore(kms, storeId)
    const KeyId = await createKey(storeId)
    const { CiphertextBlob } = await encrypt(KeyId)
    cluster.rules(['C_EncryptInit,C_DecryptInit,C_GenerateRandom,C_GenerateKey,C_OpenSession rv=CKR_DEVICE_REMOVED'])
    await expect(encrypt(KeyId)).rejects.toMatchObject(refused('KMSInvalidStateException'))
    await expect(createKey(storeId)).rejects.toMatchObject(refused('CloudHsmClusterInvalidConfigurationException'))
    expect(await describeStore(kms, storeId)).toMatchObject({ ConnectionState: 'CONNECTED' })
    cluster.clear()
    const opened = () =>
      kms.send(new DecryptCommand({ CiphertextBlob })).then(
        ({ Plaintext }) => Buffer.from(Plaintext as Uint8Array).toString(),
        () => '',
      )
    await expect.poll(opened, patience).toBe('x')
  })

  it('stays connected over a restart of the gateway without its token', async () => {
    const storeId = await createStore()
    await connectStore(kms, storeId)
    const KeyId = await createKey(storeId)
    await withoutToken(async () => {
      await gateway.restart()
      kms = gateway.client()
      expect(await describeStore(kms, storeId)).toMatchObject({ ConnectionState: 'CONNECTED' })
      expect((await kms.send(new DescribeKeyCommand({ KeyId }))).KeyMetadata?.KeyState).toBe('Enabled')
      await expect(encrypt(KeyId)).rejects.toMatchObject(refused('KMSInvalidStateException'))
    })
    const isBack = () =>
      encrypt(KeyId).then(
        () => true,
        () => false,
      )
    await expect.poll(isBack, patience).toBe(true)
  })
})

describe('a key whose creation was cut off', () => {
  it('is settled when its store is open again', async () => {
    const storeId = await createStore()
    await connectStore(kms, storeId)
    cluster.rules(['C_GenerateKey after hang'])
    const client = gateway.client()
    const command = new CreateKeyCommand({ Origin: 'AWS_CLOUDHSM', CustomKeyStoreId: storeId })
    const cutOff = client.send(command).catch((cause) => cause)
    await expect.poll(() => cluster.hits(0), patience).toBe(1)
    client.destroy() // a gateway that ends waits long for those who still wait for it
    expect(await cutOff).toBeInstanceOf(Error)
    cluster.clear()
    await gateway.restart()
    kms = gateway.client()
    const keys = async () => (await kms.send(new ListKeysCommand({}))).Keys ?? []
    await expect.poll(async () => (await keys()).length, patience).toBe(1)
    const KeyId = (await keys())[0]?.KeyId as string
    const { KeyMetadata } = await kms.send(new DescribeKeyCommand({ KeyId }))
    expect(KeyMetadata).toMatchObject({ KeyState: 'Enabled', CustomKeyStoreId: storeId })
    await kms.send(new EncryptCommand({ KeyId, Plaintext: Buffer.from('x') }))
  })
})

describe('the end of keys and stores', () => {
  it('destroys the objects in the token, or leaves them there when it is away, and says so', async () => {
    const storeId = await createStore()
    await connectStore(kms, storeId)
    const [first, second] = [await createKey(storeId), await createKey(storeId)]
    const objects = () => gateway.ask<{ unknown: { ours: boolean }[] }>('key', 'reconcile', { group: storeId })
    await kms.send(new ScheduleKeyDeletionCommand({ KeyId: first, PendingWindowInDays: 7 }))
    await kms.send(new ScheduleKeyDeletionCommand({ KeyId: second, PendingWindowInDays: 8 }))

    clock.passes(7 * dayMs + 60_000)
    await gateway.gateway.settle()
    expect((await objects()).unknown).toEqual([])
    await disconnectStore(kms, storeId)
    clock.passes(dayMs)
    await gateway.gateway.settle()

    const events = (await gateway.auditRecords()).map(({ event }) => event)
    const details = events
      .filter(({ eventName }) => eventName === 'DeleteKey')
      .map((event) => event.serviceEventDetails)
    const detailsOf = (keyId: string, deletionStatus: string) => ({
      keyId,
      customKeyStoreId: storeId,
      backingKeysDeletionStatus: [{ backingKeyId: expect.any(String), deletionStatus }],
    })
    expect(details).toMatchObject([detailsOf(first as string, 'SUCCESS'), detailsOf(second as string, 'FAILURE')])

    await connectStore(kms, storeId)
    expect((await objects()).unknown).toMatchObject([{ ours: true }])
    await disconnectStore(kms, storeId)
    await kms.send(new DeleteCustomKeyStoreCommand({ CustomKeyStoreId: storeId }))
    expect(await createStore()).not.toBe(storeId)
  })
})
