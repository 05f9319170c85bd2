/** A gateway whose disks are full, slow or damaged. */
import { execFileSync, spawnSync } from 'node:child_process'
import { rmSync, writeFileSync } from 'node:fs'
import { mkdir } from 'node:fs/promises'
import path from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import {
  CreateKeyCommand,
  DecryptCommand,
  DescribeKeyCommand,
  EncryptCommand,
  GenerateDataKeyCommand,
  GetKeyPolicyCommand,
  type KMSClient,
} from '@aws-sdk/client-kms'
import { describe, expect, it } from 'vitest'
import { verifyJournal } from '../../src/audit/verify.ts'
import { runOk } from '../support/command.ts'
import { startGateway } from '../support/gateway.ts'
import { base64, createCall } from '../support/kms-call.ts'
import { serveGateway } from '../support/served-gateway.ts'
import { createTestToken } from '../support/softhsm.ts'

const patience = { timeout: 120_000 }
const secret = 'attack at dawn'
const internal = { name: 'KMSInternalException' }

async function makeKey(kms: KMSClient): Promise<string> {
  const { KeyMetadata } = await kms.send(new CreateKeyCommand({}))
  return KeyMetadata!.KeyId!
}

const encrypt = (kms: KMSClient, KeyId: string) =>
  kms.send(new EncryptCommand({ KeyId, Plaintext: Buffer.from(secret) }))

/** Some containers allow no user namespaces, and so no disk of a test's own. */
const canMount = spawnSync('/usr/bin/unshare', ['-rm', 'true']).status === 0

describe('a gateway whose journal has no room left', () => {
  it.skipIf(!canMount)(
    'withholds results, shows no plaintext, says that it is not ready, and goes on when there is room',
    patience,
    async () => {
      await using token = await createTestToken()
      const disk = path.join(token.directory, 'disk')
      await mkdir(disk)
      // A disk of its own for the journal, in a mount namespace that goes with the process.
      const mount = `mount -t tmpfs -o size=2m tmpfs ${disk} && exec "$@"`
      await using served = await serveGateway(token, {
        config: { audit: { directory: path.join(disk, 'audit'), reserveBytes: 0, alarmFreeBytes: 0 } },
        through: ['/usr/bin/unshare', '-rm', '/bin/sh', '-c', mount, 'sh'],
      })
      const kms = served.client()
      const KeyId = await makeKey(kms)
      const { CiphertextBlob } = await encrypt(kms, KeyId)
      const ready = async () => (await fetch(`${served.operatorEndpoint}/readyz`)).status
      expect(await ready()).toBe(200)

      const seen = path.join('/proc', String(served.pid), 'root', disk)
      const filler = path.join(seen, 'filler')
      fill(filler)
      const call = createCall(served)
      for (const [operation, body] of [
        ['Decrypt', { CiphertextBlob: base64(CiphertextBlob!) }],
        ['Encrypt', { KeyId, Plaintext: base64(secret) }],
        ['GenerateDataKey', { KeyId, KeySpec: 'AES_256' }],
        ['DescribeKey', { KeyId }],
      ] as const) {
        // The last block of the journal may still take a record or two.
        const answered = () => call(operation, body)
        await expect.poll(async () => (await answered()).status).toBe(500)
        const { body: answer } = await answered()
        expect(Object.keys(answer!).sort()).toEqual(['__type', 'message'])
        expect(answer!.__type).toBe('KMSInternalException')
      }
      expect(await ready()).toBe(503)
      const command = () => served.ask('key', 'list').catch(({ problems }) => problems[0].cause)
      await expect.poll(command).toContain('audit journal cannot be written')

      rmSync(filler)
      const { Plaintext } = await kms.send(new DecryptCommand({ CiphertextBlob }))
      expect(Buffer.from(Plaintext!).toString()).toBe(secret)
      expect(await ready()).toBe(200)
      expect(await verifyJournal(path.join(seen, 'audit'))).toMatchObject({ ok: true })
      served.kill('SIGTERM')
      const { code, err } = await served.ended
      expect(code).toBe(0)
      expect(err).toMatch(/"level":"fatal".*make room on the disk of the journal/)
      expect(err).not.toContain(secret)
    },
  )
})

/** To the last byte. */
function fill(file: string): void {
  for (const bytes of [4096, 1]) {
    try {
      for (;;) writeFileSync(file, Buffer.alloc(bytes, 1), { flag: 'a' })
    } catch (cause) {
      expect((cause as NodeJS.ErrnoException).code).toBe('ENOSPC')
    }
  }
}

describe('a gateway with a damaged catalog row', () => {
  it(
    'answers for that key with an internal error, names the row to the operator, and serves the others',
    patience,
    async () => {
      const lines: string[] = []
      await using gateway = await startGateway({
        config: { log: { level: 'error' } },
        overrides: { log: { write: (line) => void lines.push(line) } },
      })
      const damaged = await makeKey(gateway.client())
      const sound = await makeKey(gateway.client())
      const { CiphertextBlob } = await encrypt(gateway.client(), damaged)
      await gateway.gateway[Symbol.asyncDispose]()
      const database = new DatabaseSync(path.join(gateway.directory, 'catalog.sqlite'))
      database.prepare(`UPDATE key SET description = 'changed' WHERE key_id = ?`).run(damaged)
      database.close()

      await gateway.restart()
      const kms = gateway.client()
      await expect(encrypt(kms, damaged)).rejects.toMatchObject(internal)
      await expect(kms.send(new DecryptCommand({ CiphertextBlob }))).rejects.toMatchObject(internal)
      await expect(kms.send(new DescribeKeyCommand({ KeyId: damaged }))).rejects.toMatchObject(internal)
      await expect(kms.send(new GetKeyPolicyCommand({ KeyId: damaged }))).rejects.toMatchObject(internal)
      await encrypt(kms, sound)
      await kms.send(new GenerateDataKeyCommand({ KeyId: sound, KeySpec: 'AES_256' }))
      const told = lines.map((line) => JSON.parse(line)).filter(({ code }) => code === 'IntegrityFailed')
      expect(told.map(({ operation }) => operation)).toEqual(['Encrypt', 'Decrypt', 'DescribeKey', 'GetKeyPolicy'])
      expect(told[0].detail).toContain(damaged)
    },
  )
})

describe('a gateway whose disk takes 100 ms for every sync', () => {
  it('encrypts on while keys are being created', patience, async () => {
    await using token = await createTestToken()
    const library = path.join(token.directory, 'slow-sync.so')
    const source = path.resolve(import.meta.dirname, '../support/slow-sync.c')
    await runOk('/usr/bin/cc', ['-shared', '-fPIC', '-O1', '-o', library, source])
    await using served = await serveGateway(token, { environment: { LD_PRELOAD: library } })
    const kms = served.client()
    const KeyId = await makeKey(kms)

    let encrypted = 0
    let creating = true
    const encrypting = async (): Promise<void> => {
      for (; creating; encrypted++) await encrypt(kms, KeyId)
    }
    const all = Promise.all([encrypting(), encrypting()])
    for (let key = 0; key < 5; key++) await makeKey(kms)
    creating = false
    await all
    // Each creation waits for two syncs at least: had Encrypt waited with it, there would be about as many as syncs.
    expect(encrypted).toBeGreaterThan(40)
    expect(execFileSync('/bin/grep', ['-c', 'slow-sync', `/proc/${served.pid}/maps`]).toString()).not.toBe('0\n')
  })
})
