/** The configuration that deploy/ ships for TLS servers, read by the servers themselves: only paths and ports differ from what is copied. */
import { generateKeyPairSync, randomBytes } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { encodeReferencePem } from '../../../src/tls-reference.ts'
import { type CommandResult, run, runOk } from '../../support/command.ts'
import { checkNginx } from '../../support/nginx.ts'
import { buildProvider, writeOpensslConf } from '../../support/provider.ts'
import { findProgram } from '../../support/web-servers.ts'

const deploy = path.resolve(import.meta.dirname, '../../../deploy')
const read = (file: string) => readFileSync(path.join(deploy, file), 'utf8')
let folder: string
let env: Readonly<Record<string, string>>

/** A certificate and a reference of the same key. No gateway is asked when a server reads them. */
beforeAll(async () => {
  buildProvider()
  folder = mkdtempSync(path.join(tmpdir(), 'hsmgate-deploy-'))
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const key = path.join(folder, 'key.pem')
  writeFileSync(key, privateKey.export({ type: 'pkcs8', format: 'pem' }))
  const words = ['req', '-x509', '-new', '-key', key, '-subj', '/CN=shop.example', '-days', '2']
  const certificate = (await runOk('openssl', words)).toString()
  const reference = encodeReferencePem({
    publicKey: publicKey.export({ type: 'spki', format: 'der' }),
    token: randomBytes(32),
  })
  writeFileSync(path.join(folder, 'shop.pem'), certificate)
  writeFileSync(path.join(folder, 'shop.ref.pem'), reference)
  writeFileSync(path.join(folder, 'bundle.pem'), certificate + reference)
  const conf = writeOpensslConf(folder, read('openssl/openssl.cnf'), path.join(folder, 'sign.sock'))
  env = { PATH: '/usr/sbin:/usr/bin:/bin', OPENSSL_CONF: conf }
}, 600_000)
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const placed = (file: string) =>
  read(file)
    .replaceAll('/etc/ssl/hsmgate', folder)
    .replace('/etc/haproxy/certs/shop.pem', path.join(folder, 'bundle.pem'))

const checkApache = (environment: Readonly<Record<string, string>>): Promise<CommandResult> => {
  const modules = ['mpm_event', 'authz_core', 'ssl']
  const file = path.join(folder, 'apache2.conf')
  writeFileSync(
    file,
    `ServerRoot ${folder}
DefaultRuntimeDir ${folder}
ServerName localhost
ErrorLog ${folder}/error.log
${modules.map((name) => `LoadModule ${name}_module /usr/lib/apache2/modules/mod_${name}.so`).join('\n')}
${placed('apache/site.conf').replace('/var/www/html', folder)}`,
  )
  return run(findProgram('apache2'), ['-t', '-f', file], { env: environment })
}

const checkHaproxy = (environment: Readonly<Record<string, string>>): Promise<CommandResult> => {
  const file = path.join(folder, 'haproxy.cfg')
  writeFileSync(file, placed('haproxy/haproxy.cfg'))
  return run(findProgram('haproxy'), ['-c', '-f', file], { env: environment })
}

describe('the site of', () => {
  const servers = [
    ['NGINX', (environment: typeof env) => checkNginx({ http: placed('nginx/site.conf'), env: environment })],
    ['Apache', checkApache],
    ['HAProxy', checkHaproxy],
  ] as const

  it.each(servers)('%s is accepted, gateway or not', { timeout: 60_000 }, async (_name, check) => {
    const { status, stderr } = await check(env)
    expect([status, stderr]).toEqual([0, expect.not.stringMatching(/warn|deprecat/i)])
  })

  // Apache's own check does not look into files of keys; it fails when it starts.
  it.each(servers.filter(([name]) => name !== 'Apache'))(
    '%s is refused without OPENSSL_CONF',
    { timeout: 60_000 },
    async (_name, check) => {
      const { status } = await check({ PATH: env.PATH as string })
      expect(status).not.toBe(0)
    },
  )
})

describe('the line for the top of nginx.conf', () => {
  it('stands outside of http { }', { timeout: 60_000 }, async () => {
    const main = read('nginx/modules-enabled.conf')
    expect((await checkNginx({ http: '', main, env })).status).toBe(0)
    expect((await checkNginx({ http: main, env })).status).not.toBe(0)
  })
})

describe('the lines for envvars', () => {
  it('are shell, and name the file that the other servers name', async () => {
    const script = `${read('apache/envvars')}\nprintf '%s %s' "$OPENSSL_CONF" "$HSMGATE_POOL"`
    const said = (await runOk('/bin/sh', ['-eu', '-c', script])).toString()
    expect(said).toMatch(/^\/etc\/hsmgate\/openssl\.cnf \d+$/)
    for (const unit of ['nginx/nginx.service.d.conf', 'haproxy/haproxy.service.d.conf']) {
      expect(read(unit)).toContain(`\nEnvironment=OPENSSL_CONF=${said.split(' ')[0]}\n`)
    }
  })
})

describe('the socket of HAProxy', () => {
  it('lies inside the chroot at the path that openssl.cnf names', () => {
    const [, socket] = /^hsmgate-endpoints = (.*)$/m.exec(read('openssl/openssl.cnf')) ?? []
    expect(read('haproxy/hsmgate-sign-haproxy.socket')).toContain(`\nListenStream=/var/lib/haproxy${socket}\n`)
  })
})
