/** AWS KMS API Reference: Encrypt, Decrypt, ReEncrypt, GenerateDataKey, GenerateDataKeyWithoutPlaintext, GenerateRandom. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { startGateway, type TestGateway } from '../../support/gateway.ts'
import { base64, type Call, createCall, refusal, succeed } from '../../support/kms-call.ts'

let gateway: TestGateway
let call: Call
let keyArn: string
let keyId: string
let otherId: string
let rsaId: string
let hmacId: string

async function createKey(request: object = {}): Promise<{ KeyId: string; Arn: string }> {
  return (await succeed(call('CreateKey', request))).KeyMetadata as { KeyId: string; Arn: string }
}

beforeAll(async () => {
  gateway = await startGateway()
  call = createCall(gateway)
  const key = await createKey()
  keyArn = key.Arn
  keyId = key.KeyId
  otherId = (await createKey()).KeyId
  rsaId = (await createKey({ KeySpec: 'RSA_2048', KeyUsage: 'ENCRYPT_DECRYPT' })).KeyId
  hmacId = (await createKey({ KeySpec: 'HMAC_224', KeyUsage: 'GENERATE_VERIFY_MAC' })).KeyId
  await succeed(call('CreateAlias', { AliasName: 'alias/app', TargetKeyId: keyId }))
}, 180_000)

afterAll(async () => {
  await gateway?.[Symbol.asyncDispose]()
})

const hello = base64('hello')

async function encrypt(request: object = {}): Promise<string> {
  const output = await succeed(call('Encrypt', { KeyId: keyId, Plaintext: hello, ...request }))
  return output.CiphertextBlob as string
}

function flip(blob: string, at: number): string {
  const bytes = Buffer.from(blob, 'base64')
  const index = at < 0 ? bytes.length + at : at
  bytes.writeUInt8(bytes.readUInt8(index) ^ 1, index)
  return base64(bytes)
}

const noText = (name: string) => ({ __type: name })
const incorrectKey = {
  __type: 'IncorrectKeyException',
  message: 'The key ID in the request does not identify a CMK that can perform this operation.',
}
const inaccessible = {
  __type: 'AccessDeniedException',
  Message:
    'The ciphertext refers to a customer master key that does not exist, does not exist in this region, or you are not allowed to access.',
}

describe('Encrypt', () => {
  it('names the key by its ARN however the request named it', async () => {
    for (const KeyId of [keyId, keyArn, 'alias/app', keyArn.replace(/key\/.*/, 'alias/app')]) {
      const output = await succeed(call('Encrypt', { KeyId, Plaintext: hello }))
      expect(Object.keys(output).sort()).toEqual(['CiphertextBlob', 'EncryptionAlgorithm', 'KeyId'])
      expect(output).toMatchObject({ KeyId: keyArn, EncryptionAlgorithm: 'SYMMETRIC_DEFAULT' })
    }
  })

  it('takes 1 to 4096 bytes and never echoes them', async () => {
    const blob = await encrypt({ Plaintext: base64('x'.repeat(4096)) })
    expect(Buffer.from(blob, 'base64').length).toBeLessThanOrEqual(6144)
    const tooLong = await refusal(call('Encrypt', { KeyId: keyId, Plaintext: base64('x'.repeat(4097)) }))
    expect(tooLong).toEqual({
      __type: 'ValidationException',
      message:
        "1 validation error detected: Value at 'plaintext' failed to satisfy constraint: Member must have length less than or equal to 4096",
    })
  })

  it('gives different ciphertexts for the same plaintext', async () => {
    expect(await encrypt()).not.toBe(await encrypt())
  })

  it('refuses keys of other usages, other algorithms and contexts on asymmetric keys', async () => {
    expect(await refusal(call('Encrypt', { KeyId: hmacId, Plaintext: hello }))).toEqual({
      __type: 'InvalidKeyUsageException',
      message: `${keyArn.replace(keyId, hmacId)} key usage is GENERATE_VERIFY_MAC which is not valid for Encrypt.`,
    })
    expect(await refusal(call('Encrypt', { KeyId: rsaId, Plaintext: hello }))).toEqual({
      __type: 'InvalidKeyUsageException',
      message: 'Algorithm SYMMETRIC_DEFAULT is incompatible with key spec RSA_2048.',
    })
    const oaep = { KeyId: rsaId, Plaintext: hello, EncryptionAlgorithm: 'RSAES_OAEP_SHA_256' }
    expect(await refusal(call('Encrypt', { ...oaep, EncryptionContext: { a: 'b' } }))).toMatchObject({
      __type: 'ValidationException',
    })
    expect(await refusal(call('Encrypt', { ...oaep, Plaintext: base64('x'.repeat(191)) }))).toEqual({
      __type: 'ValidationException',
      message: 'Algorithm RSAES_OAEP_SHA_256 and key spec RSA_2048 cannot encrypt data larger than 190 bytes.',
    })
  })

  it('names what it can not find', async () => {
    const unknown = '11111111-2222-4333-8444-555555555555'
    const notFound = (message: string) => ({ __type: 'NotFoundException', message })
    const ask = (KeyId: string) => refusal(call('Encrypt', { KeyId, Plaintext: hello }))
    expect(await ask(unknown)).toEqual(notFound(`Key '${keyArn.replace(keyId, unknown)}' does not exist`))
    expect(await ask(keyArn.replace(keyId, unknown))).toEqual(
      notFound(`Key '${keyArn.replace(keyId, unknown)}' does not exist`),
    )
    expect(await ask('xyz')).toEqual(notFound("Invalid keyId 'xyz'"))
    expect(await ask(keyId.toUpperCase())).toEqual(notFound(`Invalid keyId '${keyId.toUpperCase()}'`))
    expect(await ask(keyId.replaceAll('-', ''))).toEqual(notFound(`Invalid keyId '${keyId.replaceAll('-', '')}'`))
    expect(await ask(keyArn.replace('us-east-1', 'us-west-2'))).toEqual(notFound('Invalid arn us-west-2'))
    expect(await ask('alias/none')).toEqual(notFound(`Alias ${keyArn.replace(/key\/.*/, 'alias/none')} is not found.`))
  })

  it('judges the request before it looks for the key', async () => {
    const request = { KeyId: '11111111-2222-4333-8444-555555555555', Plaintext: hello, EncryptionAlgorithm: 'ROT13' }
    expect(await refusal(call('Encrypt', request))).toMatchObject({
      __type: 'ValidationException',
      message: expect.stringMatching(/^1 validation error detected: Value 'ROT13' at 'encryptionAlgorithm' failed/),
    })
  })

  it('answers a dry run that would succeed with an exception, and one that would not with its own', async () => {
    expect(await refusal(call('Encrypt', { KeyId: keyId, Plaintext: hello, DryRun: true }))).toEqual({
      __type: 'DryRunOperationException',
      message: 'The request would have succeeded, but the DryRun option is set.',
    })
    expect(await refusal(call('Encrypt', { KeyId: hmacId, Plaintext: hello, DryRun: true }))).toMatchObject({
      __type: 'InvalidKeyUsageException',
    })
  })

  it('refuses a grant token that stands for nothing', async () => {
    expect(await refusal(call('Encrypt', { KeyId: keyId, Plaintext: hello, GrantTokens: ['x'] }))).toMatchObject({
      __type: 'InvalidGrantTokenException',
    })
  })
})

describe('Decrypt', () => {
  it('finds the key in the ciphertext, and says which material it was', async () => {
    const output = await succeed(call('Decrypt', { CiphertextBlob: await encrypt() }))
    expect(output).toMatchObject({ KeyId: keyArn, Plaintext: hello, EncryptionAlgorithm: 'SYMMETRIC_DEFAULT' })
    const { KeyMetadata } = await succeed(call('DescribeKey', { KeyId: keyId }))
    expect(output.KeyMaterialId).toBe((KeyMetadata as { CurrentKeyMaterialId: string }).CurrentKeyMaterialId)
  })

  it('says nothing about a ciphertext or context that is wrong', async () => {
    const EncryptionContext = { a: '1', b: '2' }
    const CiphertextBlob = await encrypt({ EncryptionContext })
    const opened = await succeed(call('Decrypt', { CiphertextBlob, EncryptionContext: { b: '2', a: '1' } }))
    expect(opened.Plaintext).toBe(hello)
    const wrong = [
      { CiphertextBlob },
      { CiphertextBlob, EncryptionContext: { a: '1' } },
      { CiphertextBlob, EncryptionContext: { A: '1', b: '2' } },
      { CiphertextBlob, EncryptionContext: { a: '1', b: '2', c: '3' } },
      { CiphertextBlob: flip(CiphertextBlob, -1), EncryptionContext },
      { CiphertextBlob: flip(CiphertextBlob, 60), EncryptionContext },
      { CiphertextBlob: base64(Buffer.from(CiphertextBlob, 'base64').subarray(0, -1)), EncryptionContext },
      { CiphertextBlob: base64('garbage') },
      { CiphertextBlob: base64('garbage'), KeyId: keyId },
    ]
    for (const request of wrong) {
      expect(await refusal(call('Decrypt', request))).toEqual(noText('InvalidCiphertextException'))
    }
  })

  it('tells a wrong key apart, whatever its kind', async () => {
    const CiphertextBlob = await encrypt()
    for (const KeyId of [otherId, hmacId, rsaId]) {
      expect(await refusal(call('Decrypt', { CiphertextBlob, KeyId }))).toEqual(incorrectKey)
    }
  })

  it('answers a key that is gone as one that is forbidden', async () => {
    const blob = Buffer.from(await encrypt(), 'base64')
    // The key id of the ciphertext, from its third byte on, made one that nobody has.
    blob.fill(0xab, 2, 18)
    expect(await refusal(call('Decrypt', { CiphertextBlob: base64(blob) }))).toEqual(inaccessible)
    const stranger = createCall(gateway, { credentials: await gateway.createUser('decrypt-stranger') })
    expect(await refusal(stranger('Decrypt', { CiphertextBlob: await encrypt() }))).toEqual(inaccessible)
  })

  it('demands a key id with an asymmetric algorithm', async () => {
    const EncryptionAlgorithm = 'RSAES_OAEP_SHA_256'
    const blob = await succeed(call('Encrypt', { KeyId: rsaId, Plaintext: hello, EncryptionAlgorithm }))
    const CiphertextBlob = blob.CiphertextBlob
    const output = await succeed(call('Decrypt', { KeyId: rsaId, CiphertextBlob, EncryptionAlgorithm }))
    expect(output.Plaintext).toBe(hello)
    expect(output).not.toHaveProperty('KeyMaterialId')
    expect(await refusal(call('Decrypt', { CiphertextBlob, EncryptionAlgorithm }))).toMatchObject({
      __type: 'ValidationException',
    })
    const wrongHash = { KeyId: rsaId, CiphertextBlob, EncryptionAlgorithm: 'RSAES_OAEP_SHA_1' }
    expect(await refusal(call('Decrypt', wrongHash))).toEqual(noText('InvalidCiphertextException'))
  })

  it('asks for permission alone when a dry run ignores the ciphertext', async () => {
    const request = { KeyId: keyId, DryRun: true, DryRunModifiers: ['IGNORE_CIPHERTEXT'] }
    expect(await refusal(call('Decrypt', request))).toMatchObject({ __type: 'DryRunOperationException' })
    const stranger = createCall(gateway, { credentials: await gateway.createUser('dry-stranger') })
    expect(await refusal(stranger('Decrypt', request))).toMatchObject({ __type: 'AccessDeniedException' })
  })

  it('never returns plaintext to a caller who asked for an envelope', async () => {
    const Recipient = { KeyEncryptionAlgorithm: 'RSAES_OAEP_SHA_256', AttestationDocument: hello }
    const answer = await refusal(call('Decrypt', { CiphertextBlob: await encrypt(), Recipient }))
    expect(answer).toEqual(noText('UnsupportedOperationException'))
  })
})

describe('ReEncrypt', () => {
  it('moves a ciphertext to another key and context, naming both keys by ARN', async () => {
    const CiphertextBlob = await encrypt({ EncryptionContext: { a: '1' } })
    const output = await succeed(
      call('ReEncrypt', {
        CiphertextBlob,
        SourceEncryptionContext: { a: '1' },
        DestinationKeyId: otherId,
        DestinationEncryptionContext: { b: '2' },
      }),
    )
    expect(output).toMatchObject({
      SourceKeyId: keyArn,
      KeyId: keyArn.replace(keyId, otherId),
      SourceEncryptionAlgorithm: 'SYMMETRIC_DEFAULT',
      DestinationEncryptionAlgorithm: 'SYMMETRIC_DEFAULT',
      SourceKeyMaterialId: expect.stringMatching(/^[0-9a-f]{64}$/),
      DestinationKeyMaterialId: expect.stringMatching(/^[0-9a-f]{64}$/),
    })
    const opened = await succeed(
      call('Decrypt', { CiphertextBlob: output.CiphertextBlob, EncryptionContext: { b: '2' } }),
    )
    expect(opened).toMatchObject({ Plaintext: hello, KeyId: keyArn.replace(keyId, otherId) })
  })

  it('refuses a wrong source, a destination of another usage, and needs both permissions', async () => {
    const CiphertextBlob = await encrypt()
    const move = { CiphertextBlob, DestinationKeyId: otherId }
    expect(await refusal(call('ReEncrypt', { ...move, SourceKeyId: otherId }))).toEqual(incorrectKey)
    expect(await refusal(call('ReEncrypt', { ...move, DestinationKeyId: hmacId }))).toEqual({
      __type: 'InvalidKeyUsageException',
      message: `${keyArn.replace(keyId, hmacId)} key usage is GENERATE_VERIFY_MAC which is not valid for ReEncryptTo.`,
    })
    const statement = { Effect: 'Allow', Action: 'kms:ReEncryptFrom', Resource: '*' }
    const credentials = await gateway.createUser('from-only', { Version: '2012-10-17', Statement: [statement] })
    const fromOnly = createCall(gateway, { credentials })
    expect(await refusal(fromOnly('ReEncrypt', move))).toEqual({
      __type: 'AccessDeniedException',
      Message: `User: arn:aws:iam::000000000000:user/from-only is not authorized to perform: kms:ReEncryptTo on resource: ${keyArn.replace(keyId, otherId)} because no identity-based policy allows the kms:ReEncryptTo action`,
    })
  })
})

describe('GenerateDataKey', () => {
  it.each([
    [{ KeySpec: 'AES_128' }, 16],
    [{ KeySpec: 'AES_256' }, 32],
    [{ NumberOfBytes: 1 }, 1],
    [{ NumberOfBytes: 1024 }, 1024],
  ])('gives %j in clear and encrypted', async (size, bytes) => {
    const output = await succeed(
      call('GenerateDataKey', { KeyId: 'alias/app', ...size, EncryptionContext: { a: '1' } }),
    )
    expect(output.KeyId).toBe(keyArn)
    expect(output.KeyMaterialId).toMatch(/^[0-9a-f]{64}$/)
    expect(Buffer.from(output.Plaintext as string, 'base64')).toHaveLength(bytes)
    const { CiphertextBlob } = output
    const opened = await succeed(call('Decrypt', { CiphertextBlob, EncryptionContext: { a: '1' } }))
    expect(opened.Plaintext).toBe(output.Plaintext)
    expect(await refusal(call('Decrypt', { CiphertextBlob }))).toEqual(noText('InvalidCiphertextException'))
  })

  it('leaves the plaintext out of GenerateDataKeyWithoutPlaintext', async () => {
    const output = await succeed(call('GenerateDataKeyWithoutPlaintext', { KeyId: keyId, KeySpec: 'AES_256' }))
    expect(Object.keys(output).sort()).toEqual(['CiphertextBlob', 'KeyId', 'KeyMaterialId'])
    const opened = await succeed(call('Decrypt', { CiphertextBlob: output.CiphertextBlob }))
    expect(Buffer.from(opened.Plaintext as string, 'base64')).toHaveLength(32)
  })

  it('wants exactly one size and a symmetric key', async () => {
    const sizes = { __type: 'ValidationException', message: 'Please specify either number of bytes or key spec.' }
    expect(await refusal(call('GenerateDataKey', { KeyId: keyId }))).toEqual(sizes)
    expect(await refusal(call('GenerateDataKey', { KeyId: keyId, KeySpec: 'AES_256', NumberOfBytes: 3 }))).toEqual(
      sizes,
    )
    expect(await refusal(call('GenerateDataKey', { KeyId: rsaId, KeySpec: 'AES_256' }))).toMatchObject({
      __type: 'InvalidKeyUsageException',
    })
  })
})

describe('GenerateRandom', () => {
  it('gives the bytes asked for', async () => {
    for (const NumberOfBytes of [1, 32, 1024]) {
      const { Plaintext } = await succeed(call('GenerateRandom', { NumberOfBytes }))
      expect(Buffer.from(Plaintext as string, 'base64')).toHaveLength(NumberOfBytes)
    }
  })

  it('has no default and no more than 1024 bytes', async () => {
    expect(await refusal(call('GenerateRandom'))).toEqual({
      __type: 'ValidationException',
      message: 'NumberOfBytes is required.',
    })
    expect(await refusal(call('GenerateRandom', { NumberOfBytes: 1025 }))).toEqual({
      __type: 'ValidationException',
      message:
        "1 validation error detected: Value '1025' at 'numberOfBytes' failed to satisfy constraint: Member must have value less than or equal to 1024",
    })
    expect(await refusal(call('GenerateRandom', { NumberOfBytes: 1, CustomKeyStoreId: 'cks-1' }))).toMatchObject({
      __type: 'CustomKeyStoreNotFoundException',
    })
  })
})
