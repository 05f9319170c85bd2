/**
 * `hsmgate tls doctor`: everything between a TLS server and its key, from the provider's file to a real signature. Nothing is changed. As root
 * it can try as the user that the server runs as, which it becomes for the last step, when everything that root alone may read has been read.
 */
import { existsSync } from 'node:fs'
import path from 'node:path'
import type { Command } from 'commander'
import { publicKeyOfCertificate } from '../../certificates.ts'
import { ProblemsError } from '../../problem.ts'
import { keyIdOf } from '../../tls-reference.ts'
import { addAction } from '../action.ts'
import { loadEffectiveConfig } from '../effective-config.ts'
import { findUser } from '../machine-users.ts'
import { type Endpoint, examineConfig, examineProcess, examineProvider } from '../openssl-setup.ts'
import { examineSocket, type Identity, identitiesOf, proveSignature } from '../signing-socket.ts'
import { type CommonOptions, show, type Terminal } from '../terminal.ts'
import { readSmallFile } from '../tls-files.ts'
import { bad, type Finding, formatFindings, good, notTried, problemsOf } from '../tls-findings.ts'
import { loadReference } from './tls-show.ts'

interface DoctorOptions {
  readonly reference?: string
  readonly cert?: string
  readonly pid?: string
  readonly provider?: string
  readonly opensslConf?: string
  readonly socket?: string
  readonly user?: string
}

const installedProvider = '/usr/lib/hsmgate/hsmgate.so'
const builtProvider = path.resolve(import.meta.dirname, '../../../native/build/hsmgate.so')
const defaultSocket = '/run/hsmgate/sign.sock'

export function addTlsDoctor(tls: Command, terminal: Terminal): void {
  const doctor = tls
    .command('doctor')
    .description(
      'examine a TLS server whose key is in the module: provider, configuration, socket, reference, a signature',
    )
    .option('--reference <file>', 'key reference of the server')
    .option('--cert <file>', 'certificate of the server, in PEM')
    .option('--pid <number>', 'running server')
    .option(
      '--openssl-conf <file>',
      'OpenSSL configuration of the server (default: the one of --pid, else $OPENSSL_CONF)',
    )
    .option('--provider <file>', 'the provider (default: the one of the OpenSSL configuration)')
    .option('--socket <path>', 'the signing socket (default: the one of the configuration)')
    .option('--user <name>', 'user that the server runs as; as root, sign as that user')
  addAction<DoctorOptions, []>(doctor, async (options) => {
    const findings = await examine(options, terminal)
    show(terminal, options, { findings }, () => formatFindings(findings))
    const problems = problemsOf(findings)
    if (problems.length > 0) throw new ProblemsError(problems)
  })
}

async function examine(options: DoctorOptions & CommonOptions, terminal: Terminal): Promise<readonly Finding[]> {
  const environment = environmentOf(terminal)
  const pid = options.pid === undefined ? undefined : parsePid(options.pid)
  const running = pid === undefined ? undefined : await examineProcess(pid)
  const configFile = options.opensslConf ?? running?.configFile ?? environment.OPENSSL_CONF
  // what the operator names is the operator's to trust; what a process names is that process's
  const owner = options.opensslConf === undefined ? running?.user : undefined
  const config = configFile === undefined ? undefined : await examineConfig(configFile, environment, owner)
  const unnamed = notTried('openssl.cnf', 'no OpenSSL configuration was named; --openssl-conf or --pid does')
  const unseen = notTried(
    'server',
    'no running one was named (--pid), so nobody knows whether it has OPENSSL_CONF; `systemctl show -P Environment UNIT` (Apache: envvars) shows what it will get',
  )
  const provider =
    options.provider ?? config?.module ?? (existsSync(installedProvider) ? installedProvider : builtProvider)
  const reference = options.reference === undefined ? undefined : await loadReference(options.reference)
  const endpoint = chooseEndpoint(config?.endpoints, reference?.endpoint)
  const user =
    options.user === undefined ? undefined : { name: `user ${options.user}`, ...(await findUser(options.user)) }
  // a running process keeps the groups that it began with, whatever its user is in by now
  const processes = pid === undefined ? [] : await identitiesOf(pid)
  const identities = user === undefined ? processes : [user, ...processes.filter(({ uid }) => uid === user.uid)]
  const path = options.socket ?? endpoint.socket ?? configuredSocket(options, terminal)
  const socket = await examineSocket(path, identities)
  const findings = [
    ...(running?.findings ?? [unseen]),
    ...(config?.findings ?? [unnamed]),
    ...(await examineProvider(provider, environment, options.provider === undefined ? owner : undefined)),
    ...endpoint.findings,
    ...socket.findings,
  ]
  if (options.reference === undefined || reference === undefined) {
    return [...findings, notTried('reference', 'no key reference was named (--reference), so nothing was signed')]
  }
  findings.push(good(options.reference, `is a key reference, key id ${keyIdOf(reference.publicKey).toString('hex')}`))
  if (options.cert !== undefined) findings.push(await compareCertificate(options.cert, reference.publicKey))
  if (socket.isThere) {
    const identity = becomeUser(user) ?? `uid ${process.geteuid?.() ?? 0}`
    findings.push(await proveSignature(path, reference, identity))
  }
  reference.token?.fill(0)
  return findings
}

/** For OpenSSL, which is run as the server would run it. */
function environmentOf({ environment }: Terminal): Readonly<Record<string, string>> {
  const set = Object.entries(environment).flatMap(([name, value]) => (value === undefined ? [] : [[name, value]]))
  return { PATH: '/usr/bin:/bin', ...Object.fromEntries(set) }
}

/** The endpoint that a reference names, else the provider's first one. */
function chooseEndpoint(
  endpoints: readonly Endpoint[] = [],
  wanted: string | undefined,
): { readonly socket?: string; readonly findings: readonly Finding[] } {
  const found = wanted === undefined ? endpoints[0] : endpoints.find(({ name }) => name === wanted)
  if (found !== undefined) return { socket: found.socket, findings: [] }
  if (wanted === undefined || endpoints.length === 0) return { findings: [] }
  const remedy = `add ${wanted}=<path> to hsmgate-endpoints of the OpenSSL configuration`
  return { findings: [bad('reference', `names the endpoint ${wanted}, which the provider does not know`, remedy)] }
}

async function compareCertificate(file: string, publicKey: Buffer): Promise<Finding> {
  const pem = await readSmallFile(file)
  let certified: Buffer
  try {
    certified = publicKeyOfCertificate(pem)
  } catch {
    return bad(file, 'holds no certificate in PEM', 'name the certificate of the server')
  }
  if (certified.equals(publicKey)) return good(file, 'belongs to the key of the reference')
  const [ours, theirs] = [publicKey, certified].map((key) => keyIdOf(key).toString('hex'))
  const remedy = 'use the reference of that key, or have a certificate made for this one (hsmgate tls csr)'
  return bad(file, `is for the key ${theirs}, and the reference is for ${ours}`, remedy)
}

/** The configuration of the gateway need not be on this host. */
function configuredSocket(options: CommonOptions, terminal: Terminal): string {
  try {
    return loadEffectiveConfig(options, terminal).listen.offload?.socket ?? defaultSocket
  } catch (failure) {
    if (options.config !== undefined) throw failure
    return defaultSocket
  }
}

function parsePid(text: string): number {
  if (/^[1-9]\d{0,9}$/.test(text)) return Number(text)
  const remedy = 'give the number of a running server: `systemctl show -P MainPID UNIT` prints it, 0 where none runs'
  throw new ProblemsError([{ at: '--pid', cause: `${text} is no process id`, remedy }])
}

/** There is no way back; the command ends soon after. */
function becomeUser(user: (Identity & { readonly gid: number }) | undefined): string | undefined {
  if (user === undefined || process.getuid?.() !== 0) return undefined
  process.setgroups?.([...user.groups])
  process.setgid?.(user.gid)
  process.setuid?.(user.uid)
  return user.name
}
