/**
 * TLS clients of several makers, which visit HTTPS sites on loopback: they shake hands, verify the certificate for the site's name against one
 * authority, request a page and tell what they saw. Programs run as they are installed, libraries by the sources in tls-clients/. A client
 * makes one visit after another.
 */
import { spawn, spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import path from 'node:path'
import { createInterface } from 'node:readline'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import { run, runOk } from './command.ts'
import { visit } from './tls-sites.ts'

export type TlsVersion = 'TLSv1.2' | 'TLSv1.3'

export interface Target {
  readonly port: number
  readonly name: string
  readonly version: TlsVersion
  /** The one that the client offers, as RFC 8446, section 4.2.3, names it; for clients that can be told. */
  readonly scheme?: string | undefined
}

export interface Seen {
  readonly status: number
  /** As the server says in its answer. */
  readonly protocol: string
  /** What the server signed with, as the client says: {@link Target.scheme}, or the client's words for another one. */
  readonly scheme?: string
}

export interface TlsClient extends AsyncDisposable {
  /** @throws Error with the client's words when it has no answer, or no trust in the certificate */
  visit(target: Target): Promise<Seen>
}

export interface TlsLibrary {
  /** Whether it is on this machine. */
  readonly isHere: boolean
  /** Whether it can be told to offer one signature scheme alone. */
  readonly choosesScheme: boolean
  readonly tellsScheme: boolean
  /** `folder` is for its files, `authority` the one that it trusts (PEM). */
  open(folder: string, authority: string): Promise<TlsClient>
}

/** The page of a site; the variable is NGINX's. */
export const servedOver = 'served over $ssl_protocol'

const source = (name: string) => fileURLToPath(new URL(`tls-clients/${name}`, import.meta.url))
const cache = fileURLToPath(new URL('../../node_modules/.cache', import.meta.url))
const folders = (process.env.PATH ?? '').split(path.delimiter)
const isOnPath = (program: string) => folders.some((folder) => existsSync(path.join(folder, program)))
const number = (version: TlsVersion) => version.slice('TLSv'.length)

const gnutls: TlsLibrary = {
  isHere: true,
  choosesScheme: true,
  tellsScheme: true,
  async open(_folder, authority) {
    return oneByOne(async ({ port, name, version, scheme = '' }) => {
      const signatures = gnutlsName(scheme, version)
      const told = await ask(name, 'gnutls-cli', [
        '--verbose',
        `--x509cafile=${authority}`,
        `--sni-hostname=${name}`,
        `--verify-hostname=${name}`,
        `--port=${port}`,
        `--priority=NORMAL:-VERS-ALL:+VERS-TLS${number(version)}:-SIGN-ALL:+SIGN-${signatures}`,
        '127.0.0.1',
      ])
      const said = /^- Server Signature: (.*)$/m.exec(told)?.[1] ?? ''
      return { ...parseAnswer(told), scheme: said.toUpperCase() === signatures ? scheme : said }
    })
  },
}

/** In TLS 1.2 the curve of ECDSA is not the scheme's. */
function gnutlsName(scheme: string, version: TlsVersion): string {
  const name = scheme.toUpperCase().replaceAll('_', '-').replace('-PKCS1', '').replace('ED25519', 'EDDSA-ED25519')
  return version === 'TLSv1.2' ? name.replace(/-SECP\d+R1/, '') : name
}

const nss: TlsLibrary = {
  isHere: true,
  choosesScheme: true,
  tellsScheme: true,
  async open(folder, authority) {
    const database = `sql:${folder}`
    await runOk('certutil', ['-N', '-d', database, '--empty-password'])
    await runOk('certutil', ['-A', '-d', database, '-n', 'authority', '-t', 'C,,', '-i', authority])
    return oneByOne(async ({ port, name, version, scheme }) => {
      const versions = `tls${number(version)}:tls${number(version)}`
      // It has no name for Ed25519.
      const schemes = scheme === undefined || scheme === 'ed25519' ? [] : ['-J', scheme]
      const server = ['-4', '-h', '127.0.0.1', '-a', name, '-p', String(port)]
      const told = await ask(name, 'tstclnt', [...server, '-d', database, '-V', versions, ...schemes, '-v'])
      return { ...parseAnswer(told), scheme: /Signature Scheme: (\S+)/.exec(told)?.[1] ?? '' }
    })
  },
}

const openssl: TlsLibrary = {
  isHere: true,
  choosesScheme: true,
  tellsScheme: true,
  async open(_folder, authority) {
    return oneByOne(async ({ port, name, version, scheme = '' }) => {
      const told = await ask(name, 'openssl', [
        ...['s_client', '-ign_eof', '-connect', `127.0.0.1:${port}`, '-servername', name],
        ...['-verify_hostname', name, '-verify_return_error', '-CAfile', authority],
        ...[`-tls${number(version).replace('.', '_')}`, '-sigalgs', scheme],
      ])
      const type = /^Peer signature type: (.*)$/m.exec(told)?.[1] ?? ''
      const digest = /^Peer signing digest: (.*)$/m.exec(told)?.[1]
      const said = digest === undefined ? type : `${type} ${digest}`
      return { ...parseAnswer(told), scheme: said === opensslName(scheme) ? scheme : said }
    })
  },
}

function opensslName(scheme: string): string {
  const [, type = '', digest = ''] = /^(rsa_pss|rsa|ecdsa).*_(sha\d+)$/.exec(scheme) ?? []
  return type === '' ? scheme : `${type.replace('_', '-')} ${digest}`.toUpperCase()
}

const curl: TlsLibrary = {
  isHere: true,
  choosesScheme: false,
  tellsScheme: false,
  async open(_folder, authority) {
    return oneByOne(async ({ port, name, version }) => {
      const versions = [`--tlsv${number(version)}`, '--tls-max', number(version)]
      const told = await ask(name, 'curl', [
        ...['--disable', '--silent', '--show-error', '--include', '--cacert', authority, ...versions],
        ...['--resolve', `${name}:${port}:127.0.0.1`, `https://${name}:${port}/`],
      ])
      return parseAnswer(told)
    })
  },
}

const node: TlsLibrary = {
  isHere: true,
  choosesScheme: true,
  tellsScheme: false,
  async open(_folder, authority) {
    return oneByOne(async ({ port, name, version, scheme }) => {
      const tls = { servername: name, minVersion: version, maxVersion: version, sigalgs: scheme }
      const { status, protocol } = await visit(port, [{ certificate: authority }], tls)
      return { status, protocol }
    })
  },
}

const python: TlsLibrary = {
  isHere: true,
  choosesScheme: false,
  tellsScheme: false,
  open: async (_folder, authority) => openProgram('python3', [source('visit.py'), authority]),
}

const go: TlsLibrary = {
  isHere: isOnPath('go'),
  choosesScheme: false,
  tellsScheme: false,
  async open(folder, authority) {
    const program = path.join(folder, 'visit')
    const env = {
      PATH: process.env.PATH ?? '',
      HOME: folder,
      GOCACHE: path.join(cache, 'go-build'),
      GOTOOLCHAIN: 'local',
    }
    await runOk('go', ['build', '-o', program, source('visit.go')], { env })
    return openProgram(program, [authority])
  },
}

const java: TlsLibrary = {
  isHere: isOnPath('javac') && javaRelease() >= 17,
  choosesScheme: false,
  tellsScheme: false,
  open: async (_folder, authority) => openProgram('java', [source('Visit.java'), authority]),
}

/** Older than 9: none, since they do not know the option. Ed25519 came to its TLS after 15. */
function javaRelease(): number {
  const { stdout } = spawnSync('java', ['--version'], { encoding: 'utf8' })
  return Number(/^\w+ (\d+)/.exec(stdout)?.[1] ?? 0)
}

/** By their names; all but the last two are there once deploy/setup.sh has made a checkout ready for tests. */
export const tlsLibraries = {
  GnuTLS: gnutls,
  NSS: nss,
  OpenSSL: openssl,
  curl,
  Node: node,
  Python: python,
  Go: go,
  Java: java,
}
export type TlsLibraryName = keyof typeof tlsLibraries

/** Runs a program that takes the request from its standard input; all it said. */
async function ask(name: string, program: string, args: readonly string[]): Promise<string> {
  const input = Buffer.from(`GET / HTTP/1.0\r\nHost: ${name}\r\n\r\n`)
  const { status, stdout, stderr } = await run(program, args, { input })
  const told = `${stdout}${stderr}`
  if (status !== 0) throw new Error(`${program} ended with ${status}: ${told}`)
  return told
}

function parseAnswer(told: string): { readonly status: number; readonly protocol: string } {
  const [, status] = /HTTP\/1\.\d (\d{3})/.exec(told) ?? []
  const [, protocol] = /served over (\S+)/.exec(told) ?? []
  if (status === undefined || protocol === undefined) throw new Error(told)
  return { status: Number(status), protocol }
}

function oneByOne(visitOnce: (target: Target) => Promise<Seen>, close = async () => {}): TlsClient {
  let last: Promise<unknown> = Promise.resolve()
  return {
    visit(target) {
      const seen = last.then(() => visitOnce(target))
      last = seen.catch(() => {})
      return seen
    },
    [Symbol.asyncDispose]: close,
  }
}

/** A program of tls-clients/: a line for each target, a line for what it saw. */
function openProgram(program: string, args: readonly string[]): TlsClient {
  const child = spawn(program, args, { env: { PATH: process.env.PATH ?? '' } })
  child.stdin.on('error', () => {}) // it may have ended
  const exit = new Promise((resolve) => child.once('close', resolve))
  const said = text(child.stderr)
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  return oneByOne(
    async ({ port, name, version }) => {
      child.stdin.write(`${port} ${name} ${version}\n`)
      const { value, done } = await lines.next()
      if (done === true) throw new Error(`${program} ended: ${await said}`)
      return parseAnswer(value)
    },
    async () => {
      child.stdin.end()
      await exit
    },
  )
}
