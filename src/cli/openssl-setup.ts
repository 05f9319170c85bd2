/**
 * How a TLS server's OpenSSL is set up: the environment and memory of a running process, its configuration file, the provider. OpenSSL says
 * nothing when a provider cannot be loaded (the server then fails at its key), so each step is looked at by itself.
 */
import { execFile } from 'node:child_process'
import { constants } from 'node:fs'
import { access, readFile, stat } from 'node:fs/promises'
import path from 'node:path'
import { promisify } from 'node:util'
import { bad, type Finding, good, notTried } from './tls-findings.ts'

export interface OpensslSetup {
  readonly findings: readonly Finding[]
  /** The configuration that the process was started with. */
  readonly configFile?: string
  /** The process has the provider in its memory. */
  readonly hasProvider: boolean
  /** Whom it runs as, unless that is root. */
  readonly user?: ProcessUser
}

/** OpenSSL loads what a configuration names: root does not run it on the word of somebody else's process, but as that user. */
export interface ProcessUser {
  readonly uid: number
  readonly gid: number
}

const confRemedy =
  'set OPENSSL_CONF=/etc/hsmgate/openssl.cnf in its unit (Environment=) or envvars file and restart it; nginx.conf also needs `env OPENSSL_CONF;`'
const ignoredRemedy =
  'see that `openssl list -providers` lists hsmgate with that OPENSSL_CONF; a binary with file capabilities ignores the variable, and one with an OpenSSL of its own needs a provider built for it'
const commandTimeoutMs = 10_000

/** Of a running server. */
export async function examineProcess(pid: number): Promise<OpensslSetup> {
  const at = `process ${pid}`
  const read = (name: string) => readFile(`/proc/${pid}/${name}`, 'utf8')
  let environ: string
  let maps: string
  let status: string
  try {
    ;[environ, maps, status] = await Promise.all([read('environ'), read('maps'), read('status')])
  } catch (cause) {
    const isGone = ['ENOENT', 'ESRCH'].includes((cause as NodeJS.ErrnoException).code ?? '')
    const finding = isGone
      ? bad(
          at,
          'there is no such process',
          'name the process of the TLS server, which `systemctl show -P MainPID UNIT` prints, or start it',
        )
      : bad(at, 'its environment may not be read', 'run this as root')
    return { findings: [finding], hasProvider: false }
  }
  const variables = environ.split('\0').filter((entry) => /^\w+=/.test(entry))
  const configFile = variables.find((entry) => entry.startsWith('OPENSSL_CONF='))?.slice('OPENSSL_CONF='.length)
  const mapped = /^.*\/hsmgate\.so( \(deleted\))?$/m.exec(maps)
  const loaded =
    mapped === null
      ? []
      : mapped[1] === undefined
        ? [good(at, 'has the provider in its memory')]
        : [bad(at, 'uses a provider file that was replaced since it began', 'restart it')]
  const named =
    configFile !== undefined
      ? good(at, `was started with OPENSSL_CONF=${configFile}`)
      : mapped !== null
        ? good(at, 'shows no OPENSSL_CONF (nginx overwrites its environment), and has the provider all the same')
        : bad(at, 'was started without OPENSSL_CONF, or does not show it, and has not loaded the provider', confRemedy)
  const missing =
    configFile !== undefined && mapped === null
      ? [bad(at, 'has not loaded the provider, although OPENSSL_CONF is set', ignoredRemedy)]
      : []
  const user = userOf(status)
  return {
    findings: [named, ...loaded, ...missing],
    ...(configFile === undefined ? {} : { configFile }),
    hasProvider: mapped !== null,
    ...(user === undefined ? {} : { user }),
  }
}

/** Of proc(5): real, effective, saved and file system ids; one that is not root's decides. */
function userOf(status: string): ProcessUser | undefined {
  const ids = (name: string) => (new RegExp(`^${name}:\\s*(.*)$`, 'm').exec(status)?.[1] ?? '').split(/\s+/).map(Number)
  const uid = ids('Uid').find((id) => id !== 0)
  return uid === undefined ? undefined : { uid, gid: ids('Gid').find((id) => id !== 0) ?? uid }
}

/** What a configuration file sets of ours; includes are OpenSSL's to follow. */
export interface OpensslConfig {
  readonly findings: readonly Finding[]
  /** Path of the provider. */
  readonly module?: string
  /** Where the provider looks for a gateway, in its order. */
  readonly endpoints: readonly Endpoint[]
}

export interface Endpoint {
  /** What references may name it by. */
  readonly name?: string
  /** A path, or `@name` in the abstract namespace (unix(7)). */
  readonly socket: string
}

export async function examineConfig(
  file: string,
  environment: Readonly<Record<string, string>>,
  user?: ProcessUser,
): Promise<OpensslConfig> {
  let text: string
  try {
    text = await readFile(file, 'utf8')
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException
    const remedy = 'put deploy/openssl/openssl.cnf there, readable for all'
    return {
      findings: [bad(file, `cannot be read (${code}), so OpenSSL starts without the provider`, remedy)],
      endpoints: [],
    }
  }
  const module = /^\s*module\s*=\s*(\S*hsmgate\.so)\s*$/m.exec(text)?.[1]
  const [, endpoints = ''] = /^\s*hsmgate-endpoints\s*=\s*(.*)$/m.exec(text) ?? []
  return {
    findings: await examineProviders(file, environment, user),
    ...(module === undefined ? {} : { module }),
    endpoints: endpoints.split(/\s+/).flatMap(parseEndpoint),
  }
}

/** `name=path`, or a path alone. */
function parseEndpoint(entry: string): readonly Endpoint[] {
  const [, name, socket = ''] = /^(?:([^/@=]+)=)?(.*)$/.exec(entry) ?? []
  if (!/^[/@]/.test(socket)) return []
  return [{ ...(name === undefined ? {} : { name }), socket }]
}

/** What OpenSSL itself makes of the file. */
async function examineProviders(
  file: string,
  environment: Readonly<Record<string, string>>,
  user: ProcessUser | undefined,
): Promise<readonly Finding[]> {
  const env = { ...environment, OPENSSL_CONF: file }
  const listed = (await runOpenssl(['list', '-providers'], env, user))?.said
  if (listed === undefined)
    return [notTried(file, 'the openssl command is not installed, so it was not read by OpenSSL')]
  const isActive = (name: string) => new RegExp(`^ {2}${name}\\n(?: {4}.*\\n)*? {4}status: active$`, 'm').test(listed)
  const findings: Finding[] = []
  if (isActive('hsmgate')) findings.push(good(file, 'makes OpenSSL load the provider'))
  else {
    const remedy = 'compare it with deploy/openssl/openssl.cnf: providers section, module path, activate = 1'
    findings.push(bad(file, 'does not make OpenSSL load the provider', remedy))
  }
  if (!isActive('default')) {
    const remedy = 'activate the provider default beside hsmgate, as deploy/openssl/openssl.cnf does'
    findings.push(bad(file, 'leaves the default provider out, so that even SHA-256 is missing', remedy))
  } else if (isActive('hsmgate') && !(await makesKeys(env, user))) {
    const remedy = 'name default first in the section of providers, as deploy/openssl/openssl.cnf does'
    findings.push(bad(file, 'names hsmgate before the default provider, so that key exchange on P-256 fails', remedy))
  }
  return findings
}

/** Of providers that know a type of keys OpenSSL asks the first, and this one makes none. */
async function makesKeys(env: Readonly<Record<string, string>>, user: ProcessUser | undefined): Promise<boolean> {
  const words = ['genpkey', '-algorithm', 'EC', '-pkeyopt', 'ec_paramgen_curve:P-256', '-out', '/dev/null']
  return (await runOpenssl(words, env, user))?.isDone === true
}

export async function examineProvider(
  file: string,
  environment: Readonly<Record<string, string>>,
  user?: ProcessUser,
): Promise<readonly Finding[]> {
  try {
    const stats = await stat(file)
    if (!stats.isFile()) return [bad(file, 'is no file', 'install the provider there: make -C native provider')]
    await access(file, constants.R_OK)
    if ((stats.mode & 0o022) !== 0) {
      const remedy = `chmod 0644 ${file}, and see who could have changed it`
      return [bad(file, 'can be changed by others than its owner, who then run code in the TLS server', remedy)]
    }
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException
    return [bad(file, `cannot be read (${code})`, 'install the provider there (make -C native provider), mode 0644')]
  }
  const name = path.basename(file, '.so')
  const words = ['list', '-providers', '-provider-path', path.dirname(file), '-provider', name]
  const listed = (await runOpenssl(words, { ...environment, OPENSSL_CONF: '/dev/null' }, user))?.said
  if (listed === undefined) return [notTried(file, 'the openssl command is not installed, so it was not loaded')]
  if (listed.includes(`\n  ${name}\n`)) return [good(file, 'can be loaded by OpenSSL')]
  const remedy = 'build it against the OpenSSL of this machine (3.0 or later): make -C native provider'
  return [bad(file, 'cannot be loaded by OpenSSL', remedy)]
}

/** Undefined when there is no openssl. */
async function runOpenssl(
  words: readonly string[],
  env: Readonly<Record<string, string>>,
  user: ProcessUser | undefined,
): Promise<{ readonly isDone: boolean; readonly said: string } | undefined> {
  const identity = process.geteuid?.() === 0 ? user : undefined
  try {
    const { stdout } = await promisify(execFile)('openssl', words, { env, timeout: commandTimeoutMs, ...identity })
    return { isDone: true, said: stdout }
  } catch (cause) {
    const { code, stdout = '' } = cause as { code?: unknown; stdout?: string }
    return code === 'ENOENT' ? undefined : { isDone: false, said: stdout }
  }
}
