/** `hsmgate tls doctor`: what stands between a TLS server and its key is found and named, and a sound server is told so. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmod, chown, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { startGateway, type TestGateway } from '../support/gateway.ts'
import { createGatewayCli, type GatewayCli } from '../support/gateway-cli.ts'
import { runHsmgateProcess } from '../support/hsmgate-process.ts'
import { buildProvider, providerModule, writeOpensslConf } from '../support/provider.ts'

const isRoot = process.getuid?.() === 0
const template = path.resolve(import.meta.dirname, '../../deploy/openssl/openssl.cnf')

let gateway: TestGateway
let cli: GatewayCli
/** Open to all, with the signing socket in it. */
let folder: string
let conf: string
const file = (name: string) => path.join(folder, name)
const socket = () => file('sign.sock')

beforeAll(async () => {
  buildProvider()
  folder = await mkdtemp(path.join(tmpdir(), 'hsmgate-doctor-'))
  await chmod(folder, 0o755)
  gateway = await startGateway({
    config: { listen: { kms: null, operator: { http: null }, offload: { socket: socket(), mode: '0666' } } },
  })
  cli = await createGatewayCli(gateway)
  conf = writeOpensslConf(folder, await readFile(template, 'utf8'), socket())
}, 120_000)
afterAll(async () => {
  await gateway?.[Symbol.asyncDispose]()
  await rm(folder, { recursive: true, force: true })
})

let count = 0

/** A key with a certificate and a reference that the user of the test may use, unless told. */
async function makeSite(spec = 'ECC_NIST_P256', ...words: string[]) {
  const name = `site-${++count}`
  await cli.json('tls', 'create-key', '--spec', spec, '--alias', name)
  const reference = file(`${name}.ref.pem`)
  const cert = file(`${name}.pem`)
  const chosen = words.includes('--user') ? words : ['--user', String(process.getuid?.()), ...words]
  await cli.json('tls', 'bind', '--name', name, '--key', name, ...chosen, '--out', reference)
  await cli.json('tls', 'self-signed', '--key', name, '--san', 'a.example', '--out', cert)
  return { name, reference, cert }
}

/** A running TLS server; resolves when it accepts. */
async function startServer(
  words: readonly string[],
  env: NodeJS.ProcessEnv,
  who: { readonly uid?: number; readonly gid?: number } = {},
): Promise<ChildProcess & AsyncDisposable> {
  const server = spawn('openssl', ['s_server', '-accept', '127.0.0.1:0', ...words], {
    env: { PATH: '/usr/bin:/bin', ...env },
    stdio: ['pipe', 'pipe', 'pipe'],
    ...who,
  })
  let said = ''
  for await (const chunk of server.stdout) {
    said += String(chunk)
    if (said.includes('ACCEPT')) break
  }
  if (!said.includes('ACCEPT')) throw new Error(`openssl s_server ended: ${said}`)
  return Object.assign(server, {
    async [Symbol.asyncDispose]() {
      const ended = once(server, 'exit')
      server.kill('SIGKILL')
      await ended
    },
  })
}

const doctor = (...words: string[]) => cli.run('tls', 'doctor', ...words)

describe('hsmgate tls doctor', () => {
  it.each(['ECC_NIST_P256', 'ECC_NIST_P384', 'ECC_NIST_P521', 'RSA_2048', 'ECC_NIST_EDWARDS25519'])(
    'finds a server with a %s key in order, with a signature to prove it',
    async (spec) => {
      const { reference, cert } = await makeSite(spec)
      const { code, out, err } = await doctor('--openssl-conf', conf, '--reference', reference, '--cert', cert)
      expect({ code, err }).toEqual({ code: 0, err: '' })
      const [unseen, ...lines] = out.trimEnd().split('\n')
      expect(unseen).toMatch(/^- {4}server: no running one was named/)
      expect(lines.every((line) => line.startsWith('ok   '))).toBe(true)
      expect(lines.join('\n')).toMatch(/openssl\.cnf: makes OpenSSL load the provider/)
      expect(lines.join('\n')).toMatch(/hsmgate\.so: can be loaded by OpenSSL/)
      expect(lines.join('\n')).toMatch(/belongs to the key of the reference/)
      expect(lines.at(-1)).toMatch(/sign\.sock: signs as uid \d+, and the signature verifies \([\d.]+ ms\)$/)
    },
  )

  it('looks at a running server: its environment, its memory, the rights of its user', async () => {
    const { reference, cert } = await makeSite()
    await using server = await startServer(['-cert', cert, '-key', reference], { OPENSSL_CONF: conf })
    const { code, out } = await doctor('--pid', String(server.pid), '--reference', reference, '--cert', cert)
    expect(code).toBe(0)
    expect(out).toContain(`was started with OPENSSL_CONF=${conf}`)
    expect(out).toContain('has the provider in its memory')
    expect(out).toMatch(/sign\.sock: uid \d+ of process \d+ may connect/)
  })

  it('finds that a server was started without the provider', async () => {
    const words = ['-nocert', '-psk', 'aa', '-nocert']
    await using server = await startServer(words, {})
    const { code, out, err } = await doctor('--pid', String(server.pid))
    expect(code).toBe(1)
    expect(out).toMatch(/^BAD {2}process \d+: was started without OPENSSL_CONF/m)
    expect(err).toMatch(/remedy: set OPENSSL_CONF=.*nginx\.conf also needs `env OPENSSL_CONF;`/)
  })

  it('finds a configuration that OpenSSL reads otherwise than it was meant', async () => {
    const text = await readFile(conf, 'utf8')
    const without = file('without-default.cnf')
    await writeFile(without, text.replace(/^default = hsmgate_default$/m, ''))
    expect((await doctor('--openssl-conf', without)).err).toMatch(/leaves the default provider out/)
    const swapped = file('default-last.cnf')
    await writeFile(swapped, text.replace(/^(default = .*)\n(hsmgate = .*)$/m, '$2\n$1'))
    expect((await doctor('--openssl-conf', swapped)).err).toMatch(/names hsmgate before the default provider/)
    const missing = file('missing-module.cnf')
    await writeFile(missing, text.replace(providerModule, '/nonexistent/hsmgate.so'))
    const { code, err } = await doctor('--openssl-conf', missing)
    expect(code).toBe(1)
    expect(err).toMatch(/does not make OpenSSL load the provider/)
    expect(err).toMatch(/\/nonexistent\/hsmgate\.so: cannot be read \(ENOENT\)/)
    expect((await doctor('--openssl-conf', '/nonexistent.cnf')).err).toMatch(/OpenSSL starts without the provider/)
  })

  it('finds a provider that others can change, and one that is none', async () => {
    const provider = file('hsmgate.so')
    await writeFile(provider, await readFile(providerModule))
    await chmod(provider, 0o666)
    expect((await doctor('--provider', provider)).err).toMatch(/can be changed by others than its owner/)
    await writeFile(provider, 'no library')
    await chmod(provider, 0o644)
    expect((await doctor('--provider', provider)).err).toMatch(/cannot be loaded by OpenSSL/)
  })

  it('finds that certificate and reference are of different keys', async () => {
    const [one, other] = [await makeSite(), await makeSite()]
    const { code, err } = await doctor('--reference', one.reference, '--cert', other.cert)
    expect(code).toBe(1)
    expect(err).toMatch(/is for the key [0-9a-f]{64}, and the reference is for [0-9a-f]{64}/)
    expect((await doctor('--reference', one.reference, '--cert', one.reference)).err).toMatch(/holds no certificate/)
  })

  it('finds a token that was taken back, or that is for another user', async () => {
    const revoked = await makeSite()
    await cli.run('tls', 'revoke', revoked.name)
    const { code, err } = await doctor('--socket', socket(), '--reference', revoked.reference)
    expect(code).toBe(1)
    expect(err).toMatch(/refuses to sign for uid \d+/)
    const { tokenDigest } = await cli.json<{ tokenDigest: string }>('tls', 'show', revoked.reference)
    expect(err).toContain(`see with hsmgate tls list that a binding with the token ${tokenDigest.slice(0, 8)} is there`)
    const foreign = await makeSite('ECC_NIST_P256', '--user', '4000')
    expect((await doctor('--socket', socket(), '--reference', foreign.reference)).err).toMatch(/refuses to sign/)
  })

  it('signs whatever handshake the policies allow, and says when they allow none', async () => {
    for (const policy of ['tls12-server-ecdhe', 'tls13-client', 'any']) {
      const { reference } = await makeSite('ECC_NIST_P256', '--policy', policy)
      expect((await doctor('--openssl-conf', conf, '--reference', reference)).code).toBe(0)
    }
    const { reference } = await makeSite('ECC_NIST_P256', '--policy', 'x509')
    const { err } = await doctor('--openssl-conf', conf, '--reference', reference)
    expect(err).toMatch(/the policies of the binding allow no handshake signature/)
  })

  it('finds an endpoint that the provider does not know, and asks the one that it does', async () => {
    const { reference } = await makeSite('ECC_NIST_P256', '--endpoint', 'near')
    expect((await doctor('--openssl-conf', conf, '--reference', reference)).err).toMatch(
      /names the endpoint near, which the provider does not know/,
    )
    const named = file('named')
    await mkdir(named)
    const text = await readFile(template, 'utf8')
    const two = writeOpensslConf(named, text, `/nonexistent/sign.sock near=${socket()}`)
    expect(await doctor('--openssl-conf', two, '--reference', reference)).toMatchObject({ code: 0, err: '' })
  })

  it('finds a socket that is missing, and one that is none', async () => {
    const { reference } = await makeSite()
    const absent = await doctor('--socket', file('absent.sock'), '--reference', reference)
    expect(absent.err).toMatch(/absent\.sock: is missing\n {2}remedy: start the gateway/)
    await writeFile(file('plain'), '')
    expect((await doctor('--socket', file('plain'), '--reference', reference)).err).toMatch(/plain: is no socket/)
  })

  it('says what it did not try, and answers JSON to machines', async () => {
    const { code, out } = await cli.run('--json', 'tls', 'doctor', '--socket', socket(), '--provider', providerModule)
    expect(code).toBe(0)
    const { findings } = JSON.parse(out) as { findings: { status: string }[] }
    expect(findings.map(({ status }) => status)).toEqual(['not tried', 'not tried', 'good', 'good', 'not tried'])
  })

  it('refuses what is no process and no user', async () => {
    expect((await doctor('--pid', 'x')).err).toMatch(/x is no process id\n {2}remedy: .*systemctl show -P MainPID/)
    expect((await doctor('--user', 'nobody-of-that-name')).err).toMatch(/there is no user/)
    expect((await doctor('--pid', '999999999')).err).toMatch(/there is no such process/)
  })
})

describe.runIf(isRoot)('hsmgate tls doctor as root', () => {
  const asRoot = (...words: string[]) => runHsmgateProcess(['--config', cli.configFile, 'tls', 'doctor', ...words])

  it("signs as the server's user, from a reference that root alone may read", async () => {
    const { reference } = await makeSite('ECC_NIST_P256', '--user', 'www-data')
    const { code, out, err } = await asRoot('--openssl-conf', conf, '--reference', reference, '--user', 'www-data')
    expect({ code, err }).toEqual({ code: 0, err: '' })
    expect(out).toContain('user www-data may connect')
    expect(out).toContain('signs as user www-data, and the signature verifies')
  })

  it('finds the folder that is closed to that user', async () => {
    await chmod(folder, 0o700)
    const { code, err } = await asRoot('--socket', socket(), '--user', 'www-data')
    await chmod(folder, 0o755)
    expect(code).toBe(1)
    expect(err).toContain(`user www-data may not connect: ${folder} is closed to it`)
  })

  it('says how a user gets in: by the group of the socket, or by a socket for groups', async () => {
    try {
      await chown(socket(), 0, Number(execFileSync('id', ['-g', 'daemon'])))
      await chmod(socket(), 0o660)
      const { out, err } = await asRoot('--socket', socket(), '--user', 'www-data')
      expect(out).toContain('is a socket, mode 0660, group daemon')
      expect(err).toMatch(
        /www-data may not connect: .*sign\.sock is closed to it\n {2}remedy: usermod --append --groups daemon /,
      )
      await chmod(socket(), 0o600)
      expect((await asRoot('--socket', socket(), '--user', 'www-data')).err).toMatch(
        /remedy: give the socket mode 0660/,
      )
      await chown(socket(), 0, 0)
      await chmod(socket(), 0o660)
      expect((await asRoot('--socket', socket(), '--user', 'www-data')).err).toMatch(
        /remedy: give the socket mode 0660/,
      )
    } finally {
      await chown(socket(), 0, 0)
      await chmod(socket(), 0o666)
    }
  })

  it('sees that a running server does not know of a group that its user has come into', async () => {
    const [uid, gid] = ['-u', '-g'].map((option) => Number(execFileSync('id', [option, 'www-data'])))
    // as after usermod: the user is in the group of the socket, the process is not
    const nogroup = 65534
    await using server = await startServer(['-nocert', '-psk', 'aa'], {}, { uid: uid!, gid: nogroup })
    try {
      await chown(socket(), 0, gid!)
      await chmod(socket(), 0o660)
      const { out, err } = await asRoot('--pid', String(server.pid), '--socket', socket(), '--user', 'www-data')
      expect(out).toMatch(/^ok .*: user www-data may connect$/m)
      expect(err).toContain(`uid ${uid} of process ${server.pid} may not connect`)
      expect(err).toMatch(/remedy: usermod --append --groups www-data USER, then restart the server/)
    } finally {
      await chown(socket(), 0, 0)
      await chmod(socket(), 0o666)
    }
  })
})
