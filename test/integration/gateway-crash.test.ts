/** The gateway killed under load and in the middle of what the module does: what was acknowledged stays, nothing is left half done. */
import path from 'node:path'
import {
  CreateKeyCommand,
  DecryptCommand,
  DescribeKeyCommand,
  EncryptCommand,
  GenerateDataKeyCommand,
  type KMSClient,
  SignCommand,
} from '@aws-sdk/client-kms'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { findSoftHsmModule } from '../../softhsm/token.ts'
import { verifyJournal } from '../../src/audit/verify.ts'
import type { GroupState } from '../../src/hsm/port.ts'
import { isAlive, type ServedGateway, serveGateway } from '../support/served-gateway.ts'
import { createShimmedToken, type ShimmedToken } from '../support/shim.ts'
import { createTestToken, type TestToken } from '../support/softhsm.ts'
import { listObjectIds, readCatalog } from '../support/token-objects.ts'

const patience = { timeout: 120_000 }
const plaintext = Buffer.from('attack at dawn')

async function makeKey(kms: KMSClient): Promise<string> {
  const { KeyMetadata } = await kms.send(new CreateKeyCommand({}))
  return KeyMetadata!.KeyId!
}

async function encrypt(kms: KMSClient, KeyId: string): Promise<Uint8Array> {
  return (await kms.send(new EncryptCommand({ KeyId, Plaintext: plaintext }))).CiphertextBlob!
}

async function decrypt(kms: KMSClient, CiphertextBlob: Uint8Array): Promise<string> {
  const { Plaintext } = await kms.send(new DecryptCommand({ CiphertextBlob }))
  return Buffer.from(Plaintext!).toString()
}

/** Ends the gateway and waits for its workers too, so that the next one meets nobody. */
async function kill(served: ServedGateway, workers: readonly number[] = []): Promise<void> {
  served.kill('SIGKILL')
  await served.ended
  await expect.poll(() => workers.filter(isAlive), { timeout: 10_000 }).toEqual([])
}

async function workerPids(served: ServedGateway): Promise<readonly number[]> {
  const { groups } = await served.ask<{ groups: readonly GroupState[] }>('token', 'list')
  return groups.flatMap(({ workers }) => workers).flatMap(({ pid }) => pid ?? [])
}

async function stop(served: ServedGateway): Promise<void> {
  served.kill('SIGTERM')
  expect((await served.ended).code).toBe(0)
}

describe('a gateway that is killed while requests run', () => {
  let token: TestToken
  beforeAll(async () => {
    token = await createTestToken()
  })
  afterAll(() => token[Symbol.asyncDispose]())

  it('finds every acknowledged key again, twice in a row, and leaves nothing half done', patience, async () => {
    const acknowledged = new Map<string, Uint8Array[]>()
    for (const crashAfter of [4, 4]) {
      await using served = await serveGateway(token)
      const kms = served.client()
      const workers = await workerPids(served)
      let keysMade = 0
      const work = async (): Promise<void> => {
        for (;;) {
          const keyId = await makeKey(kms)
          acknowledged.set(keyId, [])
          keysMade++
          acknowledged.get(keyId)!.push(await encrypt(kms, keyId))
        }
      }
      const all = Promise.allSettled([1, 2, 3].map(work))
      await expect.poll(() => keysMade, { timeout: 30_000, interval: 5 }).toBeGreaterThanOrEqual(crashAfter)
      await kill(served, workers)
      await all
    }

    await using served = await serveGateway(token)
    const kms = served.client()
    expect(acknowledged.size).toBeGreaterThanOrEqual(8)
    for (const [KeyId, ciphertexts] of acknowledged) {
      const { KeyMetadata } = await kms.send(new DescribeKeyCommand({ KeyId }))
      expect(KeyMetadata?.KeyState).toBe('Enabled')
      for (const ciphertext of [...ciphertexts, await encrypt(kms, KeyId)])
        expect(await decrypt(kms, ciphertext)).toBe(plaintext.toString())
    }
    await stop(served)
    const catalog = await readCatalog(path.join(served.directory, 'catalog.sqlite'))
    expect(catalog.unfinished).toEqual([])
    expect(await listObjectIds(token)).toEqual(catalog.objectIds)
    expect(await verifyJournal(path.join(served.directory, 'audit'))).toMatchObject({ ok: true })
  })
})

describe('a gateway that is killed while the module works on a key', () => {
  let token: ShimmedToken
  let keysBefore = 0
  beforeAll(async () => {
    token = await createShimmedToken()
  })
  afterAll(() => token[Symbol.asyncDispose]())

  /** Kills the gateway as soon as the module hangs by the rule. */
  async function killInside(rule: string, act: (kms: KMSClient) => Promise<unknown>): Promise<void> {
    await using served = await serveGateway(token)
    const workers = await workerPids(served)
    token.rules([rule])
    const acted = act(served.client()).catch(() => 'refused')
    await expect.poll(() => token.hits(0), { timeout: 30_000, interval: 5 }).toBeGreaterThanOrEqual(1)
    await kill(served, workers)
    expect(await acted).toBe('refused')
    token.clear()
  }

  async function settle(): Promise<{ readonly lines: string; readonly keys: number }> {
    await using served = await serveGateway(token)
    const { keys } = await served.ask<{ keys: readonly { keyId: string }[] }>('key', 'list')
    const kms = served.client()
    for (const { keyId } of keys) await decrypt(kms, await encrypt(kms, keyId))
    await stop(served)
    const catalog = await readCatalog(path.join(served.directory, 'catalog.sqlite'))
    expect(catalog.unfinished).toEqual([])
    expect(await listObjectIds({ ...token, module: findSoftHsmModule()! })).toEqual(catalog.objectIds)
    return { lines: (await served.ended).err, keys: keys.length }
  }

  it.each([
    ['before the object exists: the row goes', 'C_GenerateKey scope=all to=1 hang', 'abandoned', 0],
    [
      'when the object exists and nobody knows: it becomes the key',
      'C_GenerateKey scope=all to=1 after hang',
      'completed',
      1,
    ],
  ])('settles a creation that was cut off %s', patience, async (_, rule, outcome, more) => {
    await killInside(rule, makeKey)
    const { lines, keys } = await settle()
    expect(lines).toMatch(new RegExp(`"outcome":"${outcome}".*creation that was cut off`))
    expect(keys).toBe(keysBefore + more)
    keysBefore = keys
  })
})

describe('workers that are killed while requests run', () => {
  let token: TestToken
  let served: ServedGateway
  beforeAll(async () => {
    token = await createTestToken()
    served = await serveGateway(token)
  }, 60_000)
  afterAll(async () => {
    await served[Symbol.asyncDispose]()
    await token[Symbol.asyncDispose]()
  })

  it('fail no request, one worker after the other', patience, async () => {
    const kms = served.client()
    const KeyId = await makeKey(kms)
    const signing = await kms.send(new CreateKeyCommand({ KeySpec: 'ECC_NIST_P256', KeyUsage: 'SIGN_VERIFY' }))
    const ciphertext = await encrypt(kms, KeyId)
    const calls = [
      () => encrypt(kms, KeyId),
      async () => expect(await decrypt(kms, ciphertext)).toBe(plaintext.toString()),
      () => kms.send(new GenerateDataKeyCommand({ KeyId, KeySpec: 'AES_256' })),
      () =>
        kms.send(
          new SignCommand({
            KeyId: signing.KeyMetadata!.KeyId,
            Message: plaintext,
            SigningAlgorithm: 'ECDSA_SHA_256',
          }),
        ),
    ]
    let done = 0
    let running = true
    const failures: unknown[] = []
    const client = async (first: number): Promise<void> => {
      for (let index = first; running; index++) {
        await calls[index % calls.length]!().then(
          () => done++,
          (cause) => failures.push(cause),
        )
      }
    }
    const clients = [0, 1, 2, 3].map(client)
    const { groups } = await served.ask<{ groups: readonly GroupState[] }>('token', 'list')
    for (const { pid } of groups.flatMap(({ workers }) => workers)) {
      const before = done
      await expect.poll(() => done, { timeout: 20_000, interval: 5 }).toBeGreaterThan(before + 5)
      process.kill(pid!, 'SIGKILL')
      await expect
        .poll(
          async () => {
            const now = await served.ask<{ groups: readonly GroupState[] }>('token', 'list')
            const workers = now.groups.flatMap((group) => group.workers)
            return workers.filter((worker) => worker.state === 'ready' && worker.pid !== pid).length
          },
          { timeout: 20_000 },
        )
        .toBe(3)
    }
    running = false
    await Promise.all(clients)
    expect(failures).toEqual([])
    const metrics = await (await fetch(`${served.operatorEndpoint}/metrics`)).text()
    expect(metrics).toMatch(/hsmgate_worker_deaths_total\{token="softhsm",role="serve",expected="false"\} 2/)
  })
})
