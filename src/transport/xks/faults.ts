/**
 * Fault rehearsal: answers of a store made wrong on purpose for a while, so that its users see how their applications in AWS behave. In memory
 * alone, gone with the gateway; only a development configuration has it.
 */
import { invalid } from './xks-error.ts'

export type FaultKind = 'latency' | 'deny' | 'garbage' | 'bad-cdiv' | 'reset' | '429'

export interface Fault {
  readonly kind: FaultKind
  /** Of kind `latency`; else 0. */
  readonly latencyMs: number
  /** On the clock of `performance.now()`. */
  readonly untilMs: number
}

export interface Faults {
  /** The fault that a store has now. */
  find(store: string): Fault | undefined
  /** @throws GatewayError `ValidationFailed` */
  set(store: string, kind: string, duration: string): Fault
}

const kinds: readonly FaultKind[] = ['latency', 'deny', 'garbage', 'bad-cdiv', 'reset', '429']
const longestMs = 60 * 60_000
const longestLatencyMs = 60_000

export function createFaults(): Faults {
  const faults = new Map<string, Fault>()
  return {
    find(store) {
      const fault = faults.get(store)
      if (fault === undefined) return undefined
      if (performance.now() < fault.untilMs) return fault
      faults.delete(store)
      return undefined
    },
    set(store, text, duration) {
      const forMs = parseDuration(duration, longestMs)
      const [name = '', value] = text.split(':', 2)
      const kind = kinds.find((one) => one === name)
      if (kind === undefined || (kind === 'latency') !== (value !== undefined)) {
        throw invalid('A fault is latency:<duration>, deny, garbage, bad-cdiv, reset or 429.')
      }
      const latencyMs = value === undefined ? 0 : parseDuration(value, longestLatencyMs)
      const fault = Object.freeze({ kind, latencyMs, untilMs: performance.now() + forMs })
      faults.set(store, fault)
      return fault
    },
  }
}

function parseDuration(text: string, longest: number): number {
  const [, digits, unit] = /^(\d{1,7})(ms|s|m)$/.exec(text) ?? []
  const ms = Number(digits) * (unit === 'ms' ? 1 : unit === 's' ? 1000 : 60_000)
  if (ms >= 0 && ms <= longest) return ms
  throw invalid(`A duration is a number of ms, s or m, such as 300ms, and at most ${longest / 1000} s here.`)
}
