import { describe, expect, it } from 'vitest'
import { createStopRule } from '../../../src/cli/stop-signals.ts'

describe('the stop rule', () => {
  it('takes interrupts within one second for one', () => {
    const meaningAt = createStopRule()
    expect([5000, 5000.5, 5999, 6000].map(meaningAt)).toEqual(['drain', 'same', 'same', 'same'])
  })

  it('ends at once when asked again later, however often it was asked before', () => {
    const meaningAt = createStopRule()
    expect([0, 900, 1001].map(meaningAt)).toEqual(['drain', 'same', 'at once'])
  })
})
