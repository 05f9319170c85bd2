/**
 * Programs that know nothing of hsmgate, with the openssl.cnf that deploy/openssl proposes: the openssl command line, s_server and s_client,
 * curl with a client certificate. Keys are software keys behind test/support/hks-endpoint.ts.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync, writeFileSync } from 'node:fs'
import { createServer as createTlsServer } from 'node:https'
import path from 'node:path'
import type { TLSSocket } from 'node:tls'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { inputKinds, signatureAlgorithms } from '../../src/transport/offload/frames.ts'
import { type CommandResult, run } from '../support/command.ts'
import { type HksEndpoint, type HksKey, startHksEndpoint } from '../support/hks-endpoint.ts'
import { buildProvider, writeOpensslConf } from '../support/provider.ts'

const template = readFileSync(path.join(import.meta.dirname, '../../deploy/openssl/openssl.cnf'), 'utf8')
const kinds = ['rsa', 'P-256', 'P-384', 'P-521', 'ed25519'] as const
type Kind = (typeof kinds)[number]
const hashed = ['rsa', 'P-256', 'P-384', 'P-521'] as const
let endpoint: HksEndpoint
let conf: string
const keys = new Map<string, HksKey>()

beforeAll(async () => {
  buildProvider()
  endpoint = await startHksEndpoint()
  conf = writeOpensslConf(endpoint.folder, template, endpoint.socketPath)
  for (const kind of kinds) keys.set(kind, endpoint.addKey(kind))
  keys.set('rsa-3072', endpoint.addKey('rsa', { bits: 3072 }))
  keys.set('rsa-4096', endpoint.addKey('rsa', { bits: 4096 }))
  for (const kind of keys.keys()) await certify(kind)
}, 600_000)
afterAll(() => endpoint[Symbol.asyncDispose]())
beforeEach(() => {
  endpoint.requests.length = 0
  endpoint.hellos.length = 0
})

const key = (kind: string): HksKey => {
  const found = keys.get(kind)
  if (found === undefined) throw new TypeError(`no key ${kind}`)
  return found
}
const file = (name: string) => path.join(endpoint.folder, name)
const write = (name: string, content: string | Buffer) => {
  writeFileSync(file(name), content)
  return file(name)
}
const certificate = (kind: string) => file(`${kind}.crt.pem`)

const withProvider = (program: string, args: readonly string[], input?: Buffer): Promise<CommandResult> =>
  run(program, args, {
    env: { PATH: process.env.PATH ?? '', OPENSSL_CONF: conf },
    ...(input === undefined ? {} : { input }),
  })
const openssl = (...args: readonly string[]) => withProvider('openssl', args)
/** Without the provider: what comes out has to satisfy an OpenSSL that does not know of it. */
const plainOpenssl = (...args: readonly string[]) => run('openssl', args)

async function succeeds(command: Promise<CommandResult>): Promise<string> {
  const { status, stdout, stderr } = await command
  expect(`${status} ${stderr}`).toMatch(/^0 /)
  return stdout.toString()
}

async function certify(kind: string): Promise<void> {
  const { reference } = key(kind)
  const names = ['-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost', '-days', '2']
  await succeeds(openssl('req', '-new', '-x509', '-key', reference, ...names, '-out', certificate(kind)))
}

/** The configuration of `openssl ca`, with a database of its own. */
function authority(kind: string): string {
  write(`${kind}.index`, '')
  write(`${kind}.number`, '01\n')
  const place = (what: string) => file(`${kind}.${what}`)
  return `.include ${conf}
[ca]
default_ca = authority
[authority]
database = ${place('index')}
serial = ${place('number')}
new_certs_dir = ${endpoint.folder}
default_md = ${kind === 'ed25519' ? 'default' : 'sha256'}
default_days = 1
policy = names
[names]
commonName = supplied
`
}

describe('openssl on the command line', () => {
  it('lists the provider', async () => {
    expect(await succeeds(openssl('list', '-providers'))).toMatch(/hsmgate\n\s+name: hsmgate signing provider/)
  })

  it.each(kinds)('shows the public half of a %s key, by file and by URI, and asks nobody for it', async (kind) => {
    const { reference, public: publicFile } = key(kind)
    const expected = readFileSync(publicFile, 'utf8')
    expect(await succeeds(openssl('pkey', '-in', reference, '-pubout'))).toBe(expected)
    expect(await succeeds(openssl('pkey', '-in', `hsmgate:${reference}`, '-pubout'))).toBe(expected)
    const ours = ['-propquery', 'provider=hsmgate']
    expect(await succeeds(openssl('pkey', '-in', `hsmgate:${reference}`, '-pubout', ...ours))).toBe(expected)
    expect(await succeeds(openssl('pkey', '-in', reference, '-noout', '-text'))).toMatch(
      /^hsmgate key reference, private key in the HSM\n[\s\S]*(modulus|pub):/i,
    )
    expect(endpoint.hellos).toEqual([])
  })

  it.each(kinds)('shows no private half of a %s key', async (kind) => {
    const { reference } = key(kind)
    const bundle = ['pkcs12', '-export', '-inkey', reference, '-in', certificate(kind), '-passout', 'pass:x']
    const pkcs8 = ['pkcs8', '-topk8', '-nocrypt', '-in', reference]
    const keys = [reference, `hsmgate:${reference}`].flatMap((place) => [
      ['pkey', '-in', place],
      ['pkey', '-in', place, '-outform', 'DER'],
      ['pkey', '-in', place, '-traditional'],
    ])
    for (const args of [...keys, bundle, pkcs8]) {
      const { status, stdout, stderr } = await openssl(...args)
      expect(status).not.toBe(0)
      expect(stdout.toString()).not.toContain('PRIVATE')
      // The form before PKCS#8 is OpenSSL's own to write: it asks for an export.
      expect(stderr).toMatch(/private key never leaves the HSM|keymgmt export failure/)
    }
    expect(endpoint.hellos).toEqual([])
  })

  it.each(kinds)('requests and makes certificates with a %s key', async (kind) => {
    const { reference } = key(kind)
    await succeeds(openssl('req', '-new', '-key', reference, '-subj', '/CN=x', '-out', file('x.csr')))
    await succeeds(plainOpenssl('req', '-verify', '-noout', '-in', file('x.csr')))
    const ca = ['-CA', certificate(kind), '-CAkey', reference, '-CAcreateserial']
    await succeeds(openssl('x509', '-req', '-in', file('x.csr'), ...ca, '-out', file('x.crt')))
    await succeeds(plainOpenssl('verify', '-CAfile', certificate(kind), file('x.crt')))
    expect(endpoint.requests.map(({ inputKind }) => inputKind)).toEqual([inputKinds.message, inputKinds.message])
  })

  it.each(kinds)('is an authority with a %s key', async (kind) => {
    const { reference } = key(kind)
    const ca = ['-cert', certificate(kind), '-keyfile', reference, '-config', write('ca.cnf', authority(kind))]
    await succeeds(openssl('req', '-new', '-key', reference, '-subj', '/CN=x', '-out', file('x.csr')))
    await succeeds(openssl('ca', ...ca, '-batch', '-notext', '-in', file('x.csr'), '-out', file('x.crt')))
    await succeeds(plainOpenssl('verify', '-CAfile', certificate(kind), file('x.crt')))
    await succeeds(openssl('ca', ...ca, '-gencrl', '-crldays', '1', '-out', file('x.crl')))
    const checked = await plainOpenssl('crl', '-in', file('x.crl'), '-CAfile', certificate(kind), '-noout')
    expect(checked.stderr).toContain('verify OK')
    expect(endpoint.requests.map(({ inputKind }) => inputKind)).toEqual(Array(3).fill(inputKinds.message))
  })

  it.each(kinds)('makes a certificate from nothing with a %s key', async (kind) => {
    const { reference, public: publicFile } = key(kind)
    const own = ['-new', '-subj', '/CN=x', '-days', '1', '-key', reference, '-out', file('own.crt')]
    await succeeds(openssl('x509', ...own))
    await succeeds(plainOpenssl('verify', '-CAfile', file('own.crt'), file('own.crt')))
    expect(await succeeds(plainOpenssl('x509', '-in', file('own.crt'), '-noout', '-pubkey'))).toBe(
      readFileSync(publicFile, 'utf8'),
    )
    expect(endpoint.requests).toHaveLength(1)
  })

  it('requests certificates with RSA-PSS, as RFC 4055 writes its parameters', async () => {
    const pss = ['-sigopt', 'rsa_padding_mode:pss', '-sigopt', 'rsa_pss_saltlen:digest', '-sha384']
    await succeeds(
      openssl('req', '-new', '-key', key('rsa').reference, '-subj', '/CN=x', ...pss, '-out', file('x.csr')),
    )
    const text = await succeeds(plainOpenssl('req', '-verify', '-noout', '-text', '-in', file('x.csr')))
    expect(text).toMatch(
      /rsassaPss[\s\S]*Hash Algorithm: sha384\s+Mask Algorithm: mgf1 with sha384\s+Salt Length: 0x30/,
    )
    expect(endpoint.requests[0]).toMatchObject({ algorithm: signatureAlgorithms.rsaPss, saltBytes: 48 })
  })

  describe.each(hashed)('with a %s key', (kind) => {
    it.each(['sha256', 'sha384', 'sha512'])('signs files with %s, small ones as they are', async (hash) => {
      const { reference, public: publicFile } = key(kind)
      for (const bytes of [0, 1000, 16_384, 16_385, 300_000]) {
        const data = write('data', Buffer.alloc(bytes, 7))
        await succeeds(openssl('dgst', `-${hash}`, '-sign', reference, '-out', file('sig'), data))
        const verified = await plainOpenssl('dgst', `-${hash}`, '-verify', publicFile, '-signature', file('sig'), data)
        expect(verified.stdout.toString()).toBe('Verified OK\n')
        expect(endpoint.requests.at(-1)?.inputKind).toBe(bytes <= 16_384 ? inputKinds.message : inputKinds.digest)
      }
    })

    it('signs a digest that somebody else made', async () => {
      const { reference, public: publicFile } = key(kind)
      const digest = write('digest', Buffer.alloc(32, 9))
      const hash = ['-pkeyopt', 'digest:sha256']
      await succeeds(openssl('pkeyutl', '-sign', '-inkey', reference, ...hash, '-in', digest, '-out', file('sig')))
      const verify = ['-verify', '-pubin', '-inkey', publicFile, ...hash, '-in', digest, '-sigfile', file('sig')]
      expect(await succeeds(plainOpenssl('pkeyutl', ...verify))).toContain('Signature Verified Successfully')
      expect(endpoint.requests[0]).toMatchObject({ inputKind: inputKinds.digest })
    })

    it('signs a message that pkeyutl hashes', async () => {
      const { reference, public: publicFile } = key(kind)
      const data = write('data', 'a message')
      const raw = ['-rawin', '-digest', 'sha384', '-in', data]
      await succeeds(openssl('pkeyutl', '-sign', '-inkey', reference, ...raw, '-out', file('sig')))
      const verify = ['-verify', '-pubin', '-inkey', publicFile, ...raw, '-sigfile', file('sig')]
      expect(await succeeds(plainOpenssl('pkeyutl', ...verify))).toContain('Signature Verified Successfully')
      expect(endpoint.requests.map(({ inputKind }) => inputKind)).toEqual([inputKinds.message])
    })

    it('signs CMS and S/MIME', async () => {
      const { reference } = key(kind)
      const data = write('data', 'a message\n')
      const signer = ['-sign', '-in', data, '-signer', certificate(kind), '-inkey', reference]
      const check = ['-CAfile', certificate(kind), '-purpose', 'any']
      await succeeds(openssl('cms', ...signer, '-nodetach', '-outform', 'PEM', '-out', file('cms')))
      expect(await succeeds(plainOpenssl('cms', '-verify', '-inform', 'PEM', '-in', file('cms'), ...check))).toContain(
        'a message',
      )
      await succeeds(openssl('smime', ...signer, '-out', file('smime')))
      expect(await succeeds(plainOpenssl('smime', '-verify', '-in', file('smime'), ...check))).toContain('a message')
      expect(endpoint.requests.map(({ inputKind }) => inputKind)).toEqual([inputKinds.message, inputKinds.message])
    })
  })

  it.each(['digest', 'max', 'auto', '20', '0'])('signs with RSA-PSS and a salt of length %s', async (salt) => {
    const { reference, public: publicFile } = key('rsa')
    const data = write('data', 'pss')
    const pss = (length: string) => ['-sigopt', 'rsa_padding_mode:pss', '-sigopt', `rsa_pss_saltlen:${length}`]
    await succeeds(openssl('dgst', '-sha256', ...pss(salt), '-sign', reference, '-out', file('sig'), data))
    const expected = { digest: 32, max: 222, auto: 222 }[salt] ?? Number(salt)
    expect(endpoint.requests[0]?.saltBytes).toBe(expected)
    const verified = ['-sha256', ...pss(String(expected)), '-verify', publicFile, '-signature', file('sig'), data]
    expect(await succeeds(plainOpenssl('dgst', ...verified))).toBe('Verified OK\n')
  })

  it('signs CMS with RSA-PSS', async () => {
    const data = write('data', 'a message\n')
    const signer = ['-signer', certificate('rsa'), '-inkey', key('rsa').reference, '-keyopt', 'rsa_padding_mode:pss']
    await succeeds(openssl('cms', '-sign', '-in', data, ...signer, '-nodetach', '-outform', 'PEM', '-out', file('cms')))
    const check = ['-CAfile', certificate('rsa'), '-purpose', 'any']
    expect(await succeeds(plainOpenssl('cms', '-verify', '-inform', 'PEM', '-in', file('cms'), ...check))).toContain(
      'a message',
    )
    expect(endpoint.requests[0]).toMatchObject({ algorithm: signatureAlgorithms.rsaPss })
  })

  it('signs a message with Ed25519 and no longer one than a frame holds', async () => {
    const { reference, public: publicFile } = key('ed25519')
    const sign = (data: string) =>
      openssl('pkeyutl', '-sign', '-rawin', '-inkey', reference, '-in', data, '-out', file('sig'))
    const data = write('data', Buffer.alloc(16_384))
    await succeeds(sign(data))
    const verify = ['-verify', '-rawin', '-pubin', '-inkey', publicFile, '-in', data, '-sigfile', file('sig')]
    expect(await succeeds(plainOpenssl('pkeyutl', ...verify))).toContain('Signature Verified Successfully')
    const { status, stderr } = await sign(write('data', Buffer.alloc(16_385)))
    expect(status).not.toBe(0)
    expect(stderr).toContain('input of wrong length')
  })

  it.each([
    ['SHA-1', ['dgst', '-sha1'], 'digest not supported'],
    ['no padding', ['dgst', '-sha256', '-sigopt', 'rsa_padding_mode:x931'], 'padding not supported'],
    [
      'a salt beyond the key',
      ['dgst', '-sha256', '-sigopt', 'rsa_padding_mode:pss', '-sigopt', 'rsa_pss_saltlen:223'],
      'salt length not valid',
    ],
  ])('refuses %s before anything is asked', async (_name, args, reason) => {
    const { status, stderr } = await openssl(
      ...args,
      '-sign',
      key('rsa').reference,
      '-out',
      file('sig'),
      write('data', 'x'),
    )
    expect(status).not.toBe(0)
    expect(stderr).toContain(reason)
    expect(endpoint.requests).toEqual([])
  })
})

describe('key reference files', () => {
  const reference = () => readFileSync(key('P-256').reference, 'utf8')
  const chain = () => readFileSync(certificate('P-256'), 'utf8')
  const readable: readonly (readonly [string, () => string])[] = [
    ['before a certificate', () => reference() + chain()],
    ['after a certificate', () => chain() + reference()],
    ['between certificates', () => chain() + reference() + chain()],
    ['with CRLF', () => reference().replaceAll('\n', '\r\n')],
    ['with text around', () => `Bag attributes: none\n\n${reference()}\ntrailing text`],
    ['without a newline at the end', () => reference().trimEnd()],
    ['behind a megabyte of garbage', () => `${'garbage of all kinds\n'.repeat(50_000)}${reference()}`],
    ['behind a megabyte without an end of line', () => `${'x'.repeat(1 << 20)}\n${reference()}`],
    ['behind bytes that are no text', () => `\0\x01\xff-----BEGIN\0\n${reference()}`],
    ['twice: the first counts', () => reference() + readFileSync(key('rsa').reference, 'utf8')],
  ]
  it.each(readable)('are read %s', async (_name, content) => {
    const expected = readFileSync(key('P-256').public, 'utf8')
    expect(await succeeds(openssl('pkey', '-pubout', '-in', write('file.pem', content())))).toBe(expected)
    // s_server reads the key with PEM_read_bio_PrivateKey's relatives, and compares it with the certificate
    await succeeds(openssl('x509', '-in', certificate('P-256'), '-signkey', file('file.pem'), '-noout'))
  })

  const broken: readonly (readonly [string, () => string, string])[] = [
    ['cut off', () => reference().slice(0, 200), 'it is cut off: its last line is missing'],
    ['a megabyte of garbage', () => wrap(Buffer.alloc(750_000, 'garbage').toString('base64')), 'longer than 16 KiB'],
    ['no base64', () => reference().replace('\nM', '\n!'), 'not base64'],
    ['encrypted', () => reference().replace('\n', '\nProc-Type: 4,ENCRYPTED\n\n'), 'its PEM has headers'],
    [
      'of a version that nobody knows',
      () => wrap(Buffer.from('3003020102', 'hex').toString('base64')),
      'its version is not 1',
    ],
    ['with another label at the end', () => reference().replace('END HSMGATE', 'END X'), 'another label'],
    ['of another public key', () => spoiled(), 'its key id is not the SHA-256 of its public key'],
  ]
  const wrap = (base64: string) =>
    `-----BEGIN HSMGATE KEY REFERENCE-----\n${base64.match(/.{1,64}/g)?.join('\n')}\n-----END HSMGATE KEY REFERENCE-----\n`
  function spoiled(): string {
    const der = Buffer.from(reference().replace(/-----[^-]+-----|\s/g, ''), 'base64')
    der[20] = (der[20] ?? 0) ^ 1
    return wrap(der.toString('base64'))
  }
  it.each(broken)('are refused with the reason when %s', async (_name, content, reason) => {
    const { status, stderr } = await openssl('pkey', '-pubout', '-in', write('file.pem', content()))
    expect(status).not.toBe(0)
    expect(stderr).toMatch(/hsmgate:[^:]*:key reference not readable/)
    expect(stderr).toContain(reason)
    expect(endpoint.hellos).toEqual([])
  })

  it.each([
    ['a head without a line of its own', () => `x${reference()}`],
    ['nothing', () => ''],
  ])('are not seen in %s', async (_name, content) => {
    const { status, stderr } = await openssl('pkey', '-pubout', '-in', write('file.pem', content()))
    expect(status).not.toBe(0)
    expect(stderr).toMatch(/unsupported|no start line|Could not read key/)
    expect(endpoint.hellos).toEqual([])
  })

  it.each([
    ['there are two', () => reference() + reference(), 'there is more than one in it'],
    ['it is longer than a megabyte', () => `${'x'.repeat(1 << 20)}\n${reference()}`, 'no file of at most 1 MiB'],
    ['there is none', chain, 'there is none in it'],
  ])('are refused by URI when %s', async (_name, content, reason) => {
    const { status, stderr } = await openssl('pkey', '-pubout', '-in', `hsmgate:${write('file.pem', content())}`)
    expect(status).not.toBe(0)
    expect(stderr).toContain(reason)
  })

  it('that belong to another certificate say whose they are', async () => {
    const args = ['-cert', certificate('P-256'), '-key', key('ed25519').reference, '-accept', '127.0.0.1:0']
    const other = await openssl('s_server', ...args)
    expect(other.status).not.toBe(0)
    const second = endpoint.addKey('P-256')
    const { status, stderr } = await openssl(
      's_server',
      '-cert',
      certificate('P-256'),
      '-key',
      second.reference,
      '-accept',
      '127.0.0.1:0',
    )
    expect(status).not.toBe(0)
    expect(stderr).toContain('key reference belongs to another public key')
    expect(stderr).toContain(
      `reference ${second.keyId.toString('hex')}, certificate ${key('P-256').keyId.toString('hex')}`,
    )
    expect(endpoint.hellos).toEqual([])
  })
})

describe('keys that are no references', () => {
  it.each(kinds)('are read as ever: a private key of kind %s in every form', async (kind) => {
    const { private: pem, public: publicFile } = key(kind)
    const expected = readFileSync(publicFile, 'utf8')
    const written = async (name: string, ...form: readonly string[]) => {
      await succeeds(plainOpenssl('pkey', '-in', pem, ...form, '-out', file(name)))
      return file(name)
    }
    const encrypted = ['pkcs8', '-topk8', '-in', pem, '-passout', 'pass:x', '-outform', 'DER']
    await succeeds(plainOpenssl(...encrypted, '-out', file('encrypted.der')))
    const files = [
      pem,
      await written('pkcs8.der', '-outform', 'DER'),
      await written('encrypted.pem', '-aes256', '-passout', 'pass:x'),
      file('encrypted.der'),
      ...(kind === 'ed25519' ? [] : [await written('traditional.pem', '-traditional')]),
    ]
    if (kind !== 'ed25519') {
      const type = kind === 'rsa' ? ['rsa', '-traditional'] : ['ec']
      await succeeds(plainOpenssl(...type, '-in', pem, '-outform', 'DER', '-out', file('traditional.der')))
      files.push(file('traditional.der'))
    }
    for (const place of files) {
      const said = await openssl('pkey', '-in', place, '-passin', 'pass:x', '-pubout')
      expect([place, said.stdout.toString(), said.stderr]).toEqual([place, expected, ''])
    }
    await succeeds(plainOpenssl('pkey', '-in', pem, '-pubout', '-outform', 'DER', '-out', file('public.der')))
    expect(await succeeds(openssl('pkey', '-pubin', '-in', file('public.der'), '-pubout'))).toBe(expected)
    await succeeds(plainOpenssl('x509', '-in', certificate(kind), '-outform', 'DER', '-out', file('crt.der')))
    expect(await succeeds(openssl('x509', '-in', file('crt.der'), '-noout', '-pubkey'))).toBe(expected)
    expect(endpoint.hellos).toEqual([])
  })

  it('leave nothing of hsmgate on the error queue when they are no keys at all', async () => {
    for (const content of [Buffer.alloc(300, 7), readFileSync(certificate('P-256')), Buffer.alloc(20_000, 0x30)]) {
      const { status, stderr } = await openssl('pkey', '-in', write('nothing.der', content), '-noout')
      expect([status, stderr]).toEqual([1, expect.not.stringContaining(':hsmgate:')])
    }
  })
})

/** An s_server on a port of its own; ends with the test. */
async function startServer(
  kind: string,
  ...args: readonly string[]
): Promise<AsyncDisposable & { readonly port: number }> {
  const server: ChildProcess = spawn(
    'openssl',
    ['s_server', '-accept', '127.0.0.1:0', '-cert', certificate(kind), '-key', key(kind).reference, '-www', ...args],
    { env: { PATH: process.env.PATH, OPENSSL_CONF: conf }, stdio: ['ignore', 'pipe', 'pipe'] },
  )
  const port = await new Promise<number>((resolve, reject) => {
    let said = ''
    const listen = (chunk: Buffer) => {
      said += chunk
      const [, number] = /ACCEPT 127\.0\.0\.1:(\d+)/.exec(said) ?? []
      if (number !== undefined) resolve(Number(number))
    }
    server.stdout?.on('data', listen)
    server.stderr?.on('data', listen)
    server.once('exit', () => reject(new Error(said)))
  })
  return {
    port,
    async [Symbol.asyncDispose]() {
      const exit = once(server, 'exit')
      server.kill()
      await exit
    },
  }
}

const cases: readonly (readonly [
  version: string,
  kind: string,
  sigalg: string,
  digest: string,
  type: string,
  bytes: number,
])[] = [
  ['1.2', 'rsa', 'RSA+SHA256', 'SHA256', 'RSA', 100],
  ['1.2', 'rsa', 'RSA+SHA512', 'SHA512', 'RSA', 100],
  ['1.2', 'rsa', 'RSA-PSS+SHA256', 'SHA256', 'RSA-PSS', 100],
  ['1.2', 'P-256', 'ECDSA+SHA256', 'SHA256', 'ECDSA', 100],
  ['1.2', 'P-256', 'ECDSA+SHA512', 'SHA512', 'ECDSA', 100],
  ['1.2', 'P-384', 'ECDSA+SHA384', 'SHA384', 'ECDSA', 100],
  ['1.2', 'P-521', 'ECDSA+SHA512', 'SHA512', 'ECDSA', 100],
  ['1.2', 'ed25519', 'ed25519', '', 'ed25519', 100],
  ['1.3', 'rsa', 'RSA-PSS+SHA256', 'SHA256', 'RSA-PSS', 146],
  ['1.3', 'rsa-3072', 'RSA-PSS+SHA384', 'SHA384', 'RSA-PSS', 146],
  ['1.3', 'rsa-4096', 'RSA-PSS+SHA512', 'SHA512', 'RSA-PSS', 146],
  ['1.3', 'P-256', 'ECDSA+SHA256', 'SHA256', 'ECDSA', 146],
  ['1.3', 'P-384', 'ECDSA+SHA384', 'SHA384', 'ECDSA', 146],
  ['1.3', 'P-521', 'ECDSA+SHA512', 'SHA512', 'ECDSA', 146],
  ['1.3', 'ed25519', 'ed25519', '', 'ed25519', 146],
]

describe('a TLS server', () => {
  it.each(cases)('of TLS %s with a %s key signs with %s, once', async (version, kind, sigalg, digest, type, bytes) => {
    await using server = await startServer(kind)
    const client = await run(
      'openssl',
      [
        's_client',
        '-connect',
        `127.0.0.1:${server.port}`,
        '-CAfile',
        certificate(kind),
        '-verify_return_error',
        '-ign_eof',
        '-sigalgs',
        sigalg,
      ].concat(version === '1.2' ? '-tls1_2' : '-tls1_3', '-ciphersuites', 'TLS_AES_256_GCM_SHA384'),
      { input: Buffer.from('GET / HTTP/1.0\r\n\r\n') },
    )
    const said = client.stdout.toString()
    expect(said).toContain('HTTP/1.0 200 ok')
    expect(said).toContain(`Peer signature type: ${type}`)
    if (digest !== '') expect(said).toContain(`Peer signing digest: ${digest}`)
    expect(endpoint.requests.map(({ inputKind, input }) => [inputKind, input.length])).toEqual([
      [inputKinds.message, bytes],
    ])
  })

  it('offers no RSA key transport: it is refused without asking anybody', async () => {
    await using server = await startServer('rsa', '-cipher', 'AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256')
    const args = ['s_client', '-connect', `127.0.0.1:${server.port}`, '-tls1_2', '-cipher', 'AES128-GCM-SHA256']
    const { status, stdout } = await run('openssl', args)
    expect(status).not.toBe(0)
    expect(stdout.toString()).not.toContain('HTTP/1.0 200')
    expect(endpoint.requests).toEqual([])
  })
})

/** As an application would: its own context, both files loaded, one request of each side. */
const python = `
import socket, ssl, sys
role, certificate, key, authority, port = sys.argv[1:6]
purpose = ssl.Purpose.CLIENT_AUTH if role == 'server' else ssl.Purpose.SERVER_AUTH
context = ssl.create_default_context(purpose, cafile=authority)
context.load_cert_chain(certificate, key)
if role == 'server':
    context.verify_mode = ssl.CERT_REQUIRED
    with socket.create_server(('127.0.0.1', 0)) as listener:
        print(listener.getsockname()[1], flush=True)
        with context.wrap_socket(listener.accept()[0], server_side=True) as peer:
            peer.recv(100)
            peer.sendall(dict(entry[0] for entry in peer.getpeercert()['subject'])['commonName'].encode())
            peer.unwrap()
else:
    with context.wrap_socket(socket.create_connection(('127.0.0.1', int(port))), server_hostname='localhost') as peer:
        peer.sendall(b'who am I?')
        print(peer.version(), peer.recv(100).decode())
        peer.unwrap()
`

describe('the ssl module of Python', () => {
  it.each(kinds)('proves itself with a %s key on both sides of a connection', async (kind) => {
    const pair = [certificate(kind), key(kind).reference, certificate(kind)]
    const words = (role: string, port: string) => ['-c', python, role, ...pair, port]
    const env = { PATH: process.env.PATH, OPENSSL_CONF: conf }
    const server = spawn('/usr/bin/python3', words('server', '0'), { env, stdio: ['ignore', 'pipe', 'inherit'] })
    const exit = once(server, 'exit')
    const [port] = await once(server.stdout.setEncoding('utf8'), 'data')
    expect(await succeeds(withProvider('/usr/bin/python3', words('client', String(port).trim())))).toBe(
      'TLSv1.3 localhost\n',
    )
    expect(await exit).toEqual([0, null])
    // CertificateVerify of the server, then of the client
    expect(endpoint.requests.map(({ inputKind, input }) => [inputKind, input.length])).toEqual([
      [inputKinds.message, 146],
      [inputKinds.message, 146],
    ])
  })
})

describe('a TLS client', () => {
  const clientKinds: readonly Kind[] = kinds
  it.each(clientKinds)('proves itself with a %s key: curl', async (kind) => {
    const server = createTlsServer(
      {
        key: readFileSync(key('P-256').private),
        cert: readFileSync(certificate('P-256')),
        ca: readFileSync(certificate(kind)),
        requestCert: true,
        rejectUnauthorized: true,
      },
      (request, response) => response.end((request.socket as TLSSocket).getPeerX509Certificate()?.subject),
    )
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    const { port } = server.address() as { readonly port: number }
    for (const version of ['1.2', '1.3']) {
      endpoint.requests.length = 0
      const tls = [
        `--tlsv${version}`,
        '--tls-max',
        version,
        '--cacert',
        certificate('P-256'),
        '--connect-to',
        `localhost:443:127.0.0.1:${port}`,
      ]
      const client = ['--cert', certificate(kind), '--key', key(kind).reference]
      const { stdout, stderr } = await withProvider('curl', ['-sS', ...tls, ...client, 'https://localhost/'])
      expect(stderr).toBe('')
      expect(stdout.toString()).toBe('CN=localhost')
      expect(endpoint.requests).toHaveLength(1)
    }
    server.close()
  })
})
