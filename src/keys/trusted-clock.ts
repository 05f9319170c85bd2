/**
 * Wall time that destruction may rely on. Keys are destroyed when a date has come, so a clock that jumps must not destroy: wall time has to
 * agree with the last persisted reading plus the time that really passed since.
 *
 * Elapsed time comes from the monotonic clock, across a restart of the gateway from the uptime of the same boot. Across a reboot
 * nothing vouches for it, so a wall time that is more than the tolerance ahead or behind pauses destruction until an operator
 * confirms it. One per gateway; `check` is called by its timers.
 */
import { readFileSync } from 'node:fs'
import { uptime } from 'node:os'

const toleranceMs = 5 * 60_000

interface Reading {
  /** Epoch milliseconds. */
  readonly wallMs: number
  /** Milliseconds since boot, at the same moment. */
  readonly uptimeMs: number
  readonly boot: string
}

export interface ClockStore {
  getSetting(name: string): Promise<string | undefined>
  putSetting(name: string, value: string): Promise<void>
}

export interface ClockSource {
  readonly wallMs: () => number
  readonly uptimeMs: () => number
  readonly boot: () => string
}

export const machineClock: ClockSource = {
  wallMs: Date.now,
  uptimeMs: () => uptime() * 1000,
  boot: () => {
    try {
      return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim()
    } catch {
      return 'unknown'
    }
  },
}

export interface TrustedClock {
  /** Wall time when it can be trusted, undefined while destruction is paused; persists the reading. */
  check(): Promise<number | undefined>
  /**
   * Wall time, or what it should be where the clock was set back since the last trusted reading: a date that is counted from it does
   * not come early when the clock is set right.
   */
  latest(): number
  /** Milliseconds by which wall time is off, while it is not trusted. */
  jumpMs(): number | undefined
  /** The operator says that wall time is right. */
  confirm(): Promise<void>
}

const setting = 'clock'

export function openTrustedClock(store: ClockStore, source: ClockSource = machineClock): TrustedClock {
  let jump: number | undefined
  let trusted: Reading | undefined

  const read = (): Reading => ({ wallMs: source.wallMs(), uptimeMs: source.uptimeMs(), boot: source.boot() })
  const persist = async (reading: Reading): Promise<void> => {
    await store.putSetting(setting, JSON.stringify(reading))
    trusted = reading
  }

  return {
    async check() {
      const now = read()
      const last = parseReading(await store.getSetting(setting))
      trusted = last
      jump = last === undefined ? undefined : jumpSince(last, now)
      if (jump !== undefined) return undefined
      await persist(now)
      return now.wallMs
    },
    latest() {
      const now = read()
      return trusted === undefined ? now.wallMs : Math.max(now.wallMs, trusted.wallMs + atLeastSince(trusted, now))
    },
    jumpMs: () => jump,
    async confirm() {
      await persist(read())
      jump = undefined
    },
  }
}

/** By how much wall time disagrees with the time that passed since `last`; undefined when it agrees. */
function jumpSince(last: Reading, now: Reading): number | undefined {
  const elapsedMs = last.boot === now.boot && now.boot !== 'unknown' ? now.uptimeMs - last.uptimeMs : 0
  const offMs = now.wallMs - last.wallMs - elapsedMs
  return Math.abs(offMs) > toleranceMs ? offMs : undefined
}

/** Time that certainly passed: across a reboot at least the time since. */
function atLeastSince(last: Reading, now: Reading): number {
  return last.boot === now.boot && now.boot !== 'unknown' ? now.uptimeMs - last.uptimeMs : now.uptimeMs
}

function parseReading(text: string | undefined): Reading | undefined {
  if (text === undefined) return undefined
  return JSON.parse(text) as Reading
}
