/** SIGKILL after every single step of a rotation and of the removal of imported material: the next start settles each of them. */
import { randomBytes } from 'node:crypto'
import path from 'node:path'
import {
  CreateKeyCommand,
  DecryptCommand,
  DescribeKeyCommand,
  EncryptCommand,
  ListKeyRotationsCommand,
  RotateKeyOnDemandCommand,
} from '@aws-sdk/client-kms'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { run } from '../support/command.ts'
import type { CrashOptions } from '../support/crash-at-step.ts'
import { startGateway, type TestGateway } from '../support/gateway.ts'
import { importMaterial } from '../support/import-wrapping.ts'
import { createMovingClock, type MovingClock } from '../support/moving-clock.ts'
import { listObjectIds } from '../support/token-objects.ts'

const patience = { timeout: 180_000 }
let gateway: TestGateway
let clock: MovingClock

beforeAll(async () => {
  clock = createMovingClock()
  gateway = await startGateway({ overrides: { clock } })
}, 60_000)

afterAll(() => gateway[Symbol.asyncDispose]())

async function crash(work: CrashOptions['work'], after: CrashOptions['after'], keyId: string): Promise<void> {
  const { module, label, pinFile, env } = gateway.token
  const options: CrashOptions = {
    catalogFile: path.join(gateway.directory, 'catalog.sqlite'),
    hsm: {
      stateDirectory: gateway.directory,
      tokens: [{ name: 'softhsm', module, label, pinFile, env, profile: 'softhsm', sessions: 1, workers: 1 }],
      groups: [{ name: 'default', tokens: ['softhsm'] }],
    },
    work,
    after,
    keyId,
    spec: 'SYMMETRIC_DEFAULT',
    now: clock.wallMs(),
  }
  const script = path.join(import.meta.dirname, '../support/crash-at-step.ts')
  const { status, stderr } = await run(process.execPath, [script, JSON.stringify(options)])
  expect([status, stderr]).toEqual([null, ''])
}

async function makeKey(Origin: 'AWS_KMS' | 'EXTERNAL'): Promise<string> {
  return (await gateway.client().send(new CreateKeyCommand({ Origin }))).KeyMetadata!.KeyId!
}

const rotationSteps = [
  { after: ['reviseKey', 1], rotations: 0 },
  { after: ['generate', 1], rotations: 1 },
  { after: ['attributes', 1], rotations: 1 },
  { after: ['mac', 1], rotations: 1 },
  { after: ['reviseKey', 2], rotations: 1 },
] as const

describe('a rotation that was killed', () => {
  it('has happened or not after the next start, whatever the step, and the key goes on', patience, async () => {
    const keys = []
    for (const step of rotationSteps) {
      const KeyId = await makeKey('AWS_KMS')
      const { CiphertextBlob } = await gateway
        .client()
        .send(new EncryptCommand({ KeyId, Plaintext: Buffer.from('before') }))
      keys.push({ ...step, KeyId, CiphertextBlob })
    }
    await gateway.gateway[Symbol.asyncDispose]()
    for (const { after, KeyId } of keys) await crash('rotate', after, KeyId)
    // Beyond the leases of those that died.
    clock.passes(2 * 60_000)
    await gateway.restart()
    await gateway.gateway.settle()

    const kms = gateway.client()
    const events = (await gateway.auditRecords()).filter(({ event }) => event.eventName === 'RotateKey')
    for (const { KeyId, CiphertextBlob, rotations } of keys) {
      const { Plaintext } = await kms.send(new DecryptCommand({ CiphertextBlob }))
      expect(Buffer.from(Plaintext!).toString()).toBe('before')
      const { Rotations } = await kms.send(new ListKeyRotationsCommand({ KeyId }))
      expect(Rotations).toHaveLength(rotations)
      const own = events.filter(({ event }) => (event.serviceEventDetails as { keyId: string }).keyId === KeyId)
      expect(own).toHaveLength(rotations)
      await kms.send(new RotateKeyOnDemandCommand({ KeyId }))
    }
    expect(await gateway.gateway.unknownObjects).toEqual([])
  })
})

describe('a removal of imported material that was killed', () => {
  it('is finished after the next start, and the material can come back', patience, async () => {
    const kms = gateway.client()
    const material = randomBytes(32)
    const keys = []
    for (const after of [
      ['reviseKey', 1],
      ['destroy', 1],
      ['reviseKey', 2],
    ] as const) {
      const KeyId = await makeKey('EXTERNAL')
      const before = new Set(await listObjectIds(gateway.token))
      await importMaterial(kms, KeyId, material)
      // The wrapping key is there to stay for two days; the other one is the material.
      const made = (await listObjectIds(gateway.token)).filter((object) => !before.has(object))
      keys.push({ KeyId, after, made })
    }
    await gateway.gateway[Symbol.asyncDispose]()
    for (const { after, KeyId } of keys) await crash('remove', after, KeyId)
    clock.passes(2 * 60_000)
    await gateway.restart()
    await gateway.gateway.settle()
    const left = new Set(await listObjectIds(gateway.token))
    for (const { KeyId, made } of keys) {
      expect(made.filter((object) => left.has(object))).toHaveLength(1)
      const client = gateway.client()
      const { KeyMetadata } = await client.send(new DescribeKeyCommand({ KeyId }))
      expect(KeyMetadata?.KeyState).toBe('PendingImport')
      await importMaterial(client, KeyId, material)
      await client.send(new EncryptCommand({ KeyId, Plaintext: Buffer.from('x') }))
    }
  })
})
