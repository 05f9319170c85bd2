import { chmod, cp, mkdir, mkdtemp, readdir, readFile, realpath, rm, stat, symlink, writeFile } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { completeDevelopmentFolder, placeDevelopment } from '../../../src/cli/development-folder.ts'
import { checkFiles } from '../../../src/config/files.ts'
import { loadConfig } from '../../../src/config/load.ts'

let home: string
let directory: string

beforeEach(async () => {
  home = await realpath(await mkdtemp(path.join(os.tmpdir(), 'hsmgate-init-')))
  directory = path.join(home, 'gateway')
})

afterEach(async () => {
  await rm(home, { recursive: true, force: true })
})

const complete = async () => {
  const { made } = await completeDevelopmentFolder({ directory, configFile: path.join(directory, 'config.json') })
  return made.map((file) => path.relative(directory, file))
}

/** Every file's content, every folder's mode. */
async function snapshot(): Promise<Record<string, string>> {
  const entries = await readdir(directory, { recursive: true, withFileTypes: true })
  const pairs = entries.map(async (entry) => {
    const file = path.join(entry.parentPath, entry.name)
    const mode = ((await stat(file)).mode & 0o777).toString(8)
    return [path.relative(directory, file), `${mode} ${entry.isFile() ? await readFile(file, 'base64') : ''}`] as const
  })
  return Object.fromEntries(await Promise.all(pairs))
}

describe('completeDevelopmentFolder', () => {
  it('makes a configuration that loads, with every file that it names, closed to other users', async () => {
    const mask = process.umask(0)
    try {
      await complete()
    } finally {
      process.umask(mask)
    }
    const config = loadConfig([path.join(directory, 'config.json')])
    expect(checkFiles(config)).toEqual([])
    expect(config).toMatchObject({ development: true, allowImportThroughMemory: true, stateDirectory: directory })
    expect(config.listen.kms).toEqual({ address: '127.0.0.1', port: 8600 })
    expect(config.listen.operator).toEqual({
      http: { address: '127.0.0.1', port: 8609 },
      socket: path.join(directory, 'run/operator.sock'),
    })
    const openToOthers = Object.entries(await snapshot()).filter(([, text]) => !/^[67]00 /.test(text))
    expect(openToOthers).toEqual([])
    expect((await stat(directory)).mode & 0o777).toBe(0o700)
  })

  it('changes nothing the second time', async () => {
    await complete()
    const before = await snapshot()
    expect(await complete()).toEqual([])
    expect(await snapshot()).toEqual(before)
  })

  it('keeps a configuration of the operator, byte for byte, and completes the rest', async () => {
    await mkdir(directory, { recursive: true })
    const text = '{"tokens":{"main":{"module":"/opt/hsm.so","label":"x","pinFile":"/etc/pin"}}}'
    await writeFile(path.join(directory, 'config.json'), text)
    expect(await complete()).toEqual(['tls/ca.key', 'tls/ca.pem', 'tls/server.key', 'tls/server.pem'])
    expect(await readFile(path.join(directory, 'config.json'), 'utf8')).toBe(text)
  })

  it('completes what is missing and leaves the token alone', async () => {
    await complete()
    const pin = await readFile(path.join(directory, 'softhsm/pin'), 'utf8')
    await rm(path.join(directory, 'config.json'))
    await rm(path.join(directory, 'tls/server.pem'))
    expect(await complete()).toEqual(['tls/server.pem', 'config.json'])
    expect(await readFile(path.join(directory, 'softhsm/pin'), 'utf8')).toBe(pin)
  })

  it('leaves no configuration behind when a piece before it fails', async () => {
    await mkdir(directory, { recursive: true })
    await writeFile(path.join(directory, 'tls'), 'in the way')
    await expect(complete()).rejects.toMatchObject({
      problems: [{ at: path.join(directory, 'tls'), cause: 'is in the way: it is not a folder' }],
    })
    expect((await readdir(directory)).sort()).toEqual(['softhsm', 'tls'])
    await rm(path.join(directory, 'tls'))
    await complete()
    expect(loadConfig([path.join(directory, 'config.json')]).defaultGroup).toBe('default')
  })

  it('says what is wrong with a token folder that is not its own', async () => {
    await mkdir(path.join(directory, 'softhsm'), { recursive: true })
    await writeFile(path.join(directory, 'softhsm/mine'), '')
    await expect(complete()).rejects.toMatchObject({
      problems: [{ at: path.join(directory, 'softhsm'), remedy: 'choose another folder' }],
    })
    expect(await readdir(directory)).toEqual(['softhsm'])
  })

  it('leaves the mode of a folder that was there to its owner', async () => {
    await mkdir(directory)
    await chmod(directory, 0o750)
    await complete()
    expect((await stat(directory)).mode & 0o777).toBe(0o750)
  })

  it('lets two at once end with one whole folder', async () => {
    await Promise.all([complete(), complete()])
    const before = await snapshot()
    expect(await complete()).toEqual([])
    expect(await snapshot()).toEqual(before)
  })

  it('clears away a token that a killed init left half made', async () => {
    await mkdir(path.join(directory, 'softhsm.new-aBcDeF/tokens'), { recursive: true })
    await writeFile(path.join(directory, 'softhsm.new-aBcDeF/pin'), 'of no token')
    await complete()
    expect((await readdir(directory)).sort()).toEqual(['config.json', 'softhsm', 'tls'])
  })

  it('refuses a copy, whose token would be the original one', async () => {
    await complete()
    const original = directory
    directory = path.join(home, 'copy')
    await cp(original, directory, { recursive: true })
    await expect(complete()).rejects.toMatchObject({
      problems: [
        {
          at: path.join(directory, 'softhsm'),
          cause: `was moved or copied from ${original}/softhsm, which its configuration still names`,
        },
      ],
    })
    for (const name of ['config.json', 'softhsm/softhsm2.conf']) {
      const file = path.join(directory, name)
      await writeFile(file, (await readFile(file, 'utf8')).replaceAll(original, directory))
    }
    expect(await complete()).toEqual([])
  })

  it('knows its place by another name', async () => {
    await complete()
    await symlink(directory, path.join(home, 'link'))
    directory = path.join(home, 'link')
    expect(await complete()).toEqual([])
  })

  it('refuses a path that no socket can have before it makes anything', async () => {
    directory = path.join(home, 'x'.repeat(100))
    await expect(complete()).rejects.toMatchObject({
      problems: [{ at: directory, remedy: 'choose a folder with a shorter path' }],
    })
    expect(await readdir(home)).toEqual([])
  })
})

describe('placeDevelopment', () => {
  it('is .hsmgate here, the folder that is named, or the one of the configuration', () => {
    expect(placeDevelopment({}, {}).directory).toBe(path.resolve('.hsmgate'))
    expect(placeDevelopment({ directory: '/a' }, { HSMGATE_CONFIG: '/b/c.json' }).configFile).toBe('/a/config.json')
    expect(placeDevelopment({}, { HSMGATE_CONFIG: '/b/c.json' })).toEqual({ directory: '/b', configFile: '/b/c.json' })
    expect(placeDevelopment({ config: '/d/e.json' }, { HSMGATE_CONFIG: '/b/c.json' }).configFile).toBe('/d/e.json')
  })

  it('refuses two folders', () => {
    expect(() => placeDevelopment({ directory: '/a', config: '/b/c.json' }, {})).toThrow(
      '--config names a folder as well',
    )
  })
})
