import { describe, expect, it } from 'vitest'
import { openDestructionGate } from '../../../src/keys/destruction-gate.ts'
import type { ClockSource } from '../../../src/keys/trusted-clock.ts'

const hour = 60 * 60_000

function machine() {
  const settings = new Map<string, string>()
  const state = { wallMs: Date.parse('2026-01-01T00:00:00Z'), uptimeMs: hour, boot: 'first' }
  const source: ClockSource = { wallMs: () => state.wallMs, uptimeMs: () => state.uptimeMs, boot: () => state.boot }
  const store = {
    getSetting: async (name: string) => settings.get(name),
    putSetting: async (name: string, value: string) => void settings.set(name, value),
  }
  const open = (catalog: number, signed: number | undefined) => openDestructionGate(store, { catalog, signed }, source)
  return { state, open }
}

describe('the gate before destruction', () => {
  it.each([
    ['is new', 0, undefined],
    ['is as the journal signed it', 7, 7],
    ['went on after the journal was signed', 9, 7],
  ])('is open when the catalog %s', async (_, catalog, signed) => {
    const { state, open } = machine()
    const gate = await open(catalog, signed)
    expect(await gate.check()).toEqual({ now: state.wallMs, pauses: [] })
  })

  it('closes when the catalog is older than what the journal signed, until the operator confirms it', async () => {
    const { open } = machine()
    const pause = { reason: 'restored-catalog', catalogRevision: 6, signedRevision: 7 }
    const gate = await open(6, 7)
    expect((await gate.check()).pauses).toEqual([pause])
    expect(gate.pauses()).toEqual([pause])
    await gate.confirm()
    expect((await gate.check()).pauses).toEqual([])
  })

  it('stays closed across restarts, when later checkpoints no longer tell', async () => {
    const { open } = machine()
    await open(6, 7)
    const later = await open(8, 8)
    expect((await later.check()).pauses).toMatchObject([{ reason: 'restored-catalog', catalogRevision: 6 }])
    await later.confirm()
    expect((await (await open(9, 9)).check()).pauses).toEqual([])
  })

  it('closes for a clock that jumps, too, and one confirmation is for both', async () => {
    const { state, open } = machine()
    const gate = await open(6, 7)
    await gate.check()
    state.wallMs += 24 * hour
    expect((await gate.check()).pauses.map(({ reason }) => reason)).toEqual(['clock', 'restored-catalog'])
    await gate.confirm()
    expect(await gate.check()).toEqual({ now: state.wallMs, pauses: [] })
  })

  it('counts waiting periods from the time that should be when the clock was set back', async () => {
    const { state, open } = machine()
    const gate = await open(0, undefined)
    const { now } = await gate.check()
    state.wallMs -= 24 * hour
    state.uptimeMs += hour
    expect(gate.latest()).toBe(now + hour)
    await gate.check()
    expect(gate.latest()).toBe(now + hour)
    state.boot = 'second'
    state.uptimeMs = hour / 2
    expect((await open(0, undefined)).latest()).toBe(state.wallMs) // before its first check it knows nothing
    const restarted = await open(0, undefined)
    await restarted.check()
    expect(restarted.latest()).toBe(now + hour / 2)
  })
})
