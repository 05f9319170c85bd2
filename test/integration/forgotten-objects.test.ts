/** A catalog that knows less than the token: whatever it lost or never had, no object of the token is touched. */
import { copyFile, readFile, rm } from 'node:fs/promises'
import path from 'node:path'
import { CreateKeyCommand, DecryptCommand, EncryptCommand } from '@aws-sdk/client-kms'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { runOk } from '../support/command.ts'
import { startGateway, type TestGateway } from '../support/gateway.ts'
import { createTestToken, type TestToken } from '../support/softhsm.ts'

let token: TestToken

beforeEach(async () => {
  token = await createTestToken()
})

afterEach(async () => {
  await token[Symbol.asyncDispose]()
})

/** What the token holds, seen from outside the gateway. */
async function listObjects(): Promise<readonly string[]> {
  const pin = await readFile(token.pinFile, 'utf8')
  const args = [
    '--module',
    token.module,
    '--token-label',
    token.label,
    '--login',
    '--pin',
    'env:TEST_PIN',
    '--list-objects',
  ]
  const env = { ...token.env, TEST_PIN: pin, PATH: '/usr/bin:/bin' }
  const text = (await runOk('/usr/bin/pkcs11-tool', args, { env })).toString()
  return text
    .split('\n')
    .filter((line) => /^\s+(label|ID):/.test(line))
    .map((line) => line.trim())
    .sort()
}

async function makeKey(gateway: TestGateway) {
  const kms = gateway.client()
  const { KeyMetadata } = await kms.send(new CreateKeyCommand({}))
  const KeyId = KeyMetadata?.KeyId as string
  const { CiphertextBlob } = await kms.send(new EncryptCommand({ KeyId, Plaintext: Buffer.from('kept') }))
  return { KeyId, CiphertextBlob }
}

describe('a gateway whose catalog is empty', () => {
  it('leaves every object of the token untouched and reports those that were ours', async () => {
    const first = await startGateway({ token })
    await makeKey(first)
    await first[Symbol.asyncDispose]()
    const before = await listObjects()
    await rm(path.join(token.directory, 'state'), { recursive: true })

    await using second = await startGateway({ token })
    const unknown = await second.gateway.unknownObjects
    expect(unknown).toHaveLength(before.filter((line) => line.startsWith('ID:')).length)
    expect(unknown.every(({ ours }) => ours)).toBe(true)
    const after = await listObjects()
    for (const line of before) expect(after).toContain(line)
  })
})

describe('a gateway whose catalog is an older copy', () => {
  it('leaves newer keys in the token, reports them and goes on with those it knows', async () => {
    const gateway = await startGateway({ token })
    const old = await makeKey(gateway)
    const catalog = path.join(gateway.directory, 'catalog.sqlite')
    const copy = path.join(token.directory, 'yesterday.sqlite')
    await gateway.restart()
    await copyFile(catalog, copy)
    const lost = await makeKey(gateway)
    await gateway.gateway[Symbol.asyncDispose]()
    const before = await listObjects()
    for (const suffix of ['-wal', '-shm']) await rm(`${catalog}${suffix}`, { force: true })
    await copyFile(copy, catalog)

    await gateway.restart()
    try {
      const unknown = await gateway.gateway.unknownObjects
      expect(unknown.map(({ label }) => label)).toEqual([`hsmgate:${lost.KeyId}:1`])
      expect(await listObjects()).toEqual(before)
      const { Plaintext } = await gateway.client().send(new DecryptCommand({ CiphertextBlob: old.CiphertextBlob }))
      expect(Buffer.from(Plaintext as Uint8Array).toString()).toBe('kept')
    } finally {
      await gateway[Symbol.asyncDispose]()
    }
  })
})
