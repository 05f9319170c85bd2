/**
 * A SoftHSM2 token in a folder of its own: for development, for tests, for a first look without hardware.
 *
 * The folder holds `softhsm2.conf`, `tokens/`, `pin` (the crypto user's PIN, mode 0600) and `token.json`. It appears complete or not
 * at all, and nothing outside it is touched: not /var/lib/softhsm, not ~/.config/softhsm2. SoftHSM reads its configuration from the
 * environment when a module is initialised, so every process that opens the module needs `env`, and the work of initialising
 * is done by a short-lived child.
 */
import { spawn } from 'node:child_process'
import { existsSync, globSync } from 'node:fs'
import { mkdir, mkdtemp, readFile, rename, rm, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { text } from 'node:stream/consumers'
import type { InitialisedToken, InitialiseToken } from './init-token.ts'

export interface SoftHsmToken {
  /** Path of the PKCS#11 library. */
  readonly module: string
  readonly label: string
  readonly serial: string
  /** File with the crypto user's PIN and nothing else. */
  readonly pinFile: string
  /** What a process that opens `module` needs in its environment. */
  readonly env: { readonly SOFTHSM2_CONF: string }
}

/** Where Debian, Fedora, Alpine and a build from source put the library. */
const modulePatterns = [
  '/usr/lib/softhsm/libsofthsm2.so',
  '/usr/lib/*/softhsm/libsofthsm2.so',
  '/usr/lib64/{pkcs11,softhsm}/libsofthsm2.so',
  '/usr/local/lib/softhsm/libsofthsm2.so',
]

/** The path of SoftHSM2's PKCS#11 library, `undefined` when it is not installed. */
export function findSoftHsmModule(): string | undefined {
  return modulePatterns.flatMap((pattern) => globSync(pattern).sort())[0]
}

/**
 * Creates `directory` with one initialised token in it. The PINs are random: the crypto user's goes to the PIN file, the security
 * officer's is kept nowhere, so nobody can initialise the token a second time.
 *
 * @throws Error, with cause and remedy, when SoftHSM2 is not installed, `directory` exists and is not empty, or the module fails.
 * @throws TypeError when `label` is not 1 to 32 bytes of printable ASCII (CK_TOKEN_INFO.label, PKCS#11 v2.40 section 3.2).
 */
export async function createSoftHsmToken(options: {
  readonly directory: string
  readonly label: string
}): Promise<SoftHsmToken> {
  const { label } = options
  const directory = path.resolve(options.directory)
  if (!/^[\x21-\x7e]([\x20-\x7e]{0,30}[\x21-\x7e])?$/.test(label)) throw new TypeError(`not a token label: ${label}`)
  const module = findSoftHsmModule()
  if (module === undefined) {
    throw new Error('SoftHSM2 is not installed; remedy: apt-get install --no-install-recommends softhsm2')
  }

  await mkdir(path.dirname(directory), { recursive: true, mode: 0o700 })
  const draft = await mkdtemp(`${directory}.new-`)
  try {
    await mkdir(path.join(draft, 'tokens'), { mode: 0o700 })
    await writeConfiguration(draft, draft)
    const { serial } = await initialise({ module, label, pinFile: path.join(draft, 'pin') }, configurationIn(draft))
    await writeConfiguration(draft, directory)
    await writeFile(path.join(draft, 'token.json'), `${JSON.stringify({ label, serial })}\n`, {
      mode: 0o600,
      flag: 'wx',
    })
    await rename(draft, directory)
    return {
      module,
      label,
      serial,
      pinFile: path.join(directory, 'pin'),
      env: { SOFTHSM2_CONF: configurationIn(directory) },
    }
  } catch (cause) {
    await rm(draft, { recursive: true, force: true })
    if (isOccupied(cause))
      throw new Error(`${directory} exists and is not empty; remedy: choose another folder`, { cause })
    throw cause
  }
}

/**
 * The token that `createSoftHsmToken` made in `directory`, `undefined` when there is none.
 *
 * @throws Error, with cause and remedy, when the folder is there but SoftHSM2 is no longer installed.
 */
export async function findSoftHsmToken(directory: string): Promise<SoftHsmToken | undefined> {
  const folder = path.resolve(directory)
  const description = path.join(folder, 'token.json')
  if (!existsSync(description)) return undefined
  const module = findSoftHsmModule()
  if (module === undefined) {
    throw new Error(
      `SoftHSM2 is not installed, but ${folder} holds a token of it; remedy: apt-get install --no-install-recommends softhsm2`,
    )
  }
  const { label, serial } = JSON.parse(await readFile(description, 'utf8')) as { label: string; serial: string }
  return { module, label, serial, pinFile: path.join(folder, 'pin'), env: { SOFTHSM2_CONF: configurationIn(folder) } }
}

const configurationIn = (directory: string) => path.join(directory, 'softhsm2.conf')

/** Writes the configuration into `directory` for the time when its contents live at `home`. */
async function writeConfiguration(directory: string, home: string): Promise<void> {
  const lines = [
    `directories.tokendir = ${path.join(home, 'tokens')}`,
    'objectstore.backend = file', // Debian builds no other
    'log.level = ERROR',
    'slots.removable = false',
    'library.reset_on_fork = true', // a forked child starts without sessions, as with hardware
  ]
  await writeFile(configurationIn(directory), `${lines.join('\n')}\n`, { mode: 0o600 })
}

/** Runs init-token.ts: its order goes in on stdin and its answer comes out on stdout, so that argv and environment hold no secret. */
async function initialise(order: InitialiseToken, configuration: string): Promise<InitialisedToken> {
  const env: NodeJS.ProcessEnv = { SOFTHSM2_CONF: configuration }
  if (process.env.HSMGATE_NO_DEEPBIND !== undefined) env.HSMGATE_NO_DEEPBIND = process.env.HSMGATE_NO_DEEPBIND
  const child = spawn(process.execPath, [path.join(import.meta.dirname, 'init-token.ts')], { env, cwd: '/' })
  child.stdin.on('error', () => {}) // a child that ended early is reported by its exit code
  child.stdin.end(JSON.stringify(order))
  const exit = new Promise<number | string>((resolve, reject) => {
    child.once('error', reject)
    child.once('close', (code, signal) => resolve(code ?? signal ?? 'unknown'))
  })
  const [status, answer, complaint] = await Promise.all([exit, text(child.stdout), text(child.stderr)])
  if (status !== 0)
    throw new Error(`SoftHSM2 token not initialised: ${complaint.trim() || `child ended with ${status}`}`)
  return JSON.parse(answer) as InitialisedToken
}

function isOccupied(cause: unknown): boolean {
  const code = (cause as NodeJS.ErrnoException).code
  return code === 'ENOTEMPTY' || code === 'EEXIST' || code === 'ENOTDIR'
}
