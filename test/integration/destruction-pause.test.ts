/** Nothing is destroyed early: not by a clock that jumps, nor by a catalog that was restored from a copy. */
import { copyFile, rm } from 'node:fs/promises'
import path from 'node:path'
import {
  CancelKeyDeletionCommand,
  CreateKeyCommand,
  DescribeKeyCommand,
  EnableKeyCommand,
  EncryptCommand,
  ScheduleKeyDeletionCommand,
} from '@aws-sdk/client-kms'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { machineClock } from '../../src/keys/trusted-clock.ts'
import { startGateway, type TestGateway } from '../support/gateway.ts'
import { listObjectIds } from '../support/token-objects.ts'

const patience = { timeout: 60_000 }
const day = 24 * 60 * 60 * 1000
let gateway: TestGateway
let lines: string[]
/** Time that went by, and by how much the wall clock is wrong besides. */
let passedMs: number
let wrongMs: number

beforeEach(async () => {
  lines = []
  passedMs = wrongMs = 0
  const { wallMs, uptimeMs, boot } = machineClock
  const clock = { wallMs: () => wallMs() + passedMs + wrongMs, uptimeMs: () => uptimeMs() + passedMs, boot }
  gateway = await startGateway({
    config: { log: { level: 'error' } },
    overrides: { clock, log: { write: (line) => void lines.push(line) } },
  })
}, 60_000)

afterEach(() => gateway[Symbol.asyncDispose]())

interface Shown {
  readonly destruction: string
  readonly pauses: readonly { readonly reason: string; readonly remedy: string }[]
  readonly due: readonly string[]
}

const show = () => gateway.ask<Shown>('clock', 'show')
const reasons = async () => (await show()).pauses.map(({ reason }) => reason)

async function makeKey(): Promise<string> {
  const { KeyMetadata } = await gateway.client().send(new CreateKeyCommand({}))
  return KeyMetadata!.KeyId!
}

const schedule = (KeyId: string) =>
  gateway.client().send(new ScheduleKeyDeletionCommand({ KeyId, PendingWindowInDays: 7 }))

async function stateOf(KeyId: string): Promise<string | undefined> {
  try {
    return (await gateway.client().send(new DescribeKeyCommand({ KeyId }))).KeyMetadata?.KeyState
  } catch (cause) {
    return (cause as Error).name
  }
}

/** A start runs a round of destruction, and a stop waits for it: two of them, and whatever was to go is gone. */
async function restartTwice(): Promise<void> {
  await gateway.restart()
  await gateway.restart()
}

const problems = () =>
  lines.map((line) => JSON.parse(line) as { at?: string; problem?: string }).filter(({ problem }) => problem)

describe('a key whose deletion is scheduled', () => {
  it('outlives a clock that jumps a month forward, and goes when its days have passed', patience, async () => {
    const keyId = await makeKey()
    await schedule(keyId)
    wrongMs = 30 * day
    await restartTwice()
    expect(await stateOf(keyId)).toBe('PendingDeletion')
    expect(await show()).toMatchObject({ destruction: 'paused', due: [expect.stringContaining(keyId)] })
    expect(problems().filter(({ at }) => at === 'clock')).toHaveLength(2)
    const metrics = await (await fetch(`${gateway.gateway.endpoints.operator}/metrics`)).text()
    expect(metrics).toContain('hsmgate_destruction_paused{reason="clock"} 1')

    wrongMs = 0
    passedMs = 8 * day
    await restartTwice()
    expect(await stateOf(keyId)).toBe('NotFoundException')
    expect(await reasons()).toEqual([])
  })

  it('counts its days from the right time when the clock was set back', patience, async () => {
    const keyId = await makeKey()
    const right = Date.now()
    wrongMs = -30 * day
    const { DeletionDate } = await schedule(keyId)
    expect(DeletionDate!.getTime()).toBeGreaterThan(right + 6.9 * day)
    await restartTwice()
    expect(await reasons()).toEqual(['clock'])
    wrongMs = 0
    passedMs = 6 * day
    await restartTwice()
    expect(await stateOf(keyId)).toBe('PendingDeletion')
  })
})

describe('a gateway whose catalog is an older copy than its journal vouches for', () => {
  it('destroys nothing that is due by it, restart after restart, until the operator confirms', patience, async () => {
    const cancelled = await makeKey()
    const doomed = await makeKey()
    await schedule(cancelled)
    await schedule(doomed)
    const catalog = path.join(gateway.directory, 'catalog.sqlite')
    const copy = path.join(gateway.token.directory, 'copy.sqlite')
    await gateway.restart()
    await gateway.gateway[Symbol.asyncDispose]()
    await copyFile(catalog, copy)
    await gateway.restart()
    await gateway.client().send(new CancelKeyDeletionCommand({ KeyId: cancelled }))
    const encrypted = gateway.client().send(new EncryptCommand({ KeyId: cancelled, Plaintext: Buffer.from('x') }))
    await expect(encrypted).rejects.toMatchObject({ name: 'DisabledException' })
    await gateway.gateway[Symbol.asyncDispose]()
    const before = await listObjectIds(gateway.token)
    for (const suffix of ['-wal', '-shm']) await rm(`${catalog}${suffix}`, { force: true })
    await copyFile(copy, catalog)

    passedMs = 8 * day
    await restartTwice()
    expect(await listObjectIds(gateway.token)).toEqual(before)
    expect(await show()).toMatchObject({
      destruction: 'paused',
      pauses: [{ reason: 'restored-catalog', at: 'catalog', remedy: expect.stringContaining('hsmgate clock confirm') }],
      due: [expect.stringContaining(cancelled), expect.stringContaining(doomed)],
    })
    expect(problems().some(({ problem }) => problem?.includes('the catalog is an older copy'))).toBe(true)

    await gateway.client().send(new CancelKeyDeletionCommand({ KeyId: cancelled }))
    expect(await gateway.ask<Shown>('clock', 'confirm')).toMatchObject({ destruction: 'allowed', pauses: [] })
    await expect.poll(() => stateOf(doomed), { timeout: 20_000 }).toBe('NotFoundException')
    await gateway.client().send(new EnableKeyCommand({ KeyId: cancelled }))
    expect(await stateOf(cancelled)).toBe('Enabled')
    expect(await reasons()).toEqual([])
  })
})
