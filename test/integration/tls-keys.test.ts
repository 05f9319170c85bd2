/** Keys of TLS servers: made or adopted, certified, managed at the KMS door, and not signed with there. */
import { createPublicKey, randomBytes, X509Certificate } from 'node:crypto'
import { readFile, stat, writeFile } from 'node:fs/promises'
import path from 'node:path'
import {
  CreateAliasCommand,
  CreateKeyCommand,
  DescribeKeyCommand,
  DisableKeyCommand,
  EnableKeyCommand,
  GetKeyPolicyCommand,
  GetPublicKeyCommand,
  ListAliasesCommand,
  ListKeysCommand,
  ListResourceTagsCommand,
  PutKeyPolicyCommand,
  ScheduleKeyDeletionCommand,
  SignCommand,
  TagResourceCommand,
  VerifyCommand,
} from '@aws-sdk/client-kms'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { run, runOk } from '../support/command.ts'
import { startGateway, type TestGateway, testAccount } from '../support/gateway.ts'
import { createGatewayCli, type GatewayCli } from '../support/gateway-cli.ts'

let gateway: TestGateway
let cli: GatewayCli
beforeAll(async () => {
  gateway = await startGateway()
  cli = await createGatewayCli(gateway)
})
afterAll(async () => {
  await gateway?.[Symbol.asyncDispose]()
})

const file = (name: string) => path.join(gateway.token.directory, name)
const openssl = async (...words: string[]) => (await runOk('openssl', words)).toString()
const specs = [
  'RSA_2048',
  'RSA_3072',
  'ECC_NIST_P256',
  'ECC_NIST_P384',
  'ECC_NIST_P521',
  'ECC_NIST_EDWARDS25519',
] as const
const createKey = async (spec: string = 'ECC_NIST_P256', ...words: string[]) =>
  (await cli.json<{ keyId: string }>('tls', 'create-key', '--spec', spec, ...words)).keyId
const signatureOf = (KeyId: string) =>
  gateway.client().send(new SignCommand({ KeyId, Message: Buffer.from('x'), SigningAlgorithm: 'ECDSA_SHA_256' }))
const isRefused = (text: RegExp) => ({ name: 'InvalidKeyUsageException', message: expect.stringMatching(text) })

describe('a key of a TLS server at the KMS door', () => {
  it('is seen and managed like any other key', async () => {
    const KeyId = await createKey('RSA_2048', '--alias', 'web', '--description', 'front door')
    const kms = gateway.client()
    const { KeyMetadata } = await kms.send(new DescribeKeyCommand({ KeyId: 'alias/web' }))
    expect(KeyMetadata).toMatchObject({
      KeyId,
      Description: 'front door',
      KeySpec: 'RSA_2048',
      KeyUsage: 'SIGN_VERIFY',
      KeyState: 'Enabled',
      MultiRegion: false,
    })
    const { Keys } = await kms.send(new ListKeysCommand({ Limit: 1000 }))
    expect(Keys?.map((key) => key.KeyId)).toContain(KeyId)
    const { PublicKey } = await kms.send(new GetPublicKeyCommand({ KeyId }))
    expect(createPublicKey({ key: Buffer.from(PublicKey!), format: 'der', type: 'spki' }).asymmetricKeyType).toBe('rsa')
    await kms.send(new CreateAliasCommand({ AliasName: 'alias/web2', TargetKeyId: KeyId }))
    const { Aliases } = await kms.send(new ListAliasesCommand({ KeyId }))
    expect(Aliases?.map(({ AliasName }) => AliasName)).toEqual(['alias/web', 'alias/web2'])
    await kms.send(new TagResourceCommand({ KeyId, Tags: [{ TagKey: 'team', TagValue: 'web' }] }))
    const { Tags } = await kms.send(new ListResourceTagsCommand({ KeyId }))
    expect(Tags).toEqual([{ TagKey: 'team', TagValue: 'web' }])
    const { Policy } = await kms.send(new GetKeyPolicyCommand({ KeyId }))
    await kms.send(new PutKeyPolicyCommand({ KeyId, Policy }))
    await kms.send(new DisableKeyCommand({ KeyId }))
    await kms.send(new EnableKeyCommand({ KeyId }))
    await kms.send(new ScheduleKeyDeletionCommand({ KeyId, PendingWindowInDays: 7 }))
    const later = await kms.send(new DescribeKeyCommand({ KeyId }))
    expect(later.KeyMetadata?.KeyState).toBe('PendingDeletion')
  })

  it('is in the lists with other keys, and the keys of the gateway itself are not', async () => {
    const KeyId = await createKey()
    const other = await gateway.client().send(new CreateKeyCommand({}))
    const { Keys } = await gateway.client().send(new ListKeysCommand({ Limit: 1000 }))
    const ids = Keys?.map((key) => key.KeyId)
    expect(ids).toEqual(expect.arrayContaining([KeyId, other.KeyMetadata?.KeyId]))
    expect(ids?.every((id) => /^[0-9a-f-]{36}$/.test(String(id)))).toBe(true)
  })

  it('is named by its aliases in the list of them all, beside those of keys that only the KMS door knows', async () => {
    await createKey('ECC_NIST_P256', '--alias', 'listed')
    const { token } = gateway
    const env = { ...token.env, TEST_PIN: await readFile(token.pinFile, 'utf8'), PATH: '/usr/bin:/bin' }
    const login = ['--module', token.module, '--token-label', token.label, '--login', '--pin', 'env:TEST_PIN']
    const aes = ['--keygen', '--key-type', 'AES:32', '--label', 'outside', '--id', '70', '--sensitive', '--private']
    await runOk('/usr/bin/pkcs11-tool', [...login, ...aes], { env })
    await cli.json('key', 'adopt', '--purpose', 'xks', '--label', 'outside', '--alias', 'outside')
    const { Aliases } = await gateway.client().send(new ListAliasesCommand({ Limit: 100 }))
    const names = Aliases?.map(({ AliasName }) => AliasName)
    expect(names).toContain('alias/listed')
    expect(names).not.toContain('alias/outside')
    expect((await cli.run('key', 'show', 'alias/outside')).out).toMatch(/^purpose +xks$/m)
  })

  it('refuses to sign, and the audit record says why', async () => {
    const KeyId = await createKey()
    await expect(signatureOf(KeyId)).rejects.toMatchObject(
      isRefused(/key usage is TLS offload which is not valid for Sign/),
    )
    const records = await gateway.auditRecords()
    const { event } = records.findLast(({ event }) => event.eventName === 'Sign')!
    expect(event).toMatchObject({
      errorCode: 'InvalidKeyUsageException',
      errorMessage: expect.stringContaining('A binding of the key with the policy any permits it.'),
    })
  })

  it('refuses to sign as a trial too, and says first when it is disabled', async () => {
    const KeyId = await createKey()
    const kms = gateway.client()
    const request = { KeyId, Message: Buffer.from('x'), SigningAlgorithm: 'ECDSA_SHA_256', DryRun: true } as const
    await expect(kms.send(new SignCommand(request))).rejects.toMatchObject({ name: 'InvalidKeyUsageException' })
    await kms.send(new DisableKeyCommand({ KeyId }))
    await expect(signatureOf(KeyId)).rejects.toMatchObject({ name: 'DisabledException' })
  })

  it('signs while a binding of it has the policy any, and from its revocation on no more', async () => {
    const KeyId = await createKey()
    const kms = gateway.client()
    const bind = (name: string, policies: string) =>
      gateway.ask('tls', 'bind', { name, key: KeyId, users: '1000', policies })
    await bind('narrow', 'tls13-server,tls12-server-ecdhe,tls13-client,x509,cms')
    await expect(signatureOf(KeyId)).rejects.toMatchObject({ name: 'InvalidKeyUsageException' })
    await bind('wide', 'any')
    const { Signature } = await signatureOf(KeyId)
    const { SignatureValid } = await kms.send(
      new VerifyCommand({ KeyId, Message: Buffer.from('x'), Signature, SigningAlgorithm: 'ECDSA_SHA_256' }),
    )
    expect(SignatureValid).toBe(true)
    await gateway.ask('tls', 'revoke', { name: 'wide' })
    await expect(signatureOf(KeyId)).rejects.toMatchObject({ name: 'InvalidKeyUsageException' })
  })

  it('can be kept from a binding by its key policy, also before the binding is there', async () => {
    const KeyId = await createKey()
    const kms = gateway.client()
    const Policy = JSON.stringify({
      Version: '2012-10-17',
      Statement: [
        { Effect: 'Allow', Principal: { AWS: `arn:aws:iam::${testAccount}:root` }, Action: 'kms:*', Resource: '*' },
        {
          Effect: 'Deny',
          Principal: { AWS: `arn:aws:iam::${testAccount}:user/hsmgate/tls/guarded` },
          Action: 'kms:Sign',
          Resource: '*',
        },
      ],
    })
    await kms.send(new PutKeyPolicyCommand({ KeyId, Policy }))
    const stored = await kms.send(new GetKeyPolicyCommand({ KeyId }))
    expect(JSON.parse(stored.Policy!)).toEqual(JSON.parse(Policy))
    await gateway.ask('tls', 'bind', { name: 'guarded', key: KeyId, users: '0', policies: 'any' })
    expect((await signatureOf(KeyId)).Signature).toBeDefined()
  })
})

describe('hsmgate tls create-key', () => {
  it.each(['SYMMETRIC_DEFAULT', 'ECC_SECG_P256K1', 'HMAC_256', 'nonsense'])('refuses %s', async (spec) => {
    const { code, err } = await cli.run('tls', 'create-key', '--spec', spec)
    expect(code).toBe(1)
    expect(err).toMatch(/A key of a TLS server is one of RSA_2048, /)
  })

  it('makes no key when the alias is taken', async () => {
    await createKey('ECC_NIST_P256', '--alias', 'taken')
    const count = async () => (await gateway.client().send(new ListKeysCommand({ Limit: 1000 }))).Keys?.length
    const before = await count()
    expect(await cli.run('tls', 'create-key', '--spec', 'ECC_NIST_P256', '--alias', 'taken')).toMatchObject({ code: 1 })
    expect(await count()).toBe(before)
  })
})

describe('a certificate request', () => {
  it.each(specs)('of a %s key is signed in the module: OpenSSL verifies it', async (spec) => {
    const KeyId = await createKey(spec)
    const out = file(`${spec}.csr`)
    const names = [
      '--subject',
      'CN=shop.example,O=Größe & Co,C=DE',
      '--san',
      'shop.example,*.shop.example',
      '--san',
      '10.0.0.1',
    ]
    expect(await cli.run('tls', 'csr', '--key', KeyId, ...names, '--out', out)).toMatchObject({ code: 0, err: '' })
    const { stderr } = await run('openssl', ['req', '-in', out, '-noout', '-verify'])
    expect(stderr).toMatch(/verify OK/)
    const text = await openssl('req', '-in', out, '-noout', '-text', '-nameopt', 'utf8,sep_comma_plus_space')
    expect(text).toContain('CN=shop.example, O=Größe & Co, C=DE')
    expect(text).toContain('DNS:shop.example, DNS:*.shop.example, IP Address:10.0.0.1')
    const { PublicKey } = await gateway.client().send(new GetPublicKeyCommand({ KeyId }))
    const pem = createPublicKey({ key: Buffer.from(PublicKey!), format: 'der', type: 'spki' })
    expect(await openssl('req', '-in', out, '-noout', '-pubkey')).toBe(pem.export({ format: 'pem', type: 'spki' }))
    expect((await stat(out)).mode & 0o777).toBe(0o644)
  })

  it('names the first alternative name where no subject is given', async () => {
    const KeyId = await createKey()
    const { request } = await cli.json<{ request: string }>('tls', 'csr', '--key', KeyId, '--san', 'DNS:bücher.example')
    await writeFile(file('plain.csr'), request)
    expect(await openssl('req', '-in', file('plain.csr'), '-noout', '-subject')).toMatch(/CN = xn--bcher-kva.example/)
  })

  it.each([
    [['--subject', 'shop'], /no distinguished name/],
    [['--subject', 'CN=a,O=#0401aa'], /no distinguished name/],
    [['--subject', `CN=${'a'.repeat(65)}`], /no distinguished name/],
    [['--san', 'fe80::1%eth0'], /no address that a certificate can name/],
    [[], /A subject is missing/],
    [['--san', 'shop example'], /neither a DNS name nor an IP address/],
    [['--san', 'IP:shop.example'], /neither a DNS name nor an IP address/],
    [['--san', 'a*.example'], /neither a DNS name nor an IP address/],
  ])('with the names %j is refused', async (names, text) => {
    const KeyId = await createKey()
    const { code, err } = await cli.run('tls', 'csr', '--key', KeyId, ...names)
    expect(code).toBe(1)
    expect(err).toMatch(text)
  })

  it('is refused for a key of another purpose, an absent one and a disabled one', async () => {
    const kms = gateway.client()
    const made = await kms.send(new CreateKeyCommand({ KeySpec: 'ECC_NIST_P256', KeyUsage: 'SIGN_VERIFY' }))
    const csr = async (key: string) => (await cli.run('tls', 'csr', '--key', key, '--san', 'a.example')).err
    expect(await csr(made.KeyMetadata!.KeyId!)).toMatch(/is of purpose kms/)
    expect(await csr('nothing')).toMatch(/Alias .*alias\/nothing is not found/)
    const KeyId = await createKey()
    await kms.send(new DisableKeyCommand({ KeyId }))
    expect(await csr(KeyId)).toMatch(/is disabled/)
  })

  it('never takes the place of a file unless told', async () => {
    const KeyId = await createKey()
    const out = file('kept.csr')
    await writeFile(out, 'kept')
    const words = ['tls', 'csr', '--key', KeyId, '--san', 'a.example', '--out', out]
    expect(await cli.run(...words)).toMatchObject({ code: 1, err: expect.stringMatching(/is there already/) })
    expect(await readFile(out, 'utf8')).toBe('kept')
    expect(await cli.run(...words, '--force')).toMatchObject({ code: 0 })
    expect(await readFile(out, 'utf8')).toMatch(/^-----BEGIN CERTIFICATE REQUEST-----\n/)
  })
})

describe('a self-signed certificate', () => {
  it.each(specs)('of a %s key verifies with OpenSSL, for a server and its names', async (spec) => {
    const KeyId = await createKey(spec)
    const out = file(`${spec}.pem`)
    const words = ['tls', 'self-signed', '--key', KeyId, '--san', 'shop.example', '--days', '7', '--out', out]
    expect(await cli.run(...words)).toMatchObject({ code: 0, err: '' })
    expect(
      await openssl('verify', '-CAfile', out, '-purpose', 'sslserver', '-verify_hostname', 'shop.example', out),
    ).toMatch(/: OK\n/)
    const certificate = new X509Certificate(await readFile(out))
    const days = (Date.parse(certificate.validTo) - Date.now()) / 86_400_000
    expect(days).toBeGreaterThan(6.9)
    expect(days).toBeLessThan(7)
  })

  it('lives for days, not for ever', async () => {
    const KeyId = await createKey()
    for (const days of ['0', '826', 'x']) {
      const { code } = await cli.run('tls', 'self-signed', '--key', KeyId, '--san', 'a.example', '--days', days)
      expect(code).toBe(1)
    }
  })
})

describe('a key that another tool made', () => {
  it.each([
    ['rsa:2048', 'RSA_2048', '71'],
    ['EC:prime256v1', 'ECC_NIST_P256', '72'],
  ])('of type %s is adopted for a TLS server, and certified', async (type, spec, id) => {
    const { token } = gateway
    const env = { ...token.env, TEST_PIN: await readFile(token.pinFile, 'utf8'), PATH: '/usr/bin:/bin' }
    const login = ['--module', token.module, '--token-label', token.label, '--login', '--pin', 'env:TEST_PIN']
    const words = ['--keypairgen', '--key-type', type, '--label', `site-${id}`, '--id', id, '--sensitive']
    await runOk('/usr/bin/pkcs11-tool', [...login, ...words], { env })

    const adopted = await cli.json<{ arn: string; spec: string; purpose: string }>(
      ...['key', 'adopt', '--purpose', 'tls', '--label', `site-${id}`, '--alias', `site-${id}`],
    )
    expect(adopted).toMatchObject({ spec, purpose: 'tls' })
    const { PublicKey } = await gateway.client().send(new GetPublicKeyCommand({ KeyId: adopted.arn }))
    const { certificate } = await cli.json<{ certificate: string }>(
      ...['tls', 'self-signed', '--key', `site-${id}`, '--san', 'a.example'],
    )
    const { publicKey } = new X509Certificate(certificate)
    expect(publicKey.export({ format: 'der', type: 'spki' })).toEqual(Buffer.from(PublicKey!))
    expect(new X509Certificate(certificate).verify(publicKey)).toBe(true)
    const algorithm = spec === 'RSA_2048' ? 'RSASSA_PSS_SHA_256' : 'ECDSA_SHA_256'
    const request = { KeyId: adopted.arn, Message: randomBytes(9), SigningAlgorithm: algorithm } as const
    await expect(gateway.client().send(new SignCommand(request))).rejects.toMatchObject({
      name: 'InvalidKeyUsageException',
    })
  })
})
