import { describe, expect, it } from 'vitest'
import { type ClockSource, openTrustedClock } from '../../../src/keys/trusted-clock.ts'

const minute = 60_000
const day = 24 * 60 * minute

function machine() {
  const settings = new Map<string, string>()
  const state = { wallMs: Date.parse('2026-01-01T00:00:00Z'), uptimeMs: day, boot: 'first' }
  const source: ClockSource = { wallMs: () => state.wallMs, uptimeMs: () => state.uptimeMs, boot: () => state.boot }
  const store = {
    getSetting: async (name: string) => settings.get(name),
    putSetting: async (name: string, value: string) => void settings.set(name, value),
  }
  const pass = (ms: number): void => {
    state.wallMs += ms
    state.uptimeMs += ms
  }
  return { state, pass, open: () => openTrustedClock(store, source) }
}

describe('trusted clock', () => {
  it('trusts the first reading and time that passes', async () => {
    const { state, pass, open } = machine()
    const clock = open()
    expect(await clock.check()).toBe(state.wallMs)
    pass(40 * day)
    expect(await clock.check()).toBe(state.wallMs)
  })

  it.each([
    ['a month forward', 30 * day],
    ['an hour back', -60 * minute],
  ])('does not trust a clock that jumps %s', async (_, jumpMs) => {
    const { state, pass, open } = machine()
    const clock = open()
    await clock.check()
    state.wallMs += jumpMs
    expect(await clock.check()).toBeUndefined()
    expect(clock.jumpMs()).toBe(jumpMs)
    pass(minute)
    expect(await clock.check()).toBeUndefined()
  })

  it('trusts again when the clock is set right, or when the operator confirms it', async () => {
    const { state, open } = machine()
    const clock = open()
    await clock.check()
    state.wallMs += day
    expect(await clock.check()).toBeUndefined()
    state.wallMs -= day
    expect(await clock.check()).toBe(state.wallMs)
    state.wallMs += day
    expect(await clock.check()).toBeUndefined()
    await clock.confirm()
    expect(await clock.check()).toBe(state.wallMs)
  })

  it('explains the time a gateway was stopped by the uptime of the same boot', async () => {
    const { state, pass, open } = machine()
    await open().check()
    pass(3 * day)
    expect(await open().check()).toBe(state.wallMs)
  })

  it('asks the operator after a reboot that nothing explains, and tolerates a short one', async () => {
    const { state, open } = machine()
    await open().check()
    state.boot = 'second'
    state.uptimeMs = minute
    state.wallMs += 3 * minute
    expect(await open().check()).toBe(state.wallMs)
    state.boot = 'third'
    state.wallMs += day
    expect(await open().check()).toBeUndefined()
  })
})
