/**
 * The folder of a development gateway: configuration, SoftHSM2 token, development CA. Made piece by piece, each piece whole or not at
 * all; what exists is never touched, so that making it again completes what is missing.
 */
import { existsSync, statSync } from 'node:fs'
import { mkdir, readdir, realpath, rm } from 'node:fs/promises'
import path from 'node:path'
import { createSoftHsmToken, findSoftHsmModule, findSoftHsmToken } from '../../softhsm/token.ts'
import { ProblemsError } from '../problem.ts'
import { createFile, findText } from './files.ts'
import type { CommonOptions, Terminal } from './terminal.ts'

export interface Development {
  readonly directory: string
  readonly configFile: string
}

const tokenLabel = 'hsmgate'
/** sockaddr_un.sun_path (unix(7)), less the final zero. */
const maxSocketBytes = 107

/** Where development state lives: --directory, else beside the configuration file that --config or HSMGATE_CONFIG names, else .hsmgate here. */
export function placeDevelopment(
  options: CommonOptions & { readonly directory?: string },
  environment: Terminal['environment'],
): Development {
  if (options.directory !== undefined && options.config !== undefined) {
    const remedy = 'give one of them'
    throw new ProblemsError([{ at: '--directory', cause: '--config names a folder as well', remedy }])
  }
  const named = options.directory === undefined ? (options.config ?? environment.HSMGATE_CONFIG) : undefined
  const configFile = path.resolve(named || path.join(options.directory ?? '.hsmgate', 'config.json'))
  return { directory: path.dirname(configFile), configFile }
}

/**
 * Answers the paths that it made, in order.
 * @throws ProblemsError
 */
export async function completeDevelopmentFolder(
  development: Development,
): Promise<{ readonly made: readonly string[] }> {
  const { directory, configFile } = development
  requireShortPath(directory)
  const made: string[] = []
  if ((await makeFolder(directory)) !== undefined) made.push(directory)

  const tokenDirectory = path.join(directory, 'softhsm')
  const config = await findText(configFile)
  const token = config === undefined ? undefined : findOwnToken(config, directory, tokenDirectory)
  if (config === undefined || token !== undefined) {
    if (await completeToken(tokenDirectory)) made.push(tokenDirectory)
    await removeDrafts(tokenDirectory)
    await requireOwnPlace(tokenDirectory, token?.env?.SOFTHSM2_CONF)
  }
  const tlsDirectory = path.join(directory, 'tls')
  await makeFolder(tlsDirectory)
  const { completeDevelopmentTls } = await import('./development-ca.ts') // takes long to load; other commands don't need it
  made.push(...(await completeDevelopmentTls(tlsDirectory)))
  // Last, so that a configuration that is there names nothing that is not.
  if (config === undefined && (await createFile(configFile, formatDevelopmentConfig(tokenDirectory))))
    made.push(configFile)
  return { made }
}

interface ConfiguredToken {
  readonly pinFile: string
  readonly env?: { readonly SOFTHSM2_CONF?: string }
}

/** A configuration of the operator's own making may use other tokens only; then no SoftHSM2 is needed. */
function findOwnToken(config: string, directory: string, tokenDirectory: string): ConfiguredToken | undefined {
  try {
    const { tokens } = JSON.parse(config) as { readonly tokens: Readonly<Record<string, ConfiguredToken>> }
    return Object.values(tokens).find(
      ({ pinFile }) => path.resolve(directory, pinFile) === path.join(tokenDirectory, 'pin'),
    )
  } catch {
    return undefined // whoever loads it reports what is wrong
  }
}

/**
 * SoftHSM2 and the configuration name the token by absolute paths. In a folder that was copied they would lead to the token of the
 * original, whose keys a second catalog could then destroy.
 */
async function requireOwnPlace(
  tokenDirectory: string,
  configured = path.join(tokenDirectory, 'softhsm2.conf'),
): Promise<void> {
  const here = await realpath(tokenDirectory)
  const [, tokens = ''] =
    /^directories\.tokendir\s*=\s*(.+)$/m.exec((await findText(path.join(here, 'softhsm2.conf'))) ?? '') ?? []
  for (const place of [path.dirname(configured), path.dirname(tokens.trim())]) {
    if ((await realpath(place).catch(() => undefined)) === here) continue
    const cause = `was moved or copied from ${place}, which its configuration still names`
    const remedy = `move it back, or replace ${place} by ${tokenDirectory} in softhsm2.conf and config.json`
    throw new ProblemsError([{ at: tokenDirectory, cause, remedy }])
  }
}

async function completeToken(directory: string): Promise<boolean> {
  try {
    if ((await findSoftHsmToken(directory)) !== undefined) return false
    await createSoftHsmToken({ directory, label: tokenLabel })
    return true
  } catch (cause) {
    // Another init may have been faster.
    if ((await findSoftHsmToken(directory).catch(() => undefined)) !== undefined) return false
    const [text, remedy = `see to what is named, then run it again`] = (cause as Error).message.split('; remedy: ')
    throw new ProblemsError([{ at: directory, cause: text!, remedy }], { cause })
  }
}

/** Tokens that a killed init left half made. One that is still at it finds the whole token in place of its own. */
async function removeDrafts(tokenDirectory: string): Promise<void> {
  const folder = path.dirname(tokenDirectory)
  const drafts = (await readdir(folder)).filter((name) => name.startsWith(`${path.basename(tokenDirectory)}.new-`))
  // One that is still at it may add a file in the middle of this.
  const options = { recursive: true, force: true, maxRetries: 10, retryDelay: 20 }
  for (const name of drafts) await rm(path.join(folder, name), options)
}

async function makeFolder(folder: string): Promise<string | undefined> {
  try {
    return await mkdir(folder, { recursive: true, mode: 0o700 })
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException
    const isFile = existsSync(folder) && !statSync(folder).isDirectory()
    const text = isFile ? 'is in the way: it is not a folder' : `cannot be made (${code})`
    const remedy = isFile ? 'move it away, or choose another folder' : 'choose a folder that you may write to'
    throw new ProblemsError([{ at: folder, cause: text, remedy }], { cause })
  }
}

function requireShortPath(directory: string): void {
  const socket = path.join(directory, 'run', 'operator.sock')
  if (Buffer.byteLength(socket) <= maxSocketBytes) return
  const cause = `the operator socket ${socket} would have a path of more than ${maxSocketBytes} bytes`
  throw new ProblemsError([{ at: directory, cause, remedy: 'choose a folder with a shorter path' }])
}

function formatDevelopmentConfig(tokenDirectory: string): string {
  const config = {
    development: true,
    allowImportThroughMemory: true,
    listen: {
      kms: { address: '127.0.0.1', port: 8600 },
      xks: {
        address: '127.0.0.1',
        port: 8601,
        tls: { certificateFile: 'tls/server.pem', keyFile: 'tls/server.key' },
      },
      operator: { http: { address: '127.0.0.1', port: 8609 } },
    },
    tokens: {
      softhsm: {
        module: findSoftHsmModule(),
        label: tokenLabel,
        pinFile: 'softhsm/pin',
        profile: 'softhsm',
        env: { SOFTHSM2_CONF: path.join(tokenDirectory, 'softhsm2.conf') },
      },
    },
  }
  return `${JSON.stringify(config, null, 2)}\n`
}
