/**
 * Sites of NGINX (nginx.ts), Apache and HAProxy of Debian's packages on loopback, each with a folder of its own, in the foreground. As root their
 * workers become www-data, as they do in Debian.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { X509Certificate } from 'node:crypto'
import { once } from 'node:events'
import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import { type Nginx, startNginx } from './nginx.ts'

export interface WebServer extends AsyncDisposable {
  readonly folder: string
  readonly pid: number
  errorLog(): string
  /** A graceful restart: resolves when new processes serve. */
  reload(): Promise<void>
}

export interface SiteOptions {
  readonly port: number
  /** Certificate and key reference of each key: the site serves all of them. */
  readonly pairs: readonly { readonly certificate: string; readonly reference: string }[]
  readonly env: Readonly<Record<string, string>>
  /** Lines of the server's own configuration. */
  readonly more?: string
}

export interface Haproxy extends WebServer {
  /** The file of the certificate and its key, by which commands name it. */
  readonly pem: string
  /** A command of the runtime API; answers what HAProxy says. */
  ask(command: string): Promise<string>
}

const isRoot = process.getuid?.() === 0

function newFolder(name: string): string {
  const folder = mkdtempSync(path.join(tmpdir(), `hsmgate-${name}-`))
  chmodSync(folder, 0o755)
  return folder
}

/** NGINX with a site like those below. */
export function startNginxSite({ port, pairs, env, more = '' }: SiteOptions, workers = 1): Promise<Nginx> {
  return startNginx(port, { env, workers, http: nginxSite({ port, pairs, more }) })
}

/** What stands inside `http { }`: `more` after the site, `server` inside of it. */
export function nginxSite({
  port,
  pairs,
  more = '',
  server = '',
}: Omit<SiteOptions, 'env'> & { readonly server?: string }): string {
  const keys = pairs.map(
    ({ certificate, reference }) => `ssl_certificate ${certificate}; ssl_certificate_key ${reference};`,
  )
  return `ssl_protocols TLSv1.2 TLSv1.3; ssl_session_cache off; ssl_session_tickets off; keepalive_timeout 0;
  server { listen 127.0.0.1:${port} ssl; ${keys.join(' ')} ${server} location / { return 200; } } ${more}`
}

/** `mpm`: event or prefork. `main`: lines behind the site, outside of its virtual host. */
export async function startApache(
  mpm: 'event' | 'prefork',
  site: SiteOptions & { readonly main?: string },
): Promise<WebServer> {
  const folder = newFolder('apache')
  const modules = [`mpm_${mpm}`, 'authz_core', 'ssl', 'alias']
  const file = path.join(folder, 'apache2.conf')
  writeFileSync(
    file,
    `ServerRoot ${folder}
PidFile ${folder}/apache.pid
DefaultRuntimeDir ${folder}
Mutex file:${folder} default
${isRoot ? 'User www-data\nGroup www-data' : ''}
${modules.map((name) => `LoadModule ${name}_module /usr/lib/apache2/modules/mod_${name}.so`).join('\n')}
ErrorLog ${folder}/error.log
LogLevel notice
ServerName localhost
Listen 127.0.0.1:${site.port}
KeepAlive Off
SSLSessionCache none
SSLSessionTickets off
${mpm === 'event' ? 'StartServers 1\nServerLimit 4\nThreadsPerChild 16\nMaxRequestWorkers 32\nMinSpareThreads 16\nMaxSpareThreads 32' : 'StartServers 2\nMaxRequestWorkers 16'}
<VirtualHost 127.0.0.1:${site.port}>
  SSLEngine on
  SSLProtocol -all +TLSv1.2 +TLSv1.3
${site.pairs.map(({ certificate, reference }) => `  SSLCertificateFile ${certificate}\n  SSLCertificateKeyFile ${reference}`).join('\n')}
  Redirect 200 /
  ${site.more ?? ''}
</VirtualHost>
${site.main ?? ''}
`,
  )
  const child = spawn(findProgram('apache2'), ['-D', 'FOREGROUND', '-f', file], {
    env: { PATH: '/usr/sbin:/usr/bin:/bin', ...site.env },
    stdio: ['ignore', 'ignore', 'pipe'],
    // It ends its whole process group.
    detached: true,
  })
  const errorLog = () => readIfThere(path.join(folder, 'error.log'))
  const server = await supervise(child, folder, site.port, errorLog, 'SIGTERM')
  return {
    ...server,
    async reload() {
      const count = () => errorLog().match(/resuming normal operations/g)?.length ?? 0
      const before = count()
      child.kill('SIGUSR1')
      await server.until(() => count() > before)
    },
  }
}

/** In master-worker mode, which reloads. `bind`: more words of the site's `bind` line. */
export async function startHaproxy(
  site: SiteOptions & { readonly isAsync?: boolean; readonly bind?: string },
): Promise<Haproxy> {
  const folder = newFolder('haproxy')
  // Certificates for the same name are one bundle: files that differ in their suffix.
  const pem = path.join(folder, 'site.pem')
  for (const { certificate, reference } of site.pairs) {
    const text = readFileSync(certificate, 'utf8')
    const { asymmetricKeyType } = new X509Certificate(text).publicKey
    const suffix = site.pairs.length === 1 ? '' : asymmetricKeyType === 'rsa' ? '.rsa' : '.ecdsa'
    writeFileSync(pem + suffix, readFileSync(reference, 'utf8') + text, { mode: 0o600 })
  }
  const file = path.join(folder, 'haproxy.cfg')
  writeFileSync(
    file,
    `global
  nbthread 2
  ${isRoot ? 'user www-data\n  group www-data' : ''}
  stats socket ${folder}/admin.sock level admin
  ${site.isAsync ? 'ssl-mode-async' : ''}
  tune.ssl.cachesize 0
  ssl-default-bind-options ssl-min-ver TLSv1.2 no-tls-tickets
defaults
  mode http
  timeout connect 5s
  timeout client 10s
  timeout server 10s
  option httpclose
frontend site
  bind 127.0.0.1:${site.port} ssl crt ${pem} ${site.bind ?? ''}
  http-request return status 200
  ${site.more ?? ''}
`,
  )
  let said = ''
  const child = spawn(findProgram('haproxy'), ['-W', '-f', file], {
    env: { PATH: '/usr/sbin:/usr/bin:/bin', ...site.env },
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  child.stderr?.on('data', (chunk: Buffer) => {
    said += chunk
  })
  const errorLog = () => said
  const server = await supervise(child, folder, site.port, errorLog, 'SIGTERM')
  // Its sockets come one after the other.
  await server.until(() => said.includes('Loading success'))
  return {
    ...server,
    pem,
    ask(command) {
      const socket = connect(path.join(folder, 'admin.sock'))
      socket.end(`${command}\n`)
      return text(socket)
    },
    async reload() {
      const count = (pattern: RegExp) => said.match(pattern)?.length ?? 0
      const reloads = () => count(/Reloading HAProxy/g)
      const before = reloads()
      let sentAtMs = Number.NEGATIVE_INFINITY
      await server.until(() => {
        // A master that is not in its loop yet loses the signal.
        if (reloads() === before && performance.now() - sentAtMs > 100) {
          child.kill('SIGUSR2')
          sentAtMs = performance.now()
        }
        if (said.includes('Loading failure')) throw new Error(said)
        return reloads() > before && count(/Loading success/g) > reloads()
      })
    },
  }
}

function readIfThere(file: string): string {
  return existsSync(file) ? readFileSync(file, 'utf8') : ''
}

/** What deploy/setup.sh looks for, in its order. */
export function findProgram(name: string): string {
  const unpacked = fileURLToPath(new URL(`../../node_modules/.cache/${name}/${name}`, import.meta.url))
  return [`/usr/sbin/${name}`, unpacked].find((place) => existsSync(place)) ?? name
}

async function supervise(
  child: ChildProcess,
  folder: string,
  port: number,
  errorLog: () => string,
  stop: NodeJS.Signals,
) {
  let said = ''
  child.stderr?.on('data', (chunk: Buffer) => {
    said += chunk
  })
  let ended = false
  child.once('exit', () => {
    ended = true
  })
  const until = async (condition: () => boolean | Promise<boolean>): Promise<void> => {
    while (!(await condition())) {
      if (ended) throw new Error(`${child.spawnfile} ended: ${said}${errorLog()}`)
      await new Promise((resolve) => setTimeout(resolve, 10))
    }
  }
  try {
    await until(() => isListening(port))
  } catch (cause) {
    rmSync(folder, { recursive: true, force: true })
    throw cause
  }
  return {
    folder,
    pid: child.pid ?? 0,
    errorLog,
    until,
    async [Symbol.asyncDispose]() {
      if (!ended) {
        const exit = once(child, 'exit')
        child.kill(stop)
        await exit
      }
      rmSync(folder, { recursive: true, force: true })
    },
  }
}

function isListening(port: number): Promise<boolean> {
  const socket = connect(port, '127.0.0.1')
  return new Promise<boolean>((resolve) => {
    socket.once('connect', () => resolve(true))
    socket.once('error', () => resolve(false))
  }).finally(() => socket.destroy())
}
