import { mkdtemp, readdir, readFile, rm, stat } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { describe, expect, it } from 'vitest'
import {
  findCredentials,
  formatProfile,
  keepAside,
  parseDefaultProfile,
  saveCredentials,
} from '../../../src/cli/credentials-file.ts'

const credentials = { accessKeyId: 'AKIAEXAMPLE', secretAccessKey: 'abc/+=def', region: 'eu-west-1' }

describe('a credentials file', () => {
  it('is read as it was written, and closed to others', async () => {
    const folder = await mkdtemp(path.join(os.tmpdir(), 'hsmgate-credentials-'))
    const file = path.join(folder, 'credentials')
    try {
      expect(await findCredentials(file)).toBeUndefined()
      await saveCredentials(file, credentials)
      expect(await findCredentials(file)).toEqual(credentials)
      expect((await stat(file)).mode & 0o777).toBe(0o600)

      const aside = await keepAside(file, new Date('2026-01-02T03:04:05.678Z'))
      await saveCredentials(file, { ...credentials, accessKeyId: 'AKIANEW' })
      expect(aside).toBe(`${file}.20260102T030405678Z`)
      expect(await readFile(aside, 'utf8')).toContain('AKIAEXAMPLE')
      expect((await findCredentials(file))?.accessKeyId).toBe('AKIANEW')
      expect(await readdir(folder)).toHaveLength(2)
    } finally {
      await rm(folder, { recursive: true })
    }
  })
})

describe('parseDefaultProfile', () => {
  it('finds the profile default among others, comments and odd spacing', () => {
    const text = `# note\n${formatProfile('other', { ...credentials, accessKeyId: 'AKIAOTHER' })}\n[ default ]\naws_access_key_id=AKIAEXAMPLE\r\n  aws_secret_access_key   =  abc/+=def\n; note\nregion = eu-west-1\n[last]\nregion = x\n`
    expect(parseDefaultProfile(text)).toEqual(credentials)
  })

  it.each(['', '[default]\nregion = eu-west-1\n', formatProfile('other', credentials), '\u0000\u0001', '[default'])(
    'finds none in %j',
    (text) => {
      expect(parseDefaultProfile(text)).toBeUndefined()
    },
  )
})
