import { execFile } from 'node:child_process'
import path from 'node:path'
import { promisify } from 'node:util'
import { describe, expect, it } from 'vitest'
import { temporaryFolder } from '../../support/catalog.ts'

const run = promisify(execFile)
const support = path.resolve(import.meta.dirname, '../../support')

describe('a catalog on a disk that takes 100 ms for every sync', () => {
  it('reads on, and holds up nothing else, while it writes', async () => {
    using folder = temporaryFolder()
    const library = path.join(folder.path, 'slow-sync.so')
    await run('cc', ['-shared', '-fPIC', '-O1', '-o', library, path.join(support, 'slow-sync.c')])
    const { stdout } = await run(
      process.execPath,
      [path.join(support, 'catalog-on-slow-disk.ts'), path.join(folder.path, 'catalog.sqlite')],
      { env: { ...process.env, LD_PRELOAD: library } },
    )
    const { writingMs, coldReads, turns } = JSON.parse(stdout)
    // each write waited for its sync; had reads or the event loop waited with it, there would be about five of each
    expect(writingMs).toBeGreaterThan(500)
    expect(coldReads).toBeGreaterThan(20)
    expect(turns).toBeGreaterThan(20)
  })
})
