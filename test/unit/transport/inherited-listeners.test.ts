import { describe, expect, it } from 'vitest'
import { ProblemsError } from '../../../src/problem.ts'
import { takeInheritedListeners } from '../../../src/transport/inherited-listeners.ts'

const pid = 4711
const env = (fds: string, names?: string, owner = String(pid)): NodeJS.ProcessEnv => ({
  LISTEN_PID: owner,
  LISTEN_FDS: fds,
  ...(names === undefined ? {} : { LISTEN_FDNAMES: names }),
})
const take = (...words: Parameters<typeof env>) => [...takeInheritedListeners(env(...words), pid)]

describe('listening sockets that were inherited', () => {
  it('belong to the doors that their names say, in the order of their descriptors', () => {
    expect(take('3', 'operator:offload:kms')).toEqual([
      ['operator', 3],
      ['offload', 4],
      ['kms', 5],
    ])
  })

  it('may be several for the signing socket', () => {
    expect(take('3', 'offload:offload:offload')).toEqual([
      ['offload', 3],
      ['offload-2', 4],
      ['offload-3', 5],
    ])
  })

  it.each([undefined, 'unknown'])('are the signing socket when there is one without a name (%s)', (names) => {
    expect(take('1', names)).toEqual([['offload', 3]])
  })

  it('are not ours when they are for another process', () => {
    const other = env('1', 'offload', '1')
    expect([...takeInheritedListeners(other, pid)]).toEqual([])
    expect(other.LISTEN_FDS).toBe('1')
  })

  it('are taken once: the environment forgets them', () => {
    const once = env('1', 'offload')
    takeInheritedListeners(once, pid)
    expect(once).toEqual({})
    expect([...takeInheritedListeners(once, pid)]).toEqual([])
  })

  it.each([
    ['a door that there is not', '1', 'ftp'],
    ['one door twice', '2', 'kms:kms'],
    ['fewer names than sockets', '2', 'kms'],
    ['no names for two sockets', '2', undefined],
    ['a number that is none', 'x', 'kms'],
    ['a negative number', '-1', 'kms'],
    ['a number beyond reason', '1000000', 'kms'],
  ] as const)('are refused with a reason when the environment tells of %s', (_what, fds, names) => {
    expect(() => take(fds, names)).toThrow(ProblemsError)
  })
})
