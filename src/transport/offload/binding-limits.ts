/**
 * How much may be under way: signatures of the whole door at one time, and of each binding at one time and in a second. A bucket holds one
 * second's worth. Synchronous; what belongs to a binding goes with it.
 */
import type { TlsBinding } from '../../authenticate/tls-bindings.ts'
import { GatewayError } from '../../error.ts'
import { OffloadError } from './offload-error.ts'

interface Use {
  underWay: number
  tokens: number
  readAtMs: number
}

export interface BindingLimits {
  /** Every entry is left once. @throws OffloadError `Busy`, GatewayError `Throttled` */
  enter(binding: TlsBinding, nowMs: number): void
  leave(binding: TlsBinding): void
  /** Whether `enter` would refuse for the binding's rate. */
  isThrottled(binding: TlsBinding, nowMs: number): boolean
  readonly underWay: number
}

/**
 * Whether a refusal under this binding is one more record of the journal: whoever has a token must not fill the disk with what it does not
 * permit. What is beyond is counted, and logged at a limited rate.
 */
export function createRefusalLimit(refusalsPerSecond: number): (binding: TlsBinding, nowMs: number) => boolean {
  const seen = new WeakMap<TlsBinding, { second: number; refused: number }>()
  return (binding, nowMs) => {
    const second = Math.floor(nowMs / 1000)
    let count = seen.get(binding)
    if (count?.second !== second) {
      count = { second, refused: 0 }
      seen.set(binding, count)
    }
    return ++count.refused <= refusalsPerSecond
  }
}

export function createBindingLimits(maxPending: number): BindingLimits {
  const uses = new WeakMap<TlsBinding, Use>()
  let pending = 0

  function useOf(binding: TlsBinding, nowMs: number): Use {
    let use = uses.get(binding)
    if (use === undefined) {
      use = { underWay: 0, tokens: Math.max(1, binding.ratePerSecond ?? 0), readAtMs: nowMs }
      uses.set(binding, use)
    }
    return use
  }

  function gain(use: Use, ratePerSecond: number, nowMs: number): number {
    return Math.min(Math.max(1, ratePerSecond), use.tokens + ((nowMs - use.readAtMs) / 1000) * ratePerSecond)
  }

  return {
    enter(binding, nowMs) {
      if (pending >= maxPending) throw new OffloadError('Busy', 'the queue is full')
      const { ratePerSecond, concurrency } = binding
      const use = useOf(binding, nowMs)
      if (concurrency !== undefined && use.underWay >= concurrency) {
        throw new OffloadError('Busy', 'too many signatures of this token at one time')
      }
      if (ratePerSecond !== undefined) {
        use.tokens = gain(use, ratePerSecond, nowMs)
        use.readAtMs = nowMs
        if (use.tokens < 1) throw new GatewayError('Throttled')
        use.tokens--
      }
      use.underWay++
      pending++
    },
    leave(binding) {
      const use = uses.get(binding)
      if (use !== undefined) use.underWay--
      pending--
    },
    isThrottled(binding, nowMs) {
      const { ratePerSecond } = binding
      return ratePerSecond !== undefined && gain(useOf(binding, nowMs), ratePerSecond, nowMs) < 1
    },
    get underWay() {
      return pending
    },
  }
}
