/**
 * NGINX, Apache and HAProxy of Debian's packages with many names on one port, which speak HTTP/2 and have RSA key exchange switched on, and with
 * a second port for clients of yesterday (TLS 1.0 and 1.1, all ciphers).
 */
import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { type CommandResult, run } from './command.ts'
import { checkNginx, startNginx } from './nginx.ts'
import { findProgram, type SiteOptions, startApache, startHaproxy } from './web-servers.ts'

export interface VirtualHost {
  readonly name: string
  /** Certificate chain, and key or key reference, of each key. */
  readonly pairs: SiteOptions['pairs']
  /** Its OCSP answers: a DER file (HAProxy, NGINX) or a responder (NGINX, Apache). */
  readonly staple?: { readonly file: string } | { readonly url: string }
}

export interface VirtualHosts {
  readonly port: number
  /** The first one is for clients that name none. */
  readonly hosts: readonly VirtualHost[]
  readonly oldPort: number
  readonly oldHosts: readonly VirtualHost[]
  readonly env: Readonly<Record<string, string>>
}

export interface HostsServer extends AsyncDisposable {
  errorLog(): string
  /** Of the configuration: `nginx -t`, `apache2 -t`, `haproxy -c`. */
  check(): Promise<CommandResult>
}

const ciphers = 'ECDHE+AESGCM:AES128-GCM-SHA256'
const oldCiphers = 'ALL:@SECLEVEL=0'

/** With two workers. */
export async function startNginxHosts(all: VirtualHosts): Promise<HostsServer> {
  const serverOf = (head: string) => (host: VirtualHost) => {
    const keys = host.pairs.map(
      ({ certificate, reference }) => `ssl_certificate ${certificate}; ssl_certificate_key ${reference};`,
    )
    return `server { ${head} server_name ${host.name}; ${keys.join(' ')} ${nginxStaple(host)} location / { return 200; } }`
  }
  const now = `listen 127.0.0.1:${all.port} ssl http2; ssl_protocols TLSv1.2 TLSv1.3; ssl_ciphers ${ciphers};`
  const old = `listen 127.0.0.1:${all.oldPort} ssl; ssl_protocols TLSv1 TLSv1.1 TLSv1.2; ssl_ciphers ${oldCiphers};`
  const servers = [...all.hosts.map(serverOf(now)), ...all.oldHosts.map(serverOf(old))]
  const options = { env: all.env, http: `ssl_session_cache off; ssl_session_tickets off;\n${servers.join('\n')}` }
  const nginx = await startNginx(all.port, { ...options, workers: 2 })
  return { ...nginx, check: () => checkNginx(options) }
}

function nginxStaple({ staple }: VirtualHost): string {
  if (staple === undefined) return ''
  const source = 'file' in staple ? `ssl_stapling_file ${staple.file}` : `ssl_stapling_responder ${staple.url}`
  return `ssl_stapling on; ${source};`
}

/** MPM event. */
export async function startApacheHosts(all: VirtualHosts): Promise<HostsServer> {
  const siteOf = (port: number, lines: string) => (host: VirtualHost) => {
    const keys = host.pairs.map(
      ({ certificate, reference }) => `SSLCertificateFile ${certificate}\n  SSLCertificateKeyFile ${reference}`,
    )
    const { staple } = host
    const url = staple !== undefined && 'url' in staple ? staple.url : undefined
    return `<VirtualHost 127.0.0.1:${port}>
  ServerName ${host.name}
  SSLEngine on
  ${lines}
  ${keys.join('\n  ')}
  ${url === undefined ? '' : `SSLUseStapling on\n  SSLStaplingForceURL ${url}`}
  Redirect 200 /
</VirtualHost>`
  }
  const now = `SSLProtocol -all +TLSv1.2 +TLSv1.3\n  SSLCipherSuite ${ciphers}`
  const old = `SSLProtocol -all +TLSv1 +TLSv1.1 +TLSv1.2\n  SSLCipherSuite ${oldCiphers}`
  const main = `LoadModule http2_module /usr/lib/apache2/modules/mod_http2.so
LoadModule socache_shmcb_module /usr/lib/apache2/modules/mod_socache_shmcb.so
SSLStaplingCache shmcb:stapling(131072)
Protocols h2 http/1.1
KeepAlive On
Listen 127.0.0.1:${all.oldPort}
${all.hosts.map(siteOf(all.port, now)).join('\n')}
${all.oldHosts.map(siteOf(all.oldPort, old)).join('\n')}`
  const apache = await startApache('event', { port: all.port, pairs: all.hosts[0]?.pairs ?? [], env: all.env, main })
  const words = ['-t', '-f', path.join(apache.folder, 'apache2.conf')]
  return { ...apache, check: () => run(findProgram('apache2'), words, { env: all.env }) }
}

/** In asynchronous mode. `folder`: for the files that it reads. */
export async function startHaproxyHosts(all: VirtualHosts, folder: string): Promise<HostsServer> {
  const write = (name: string, hosts: readonly VirtualHost[]): string => {
    const place = path.join(folder, name)
    mkdirSync(place)
    for (const { name: host, pairs, staple } of hosts) {
      for (const [index, { certificate, reference }] of pairs.entries()) {
        const pem = path.join(place, `${host}.pem${pairs.length === 1 ? '' : ['.rsa', '.ecdsa'][index]}`)
        writeFileSync(pem, readFileSync(certificate, 'utf8') + readFileSync(reference, 'utf8'), { mode: 0o600 })
        if (staple !== undefined && 'file' in staple) copyFileSync(staple.file, `${pem}.ocsp`)
      }
    }
    return place
  }
  const bind = `crt ${write('now', all.hosts)} ciphers ${ciphers} alpn h2,http/1.1`
  const old = `ssl crt ${write('old', all.oldHosts)} ciphers ${oldCiphers} ssl-min-ver TLSv1.0 ssl-max-ver TLSv1.2`
  const haproxy = await startHaproxy({
    port: all.port,
    pairs: all.hosts[0]?.pairs ?? [],
    env: all.env,
    isAsync: true,
    bind,
    more: `bind 127.0.0.1:${all.oldPort} ${old}\n  no option httpclose`,
  })
  const words = ['-c', '-f', path.join(haproxy.folder, 'haproxy.cfg')]
  return { ...haproxy, check: () => run(findProgram('haproxy'), words, { env: all.env }) }
}
