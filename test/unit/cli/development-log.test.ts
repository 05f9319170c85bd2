import { mkdtemp, readFile, rm, stat, truncate, writeFile } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { formatLogLine, openDevelopmentLog } from '../../../src/cli/development-log.ts'
import { createTestTerminal } from '../../support/terminal.ts'

let folder: string
let file: string

beforeEach(async () => {
  folder = await mkdtemp(path.join(os.tmpdir(), 'hsmgate-log-'))
  file = path.join(folder, 'gateway.log')
})

afterEach(async () => {
  await rm(folder, { recursive: true, force: true })
})

const line = (members: object) => `${JSON.stringify(members)}\n`

describe('the development log', () => {
  it('keeps every line in a file that is closed to others, after those of earlier runs', async () => {
    await writeFile(file, 'earlier\n', { mode: 0o600 })
    using log = openDevelopmentLog(file, createTestTerminal())
    log.write(line({ level: 'info', msg: 'one' }))
    log.write(line({ level: 'error', msg: 'two' }))
    expect(await readFile(file, 'utf8')).toBe('earlier\n{"level":"info","msg":"one"}\n{"level":"error","msg":"two"}\n')
    expect((await stat(file)).mode & 0o777).toBe(0o600)
  })

  it('shows warnings once the gateway is ready, those from before included', () => {
    const terminal = createTestTerminal()
    using log = openDevelopmentLog(file, terminal)
    log.write(line({ level: 'warn', msg: 'early' }))
    expect(terminal.written.err).toBe('')
    log.show()
    log.write(line({ level: 'info', msg: 'unimportant' }))
    log.write(line({ level: 'error', msg: 'late', token: 'main' }))
    expect(terminal.written.err).toBe('warn: early\nerror: late  token=main\n')
  })

  it('ignores what comes after its end', async () => {
    const log = openDevelopmentLog(file, createTestTerminal())
    log[Symbol.dispose]()
    log.write(line({ level: 'error', msg: 'late' }))
    expect(await readFile(file, 'utf8')).toBe('')
  })

  it('begins a new file when the old one has grown large', async () => {
    await writeFile(file, 'x')
    await truncate(file, 17 * 1024 * 1024)
    using log = openDevelopmentLog(file, createTestTerminal())
    log.write(line({ level: 'info', msg: 'one' }))
    expect([(await stat(file)).size < 100, (await stat(`${file}.old`)).size > 1e7]).toEqual([true, true])
  })
})

describe('formatLogLine', () => {
  it('words a problem as cause and remedy', () => {
    expect(
      formatLogLine(line({ level: 'error', at: 'clock', problem: 'is off', remedy: 'set it', msg: 'problem' })),
    ).toBe('clock: is off\n  remedy: set it\n')
  })

  it('shows the message of an error and never its stack', () => {
    const text = formatLogLine(line({ level: 'error', msg: 'unexpected', cause: { message: 'broken', stack: 'at x' } }))
    expect(text).toBe('error: unexpected  cause=broken\n')
  })

  it('shows control characters instead of obeying them, and lines that are no JSON', () => {
    expect(formatLogLine('\u001b[2Jplain\n')).toBe('error: \\u001b[2Jplain\n')
  })
})
