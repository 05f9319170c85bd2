/**
 * Unmodified clients against keys in SoftHSM2: the AWS SDK for JavaScript, Debian's AWS CLI, and the openssl CLI as an independent judge.
 */
import { createHash } from 'node:crypto'
import { writeFile } from 'node:fs/promises'
import path from 'node:path'
import {
  CreateKeyCommand,
  DecryptCommand,
  EncryptCommand,
  type EncryptionAlgorithmSpec,
  GenerateDataKeyCommand,
  GenerateRandomCommand,
  GetPublicKeyCommand,
  type KeySpec,
  ListKeysCommand,
  SignCommand,
  type SigningAlgorithmSpec,
  VerifyCommand,
} from '@aws-sdk/client-kms'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { run, runOk } from '../support/command.ts'
import { startGateway, type TestGateway } from '../support/gateway.ts'

let gateway: TestGateway
let kms: ReturnType<TestGateway['client']>
let file: (name: string) => string

beforeAll(async () => {
  gateway = await startGateway()
  kms = gateway.client()
  file = (name) => path.join(gateway.token.directory, name)
})

afterAll(async () => {
  await gateway?.[Symbol.asyncDispose]()
})

/** The module looks for RSA primes for as long as it takes. */
const keyTimeout = { timeout: 180_000 }
const message = Buffer.from('a message that is signed in the module')

async function createKey(KeySpec: KeySpec, KeyUsage: 'ENCRYPT_DECRYPT' | 'SIGN_VERIFY'): Promise<string> {
  const { KeyMetadata } = await kms.send(new CreateKeyCommand({ KeySpec, KeyUsage }))
  return KeyMetadata?.Arn as string
}

async function writePublicKey(keyId: string, name: string): Promise<string> {
  const { PublicKey } = await kms.send(new GetPublicKeyCommand({ KeyId: keyId }))
  await writeFile(file(`${name}.der`), PublicKey as Uint8Array)
  await runOk('openssl', ['pkey', '-pubin', '-inform', 'DER', '-in', file(`${name}.der`), '-out', file(`${name}.pem`)])
  return file(`${name}.pem`)
}

describe('AWS SDK for JavaScript', () => {
  it('encrypts and decrypts with an encryption context, by key id and without', async () => {
    const keyId = await createKey('SYMMETRIC_DEFAULT', 'ENCRYPT_DECRYPT')
    const EncryptionContext = { app: 'billing', tier: 'gold' }
    const { CiphertextBlob, KeyId } = await kms.send(
      new EncryptCommand({ KeyId: keyId, Plaintext: message, EncryptionContext }),
    )
    expect(KeyId).toBe(keyId)
    const reordered = { tier: 'gold', app: 'billing' }
    const opened = await kms.send(new DecryptCommand({ CiphertextBlob, EncryptionContext: reordered }))
    expect(Buffer.from(opened.Plaintext as Uint8Array)).toEqual(message)
    expect(opened.KeyId).toBe(keyId)
    const wrong = kms.send(new DecryptCommand({ CiphertextBlob, KeyId: keyId, EncryptionContext: { app: 'Billing' } }))
    await expect(wrong).rejects.toMatchObject({ name: 'InvalidCiphertextException' })
  })

  it('gets data keys whose blobs decrypt to them, and random bytes', async () => {
    const keyId = await createKey('SYMMETRIC_DEFAULT', 'ENCRYPT_DECRYPT')
    const dataKey = await kms.send(new GenerateDataKeyCommand({ KeyId: keyId, KeySpec: 'AES_256' }))
    const opened = await kms.send(new DecryptCommand({ CiphertextBlob: dataKey.CiphertextBlob }))
    expect(dataKey.Plaintext).toHaveLength(32)
    expect(opened.Plaintext).toEqual(dataKey.Plaintext)
    const { Plaintext } = await kms.send(new GenerateRandomCommand({ NumberOfBytes: 1024 }))
    expect(Plaintext).toHaveLength(1024)
  })

  it.each([
    ['RSA_2048', 'RSASSA_PKCS1_V1_5_SHA_256', []],
    ['RSA_3072', 'RSASSA_PKCS1_V1_5_SHA_512', []],
    ['RSA_4096', 'RSASSA_PSS_SHA_384', ['-sigopt', 'rsa_padding_mode:pss', '-sigopt', 'rsa_pss_saltlen:48']],
    ['ECC_NIST_P256', 'ECDSA_SHA_256', []],
    ['ECC_NIST_P384', 'ECDSA_SHA_384', []],
    ['ECC_NIST_P521', 'ECDSA_SHA_512', []],
    ['ECC_SECG_P256K1', 'ECDSA_SHA_256', []],
  ] as const)(
    'signs with %s and %s what openssl verifies, as message and as digest',
    keyTimeout,
    async (spec, algorithm, options) => {
      const keyId = await createKey(spec, 'SIGN_VERIFY')
      const pem = await writePublicKey(keyId, spec)
      const hash = `sha${algorithm.slice(-3)}`
      await writeFile(file('message'), message)
      const digest = createHash(hash).update(message).digest()
      for (const [MessageType, Message] of [
        ['RAW', message],
        ['DIGEST', digest],
      ] as const) {
        const request = { KeyId: keyId, MessageType, Message, SigningAlgorithm: algorithm as SigningAlgorithmSpec }
        const { Signature } = await kms.send(new SignCommand(request))
        const signature = file(`${spec}-${MessageType}.sig`)
        await writeFile(signature, Signature as Uint8Array)
        const args = ['dgst', `-${hash}`, '-verify', pem, ...options, '-signature', signature, file('message')]
        expect((await runOk('openssl', args)).toString().trim()).toBe('Verified OK')
        const { SignatureValid } = await kms.send(new VerifyCommand({ ...request, Signature }))
        expect(SignatureValid).toBe(true)
        const tampered = Buffer.from(Signature as Uint8Array)
        tampered[tampered.length - 1] = (tampered[tampered.length - 1] as number) ^ 1
        const refusal = kms.send(new VerifyCommand({ ...request, Signature: tampered }))
        await expect(refusal).rejects.toMatchObject({ name: 'KMSInvalidSignatureException' })
      }
    },
  )

  it('signs with Ed25519 what openssl verifies', async () => {
    const keyId = await createKey('ECC_NIST_EDWARDS25519', 'SIGN_VERIFY')
    const pem = await writePublicKey(keyId, 'ed25519')
    const { Signature } = await kms.send(
      new SignCommand({ KeyId: keyId, Message: message, SigningAlgorithm: 'ED25519_SHA_512' as SigningAlgorithmSpec }),
    )
    await writeFile(file('ed.sig'), Signature as Uint8Array)
    await writeFile(file('message'), message)
    const args = [
      'pkeyutl',
      '-verify',
      '-pubin',
      '-inkey',
      pem,
      '-rawin',
      '-in',
      file('message'),
      '-sigfile',
      file('ed.sig'),
    ]
    expect((await runOk('openssl', args)).toString()).toContain('Verified Successfully')
  })

  it.each([
    ['RSAES_OAEP_SHA_1', 'sha1'],
    ['RSAES_OAEP_SHA_256', 'sha256'],
  ] as const)('decrypts what openssl encrypted offline with %s, and not with the other', async (algorithm, hash) => {
    const keyId = await createKey('RSA_2048', 'ENCRYPT_DECRYPT')
    const pem = await writePublicKey(keyId, algorithm)
    const padding = [
      '-pkeyopt',
      'rsa_padding_mode:oaep',
      '-pkeyopt',
      `rsa_oaep_md:${hash}`,
      '-pkeyopt',
      `rsa_mgf1_md:${hash}`,
    ]
    const args = ['pkeyutl', '-encrypt', '-pubin', '-inkey', pem, ...padding]
    const CiphertextBlob = await runOk('openssl', args, { input: Buffer.from('offline') })
    const request = { KeyId: keyId, CiphertextBlob }
    const EncryptionAlgorithm = algorithm as EncryptionAlgorithmSpec
    const { Plaintext } = await kms.send(new DecryptCommand({ ...request, EncryptionAlgorithm }))
    expect(Buffer.from(Plaintext as Uint8Array).toString()).toBe('offline')
    const other = algorithm === 'RSAES_OAEP_SHA_1' ? 'RSAES_OAEP_SHA_256' : 'RSAES_OAEP_SHA_1'
    const refusal = kms.send(new DecryptCommand({ ...request, EncryptionAlgorithm: other }))
    await expect(refusal).rejects.toMatchObject({ name: 'InvalidCiphertextException' })
  })

  it('refuses what the module was not proven to do', async () => {
    const create = kms.send(new CreateKeyCommand({ KeySpec: 'ML_DSA_65' as KeySpec, KeyUsage: 'SIGN_VERIFY' }))
    await expect(create).rejects.toMatchObject({ name: 'UnsupportedOperationException' })
    const keyId = await createKey('ECC_NIST_EDWARDS25519', 'SIGN_VERIFY')
    const SigningAlgorithm = 'ED25519_PH_SHA_512' as SigningAlgorithmSpec
    const sign = kms.send(
      new SignCommand({ KeyId: keyId, Message: Buffer.alloc(64), MessageType: 'DIGEST', SigningAlgorithm }),
    )
    await expect(sign).rejects.toMatchObject({ name: 'UnsupportedOperationException' })
  })
})

describe("Debian's AWS CLI", () => {
  const aws = async (...args: string[]): Promise<Record<string, never>> => {
    const all = ['--endpoint-url', gateway.endpoint, 'kms', ...args, '--output', 'json']
    const text = (await runOk('/usr/bin/aws', all, { env: gateway.cliEnvironment })).toString()
    return JSON.parse(text) as Record<string, never>
  }

  it('creates a key, encrypts, decrypts, lists and describes it', async () => {
    const { KeyMetadata } = (await aws('create-key', '--description', 'made by the CLI')) as unknown as {
      KeyMetadata: { KeyId: string; Arn: string; Description: string }
    }
    await writeFile(file('plain'), 'cli plaintext')
    const { CiphertextBlob } = await aws(
      'encrypt',
      '--key-id',
      KeyMetadata.KeyId,
      '--plaintext',
      `fileb://${file('plain')}`,
    )
    await writeFile(file('blob'), Buffer.from(CiphertextBlob as unknown as string, 'base64'))
    const opened = await aws('decrypt', '--ciphertext-blob', `fileb://${file('blob')}`)
    expect(Buffer.from(opened.Plaintext as unknown as string, 'base64').toString()).toBe('cli plaintext')
    expect(opened.KeyId).toBe(KeyMetadata.Arn)
    const described = (await aws('describe-key', '--key-id', KeyMetadata.Arn)) as unknown as { KeyMetadata: unknown }
    expect(described.KeyMetadata).toEqual(KeyMetadata)
    const { Keys } = (await aws('list-keys', '--page-size', '1')) as unknown as { Keys: { KeyId: string }[] }
    expect(Keys.map(({ KeyId }) => KeyId)).toContain(KeyMetadata.KeyId)
    const { Keys: listed } = await kms.send(new ListKeysCommand({}))
    expect(Keys).toHaveLength(listed?.length as number)
  })

  it('shows AWS messages and its exit status for a refusal', async () => {
    const args = [
      '--endpoint-url',
      gateway.endpoint,
      'kms',
      'describe-key',
      '--key-id',
      '11111111-2222-4333-8444-555555555555',
    ]
    const { status, stderr } = await run('/usr/bin/aws', args, { env: gateway.cliEnvironment })
    expect(status).toBe(254)
    expect(stderr).toContain(
      "An error occurred (NotFoundException) when calling the DescribeKey operation: Key 'arn:aws:kms:us-east-1:000000000000:key/11111111-2222-4333-8444-555555555555' does not exist",
    )
  })

  it('is refused with a wrong secret', async () => {
    const env = { ...gateway.cliEnvironment, AWS_SECRET_ACCESS_KEY: 'wrong' }
    const { status, stderr } = await run('/usr/bin/aws', ['--endpoint-url', gateway.endpoint, 'kms', 'list-keys'], {
      env,
    })
    expect(status).toBe(254)
    expect(stderr).toContain('InvalidSignatureException')
  })
})

describe('authorization', () => {
  it('denies a user without a policy, and tells why as AWS does', async () => {
    const keyId = await createKey('SYMMETRIC_DEFAULT', 'ENCRYPT_DECRYPT')
    const stranger = gateway.client({ credentials: await gateway.createUser('stranger') })
    const encrypt = stranger.send(new EncryptCommand({ KeyId: keyId, Plaintext: message }))
    await expect(encrypt).rejects.toMatchObject({
      name: 'AccessDeniedException',
      message: `User: arn:aws:iam::000000000000:user/stranger is not authorized to perform: kms:Encrypt on resource: ${keyId} because no identity-based policy allows the kms:Encrypt action`,
    })
    const records = await gateway.auditRecords()
    expect(records.at(-1)?.event).toMatchObject({ eventName: 'Encrypt', errorCode: 'AccessDenied' })
  })
})
