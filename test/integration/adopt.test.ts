/** Operators arrive with keys: objects that other tools made become keys of the gateway, unchanged, and serve at the KMS door. */
import { createPublicKey, generateKeyPairSync, randomBytes, verify } from 'node:crypto'
import { readFile, rm, writeFile } from 'node:fs/promises'
import path from 'node:path'
import {
  CreateKeyCommand,
  DecryptCommand,
  DescribeKeyCommand,
  EncryptCommand,
  GenerateMacCommand,
  GetKeyPolicyCommand,
  GetPublicKeyCommand,
  ListAliasesCommand,
  SignCommand,
} from '@aws-sdk/client-kms'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { runOk } from '../support/command.ts'
import { startGateway, type TestGateway } from '../support/gateway.ts'
import { runHsmgateProcess } from '../support/hsmgate-process.ts'
import { createSecretObjects } from '../support/secret-objects.ts'
import { createTestToken, type TestToken } from '../support/softhsm.ts'
import { createSoftoknToken } from '../support/softokn.ts'

let token: TestToken
let gateway: TestGateway
beforeAll(async () => {
  token = await createTestToken('arrived')
  gateway = await startGateway({ token })
})
afterAll(async () => {
  await gateway?.[Symbol.asyncDispose]()
  await token?.[Symbol.asyncDispose]()
})

/** pkcs11-tool, logged in: the other user of the token. */
async function tool(words: readonly string[], on: TestToken = token): Promise<string> {
  const pin = await readFile(on.pinFile, 'utf8')
  const login = ['--module', on.module, '--token-label', on.label, '--login', '--pin', 'env:TEST_PIN']
  const env = { ...on.env, TEST_PIN: pin, PATH: '/usr/bin:/bin' }
  return (await runOk('/usr/bin/pkcs11-tool', [...login, ...words], { env })).toString()
}

const makePair = (type: string, label: string, id: string, ...more: string[]) =>
  tool(['--keypairgen', '--key-type', type, '--label', label, '--id', id, '--sensitive', ...more])
const makeSecret = (type: string, label: string, id: string, ...more: string[]) =>
  tool(['--keygen', '--key-type', type, '--label', label, '--id', id, '--private', ...more])
const list = async (): Promise<string> => (await tool(['--list-objects'])).replace(/\s+uri:.*/g, '')

/** `hsmgate <words>` against the gateway of the test. */
async function hsmgate(words: readonly string[], at: TestGateway = gateway) {
  const config = path.join(at.directory, 'config.json')
  const { module, label, pinFile } = at.token
  await writeFile(config, JSON.stringify({ development: true, tokens: { softhsm: { module, label, pinFile } } }))
  return runHsmgateProcess(['--config', config, ...words])
}

async function adopt(words: readonly string[], at?: TestGateway): Promise<Record<string, string>> {
  const { code, out, err } = await hsmgate(['--json', 'key', 'adopt', ...words], at)
  if (code !== 0) throw new Error(`not adopted: ${err}`)
  return JSON.parse(out) as Record<string, string>
}

async function refusalOf(words: readonly string[]): Promise<string> {
  const { code, out, err } = await hsmgate(['key', 'adopt', ...words])
  expect({ code, out }).toEqual({ code: 1, out: '' })
  return err
}

async function signs(KeyId: string, SigningAlgorithm: 'RSASSA_PSS_SHA_256' | 'ECDSA_SHA_256'): Promise<boolean> {
  const kms = gateway.client()
  const Message = randomBytes(100)
  const { Signature } = await kms.send(new SignCommand({ KeyId, Message, SigningAlgorithm }))
  const { PublicKey } = await kms.send(new GetPublicKeyCommand({ KeyId }))
  const key = createPublicKey({ key: Buffer.from(PublicKey as Uint8Array), format: 'der', type: 'spki' })
  const pss = { padding: 6, saltLength: 32 }
  return verify(
    'sha256',
    Message,
    { key, ...(SigningAlgorithm === 'ECDSA_SHA_256' ? {} : pss) },
    Signature as Uint8Array,
  )
}

describe('an object that another tool made', () => {
  it('signs at the KMS door when it is an RSA pair, and is not changed', async () => {
    await makePair('rsa:2048', 'legacy-rsa', '10')
    const before = await list()
    const key = await adopt([
      '--label',
      'legacy-rsa',
      '--usage',
      'SIGN_VERIFY',
      '--alias',
      'legacy',
      '--description',
      'old',
    ])
    expect(key).toMatchObject({ spec: 'RSA_2048', usage: 'SIGN_VERIFY', alias: 'alias/legacy', purpose: 'kms' })
    expect(await signs('alias/legacy', 'RSASSA_PSS_SHA_256')).toBe(true)
    expect(await list()).toBe(before)

    const kms = gateway.client()
    const KeyId = key.keyId as string
    const { KeyMetadata } = await kms.send(new DescribeKeyCommand({ KeyId }))
    expect(KeyMetadata).toMatchObject({
      Description: 'old',
      KeyState: 'Enabled',
      Origin: 'AWS_KMS',
      KeySpec: 'RSA_2048',
    })
    const { Policy } = await kms.send(new GetKeyPolicyCommand({ KeyId, PolicyName: 'default' }))
    expect(JSON.parse(Policy as string).Statement[0].Principal.AWS).toBe('arn:aws:iam::000000000000:root')
    const { Aliases } = await kms.send(new ListAliasesCommand({ KeyId }))
    expect(Aliases?.map(({ AliasName }) => AliasName)).toEqual(['alias/legacy'])
  })

  it('signs when it is an EC pair, named by its id', async () => {
    await makePair('EC:prime256v1', 'legacy-ec', '11')
    const { arn, spec } = await adopt(['--object-id', '11', '--usage', 'SIGN_VERIFY'])
    expect(spec).toBe('ECC_NIST_P256')
    expect(await signs(arn as string, 'ECDSA_SHA_256')).toBe(true)
  })

  it('encrypts and decrypts when it is an AES key, by itself, also after a restart', async () => {
    await makeSecret('AES:32', 'legacy-aes', '12', '--sensitive')
    const { keyId: KeyId } = await adopt(['--label', 'legacy-aes'])
    const EncryptionContext = { app: 'test' }
    const Plaintext = Buffer.from('under an adopted key')
    const { CiphertextBlob } = await gateway.client().send(new EncryptCommand({ KeyId, Plaintext, EncryptionContext }))
    await gateway.restart()
    const opened = await gateway.client().send(new DecryptCommand({ CiphertextBlob, EncryptionContext }))
    expect(Buffer.from(opened.Plaintext as Uint8Array)).toEqual(Plaintext)
    expect(opened.KeyMaterialId).toMatch(/^[0-9a-f]{64}$/)
    const { out } = await hsmgate(['--json', 'key', 'show', KeyId as string])
    expect(JSON.parse(out)).toMatchObject({
      adopted: true,
      materials: [{ construction: 'direct', objectId: '12', label: null, materialId: opened.KeyMaterialId }],
      extra: { adoption: { usages: expect.arrayContaining(['encrypt', 'decrypt']), weaknesses: [] } },
    })
  })

  it('makes MACs when it is a generic secret', async () => {
    await makeSecret('GENERIC:32', 'legacy-mac', '13', '--sensitive')
    const { keyId: KeyId, usage } = await adopt(['--label', 'legacy-mac'])
    expect(usage).toBe('GENERATE_VERIFY_MAC')
    const request = { KeyId, Message: Buffer.from('m'), MacAlgorithm: 'HMAC_SHA_256' } as const
    expect((await gateway.client().send(new GenerateMacCommand(request))).Mac).toHaveLength(32)
  })

  it('has the public key of its certificate when there is no public object', async () => {
    await makePair('EC:prime256v1', 'certified', '14')
    const spki = path.join(token.directory, 'certified.der')
    await tool(['--read-object', '--type', 'pubkey', '--id', '14', '--output-file', spki])
    await tool(['--delete-object', '--type', 'pubkey', '--id', '14'])
    expect(await refusalOf(['--label', 'certified', '--usage', 'SIGN_VERIFY'])).toMatch(/No public key is found/)
    await writeCertificate(spki, '14')
    const { arn } = await adopt(['--label', 'certified', '--usage', 'SIGN_VERIFY'])
    expect(await signs(arn as string, 'ECDSA_SHA_256')).toBe(true)
  })

  it('is named by its label where it has no id', async () => {
    await tool(['--keygen', '--key-type', 'AES:32', '--label', 'nameless', '--sensitive', '--private'])
    const { keyId: KeyId } = await adopt(['--label', 'nameless'])
    const kms = gateway.client()
    const { CiphertextBlob } = await kms.send(new EncryptCommand({ KeyId, Plaintext: Buffer.from('x') }))
    expect((await kms.send(new DecryptCommand({ CiphertextBlob }))).Plaintext).toHaveLength(1)
    expect(await refusalOf(['--label', 'nameless'])).toMatch(/already/)
  })

  it('signs at one door alone when it is adopted for it', async () => {
    await makePair('EC:prime256v1', 'handshakes', '15')
    const { keyId: KeyId } = await adopt(['--label', 'handshakes', '--purpose', 'tls'])
    await expect(signs(KeyId as string, 'ECDSA_SHA_256')).rejects.toMatchObject({ name: 'InvalidKeyUsageException' })
    expect(await refusalOf(['--label', 'legacy-mac', '--purpose', 'xks'])).toMatch(/purpose xks is an AES-256 key/)
  })
})

describe('an object that only encrypts', () => {
  it('is adopted as what it is, and the module refuses the rest', async () => {
    await createSecretObjects(token, [{ label: 'encrypts-only', usages: ['encrypt'] }])
    const { keyId: KeyId, adoption } = await adopt(['--label', 'encrypts-only'])
    expect(adoption).toMatchObject({ usages: ['encrypt'], bornHere: false })
    const kms = gateway.client()
    const { CiphertextBlob } = await kms.send(new EncryptCommand({ KeyId, Plaintext: Buffer.from('x') }))
    await expect(kms.send(new DecryptCommand({ CiphertextBlob }))).rejects.toMatchObject({
      name: 'InvalidKeyUsageException',
    })
  })

  it('is the other way round when it only decrypts', async () => {
    await createSecretObjects(token, [{ label: 'decrypts-only', usages: ['decrypt'] }])
    const { keyId: KeyId, adoption } = await adopt(['--label', 'decrypts-only'])
    expect(adoption).toMatchObject({ usages: ['decrypt'] })
    const request = { KeyId, Plaintext: Buffer.from('x') }
    await expect(gateway.client().send(new EncryptCommand(request))).rejects.toMatchObject({
      name: 'InvalidKeyUsageException',
    })
  })
})

describe('adoption refuses', () => {
  it('an object whose value can leave the token, unless told, and marks the key then', async () => {
    await makeSecret('AES:32', 'leaks', '20', '--extractable')
    expect(await refusalOf(['--label', 'leaks'])).toMatch(/The object is extractable.*--allow-weak[\s\S]*remedy: /)
    const { keyId } = await adopt(['--label', 'leaks', '--allow-weak'])
    const { out } = await hsmgate(['key', 'show', keyId as string])
    expect(out).toMatch(/^weak +extractable/m)
    expect(out).toMatch(/^adopted +permits .*encrypt/m)
  })

  it('an object that is behind a key already, also when asked twice at once', async () => {
    await makePair('EC:prime256v1', 'once', '21')
    const tries = await Promise.all(
      [1, 2].map(() => hsmgate(['key', 'adopt', '--label', 'once', '--usage', 'SIGN_VERIFY'])),
    )
    expect(tries.map(({ code }) => code).sort()).toEqual([0, 1])
    expect(tries.map(({ err }) => err).join('')).toMatch(/The object is behind key [0-9a-f-]{36} already/)
  })

  it('to guess: which object, which usage', async () => {
    await makePair('EC:prime256v1', 'twin', '22')
    await makePair('EC:prime256v1', 'twin', '23')
    expect(await refusalOf(['--label', 'twin'])).toMatch(/2 objects match/)
    const twin = ['--label', 'twin', '--object-id', '23']
    expect(await refusalOf(twin)).toMatch(/SIGN_VERIFY or KEY_AGREEMENT.*--usage/)
    expect((await adopt([...twin, '--usage', 'KEY_AGREEMENT'])).usage).toBe('KEY_AGREEMENT')
    expect(await refusalOf(['--label', 'absent'])).toMatch(/no such object/)
    expect(await refusalOf(['--object-id', 'xyz'])).toMatch(/hexadecimal/)
    expect(await refusalOf([])).toMatch(/by label, by object id/)
  })

  it('a public key that belongs to another private key', async () => {
    await makePair('EC:prime256v1', 'forged', '25')
    await tool(['--delete-object', '--type', 'pubkey', '--id', '25'])
    const other = path.join(token.directory, 'other.der')
    const { publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
    await writeFile(other, publicKey.export({ format: 'der', type: 'spki' }))
    await tool(['--write-object', other, '--type', 'pubkey', '--id', '25', '--label', 'forged'])
    expect(await refusalOf(['--label', 'forged', '--usage', 'SIGN_VERIFY'])).toMatch(
      /does not verify; the public key with it may belong to another/,
    )
  })

  it('a usage that the object does not permit, and a size that no key spec has', async () => {
    expect(await refusalOf(['--label', 'legacy-ec', '--usage', 'GENERATE_VERIFY_MAC'])).toMatch(/not enough/)
    // SoftHSM lets keys unwrap unless it is told otherwise, and pkcs11-tool does not tell it
    expect(await refusalOf(['--label', 'legacy-rsa', '--usage', 'ENCRYPT_DECRYPT'])).toMatch(/must not decrypt/)
    await makeSecret('AES:16', 'short', '26', '--sensitive')
    expect(await refusalOf(['--label', 'short'])).toMatch(/no key spec/)
  })

  it('the gateway’s own keys', async () => {
    const own = /hsmgate-system:[0-9a-z-]+:\d+/.exec(await list())?.[0] as string
    expect(await refusalOf(['--label', own])).toMatch(/key of the gateway itself/)
  })

  it('an alias that is taken before it registers anything', async () => {
    await makePair('EC:prime256v1', 'unnamed', '27')
    expect(await refusalOf(['--label', 'unnamed', '--alias', 'legacy'])).toMatch(/alias\/legacy exists/)
    expect((await adopt(['--label', 'unnamed', '--usage', 'SIGN_VERIFY', '--alias', 'alias/unnamed'])).alias).toBe(
      'alias/unnamed',
    )
  })
})

describe('a key that the catalog has forgotten', () => {
  it('comes back under its own id, so that its ciphertexts open again', async () => {
    await using own = await createTestToken('forgotten')
    const first = await startGateway({ token: own })
    const { KeyMetadata } = await first.client().send(new CreateKeyCommand({}))
    const KeyId = KeyMetadata?.KeyId as string
    const { CiphertextBlob } = await first.client().send(new EncryptCommand({ KeyId, Plaintext: Buffer.from('kept') }))
    await first[Symbol.asyncDispose]()
    for (const end of ['', '-wal', '-shm'])
      await rm(path.join(first.directory, `catalog.sqlite${end}`), { force: true })

    await using second = await startGateway({ token: own })
    const { keyId } = await adopt(['--label', `hsmgate:${KeyId}:1`], second)
    expect(keyId).toBe(KeyId)
    const { Plaintext } = await second.client().send(new DecryptCommand({ CiphertextBlob }))
    expect(Buffer.from(Plaintext as Uint8Array).toString()).toBe('kept')
  })
})

describe('hsmgate key reconcile', () => {
  it('lists what the catalog does not know, what is missing and what is weak, and touches nothing', async () => {
    await makePair('EC:prime256v1', 'stranger', '30')
    await makePair('EC:prime256v1', 'going', '31')
    const { keyId } = await adopt(['--label', 'going', '--usage', 'SIGN_VERIFY'])
    for (const type of ['privkey', 'pubkey']) await tool(['--delete-object', '--type', type, '--id', '31'])
    const before = await list()

    const { code, out } = await hsmgate(['--json', 'key', 'reconcile'])
    expect(code).toBe(0)
    const found = JSON.parse(out)
    const labels = (objects: readonly { label: string }[]) => new Set(objects.map(({ label }) => label))
    expect(labels(found.unknown)).toContain('stranger')
    expect(labels(found.unknown)).not.toContain('legacy-rsa')
    expect([...labels(found.unknown)].filter((label) => label.startsWith('hsmgate'))).toEqual([])
    expect(found.missing).toMatchObject([{ keyId, objectId: '31', group: 'default', state: 'Current' }])
    expect(found.weak).toContainEqual(
      expect.objectContaining({ label: 'leaks', weaknesses: ['extractable', 'not sensitive'], isKnown: true }),
    )
    expect(await list()).toBe(before)

    const text = await hsmgate(['key', 'reconcile', '--group', 'default'])
    expect(text.out).toMatch(/objects that the catalog does not know: [1-9][\s\S]*stranger[\s\S]*weak objects: [1-9]/)
    expect((await hsmgate(['key', 'reconcile', '--group', 'nowhere'])).err).toMatch(/There is no group nowhere/)
  })
})

describe('a gateway on NSS softokn', () => {
  it('adopts a pair that certutil made, and signs with it', async () => {
    await using nss = await createSoftoknToken()
    const { module, initArgs, label, pinFile, directory } = nss
    const noise = path.join(directory, 'noise')
    await writeFile(noise, randomBytes(512))
    const request = ['-S', '-n', 'server', '-s', 'CN=server', '-x', '-t', ',,', '-k', 'ec', '-q', 'nistp256', '-m', '7']
    await runOk('/usr/bin/certutil', [
      ...request,
      '-d',
      `sql:${path.join(directory, 'db')}`,
      '-f',
      pinFile,
      '-z',
      noise,
    ])
    const tokens = { softhsm: { module, initArgs, label, pinFile, workers: 1, sessions: 2 } }
    await using other = await startGateway({ config: { tokens } })

    const { out } = await hsmgate(['--json', 'key', 'reconcile'], other)
    const { unknown } = JSON.parse(out)
    const [pair] = unknown.filter(({ objectClass }: { objectClass: string }) => objectClass === 'private')
    expect(pair).toMatchObject({ spec: 'ECC_NIST_P256', ours: false })
    const words = ['--object-id', pair.objectId, '--usage', 'SIGN_VERIFY']
    await expect(adopt(words, other)).rejects.toThrow(/extractable/)
    const { arn } = await adopt([...words, '--allow-weak'], other)
    const kms = other.client()
    const Message = randomBytes(32)
    const { Signature } = await kms.send(new SignCommand({ KeyId: arn, Message, SigningAlgorithm: 'ECDSA_SHA_256' }))
    const { PublicKey } = await kms.send(new GetPublicKeyCommand({ KeyId: arn }))
    const key = createPublicKey({ key: Buffer.from(PublicKey as Uint8Array), format: 'der', type: 'spki' })
    expect(verify('sha256', Message, key, Signature as Uint8Array)).toBe(true)
  })
})

/** A certificate for a public key whose private half stays in the token: a CA of the test signs it. */
async function writeCertificate(spki: string, id: string): Promise<void> {
  const at = (name: string) => path.join(token.directory, name)
  const openssl = (words: readonly string[]) => runOk('/usr/bin/openssl', words)
  await openssl([
    'req',
    '-x509',
    '-newkey',
    'ec',
    '-pkeyopt',
    'ec_paramgen_curve:P-256',
    '-nodes',
    '-subj',
    '/CN=ca',
    '-keyout',
    at('ca.key'),
    '-out',
    at('ca.pem'),
  ])
  await openssl(['pkey', '-pubin', '-inform', 'DER', '-in', spki, '-out', at('leaf.pem')])
  const forced = ['-new', '-subj', '/CN=leaf', '-force_pubkey', at('leaf.pem')]
  await openssl([
    'x509',
    ...forced,
    '-CA',
    at('ca.pem'),
    '-CAkey',
    at('ca.key'),
    '-outform',
    'DER',
    '-out',
    at('leaf.der'),
  ])
  await tool(['--write-object', at('leaf.der'), '--type', 'cert', '--id', id, '--label', 'certified'])
}
