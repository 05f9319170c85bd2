/** The AWS Encryption SDK for JavaScript, unmodified: envelopes whose data keys the module seals, with encryption contexts and cached data keys. */
import { randomBytes } from 'node:crypto'
import {
  buildClient,
  CommitmentPolicy,
  getClient,
  getLocalCryptographicMaterialsCache,
  KMS,
  KmsKeyringNode,
  NodeCachingMaterialsManager,
} from '@aws-crypto/client-node'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { startGateway, type TestGateway, testRegion } from '../../support/gateway.ts'
import { makeKey, openKms } from '../../support/kms-sdk.ts'

let gateway: TestGateway
let kms: ReturnType<typeof openKms>
let generator: string
let other: string

beforeAll(async () => {
  gateway = await startGateway()
  kms = openKms(gateway)
  generator = (await makeKey(kms)).arn
  other = (await makeKey(kms)).arn
}, 60_000)

afterAll(async () => {
  kms?.destroy()
  await gateway?.[Symbol.asyncDispose]()
})

const { encrypt, decrypt } = buildClient(CommitmentPolicy.REQUIRE_ENCRYPT_REQUIRE_DECRYPT)

const clientProvider = () =>
  getClient(KMS, { endpoint: gateway.endpoint, region: testRegion, credentials: gateway.credentials, maxAttempts: 1 })
const keyring = (generatorKeyId = generator, keyIds: string[] = []) =>
  new KmsKeyringNode({ clientProvider: clientProvider(), generatorKeyId, keyIds })

async function callsOf(...names: readonly string[]): Promise<number> {
  const records = await gateway.auditRecords()
  return records.filter(({ event }) => names.includes(event.eventName as string)).length
}

describe('the AWS Encryption SDK', () => {
  it('gets a plaintext of any length back with its encryption context', async () => {
    for (const bytes of [0, 1, 4096, 100_000]) {
      const plaintext = randomBytes(bytes)
      const encryptionContext = { purpose: 'test', bytes: String(bytes) }
      const { result } = await encrypt(keyring(), plaintext, { encryptionContext })
      const opened = await decrypt(keyring(), result)
      expect(opened.plaintext.equals(plaintext)).toBe(true)
      expect(opened.messageHeader.encryptionContext).toMatchObject(encryptionContext)
    }
  })

  it('opens a message with any of the keys that sealed it, and with no other', async () => {
    const plaintext = Buffer.from('for two')
    const { result } = await encrypt(keyring(generator, [other]), plaintext)
    for (const keyId of [generator, other]) {
      const only = new KmsKeyringNode({ clientProvider: clientProvider(), keyIds: [keyId] })
      expect((await decrypt(only, result)).plaintext).toEqual(plaintext)
    }
    const stranger = new KmsKeyringNode({ clientProvider: clientProvider(), keyIds: [(await makeKey(kms)).arn] })
    await expect(decrypt(stranger, result)).rejects.toThrow()
  })

  it('opens a message of a disabled key no more', async () => {
    const { id: KeyId, arn } = await makeKey(kms)
    const { result } = await encrypt(keyring(arn), Buffer.from('x'))
    await kms.disableKey({ KeyId })
    await expect(decrypt(keyring(arn), result)).rejects.toThrow()
    await kms.enableKey({ KeyId })
    expect((await decrypt(keyring(arn), result)).plaintext.toString()).toBe('x')
  })

  it('refuses a message of which any part was changed', async () => {
    const { result } = await encrypt(keyring(), Buffer.from('whole'), { encryptionContext: { a: '1' } })
    for (let at = 0; at < result.length; at += Math.ceil(result.length / 16)) {
      const changed = Buffer.from(result)
      changed.writeUInt8(changed.readUInt8(at) ^ 1, at)
      await expect(decrypt(keyring(), changed)).rejects.toThrow()
    }
  })

  it('with cached data keys asks the gateway once for many messages of one context, and again for another', async () => {
    const manager = new NodeCachingMaterialsManager({
      backingMaterials: keyring(),
      cache: getLocalCryptographicMaterialsCache(100),
      maxAge: 600_000,
      maxMessagesEncrypted: 100,
    })
    const encryptionContext = { tenant: 'one' }
    const before = { generated: await callsOf('GenerateDataKey'), decrypted: await callsOf('Decrypt') }
    const envelopes: Buffer[] = []
    for (let i = 0; i < 5; i++) {
      const plaintext = Buffer.from(`message ${i}`)
      // The plaintext length counts towards the limit of bytes under one data key.
      const { result } = await encrypt(manager, plaintext, { encryptionContext, plaintextLength: plaintext.length })
      envelopes.push(result)
    }
    expect(await callsOf('GenerateDataKey')).toBe(before.generated + 1)
    for (const [i, envelope] of envelopes.entries()) {
      const { plaintext, messageHeader } = await decrypt(manager, envelope)
      expect(plaintext.toString()).toBe(`message ${i}`)
      expect(messageHeader.encryptionContext).toMatchObject(encryptionContext)
    }
    expect(await callsOf('Decrypt')).toBe(before.decrypted + 1)
    await encrypt(manager, Buffer.from('x'), { encryptionContext: { tenant: 'two' }, plaintextLength: 1 })
    expect(await callsOf('GenerateDataKey')).toBe(before.generated + 2)
  })

  it('still opens messages after the key has rotated', async () => {
    const { id: KeyId, arn } = await makeKey(kms)
    const { result } = await encrypt(keyring(arn), Buffer.from('old'))
    await kms.rotateKeyOnDemand({ KeyId })
    expect((await decrypt(keyring(arn), result)).plaintext.toString()).toBe('old')
    const { result: fresh } = await encrypt(keyring(arn), Buffer.from('new'))
    expect((await decrypt(keyring(arn), fresh)).plaintext.toString()).toBe('new')
  })
})
