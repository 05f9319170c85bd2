/** SIGKILL after every single step of making and of destroying a key: the next start settles each of them. */
import path from 'node:path'
import { DescribeKeyCommand, EncryptCommand, ScheduleKeyDeletionCommand, SignCommand } from '@aws-sdk/client-kms'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { machineClock } from '../../src/keys/trusted-clock.ts'
import { run } from '../support/command.ts'
import type { CrashOptions } from '../support/crash-at-step.ts'
import { startGateway, type TestGateway } from '../support/gateway.ts'
import { listObjectIds, readCatalog } from '../support/token-objects.ts'

const patience = { timeout: 180_000 }
const day = 24 * 60 * 60 * 1000
let gateway: TestGateway
/** How far time has gone by in this test: wall clock and uptime alike. */
let passedMs = 0

beforeAll(async () => {
  const { wallMs, uptimeMs, boot } = machineClock
  const clock = { wallMs: () => wallMs() + passedMs, uptimeMs: () => uptimeMs() + passedMs, boot }
  gateway = await startGateway({ overrides: { clock } })
}, 60_000)

afterAll(() => gateway[Symbol.asyncDispose]())

const catalogFile = () => path.join(gateway.directory, 'catalog.sqlite')

async function crash(
  work: CrashOptions['work'],
  after: CrashOptions['after'],
  key: Pick<CrashOptions, 'spec' | 'keyId'>,
): Promise<void> {
  const { module, label, pinFile, env } = gateway.token
  const options: CrashOptions = {
    catalogFile: catalogFile(),
    hsm: {
      stateDirectory: gateway.directory,
      tokens: [{ name: 'softhsm', module, label, pinFile, env, profile: 'softhsm', sessions: 1, workers: 1 }],
      groups: [{ name: 'default', tokens: ['softhsm'] }],
    },
    work,
    after,
    ...key,
    now: Date.now() + passedMs,
  }
  const script = path.join(import.meta.dirname, '../support/crash-at-step.ts')
  const { status, stderr } = await run(process.execPath, [script, JSON.stringify(options)])
  expect([status, stderr]).toEqual([null, ''])
}

async function expectNothingUnfinished(): Promise<void> {
  const catalog = await readCatalog(catalogFile())
  expect(catalog.unfinished).toEqual([])
  expect(await listObjectIds(gateway.token)).toEqual(catalog.objectIds)
}

const creationSteps = [
  { after: ['beginKey', 1], spec: 'SYMMETRIC_DEFAULT', outcome: 'gone' },
  { after: ['generate', 1], spec: 'SYMMETRIC_DEFAULT', outcome: 'works' },
  { after: ['generate', 1], spec: 'ECC_NIST_P256', outcome: 'works' },
  { after: ['attributes', 1], spec: 'SYMMETRIC_DEFAULT', outcome: 'works' },
  { after: ['encrypt', 1], spec: 'SYMMETRIC_DEFAULT', outcome: 'works' },
  { after: ['mac', 1], spec: 'SYMMETRIC_DEFAULT', outcome: 'works' },
  { after: ['finishMaterial', 1], spec: 'SYMMETRIC_DEFAULT', outcome: 'works' },
] as const

const deletionSteps = [
  ['updateMaterial', 1],
  ['destroy', 1],
  ['updateMaterial', 2],
  ['deleted', 1],
  ['removeKey', 1],
] as const

describe('a key whose creation was killed', () => {
  it('is whole or gone after the next start, whatever the step', patience, async () => {
    await gateway.gateway[Symbol.asyncDispose]()
    for (const { after, spec } of creationSteps) await crash('create', after, { spec })
    await gateway.restart()

    const kms = gateway.client()
    const { account, region } = { account: '000000000000', region: 'us-east-1' }
    const { keys } = await gateway.ask<{
      keys: { keyId: string; state: string; description: string; spec: string }[]
    }>('key', 'list', { account, region })
    const expected = creationSteps.filter(({ outcome }) => outcome === 'works')
    expect(keys.map(({ state, spec, description }) => [state, spec, description]).sort()).toEqual(
      expected.map(({ after, spec }) => ['Enabled', spec, `killed after ${after.join(' ')}`]).sort(),
    )
    const Plaintext = Buffer.from('works')
    for (const { keyId: KeyId, spec } of keys) {
      if (spec === 'SYMMETRIC_DEFAULT') await kms.send(new EncryptCommand({ KeyId, Plaintext }))
      else await kms.send(new SignCommand({ KeyId, Message: Plaintext, SigningAlgorithm: 'ECDSA_SHA_256' }))
    }
    expect(await gateway.gateway.unknownObjects).toEqual([])
    await gateway.gateway[Symbol.asyncDispose]()
    await expectNothingUnfinished()
  })
})

describe('a key whose destruction was killed', () => {
  it(
    'is gone with all that belonged to it after the next start, whatever the step, and recorded',
    patience,
    async () => {
      await gateway.restart()
      const kms = gateway.client()
      const { keys } = await gateway.ask<{ keys: { keyId: string }[] }>('key', 'list')
      const doomed = keys.slice(0, deletionSteps.length)
      const kept = keys.slice(deletionSteps.length)
      expect(kept).not.toEqual([])
      for (const { keyId } of doomed)
        await kms.send(new ScheduleKeyDeletionCommand({ KeyId: keyId, PendingWindowInDays: 7 }))
      await gateway.gateway[Symbol.asyncDispose]()

      passedMs = 8 * day
      for (const [index, after] of deletionSteps.entries())
        await crash('destroy', after, { spec: 'SYMMETRIC_DEFAULT', keyId: doomed[index]!.keyId })
      await gateway.restart()
      await gateway.gateway[Symbol.asyncDispose]()
      await expectNothingUnfinished()

      await gateway.restart()
      for (const { keyId } of doomed) {
        const described = gateway.client().send(new DescribeKeyCommand({ KeyId: keyId }))
        await expect(described).rejects.toMatchObject({ name: 'NotFoundException' })
      }
      // The script has no journal, and after its last step there is nothing left to record.
      const records = (await gateway.auditRecords()).filter(({ event }) => event.eventName === 'DeleteKey')
      expect(records.map(({ event }) => event.serviceEventDetails)).toEqual(
        doomed.slice(0, -1).map(({ keyId }) => ({ keyId })),
      )
      const { KeyMetadata } = await gateway.client().send(new DescribeKeyCommand({ KeyId: kept[0]!.keyId }))
      expect(KeyMetadata?.KeyState).toBe('Enabled')
    },
  )
})
