/**
 * AWS KMS API Reference: Encapsulate, Decapsulate, and Sign and Verify with ML-DSA, on a module that shows PKCS#11 3.2 (test/native/pqc-module)
 * and on SoftHSM, which does not.
 */
import { createHash, createPublicKey, encapsulate, verify } from 'node:crypto'
import {
  CreateAliasCommand,
  CreateGrantCommand,
  CreateKeyCommand,
  DecapsulateCommand,
  DescribeKeyCommand,
  DisableKeyCommand,
  EncapsulateCommand,
  GetKeyLastUsageCommand,
  GetPublicKeyCommand,
  type KeySpec,
  type KMSClient,
  ScheduleKeyDeletionCommand,
  SignCommand,
  VerifyCommand,
} from '@aws-sdk/client-kms'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { startGateway, type TestGateway } from '../../support/gateway.ts'
import { base64, createCall, refusal } from '../../support/kms-call.ts'
import { createPqcToken } from '../../support/pqc.ts'
import { createTestToken, type TestToken } from '../../support/softhsm.ts'

const mlDsa = [
  ['ML_DSA_44', 'ml-dsa-44', 1312, 2420],
  ['ML_DSA_65', 'ml-dsa-65', 1952, 3309],
  ['ML_DSA_87', 'ml-dsa-87', 2592, 4627],
] as const
const mlKem = [
  ['ML_KEM_512', 'ml-kem-512', 800, 768],
  ['ML_KEM_768', 'ml-kem-768', 1184, 1088],
  ['ML_KEM_1024', 'ml-kem-1024', 1568, 1568],
] as const
const SigningAlgorithm = 'ML_DSA_SHAKE_256'
const EncapsulationAlgorithm = 'ML_KEM'
const Message = Buffer.from('a message of moderate length')

const usageOf = (spec: KeySpec) => (spec.startsWith('ML_DSA') ? 'SIGN_VERIFY' : 'ENCAPSULATE_DECAPSULATE')
const toKey = (spki: Uint8Array) => createPublicKey({ key: Buffer.from(spki), format: 'der', type: 'spki' })

function flipped(bytes: Uint8Array): Buffer {
  const copy = Buffer.from(bytes)
  copy[3] = copy[3]! ^ 1
  return copy
}

/** FIPS 204 section 6.2, with an empty context. */
function muOf(spki: Uint8Array, publicBytes: number, message: Uint8Array): Buffer {
  const shake = (...parts: Uint8Array[]) => {
    const hash = createHash('shake256', { outputLength: 64 })
    for (const part of parts) hash.update(part)
    return hash.digest()
  }
  return shake(shake(spki.subarray(-publicBytes)), Buffer.from([0, 0]), message)
}

describe('post-quantum keys on a module of PKCS#11 3.2', () => {
  let token: TestToken
  let gateway: TestGateway
  let kms: KMSClient
  beforeAll(async () => {
    token = await createPqcToken()
    gateway = await startGateway({ token })
    kms = gateway.client()
  }, 180_000)
  afterAll(async () => {
    await gateway?.[Symbol.asyncDispose]()
    await token?.[Symbol.asyncDispose]()
  })

  async function makeKey(spec: KeySpec) {
    const { KeyMetadata } = await kms.send(new CreateKeyCommand({ KeySpec: spec, KeyUsage: usageOf(spec) }))
    return { id: KeyMetadata!.KeyId!, arn: KeyMetadata!.Arn! }
  }
  const publicKeyOf = async (KeyId: string) => (await kms.send(new GetPublicKeyCommand({ KeyId }))).PublicKey!

  it.each([...mlDsa, ...mlKem])('%s is created and its public key exported', async (spec, node, publicBytes) => {
    const { KeyMetadata } = await kms.send(new CreateKeyCommand({ KeySpec: spec, KeyUsage: usageOf(spec) }))
    const algorithms = spec.startsWith('ML_DSA')
      ? { SigningAlgorithms: [SigningAlgorithm] }
      : { EncapsulationAlgorithms: [EncapsulationAlgorithm] }
    expect(KeyMetadata).toMatchObject({
      KeySpec: spec,
      CustomerMasterKeySpec: spec,
      KeyUsage: usageOf(spec),
      ...algorithms,
    })
    expect(KeyMetadata).not.toHaveProperty('CurrentKeyMaterialId')
    const { KeyMetadata: described } = await kms.send(new DescribeKeyCommand({ KeyId: KeyMetadata!.KeyId! }))
    expect(described).toEqual(KeyMetadata)
    const { $metadata: _, PublicKey, ...rest } = await kms.send(new GetPublicKeyCommand({ KeyId: KeyMetadata!.KeyId! }))
    expect(PublicKey).toHaveLength(publicBytes + 22)
    expect(toKey(PublicKey!).asymmetricKeyType).toBe(node)
    expect(rest).toEqual({
      KeyId: KeyMetadata!.Arn,
      KeySpec: spec,
      CustomerMasterKeySpec: spec,
      KeyUsage: usageOf(spec),
      ...algorithms,
    })
  })

  it.each([...mlDsa, ...mlKem])('%s takes no other usage and no imported material', async (spec) => {
    const other = spec.startsWith('ML_DSA') ? 'KEY_AGREEMENT' : 'SIGN_VERIFY'
    await expect(kms.send(new CreateKeyCommand({ KeySpec: spec, KeyUsage: other }))).rejects.toMatchObject({
      name: 'ValidationException',
      message: `KeyUsage ${other} is not compatible with KeySpec ${spec}`,
    })
    const external = { KeySpec: spec, KeyUsage: usageOf(spec), Origin: 'EXTERNAL' } as const
    await expect(kms.send(new CreateKeyCommand(external))).rejects.toMatchObject({
      name: 'UnsupportedOperationException',
    })
  })

  it('keys outlive a restart', async () => {
    const [signs, opens] = [await makeKey('ML_DSA_44'), await makeKey('ML_KEM_512')]
    const { SharedSecret, SharedSecretCiphertextBlob } = await kms.send(
      new EncapsulateCommand({ KeyId: opens.id, EncapsulationAlgorithm }),
    )
    await gateway.restart()
    kms = gateway.client()
    const { Signature } = await kms.send(new SignCommand({ KeyId: signs.id, Message, SigningAlgorithm }))
    expect(verify(null, Message, toKey(await publicKeyOf(signs.id)), Signature!)).toBe(true)
    const opened = await kms.send(
      new DecapsulateCommand({ KeyId: opens.id, EncapsulationAlgorithm, SharedSecretCiphertextBlob }),
    )
    expect(opened.SharedSecret).toEqual(SharedSecret)
  })

  describe('Sign and Verify', () => {
    it.each(mlDsa)('of a message with %s agree with OpenSSL', async (spec, _node, _publicBytes, signatureBytes) => {
      const { id, arn } = await makeKey(spec)
      const { $metadata: _, ...signed } = await kms.send(new SignCommand({ KeyId: id, Message, SigningAlgorithm }))
      expect(signed).toEqual({ KeyId: arn, SigningAlgorithm, Signature: expect.any(Uint8Array) })
      expect(signed.Signature).toHaveLength(signatureBytes)
      expect(verify(null, Message, toKey(await publicKeyOf(id)), signed.Signature!)).toBe(true)
      const request = { KeyId: id, Message, SigningAlgorithm, Signature: signed.Signature } as const
      const { $metadata: __, ...verified } = await kms.send(new VerifyCommand(request))
      expect(verified).toEqual({ KeyId: arn, SigningAlgorithm, SignatureValid: true })
      for (const wrong of [{ Message: flipped(Message) }, { Signature: flipped(signed.Signature!) }]) {
        await expect(kms.send(new VerifyCommand({ ...request, ...wrong }))).rejects.toMatchObject({
          name: 'KMSInvalidSignatureException',
        })
      }
    })

    it.each(mlDsa)('of an external mu with %s are those of the message', async (spec, _node, publicBytes) => {
      const { id } = await makeKey(spec)
      const spki = await publicKeyOf(id)
      const mu = { KeyId: id, Message: muOf(spki, publicBytes, Message), MessageType: 'EXTERNAL_MU' } as const
      const { Signature } = await kms.send(new SignCommand({ ...mu, SigningAlgorithm }))
      expect(verify(null, Message, toKey(spki), Signature!)).toBe(true)
      const bySelf = await kms.send(new VerifyCommand({ KeyId: id, Message, SigningAlgorithm, Signature }))
      expect(bySelf.SignatureValid).toBe(true)
      const { SignatureValid } = await kms.send(new VerifyCommand({ ...mu, SigningAlgorithm, Signature }))
      expect(SignatureValid).toBe(true)
    })

    it('refuse an external mu that has not 64 bytes, before the signature is looked at', async () => {
      const { id } = await makeKey('ML_DSA_44')
      const request = { KeyId: id, Message: Buffer.alloc(63), MessageType: 'EXTERNAL_MU', SigningAlgorithm } as const
      const refused = {
        name: 'ValidationException',
        message: `Digest is invalid length for algorithm ${SigningAlgorithm}.`,
      }
      await expect(kms.send(new SignCommand(request))).rejects.toMatchObject(refused)
      await expect(kms.send(new VerifyCommand({ ...request, Signature: Buffer.alloc(9) }))).rejects.toMatchObject(
        refused,
      )
    })

    it('refuse a DIGEST with ML-DSA and an external mu with any other key', async () => {
      const { id } = await makeKey('ML_DSA_44')
      const digest = { KeyId: id, Message: Buffer.alloc(32), MessageType: 'DIGEST', SigningAlgorithm } as const
      await expect(kms.send(new SignCommand(digest))).rejects.toMatchObject({ name: 'ValidationException' })
      const { KeyMetadata } = await kms.send(
        new CreateKeyCommand({ KeySpec: 'ECC_NIST_P256', KeyUsage: 'SIGN_VERIFY' }),
      )
      const mu = { KeyId: KeyMetadata!.KeyId!, Message: Buffer.alloc(64), MessageType: 'EXTERNAL_MU' } as const
      await expect(kms.send(new SignCommand({ ...mu, SigningAlgorithm: 'ECDSA_SHA_256' }))).rejects.toMatchObject({
        name: 'ValidationException',
      })
      await expect(kms.send(new SignCommand({ ...mu, SigningAlgorithm }))).rejects.toMatchObject({
        name: 'InvalidKeyUsageException',
        message: `Algorithm ${SigningAlgorithm} is incompatible with key spec ECC_NIST_P256.`,
      })
    })

    it('with DryRun say that they would have worked, or what is wrong', async () => {
      const { id } = await makeKey('ML_DSA_44')
      const request = { KeyId: id, Message, SigningAlgorithm } as const
      const { Signature } = await kms.send(new SignCommand(request))
      const dry = { name: 'DryRunOperationException' }
      await expect(kms.send(new SignCommand({ ...request, DryRun: true }))).rejects.toMatchObject(dry)
      await expect(kms.send(new VerifyCommand({ ...request, Signature, DryRun: true }))).rejects.toMatchObject(dry)
      const wrong = { ...request, Signature: flipped(Signature!), DryRun: true }
      await expect(kms.send(new VerifyCommand(wrong))).rejects.toMatchObject({ name: 'KMSInvalidSignatureException' })
    })
  })

  describe('Encapsulate and Decapsulate', () => {
    it.each(mlKem)('with %s share a secret', async (spec, _node, _publicBytes, ciphertextBytes) => {
      const { id, arn } = await makeKey(spec)
      await kms.send(new CreateAliasCommand({ AliasName: `alias/${spec}`, TargetKeyId: id }))
      const { $metadata: _, ...made } = await kms.send(
        new EncapsulateCommand({ KeyId: `alias/${spec}`, EncapsulationAlgorithm }),
      )
      expect(made).toEqual({
        KeyId: arn,
        EncapsulationAlgorithm,
        SharedSecret: expect.any(Uint8Array),
        SharedSecretCiphertextBlob: expect.any(Uint8Array),
      })
      expect(made.SharedSecret).toHaveLength(32)
      expect(made.SharedSecretCiphertextBlob).toHaveLength(ciphertextBytes)
      const { $metadata: __, ...opened } = await kms.send(
        new DecapsulateCommand({
          KeyId: `alias/${spec}`,
          EncapsulationAlgorithm,
          SharedSecretCiphertextBlob: made.SharedSecretCiphertextBlob,
        }),
      )
      expect(opened).toEqual({ KeyId: arn, EncapsulationAlgorithm, SharedSecret: made.SharedSecret })
    })

    it.each(mlKem)('with %s open what was encapsulated outside to the exported key', async (spec) => {
      const { id } = await makeKey(spec)
      const { ciphertext, sharedKey } = encapsulate(toKey(await publicKeyOf(id)))
      const request = { KeyId: id, EncapsulationAlgorithm } as const
      const open = async (blob: Uint8Array) =>
        Buffer.from(
          (await kms.send(new DecapsulateCommand({ ...request, SharedSecretCiphertextBlob: blob }))).SharedSecret!,
        )
      expect(await open(ciphertext)).toEqual(sharedKey)
      // implicit rejection: no error tells a changed ciphertext from a good one
      const rejected = await open(flipped(ciphertext))
      expect(rejected).toHaveLength(32)
      expect(rejected).not.toEqual(sharedKey)
      expect(await open(flipped(ciphertext))).toEqual(rejected)
    })

    it('answer InvalidCiphertextException without a message for a ciphertext of another length, DryRun or not', async () => {
      const { id } = await makeKey('ML_KEM_768')
      const call = createCall(gateway)
      for (const bytes of [1, 768, 1087, 1089, 1568]) {
        const request = { KeyId: id, EncapsulationAlgorithm, SharedSecretCiphertextBlob: base64(Buffer.alloc(bytes)) }
        for (const DryRun of [false, true]) {
          expect(await refusal(call('Decapsulate', { ...request, DryRun }))).toEqual({
            __type: 'InvalidCiphertextException',
          })
        }
      }
    })

    it('judge in AWS order: members, key, state, usage, algorithm', async () => {
      const call = createCall(gateway)
      const unknown = '00000000-0000-4000-8000-000000000000'
      expect(await refusal(call('Encapsulate', { KeyId: unknown, EncapsulationAlgorithm: 'RSA' }))).toMatchObject({
        __type: 'ValidationException',
        message: expect.stringContaining("Value 'RSA' at 'encapsulationAlgorithm' failed to satisfy constraint"),
      })
      expect(await refusal(call('Decapsulate', { KeyId: unknown, EncapsulationAlgorithm }))).toMatchObject({
        __type: 'ValidationException',
        message: expect.stringContaining("'sharedSecretCiphertextBlob'"),
      })
      expect(await refusal(call('Encapsulate', { KeyId: unknown, EncapsulationAlgorithm }))).toMatchObject({
        __type: 'NotFoundException',
      })
      const signs = await makeKey('ML_DSA_44')
      const blob = base64(Buffer.alloc(768))
      const decapsulation = { EncapsulationAlgorithm, SharedSecretCiphertextBlob: blob }
      for (const [operation, members] of [
        ['Encapsulate', { EncapsulationAlgorithm }],
        ['Decapsulate', decapsulation],
      ] as const) {
        expect(await refusal(call(operation, { KeyId: signs.id, ...members }))).toEqual({
          __type: 'InvalidKeyUsageException',
          message: `${signs.arn} key usage is SIGN_VERIFY which is not valid for ${operation}.`,
        })
      }
      await kms.send(new DisableKeyCommand({ KeyId: signs.id }))
      expect(await refusal(call('Decapsulate', { KeyId: signs.id, ...decapsulation }))).toEqual({
        __type: 'DisabledException',
        message: `${signs.arn} is disabled.`,
      })
      const opens = await makeKey('ML_KEM_512')
      await kms.send(new ScheduleKeyDeletionCommand({ KeyId: opens.id, PendingWindowInDays: 7 }))
      expect(await refusal(call('Encapsulate', { KeyId: opens.id, EncapsulationAlgorithm }))).toEqual({
        __type: 'KMSInvalidStateException',
        message: `${opens.arn} is pending deletion.`,
      })
    })

    it('with DryRun do nothing but say that they would have worked', async () => {
      const { id } = await makeKey('ML_KEM_512')
      const dry = { name: 'DryRunOperationException' }
      const request = { KeyId: id, EncapsulationAlgorithm, DryRun: true } as const
      await expect(kms.send(new EncapsulateCommand(request))).rejects.toMatchObject(dry)
      const blob = { SharedSecretCiphertextBlob: Buffer.alloc(768) }
      await expect(kms.send(new DecapsulateCommand({ ...request, ...blob }))).rejects.toMatchObject(dry)
      expect((await kms.send(new GetKeyLastUsageCommand({ KeyId: id }))).KeyLastUsage).toEqual({})
    })

    it('are allowed by grants for exactly the operations named', async () => {
      const { id, arn } = await makeKey('ML_KEM_512')
      const user = await gateway.createUser('kem-grantee')
      await kms.send(
        new CreateGrantCommand({
          KeyId: id,
          GranteePrincipal: 'arn:aws:iam::000000000000:user/kem-grantee',
          Operations: ['Decapsulate'],
        }),
      )
      const stranger = gateway.client({ credentials: user })
      const { ciphertext, sharedKey } = encapsulate(toKey(await publicKeyOf(id)))
      const request = { KeyId: arn, EncapsulationAlgorithm } as const
      const opened = await stranger.send(new DecapsulateCommand({ ...request, SharedSecretCiphertextBlob: ciphertext }))
      expect(Buffer.from(opened.SharedSecret!)).toEqual(sharedKey)
      await expect(stranger.send(new EncapsulateCommand(request))).rejects.toMatchObject({
        name: 'AccessDeniedException',
        message: expect.stringContaining('kms:Encapsulate'),
      })
      const grant = { KeyId: id, GranteePrincipal: 'arn:aws:iam::000000000000:user/kem-grantee' }
      for (const operation of ['Sign', 'DeriveSharedSecret', 'Encrypt'] as const) {
        await expect(kms.send(new CreateGrantCommand({ ...grant, Operations: [operation] }))).rejects.toMatchObject({
          name: 'ValidationException',
        })
      }
    })

    it('are recorded without secret and ciphertext, and as the last use of the key', async () => {
      const { id, arn } = await makeKey('ML_KEM_512')
      const made = await kms.send(new EncapsulateCommand({ KeyId: id, EncapsulationAlgorithm }))
      const { SharedSecretCiphertextBlob, SharedSecret } = made
      const { $metadata } = await kms.send(
        new DecapsulateCommand({ KeyId: id, EncapsulationAlgorithm, SharedSecretCiphertextBlob }),
      )
      const records = (await gateway.auditRecords()).map(({ event }) => event)
      for (const [eventName, requestID] of [
        ['Encapsulate', made.$metadata.requestId],
        ['Decapsulate', $metadata.requestId],
      ]) {
        const record = records.find((event) => event.requestID === requestID)
        expect(record).toMatchObject({
          eventName,
          readOnly: true,
          requestParameters: { keyId: id, encapsulationAlgorithm: EncapsulationAlgorithm },
          responseElements: null,
          resources: [{ ARN: arn, type: 'AWS::KMS::Key' }],
        })
        expect(record?.additionalEventData).not.toHaveProperty('keyMaterialId')
        const text = JSON.stringify(record)
        expect(text).not.toContain(base64(SharedSecret!))
        expect(text).not.toContain(base64(SharedSecretCiphertextBlob!))
        expect(text).not.toContain('sharedSecret')
      }
      const { KeyLastUsage } = await kms.send(new GetKeyLastUsageCommand({ KeyId: id }))
      expect(KeyLastUsage).toMatchObject({ Operation: 'Decapsulate', KmsRequestId: $metadata.requestId })
    })
  })
})

describe('a module of PKCS#11 3.2 without the later mechanism for an external mu', () => {
  it('signs messages, verifies an external mu in software, and signs none', async () => {
    await using token = await createPqcToken({ withoutMu: true })
    await using gateway = await startGateway({ token })
    const kms = gateway.client()
    const { KeyMetadata } = await kms.send(new CreateKeyCommand({ KeySpec: 'ML_DSA_44', KeyUsage: 'SIGN_VERIFY' }))
    const KeyId = KeyMetadata!.KeyId!
    const { Signature } = await kms.send(new SignCommand({ KeyId, Message, SigningAlgorithm }))
    const { PublicKey } = await kms.send(new GetPublicKeyCommand({ KeyId }))
    const mu = {
      KeyId,
      Message: muOf(PublicKey!, 1312, Message),
      MessageType: 'EXTERNAL_MU',
      SigningAlgorithm,
    } as const
    expect((await kms.send(new VerifyCommand({ ...mu, Signature }))).SignatureValid).toBe(true)
    await expect(kms.send(new SignCommand(mu))).rejects.toMatchObject({ name: 'UnsupportedOperationException' })
  }, 180_000)
})

describe('post-quantum key specs are refused', () => {
  it.each([
    ['where the module has no such mechanisms', () => createTestToken()],
    ['where signatures and secrets of the module are wrong', () => createPqcToken({ wrong: true })],
  ])(
    '%s',
    async (_where, createToken) => {
      await using token = await createToken()
      await using gateway = await startGateway({ token })
      const kms = gateway.client()
      for (const [spec] of [...mlDsa, ...mlKem]) {
        const create = kms.send(new CreateKeyCommand({ KeySpec: spec, KeyUsage: usageOf(spec) }))
        await expect(create, spec).rejects.toMatchObject({ name: 'UnsupportedOperationException' })
      }
      const { KeyMetadata } = await kms.send(new CreateKeyCommand({}))
      const request = { KeyId: KeyMetadata!.KeyId!, EncapsulationAlgorithm } as const
      await expect(kms.send(new EncapsulateCommand(request))).rejects.toMatchObject({
        name: 'InvalidKeyUsageException',
      })
    },
    180_000,
  )
})
