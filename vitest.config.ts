/**
 * How the tests run: files in parallel on two processes, each file in a process of its own, because a process can load a PKCS#11
 * module only once. The properties of test/fuzz run bounded; npm run fuzz runs them for long. Bench has a command of its own.
 */
import path from 'node:path'
import { defineConfig } from 'vitest/config'
import { LongFilesFirst } from './test/support/long-files-first.ts'

const [major] = process.versions.node.split('.')
if (Number(major) < 24) {
  throw new Error(
    `Node.js ${process.version} cannot run hsmgate; use npm test, or put node_modules/node/bin first on PATH`,
  )
}

// The processes of tests and their workers compile nothing twice, as those of ./hsmgate do not.
process.env.NODE_COMPILE_CACHE ??= path.join(import.meta.dirname, 'node_modules/.cache/hsmgate')

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    exclude: ['test/bench/**'],
    globalSetup: ['test/support/known-capabilities.ts'],
    setupFiles: ['test/support/observe-test-file.ts'],
    reporters: ['default', './test/support/compatibility-reporter.ts'],
    sequence: { sequencer: LongFilesFirst },
    pool: 'forks',
    isolate: true,
    fileParallelism: true,
    maxWorkers: 2,
    testTimeout: 30_000,
    hookTimeout: 60_000,
  },
})
