import { execFile } from 'node:child_process'
import { mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { promisify } from 'node:util'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { createSoftHsmToken, findSoftHsmModule, findSoftHsmToken, type SoftHsmToken } from '../../softhsm/token.ts'
import { createTestToken } from '../support/softhsm.ts'

let folder: string

beforeEach(async () => {
  folder = await mkdtemp(path.join(os.tmpdir(), 'hsmgate-softhsm-'))
})

afterEach(async () => {
  await rm(folder, { recursive: true, force: true })
})

/** Logs in with a program that has nothing to do with the gateway; resolves to what it prints. */
async function logIn(token: SoftHsmToken): Promise<string> {
  const options = [
    '--module',
    token.module,
    '--token-label',
    token.label,
    '--login',
    '--pin',
    'env:PIN',
    '--list-objects',
  ]
  const env = { ...token.env, PIN: await readFile(token.pinFile, 'latin1') }
  const { stdout, stderr } = await promisify(execFile)('pkcs11-tool', options, { env })
  return stdout + stderr
}

const modeOf = async (file: string) => (await stat(file)).mode & 0o777

describe('createSoftHsmToken', () => {
  it('makes a token that opens with the PIN in its file', async () => {
    const token = await createSoftHsmToken({ directory: path.join(folder, 'softhsm'), label: 'first light' })
    expect(token.module).toBe(findSoftHsmModule())
    expect(token.label).toBe('first light')
    expect(token.serial).toMatch(/^[0-9a-f]{16}$/)
    expect(await readFile(token.pinFile, 'latin1')).toMatch(/^[0-9a-f]{32}$/)
    await expect(logIn(token)).resolves.not.toContain('error')
  })

  it('lets only its owner read it, whatever the umask', async () => {
    const before = process.umask(0o000)
    const { pinFile } = await createSoftHsmToken({
      directory: path.join(folder, 'a/softhsm'),
      label: 'private',
    }).finally(() => process.umask(before))
    const directory = path.dirname(pinFile)
    for (const entry of await readdir(directory, { recursive: true, withFileTypes: true })) {
      const file = path.join(entry.parentPath, entry.name)
      expect([file, await modeOf(file)]).toEqual([file, entry.isDirectory() ? 0o700 : 0o600])
    }
    expect(await modeOf(directory)).toBe(0o700)
    expect(await modeOf(path.dirname(directory))).toBe(0o700)
  })

  it('refuses a folder that holds something, and leaves it and its neighbours as they were', async () => {
    await writeFile(path.join(folder, 'keep'), 'me')
    const parent = path.dirname(folder)
    await expect(createSoftHsmToken({ directory: folder, label: 'second' })).rejects.toThrow(/exists and is not empty/)
    expect(await readdir(folder)).toEqual(['keep'])
    expect((await readdir(parent)).filter((name) => name.startsWith(`${path.basename(folder)}.new-`))).toEqual([])
  })

  it('refuses to replace a token', async () => {
    const directory = path.join(folder, 'softhsm')
    const token = await createSoftHsmToken({ directory, label: 'one' })
    await expect(createSoftHsmToken({ directory, label: 'two' })).rejects.toThrow(/exists and is not empty/)
    await expect(logIn(token)).resolves.not.toContain('error')
    expect(await readdir(folder)).toEqual(['softhsm'])
  })

  it('makes separate tokens at the same time', async () => {
    const labels = ['left', 'right']
    const tokens = await Promise.all(
      labels.map((label) => createSoftHsmToken({ directory: path.join(folder, label), label })),
    )
    const [left, right] = tokens
    expect(left!.serial).not.toBe(right!.serial)
    expect(await readFile(left!.pinFile, 'latin1')).not.toBe(await readFile(right!.pinFile, 'latin1'))
    await Promise.all(tokens.map(logIn))
  })

  it.each(['', ' padded', 'x'.repeat(33), 'zwölf', 'two\nlines'])(
    'takes %j for a mistake, not for a label',
    async (label) => {
      await expect(createSoftHsmToken({ directory: path.join(folder, 'softhsm'), label })).rejects.toThrow(TypeError)
      expect(await readdir(folder)).toEqual([])
    },
  )
})

describe('findSoftHsmToken', () => {
  it('finds the token again', async () => {
    const directory = path.join(folder, 'softhsm')
    const token = await createSoftHsmToken({ directory, label: 'again' })
    expect(await findSoftHsmToken(directory)).toEqual(token)
  })

  it('finds nothing where nothing is', async () => {
    expect(await findSoftHsmToken(path.join(folder, 'softhsm'))).toBeUndefined()
  })
})

describe('createTestToken', () => {
  it('removes its folder when the test lets go', async () => {
    let directory = ''
    {
      await using token = await createTestToken()
      directory = token.directory
      expect(path.dirname(path.dirname(token.pinFile))).toBe(directory)
    }
    await expect(stat(directory)).rejects.toMatchObject({ code: 'ENOENT' })
  })
})
