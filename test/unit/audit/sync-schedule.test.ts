import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { createSyncSchedule, type SyncSchedule } from '../../../src/audit/sync-schedule.ts'

/** A disk whose syncs end when the test says so. */
let syncs: PromiseWithResolvers<void>[]
let begun: PromiseWithResolvers<void>[]
let told: unknown[]
let schedule: SyncSchedule

beforeEach(() => {
  syncs = []
  begun = Array.from({ length: 5 }, () => Promise.withResolvers())
  told = []
  schedule = createSyncSchedule({
    sync() {
      const sync = Promise.withResolvers<void>()
      begun[syncs.push(sync) - 1]!.resolve()
      return sync.promise
    },
    events: {
      synced: (records) => told.push(['synced', records]),
      syncFailed: (cause) => told.push(['failed', String(cause)]),
    },
    healed: (records, cause) => told.push(['healed', records, String(cause)]),
    delayMs: 1,
    retryMs: 1,
  })
})

afterEach(async () => {
  for (const [index, { promise }] of begun.entries()) void promise.then(() => syncs[index]!.resolve())
  await schedule[Symbol.asyncDispose]()
})

describe('the schedule of syncs', () => {
  it('puts on disk together what was written before the sync, and the rest with the next', async () => {
    schedule.plan(2)
    schedule.plan(3)
    await begun[0]!.promise
    schedule.plan(4)
    expect(schedule.unsyncedRecords).toBe(4)
    syncs[0]!.resolve()
    await begun[1]!.promise
    syncs[1]!.resolve()
    expect(told[0]).toEqual(['synced', 5])
  })

  it('lets a caller wait for a sync that begins after his records', async () => {
    schedule.plan(1)
    await begun[0]!.promise
    const waiting = schedule.now(2)
    syncs[0]!.resolve()
    await begun[1]!.promise
    syncs[1]!.resolve()
    await waiting
    expect(told).toEqual([
      ['synced', 1],
      ['synced', 2],
    ])
  })

  it('has failed until a later sync succeeds, and then says what may be missing', async () => {
    const waiting = schedule.now(3)
    await begun[0]!.promise
    syncs[0]!.reject(new Error('EIO'))
    await expect(waiting).rejects.toThrow('EIO')
    expect(schedule.hasFailed).toBe(true)
    await begun[1]!.promise
    syncs[1]!.reject(new Error('EIO'))
    await begun[2]!.promise
    syncs[2]!.resolve()
    await new Promise((resolve) => setImmediate(resolve))
    expect(schedule.hasFailed).toBe(false)
    expect(told).toEqual([
      ['failed', 'Error: EIO'],
      ['synced', 3],
      ['healed', 3, 'Error: EIO'],
    ])
  })

  it('syncs once more when it is closed', async () => {
    schedule.plan(1)
    const closed = schedule[Symbol.asyncDispose]()
    await begun[0]!.promise
    syncs[0]!.resolve()
    await closed
    expect(told).toEqual([['synced', 1]])
  })
})
