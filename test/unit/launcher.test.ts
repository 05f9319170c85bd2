import { spawnSync } from 'node:child_process'
import { copyFile, mkdir, mkdtemp, realpath, rm, symlink, writeFile } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'

let checkout: string

const run = (command: string, ...args: string[]) => spawnSync(command, args, { cwd: '/', encoding: 'utf8' })

beforeEach(async () => {
  checkout = await realpath(await mkdtemp(path.join(os.tmpdir(), 'hsmgate-launcher-')))
  await copyFile(path.resolve(import.meta.dirname, '../../hsmgate'), path.join(checkout, 'hsmgate'))
})

afterEach(async () => {
  await rm(checkout, { recursive: true, force: true })
})

describe('./hsmgate', () => {
  it('says how to set up a checkout that is not', () => {
    const { status, stdout, stderr } = run(path.join(checkout, 'hsmgate'), '--help')
    expect({ status, stdout }).toEqual({ status: 1, stdout: '' })
    expect(stderr).toBe(
      `hsmgate: not set up: ${checkout}/node_modules/node/bin/node is missing\n  remedy: bash ${checkout}/deploy/setup.sh run\n`,
    )
  })

  it("runs the checkout's own Node on src/main.ts, through symbolic links, with its arguments and exit code", async () => {
    await mkdir(path.join(checkout, 'node_modules/node/bin'), { recursive: true })
    const node = path.join(checkout, 'node_modules/node/bin/node')
    await writeFile(node, `#!/bin/bash\nprintf '%s\\n' "$@"\nexit 3\n`, { mode: 0o755 })
    await mkdir(path.join(checkout, 'bin'))
    await symlink('../hsmgate', path.join(checkout, 'bin/first'))
    await symlink('first', path.join(checkout, 'bin/second'))
    const { status, stdout } = run(path.join(checkout, 'bin/second'), 'key', 'list', 'two words')
    expect({ status, stdout }).toEqual({
      status: 3,
      stdout: `--max-semi-space-size=8\n--use-largepages=silent\n${checkout}/src/main.ts\nkey\nlist\ntwo words\n`,
    })
  })

  it('keeps compiled code in the checkout unless told where', async () => {
    await mkdir(path.join(checkout, 'node_modules/node/bin'), { recursive: true })
    const node = path.join(checkout, 'node_modules/node/bin/node')
    await writeFile(node, `#!/bin/bash\nprintf '%s\\n' "$NODE_COMPILE_CACHE"\n`, { mode: 0o755 })
    const place = (env: NodeJS.ProcessEnv) =>
      spawnSync(path.join(checkout, 'hsmgate'), [], { encoding: 'utf8', env: { PATH: process.env.PATH, ...env } })
        .stdout
    expect(place({})).toBe(`${checkout}/node_modules/.cache/hsmgate\n`)
    expect(place({ NODE_COMPILE_CACHE: '/var/cache/hsmgate' })).toBe('/var/cache/hsmgate\n')
  })
})
