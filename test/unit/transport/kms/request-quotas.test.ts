import { describe, expect, it } from 'vitest'
import { createRequestQuotas } from '../../../../src/transport/kms/request-quotas.ts'

function quotasAt(requestsPerSecond: Record<string, number> = {}) {
  const clock = { nowMs: 0 }
  const quotas = createRequestQuotas({ requestsPerSecond, nowMs: () => clock.nowMs })
  const served = (tries: number, account = '000000000000', region = 'us-east-1', className = 'create-key'): number => {
    let count = 0
    for (let i = 0; i < tries; i++) {
      try {
        quotas.take(account, region, className)
        count++
      } catch (error) {
        expect(error).toMatchObject({ code: 'Throttled' })
      }
    }
    return count
  }
  return { clock, served }
}

describe('request quotas', () => {
  it('serve one second’s worth at once, then the rate', () => {
    const { clock, served } = quotasAt()
    expect(served(20)).toBe(5)
    clock.nowMs += 400
    expect(served(20)).toBe(2)
    clock.nowMs += 60_000
    expect(served(20)).toBe(5)
  })

  it('count each account, Region and class for itself', () => {
    const { served } = quotasAt()
    expect(served(6)).toBe(5)
    expect(served(6, '111122223333')).toBe(5)
    expect(served(6, '000000000000', 'eu-west-1')).toBe(5)
    expect(served(600, '000000000000', 'us-east-1', 'crypto-ecc')).toBe(300)
  })

  it('serve rates below one in a second', () => {
    const { clock, served } = quotasAt()
    const pair = (): number => served(3, '000000000000', 'us-east-1', 'get-parameters-for-import')
    expect(pair()).toBe(1)
    clock.nowMs += 3999
    expect(pair()).toBe(0)
    clock.nowMs += 2
    expect(pair()).toBe(1)
  })

  it('take rates from the configuration', () => {
    const { served } = quotasAt({ 'create-key': 7 })
    expect(served(20)).toBe(7)
  })
})
