import { describe, expect, it } from 'vitest'
import { createBreaker } from '../../../src/hsm/breaker.ts'
import { createQuarantine, quarantineMs } from '../../../src/hsm/quarantine.ts'

describe('breaker', () => {
  it('pauses 250 ms, doubling to a second, and lets one trial through', () => {
    const breaker = createBreaker()
    let now = 0
    expect(breaker.allows(now)).toBe(true)
    for (const pauseMs of [250, 500, 1000, 1000]) {
      expect(breaker.failed(now)).toBe(pauseMs)
      expect(breaker.allows(now + pauseMs - 1)).toBe(false)
      now += pauseMs
      expect(breaker.allows(now)).toBe(true)
      breaker.sent()
      expect(breaker.allows(now)).toBe(false)
    }
    expect(breaker.succeeded()).toBe(true)
    expect(breaker.allows(now)).toBe(true)
    expect(breaker.failed(now)).toBe(250)
  })

  it('does not lengthen its pause for failures of calls that were under way when it opened', () => {
    const breaker = createBreaker()
    expect(breaker.failed(0)).toBe(250)
    expect(breaker.failed(1)).toBe(0)
    expect(breaker.allows(250)).toBe(true)
  })

  it('lets another trial through when the worker of the first died', () => {
    const breaker = createBreaker()
    breaker.failed(0)
    breaker.sent()
    breaker.lost()
    expect(breaker.allows(300)).toBe(true)
  })
})

describe('quarantine', () => {
  it('holds a shape for a minute and then forgets it', () => {
    const quarantine = createQuarantine()
    quarantine.add('sign key ECDSA 5', 1000)
    expect(quarantine.holds('sign key ECDSA 5', 1000 + quarantineMs - 1)).toBe(true)
    expect(quarantine.holds('sign key ECDSA 6', 2000)).toBe(false)
    expect(quarantine.holds('sign key ECDSA 5', 1000 + quarantineMs)).toBe(false)
    expect(quarantine.size).toBe(0)
  })
})
