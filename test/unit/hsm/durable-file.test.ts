import { mkdtempSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { loadJsonFile, saveJsonFile } from '../../../src/hsm/durable-file.ts'

let folder: string
beforeEach(() => {
  folder = mkdtempSync(path.join(os.tmpdir(), 'hsmgate-durable-'))
})
afterEach(() => rmSync(folder, { recursive: true, force: true }))

it('a link laid where the temporary file goes is not written through', () => {
  const file = path.join(folder, 'state.json')
  const victim = path.join(folder, 'victim')
  writeFileSync(victim, 'untouched')
  symlinkSync(victim, `${file}.new`)
  saveJsonFile(file, { version: 1 })
  expect(readFileSync(victim, 'utf8')).toBe('untouched')
  expect(loadJsonFile(file)).toEqual({ version: 1 })
})

it('a file that a crash left open to others does not lend its mode', () => {
  const file = path.join(folder, 'state.json')
  writeFileSync(`${file}.new`, '{', { mode: 0o666 })
  saveJsonFile(file, { version: 1 })
  expect(statSync(file).mode & 0o777).toBe(0o600)
})
