import { describe, expect, it } from 'vitest'
import { createProxyBreaker } from '../../../src/stores/proxy-breaker.ts'
import { ProxyFailure } from '../../../src/stores/proxy-failures.ts'
import { createRequestRate } from '../../../src/stores/request-rate.ts'

describe('a rate of requests', () => {
  it('lets one second’s worth through at once, and then as many as time brings', () => {
    const rate = createRequestRate(10)
    const takeAll = (nowMs: number) => {
      let count = 0
      while (rate.take(nowMs)) count++
      return count
    }
    expect(takeAll(0)).toBe(10)
    expect(takeAll(50)).toBe(0)
    expect(takeAll(100)).toBe(1)
    expect(takeAll(5000)).toBe(10)
  })
})

describe('the breaker of a proxy', () => {
  const failure = new ProxyFailure('TimedOut', 'x')

  it('opens after five failures running, for 250 ms that double to one second', () => {
    const breaker = createProxyBreaker()
    for (let count = 0; count < 4; count++) breaker.failed(failure, 0)
    breaker.answered()
    for (let count = 0; count < 4; count++) breaker.failed(failure, 0)
    expect(breaker.refusal(0)).toBeUndefined()
    breaker.failed(failure, 0)
    let now = 0
    for (const pauseMs of [250, 500, 1000, 1000]) {
      expect(breaker.refusal(now + pauseMs - 1)).toBe(failure)
      now += pauseMs
      expect(breaker.refusal(now)).toBeUndefined()
      breaker.failed(failure, now)
    }
  })

  it('lets one call try, and closes when the proxy answers', () => {
    const breaker = createProxyBreaker()
    for (let count = 0; count < 5; count++) breaker.failed(failure, 0)
    expect(breaker.refusal(250)).toBeUndefined()
    expect(breaker.refusal(251)).toBe(failure)
    breaker.answered()
    expect(breaker.refusal(252)).toBeUndefined()
  })
})
