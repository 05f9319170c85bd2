/** GetHealthStatus of stores whose keys live in different groups of tokens: each tells of its own. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createShimmedToken, type ShimmedToken } from '../../support/shim.ts'
import { createTestToken, type TestToken } from '../../support/softhsm.ts'
import {
  createStore,
  createXksClient,
  metadataOf,
  startXksGateway,
  type XksClient,
  type XksGateway,
} from '../../support/xks-client.ts'

let near: TestToken
let far: ShimmedToken
let xks: XksGateway
const clients = new Map<string, XksClient>()

const described = ({ module, label, pinFile, env }: TestToken) => ({ module, label, pinFile, profile: 'softhsm', env })

/** Stores by name, and the groups of their keys. */
const stores = { near: ['near'], far: ['far'], both: ['near', 'far'], none: [] } as const

beforeAll(async () => {
  near = await createTestToken()
  far = await createShimmedToken()
  const config = {
    tokens: { near: described(near), far: described(far) },
    groups: { near: { tokens: ['near'] }, far: { tokens: ['far'] } },
    defaultGroup: 'near',
  }
  xks = await startXksGateway({ token: near, config })
  for (const [name, groups] of Object.entries(stores)) {
    const store = await createStore(xks, name)
    for (const group of groups) await xks.gateway.ask('xks-key', 'create', { store: name, id: group, group })
    clients.set(name, createXksClient(xks, store))
  }
}, 180_000)
afterAll(async () => {
  for (const client of clients.values()) client[Symbol.dispose]()
  await xks?.[Symbol.asyncDispose]()
  await far?.[Symbol.asyncDispose]()
  await near?.[Symbol.asyncDispose]()
})

async function healthOf(store: keyof typeof stores): Promise<readonly string[]> {
  const { body } = await clients.get(store)!.call('health', metadataOf('KmsHealthCheck'))
  return (body.ekmFleetDetails as readonly { healthStatus: string }[]).map(({ healthStatus }) => healthStatus)
}

const allOfThem = async () => ({
  near: await healthOf('near'),
  far: await healthOf('far'),
  both: await healthOf('both'),
  none: await healthOf('none'),
})
const patience = { timeout: 60_000, interval: 500 }

describe('GetHealthStatus', () => {
  it('tells of the tokens that the keys of the store live in, and of the default group when it has none', async () => {
    expect(await allOfThem()).toEqual({
      near: ['ACTIVE'],
      far: ['ACTIVE'],
      both: ['ACTIVE', 'ACTIVE'],
      none: ['ACTIVE'],
    })
  })

  it('tells a store alone that its token is gone, and that it came back', { timeout: 120_000 }, async () => {
    far.rules(['C_EncryptInit,C_DecryptInit,C_GenerateRandom,C_OpenSession rv=CKR_DEVICE_REMOVED'])
    await expect.poll(() => healthOf('far'), patience).toEqual(['UNAVAILABLE'])
    expect(await allOfThem()).toEqual({
      near: ['ACTIVE'],
      far: ['UNAVAILABLE'],
      both: ['ACTIVE', 'UNAVAILABLE'],
      none: ['ACTIVE'],
    })
    const metrics = await (await fetch(`${xks.gateway.gateway.endpoints.operator}/metrics`)).text()
    expect(metrics).toContain('hsmgate_xks_healthy{group="near"} 1\n')
    expect(metrics).toContain('hsmgate_xks_healthy{group="far"} 0\n')
    far.clear()
    await expect.poll(() => healthOf('far'), patience).toEqual(['ACTIVE'])
  })
})
