import { describe, expect, it } from 'vitest'
import type { Rate } from '../../../src/hsm/examination.ts'
import { suggestPool } from '../../../src/hsm/pool-size.ts'

const unlimited = { maxSessions: 'none', maxRwSessions: null } as const

/** Rates with 1, 2, 4 and 8 sessions. */
function rate(what: string, ...rates: readonly number[]): Rate {
  return { what, hsmMicros: 100, perSecond: rates.map((perSecond, at) => ({ sessions: 2 ** at, rate: perSecond })) }
}

describe('the suggested pool', () => {
  it('divides the sessions that were enough among two workers', () => {
    const pool = suggestPool(unlimited, [rate('P-256 sign', 100, 200, 400, 410)])
    expect(pool).toEqual({ workers: 2, sessions: 2, why: 'P-256 sign gets no faster beyond 4 sessions' })
  })

  it('follows the operation that gains most from more sessions', () => {
    const pool = suggestPool(unlimited, [rate('RSA-2048 sign', 50, 51, 50, 49), rate('P-256 sign', 1, 2, 4, 8)])
    expect(pool).toMatchObject({ sessions: 4, why: expect.stringMatching(/still getting faster at 8 sessions/) })
  })

  it('is not led by operations that are done before a second session has begun', () => {
    const pool = suggestPool(unlimited, [rate('RSA-2048 sign', 50, 50, 50, 50), rate('random 32 B', 1, 2, 4, 8)])
    expect(pool?.sessions).toBe(1)
  })

  it('leaves the token sessions for its anchors, the manage worker and somebody else', () => {
    const rates = [rate('P-256 sign', 1, 2, 4, 8)]
    expect(suggestPool({ maxSessions: 10, maxRwSessions: 'none' }, rates)).toMatchObject({ workers: 2, sessions: 2 })
    expect(suggestPool({ maxSessions: 'none', maxRwSessions: 6 }, rates)).toMatchObject({ workers: 1, sessions: 1 })
    expect(suggestPool({ maxSessions: 3, maxRwSessions: null }, rates)).toMatchObject({ workers: 1, sessions: 1 })
  })

  it('says nothing where nothing was measured', () => {
    expect(suggestPool(unlimited, [])).toBeUndefined()
  })
})
