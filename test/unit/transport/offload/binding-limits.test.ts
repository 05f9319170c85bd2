import { describe, expect, it } from 'vitest'
import type { TlsBinding } from '../../../../src/authenticate/tls-bindings.ts'
import { createBindingLimits } from '../../../../src/transport/offload/binding-limits.ts'
import { describeFailure } from '../../../../src/transport/offload/dialect.ts'

const binding = (limits: Partial<TlsBinding> = {}): TlsBinding => ({
  account: '000000000000',
  region: 'us-east-1',
  name: 'web',
  keyId: 'k',
  spkiDigest: Buffer.alloc(32),
  policies: ['any'],
  users: 'any',
  relays: [],
  revision: 1,
  ...limits,
})

function refusal(act: () => void): string | undefined {
  try {
    act()
    return undefined
  } catch (cause) {
    const { code, retryable } = describeFailure(cause)
    return `${code}${retryable ? ', retryable' : ''}`
  }
}

describe('the limits of the signing socket', () => {
  it('refuse what the whole door has no place for, until something leaves', () => {
    const limits = createBindingLimits(2)
    const [first, second] = [binding(), binding()]
    limits.enter(first, 0)
    limits.enter(second, 0)
    expect(refusal(() => limits.enter(first, 0))).toBe('Busy, retryable')
    expect(limits.underWay).toBe(2)
    limits.leave(second)
    expect(refusal(() => limits.enter(first, 0))).toBeUndefined()
  })

  it('refuse more signatures of one token at one time than its binding says, and others not', () => {
    const limits = createBindingLimits(100)
    const narrow = binding({ concurrency: 1 })
    limits.enter(narrow, 0)
    expect(refusal(() => limits.enter(narrow, 0))).toBe('Busy, retryable')
    expect(refusal(() => limits.enter(binding({ concurrency: 1 }), 0))).toBeUndefined()
    limits.leave(narrow)
    expect(refusal(() => limits.enter(narrow, 0))).toBeUndefined()
  })

  it('refuse more signatures in a second than the binding says, and let as many in again as time passes', () => {
    const limits = createBindingLimits(100)
    const slow = binding({ ratePerSecond: 2 })
    const sign = (atMs: number) =>
      refusal(() => {
        limits.enter(slow, atMs)
        limits.leave(slow)
      })
    expect([sign(0), sign(0), sign(0)]).toEqual([undefined, undefined, 'Throttled, retryable'])
    expect(sign(400)).toBe('Throttled, retryable')
    expect(sign(500)).toBeUndefined()
    expect(sign(600)).toBe('Throttled, retryable')
    expect([sign(60_000), sign(60_000), sign(60_000)]).toEqual([undefined, undefined, 'Throttled, retryable'])
  })

  it('count a refused signature neither at the door nor for the token', () => {
    const limits = createBindingLimits(100)
    const narrow = binding({ concurrency: 1, ratePerSecond: 1 })
    limits.enter(narrow, 0)
    limits.leave(narrow)
    expect(refusal(() => limits.enter(narrow, 0))).toBe('Throttled, retryable')
    expect(limits.underWay).toBe(0)
    expect(refusal(() => limits.enter(narrow, 1000))).toBeUndefined()
  })
})
