/**
 * One NGINX with many named sites on one port (SNI), whose keys are in a token and whose certificates come from authorities of the test. Each
 * site has a binding of its own, so that the journal tells whose handshake a signature was for; sites may share a key.
 */
import { writeFileSync } from 'node:fs'
import path from 'node:path'
import { encodeReferencePem } from '../../src/tls-reference.ts'
import { runOk } from './command.ts'
import type { TestGateway } from './gateway.ts'
import { findFreePort, type Nginx, startNginx } from './nginx.ts'
import { type BoundKey, bindKey, createTlsKey } from './offload.ts'
import type { TlsSites } from './tls-sites.ts'

export interface Authority {
  /** PEM files. */
  readonly certificate: string
  readonly key: string
}

export interface NamedSite extends BoundKey {
  readonly host: string
  readonly certificate: string
  readonly reference: string
}

export async function createAuthority({ folder }: TlsSites, name: string): Promise<Authority> {
  const [certificate, key] = [path.join(folder, `${name}.pem`), path.join(folder, `${name}.key`)]
  await runOk('openssl', [
    ...['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-noenc', '-days', '2'],
    ...['-subj', `/CN=${name}`, '-addext', 'keyUsage=critical,keyCertSign', '-keyout', key, '-out', certificate],
  ])
  return { certificate, key }
}

/** Sites for `hosts`, with one new key and one certificate in the name of `names`. */
export async function createSites(
  gateway: TestGateway,
  { folder }: TlsSites,
  authority: Authority,
  spec: string,
  hosts: readonly string[],
  names = hosts,
): Promise<readonly NamedSite[]> {
  const key = await createTlsKey(gateway, spec)
  const { request } = await gateway.ask<{ request: string }>('tls', 'csr', { key: key.keyId, san: names.join(',') })
  const place = (suffix: string) => path.join(folder, `${key.keyId}.${suffix}`)
  // NSS takes an RSA key for a server's only with keyEncipherment, whatever the handshake needs.
  const usage = spec.startsWith('RSA') ? 'digitalSignature,keyEncipherment' : 'digitalSignature'
  writeFileSync(
    place('ext'),
    `keyUsage=critical,${usage}\nextendedKeyUsage=serverAuth\nbasicConstraints=critical,CA:FALSE\n`,
  )
  await runOk(
    'openssl',
    [
      ...['x509', '-req', '-CA', authority.certificate, '-CAkey', authority.key, '-days', '2'],
      ...['-copy_extensions', 'copy', '-extfile', place('ext'), '-out', place('crt')],
    ],
    { input: Buffer.from(request) },
  )
  const sites: NamedSite[] = []
  for (const host of hosts) {
    const bound = await bindKey(gateway, key)
    const publicKey = bound.publicKey.export({ type: 'spki', format: 'der' })
    const reference = path.join(folder, `${host}.ref.pem`)
    writeFileSync(reference, encodeReferencePem({ publicKey, token: bound.token }), { mode: 0o600 })
    sites.push({ ...bound, host, certificate: place('crt'), reference })
  }
  return sites
}

/** `body` may hold NGINX's variables. Sessions are not resumed. */
export async function serveSites(
  { env }: TlsSites,
  sites: readonly NamedSite[],
  body: string,
): Promise<{ readonly port: number; readonly nginx: Nginx }> {
  const port = await findFreePort()
  const servers = sites.map(
    ({ host, certificate, reference }) => `server { listen 127.0.0.1:${port} ssl; server_name ${host};
    ssl_certificate ${certificate}; ssl_certificate_key ${reference}; location / { return 200 "${body}\\n"; } }`,
  )
  const http = `ssl_protocols TLSv1.2 TLSv1.3; ssl_session_cache off; ssl_session_tickets off; keepalive_timeout 0;
  server_names_hash_bucket_size 128;
  ${servers.join('\n  ')}`
  return { port, nginx: await startNginx(port, { env, http, workers: 2 }) }
}
