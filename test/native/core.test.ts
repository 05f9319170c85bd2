/**
 * Builds and runs the test program of the addon's core (the .cc files here): as it is, under AddressSanitizer with
 * UndefinedBehaviorSanitizer and leak detection, and under ThreadSanitizer. Its own words are the failure message.
 */
import { spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'

const root = fileURLToPath(new URL('../..', import.meta.url))
/** A build from nothing takes half a minute on one idle core. */
const timeout = 600_000

describe('the core of the addon', () => {
  it.each([
    ['on SoftHSM2 and under faults', 'test'],
    ['without touching memory that is not its own, undefined behaviour or leaks', 'asan'],
    ['without data races', 'tsan'],
  ])('works %s', { timeout }, (_behaviour, target) => {
    const made = spawnSync('make', ['--silent', '--directory=native', target], { cwd: root, encoding: 'utf8', timeout })
    expect(`${made.stdout}${made.stderr}`).toMatch(/^[1-9]\d* passed, 0 failed\n$/)
    expect(made.status).toBe(0)
  })
})
