/** AWS KMS API Reference: DeriveSharedSecret. */
import { execFileSync } from 'node:child_process'
import { createPublicKey, generateKeyPairSync } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import path from 'node:path'
import {
  CreateKeyCommand,
  DeriveSharedSecretCommand,
  DisableKeyCommand,
  GetPublicKeyCommand,
  type KeySpec,
  type KeyUsageType,
  type KMSClient,
} from '@aws-sdk/client-kms'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { startGateway, type TestGateway } from '../../support/gateway.ts'

let gateway: TestGateway
let kms: KMSClient

beforeAll(async () => {
  gateway = await startGateway()
  kms = gateway.client()
}, 180_000)

afterAll(async () => {
  await gateway?.[Symbol.asyncDispose]()
})

async function makeKey(KeySpec: KeySpec, KeyUsage: KeyUsageType = 'KEY_AGREEMENT') {
  const { KeyMetadata } = await kms.send(new CreateKeyCommand({ KeySpec, KeyUsage }))
  return { id: KeyMetadata!.KeyId!, arn: KeyMetadata!.Arn! }
}

const derive = (KeyId: string, PublicKey: Uint8Array, more: object = {}) =>
  kms.send(new DeriveSharedSecretCommand({ KeyId, KeyAgreementAlgorithm: 'ECDH', PublicKey, ...more }))
const publicKeyOf = async (KeyId: string) =>
  Buffer.from((await kms.send(new GetPublicKeyCommand({ KeyId }))).PublicKey!)
const peerOf = (namedCurve: string) => {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve })
  return { privateKey, spki: publicKey.export({ format: 'der', type: 'spki' }) as Buffer }
}

describe('DeriveSharedSecret', () => {
  it.each([
    ['ECC_NIST_P256', 'P-256', 32],
    ['ECC_NIST_P384', 'P-384', 48],
    ['ECC_NIST_P521', 'P-521', 66],
  ] as const)('with %s is the secret that openssl derives', async (spec, curve, bytes) => {
    const { id, arn } = await makeKey(spec)
    const peer = peerOf(curve)
    const { $metadata: _, ...answer } = await derive(id, peer.spki)
    expect(answer).toEqual({
      KeyId: arn,
      KeyAgreementAlgorithm: 'ECDH',
      KeyOrigin: 'AWS_KMS',
      SharedSecret: expect.any(Uint8Array),
    })
    expect(answer.SharedSecret).toHaveLength(bytes)
    const file = (name: string, content: string | Buffer) => {
      const at = path.join(gateway.directory, name)
      writeFileSync(at, content)
      return at
    }
    const own = file('own.pem', peer.privateKey.export({ format: 'pem', type: 'pkcs8' }))
    const theirs = file(
      'theirs.pem',
      createPublicKey({ key: await publicKeyOf(id), format: 'der', type: 'spki' }).export({
        format: 'pem',
        type: 'spki',
      }),
    )
    const expected = execFileSync('/usr/bin/openssl', ['pkeyutl', '-derive', '-inkey', own, '-peerkey', theirs])
    expect(Buffer.from(answer.SharedSecret!)).toEqual(expected)
  })

  it('is the same for both parties', async () => {
    const [one, two] = [await makeKey('ECC_NIST_P256'), await makeKey('ECC_NIST_P256')]
    const first = await derive(one.id, await publicKeyOf(two.id))
    const second = await derive(two.id, await publicKeyOf(one.id))
    expect(first.SharedSecret).toEqual(second.SharedSecret)
  })

  it('refuses what is no point of the curve, without a message, in a dry run too', async () => {
    const { id } = await makeKey('ECC_NIST_P256')
    const good = peerOf('P-256').spki
    const offCurve = Buffer.from(good)
    offCurve[90] = offCurve[90]! ^ 1
    const infinity = Buffer.concat([
      Buffer.from('3019301306072a8648ce3d020106082a8648ce3d030107030200', 'hex'),
      Buffer.from([0]),
    ])
    const others = [
      Buffer.from('junk'),
      good.subarray(0, 60),
      offCurve,
      infinity,
      peerOf('P-384').spki,
      peerOf('secp256k1').spki,
      generateKeyPairSync('x25519').publicKey.export({ format: 'der', type: 'spki' }) as Buffer,
    ]
    for (const spki of others) {
      for (const DryRun of [false, true]) {
        await expect(derive(id, spki, { DryRun })).rejects.toMatchObject({
          name: 'ValidationException',
          message: 'UnknownError',
        })
      }
    }
  })

  it('asks for the state, then the usage, then the algorithm, and refuses a dry run last', async () => {
    const { spki } = peerOf('P-256')
    const signs = await makeKey('ECC_NIST_P256', 'SIGN_VERIFY')
    await expect(derive(signs.id, spki)).rejects.toMatchObject({
      name: 'InvalidKeyUsageException',
      message: `${signs.arn} key usage is SIGN_VERIFY which is not valid for DeriveSharedSecret.`,
    })
    await kms.send(new DisableKeyCommand({ KeyId: signs.id }))
    await expect(derive(signs.id, spki)).rejects.toMatchObject({ name: 'DisabledException' })
    const { id } = await makeKey('ECC_NIST_P256')
    await expect(derive(id, spki, { DryRun: true })).rejects.toMatchObject({ name: 'DryRunOperationException' })
    await expect(derive(id, spki, { KeyAgreementAlgorithm: 'X25519' })).rejects.toMatchObject({
      name: 'ValidationException',
      message: expect.stringContaining("Value 'X25519' at 'keyAgreementAlgorithm' failed"),
    })
  })

  it('records the algorithm and neither secret nor public key', async () => {
    const { id } = await makeKey('ECC_NIST_P256')
    await derive(id, peerOf('P-256').spki)
    expect((await gateway.auditRecords()).at(-1)!.event).toMatchObject({
      eventName: 'DeriveSharedSecret',
      readOnly: true,
      requestParameters: { keyId: id, keyAgreementAlgorithm: 'ECDH' },
      responseElements: null,
    })
    const { requestParameters } = (await gateway.auditRecords()).at(-1)!.event
    expect(Object.keys(requestParameters as object)).toEqual(['keyId', 'keyAgreementAlgorithm'])
  })
})
