import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { type CommitQueue, createCommitQueue } from '../../../src/audit/commit-queue.ts'

let batches: (readonly number[])[]
let queue: CommitQueue<number>
/** Commits that were begun, in order; whoever asks for one waits for it. */
let commits: PromiseWithResolvers<PromiseWithResolvers<void>>[]

const begun = (index: number) => commits[index]!.promise

function create(patienceMs: number): CommitQueue<number> {
  batches = []
  commits = Array.from({ length: 10 }, () => Promise.withResolvers())
  return createCommitQueue({
    maxItems: 10,
    patienceMs,
    commit(items) {
      const commit = Promise.withResolvers<void>()
      commits[batches.push(items) - 1]!.resolve(commit)
      return commit.promise
    },
  })
}

beforeEach(() => {
  queue = create(10_000)
})
afterEach(() => queue[Symbol.dispose]())

describe('the commit queue', () => {
  it('commits together what was added in one tick, then what came meanwhile', async () => {
    const first = [queue.add([1]), queue.add([2, 3])]
    const commit = await begun(0)
    const second = [queue.add([4]), queue.add([5])]
    commit.resolve()
    await Promise.all(first)
    ;(await begun(1)).resolve()
    await Promise.all(second)
    expect(batches).toEqual([
      [1, 2, 3],
      [4, 5],
    ])
  })

  it('refuses everyone in a commit that failed, and goes on with the next', async () => {
    const first = [queue.add([1]), queue.add([2])]
    ;(await begun(0)).reject(new Error('full'))
    for (const refused of first) await expect(refused).rejects.toMatchObject({ code: 'AuditUnavailable' })
    const next = queue.add([3])
    ;(await begun(1)).resolve()
    await next
  })

  it('refuses who waited too long, yet commits what he added when the disk comes back', async () => {
    queue[Symbol.dispose]()
    queue = create(20)
    const first = queue.add([1])
    const commit = await begun(0)
    const second = queue.add([2])
    const refusal = expect.objectContaining({ code: 'AuditUnavailable' })
    expect(await Promise.allSettled([first, second])).toEqual([
      { status: 'rejected', reason: refusal },
      { status: 'rejected', reason: refusal },
    ])
    expect(queue.isStuck).toBe(true)
    commit.resolve()
    ;(await begun(1)).resolve()
    await queue.idle()
    expect([batches, queue.isStuck]).toEqual([[[1], [2]], false])
  })

  it('refuses at once when too much is waiting', async () => {
    const first = queue.add([0])
    const commit = await begun(0)
    const waiting = Array.from({ length: 10 }, (_, index) => queue.add([index + 1]))
    await expect(queue.add([99])).rejects.toMatchObject({ code: 'AuditUnavailable' })
    commit.resolve()
    ;(await begun(1)).resolve()
    await Promise.all([first, ...waiting])
    expect(batches.flat()).not.toContain(99)
  })
})
