import { mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { createFile, findText, replaceFile } from '../../../src/cli/files.ts'

let folder: string
let file: string

beforeEach(async () => {
  folder = await mkdtemp(path.join(os.tmpdir(), 'hsmgate-files-'))
  file = path.join(folder, 'a')
})

afterEach(async () => {
  await rm(folder, { recursive: true, force: true })
})

const mode = async (name: string) => (await stat(name)).mode & 0o777

describe('createFile', () => {
  it('makes a file that only its owner can read', async () => {
    expect(await createFile(file, 'text')).toBe(true)
    expect([await readFile(file, 'utf8'), await mode(file)]).toEqual(['text', 0o600])
  })

  it('gives others what is meant for them', async () => {
    await createFile(file, 'text', 0o644)
    expect(await mode(file)).toBe(0o644)
    await replaceFile(file, 'new', 0o644)
    expect(await mode(file)).toBe(0o644)
  })

  it('never touches a file that is there', async () => {
    await writeFile(file, 'mine')
    expect(await createFile(file, 'other')).toBe(false)
    expect([await readFile(file, 'utf8'), await readdir(folder)]).toEqual(['mine', ['a']])
  })

  it('lets exactly one of many win, and its content is whole', async () => {
    const contents = Array.from({ length: 8 }, (_, index) => String(index).repeat(10_000))
    const won = await Promise.all(contents.map((content) => createFile(file, content)))
    expect(won.filter(Boolean)).toHaveLength(1)
    expect(await readFile(file, 'utf8')).toBe(contents[won.indexOf(true)])
    expect(await readdir(folder)).toEqual(['a'])
  })

  it('leaves nothing behind when it fails', async () => {
    await expect(createFile(path.join(folder, 'none', 'a'), 'text')).rejects.toThrow('ENOENT')
    expect(await readdir(folder)).toEqual([])
  })
})

describe('replaceFile', () => {
  it('puts new content in place of the old, closed to others even where the old was open', async () => {
    await writeFile(file, 'old', { mode: 0o644 })
    await replaceFile(file, 'new')
    expect([await readFile(file, 'utf8'), await mode(file), await readdir(folder)]).toEqual(['new', 0o600, ['a']])
  })

  it('leaves everything as it was when it fails', async () => {
    await mkdir(file)
    await writeFile(path.join(file, 'inside'), 'old')
    await expect(replaceFile(file, 'new')).rejects.toThrow()
    expect([await readdir(folder), await readdir(file)]).toEqual([['a'], ['inside']])
  })
})

describe('findText', () => {
  it('tells an absent file from an unreadable one', async () => {
    expect(await findText(file)).toBeUndefined()
    await expect(findText(folder)).rejects.toThrow('EISDIR')
  })
})
