/**
 * The vectors of test/vectors at the door: Verify, VerifyMac, Decrypt and DeriveSharedSecret with keys that were imported, so that what is right
 * succeeds and each named flaw gets the one refusal that there is for it, as message and as digest.
 */
import { createHash, createPublicKey } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import path from 'node:path'
import type { KeySpec, KeyUsageType, KMS } from '@aws-sdk/client-kms'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { runOk } from '../../support/command.ts'
import { startGateway, type TestGateway } from '../../support/gateway.ts'
import { importMaterial } from '../../support/import-wrapping.ts'
import { makeKey, openKms, type Refusal, refusalOf } from '../../support/kms-sdk.ts'

interface Vector {
  readonly flaw?: string
  readonly note?: string
  readonly message?: string
  readonly signature?: string
  readonly mac?: string
  readonly ciphertext?: string
  readonly plaintext?: string
  readonly publicKey?: string
  readonly secret?: string
}

interface Group {
  readonly spec: KeySpec
  readonly algorithm: string
  readonly privateKey?: string
  readonly secretKey?: string
  readonly vectors: readonly Vector[]
}

function load(name: string): readonly (readonly [string, Group])[] {
  const file = path.resolve(import.meta.dirname, '../../vectors', `${name}.json`)
  const { groups } = JSON.parse(readFileSync(file, 'utf8')) as { groups: readonly Group[] }
  return groups.map((group) => [`${group.algorithm} with ${group.spec}`, group])
}

let gateway: TestGateway
let kms: KMS
const imported = new Map<string, string>()

beforeAll(async () => {
  gateway = await startGateway({ config: { allowImportThroughMemory: true } })
  kms = openKms(gateway)
}, 60_000)

afterAll(async () => {
  kms?.destroy()
  await gateway?.[Symbol.asyncDispose]()
})

const patience = { timeout: 60_000 }
const bytes = (hex = '') => Buffer.from(hex, 'hex')

/** The key of a group in the module; groups that share one share it there. */
async function keyOf({ spec, privateKey, secretKey }: Group, KeyUsage: KeyUsageType): Promise<string> {
  const material = privateKey ?? (secretKey as string)
  const known = imported.get(material)
  if (known !== undefined) return known
  const { id } = await makeKey(kms, { KeySpec: spec, KeyUsage, Origin: 'EXTERNAL' })
  const algorithm = privateKey === undefined ? 'RSAES_OAEP_SHA_1' : 'RSA_AES_KEY_WRAP_SHA_1'
  await importMaterial(kms, id, bytes(material), { algorithm })
  imported.set(material, id)
  return id
}

/** What became of each vector, by what it is: a test compares all of them at once and so names every wrong one. */
async function judge(
  vectors: readonly Vector[],
  ask: (vector: Vector) => Promise<unknown>,
): Promise<Readonly<Record<string, unknown>>> {
  const outcomes: Record<string, unknown> = {}
  for (const [at, vector] of vectors.entries()) {
    outcomes[`${at}: ${vector.flaw ?? 'valid'}`] = await ask(vector).catch(
      (cause: Error) => ({ name: cause.name, message: cause.message }) satisfies Pick<Refusal, 'name' | 'message'>,
    )
  }
  return outcomes
}

function expected(
  vectors: readonly Vector[],
  valid: (vector: Vector) => unknown,
  refused: (vector: Vector) => string,
): Readonly<Record<string, unknown>> {
  return Object.fromEntries(
    vectors.map((vector, at) => [
      `${at}: ${vector.flaw ?? 'valid'}`,
      vector.flaw === undefined ? valid(vector) : { name: refused(vector), message: 'UnknownError' },
    ]),
  )
}

describe.each([...load('ecdsa'), ...load('rsa-pkcs1'), ...load('rsa-pss'), ...load('ed25519')])(
  'Verify of %s',
  (_name, group) => {
    const isEd25519 = group.algorithm === 'ED25519_SHA_512'
    const forms = isEd25519 ? (['RAW'] as const) : (['RAW', 'DIGEST'] as const)

    it.each(forms)('accepts what is right and refuses every flaw alike, as %s', patience, async (MessageType) => {
      const KeyId = await keyOf(group, 'SIGN_VERIFY')
      const hash = `sha${group.algorithm.slice(-3)}`
      const outcomes = await judge(group.vectors, async ({ message, signature }) => {
        const raw = bytes(message)
        const Message = MessageType === 'RAW' ? raw : createHash(hash).update(raw).digest()
        const Signature = bytes(signature)
        const SigningAlgorithm = group.algorithm as never
        return (await kms.verify({ KeyId, Message, MessageType, Signature, SigningAlgorithm })).SignatureValid
      })
      expect(outcomes).toEqual(
        expected(
          group.vectors,
          () => true,
          () => 'KMSInvalidSignatureException',
        ),
      )
    })

    it('signs with the imported key what openssl verifies', patience, async () => {
      const KeyId = await keyOf(group, 'SIGN_VERIFY')
      const file = (name: string) => path.join(gateway.token.directory, `${group.algorithm}-${group.spec}-${name}`)
      const Message = Buffer.from('signed in the module')
      const { Signature } = await kms.sign({ KeyId, Message, SigningAlgorithm: group.algorithm as never })
      const { PublicKey } = await kms.getPublicKey({ KeyId })
      const own = createPublicKey({ key: bytes(group.privateKey), format: 'der', type: 'pkcs8' } as never)
      expect(Buffer.from(PublicKey!)).toEqual(own.export({ format: 'der', type: 'spki' }))
      await Promise.all([
        writeFile(file('message'), Message),
        writeFile(file('signature'), Signature!),
        writeFile(file('key'), PublicKey!),
      ])
      const key = ['-keyform', 'DER']
      const said = isEd25519
        ? await runOk('/usr/bin/openssl', [
            ...['pkeyutl', '-verify', '-pubin', ...key, '-inkey', file('key')],
            ...['-rawin', '-in', file('message'), '-sigfile', file('signature')],
          ])
        : await runOk('/usr/bin/openssl', [
            ...['dgst', `-sha${group.algorithm.slice(-3)}`, ...key, '-verify', file('key')],
            ...(group.algorithm.includes('PSS')
              ? ['-sigopt', 'rsa_padding_mode:pss', '-sigopt', 'rsa_pss_saltlen:digest']
              : []),
            ...['-signature', file('signature'), file('message')],
          ])
      expect(said.toString()).toMatch(/Verified (OK|Successfully)|Signature Verified Successfully/)
    })
  },
)

describe.each(load('hmac'))('VerifyMac of %s', (_name, group) => {
  it('accepts what is right and refuses every flaw alike', patience, async () => {
    const KeyId = await keyOf(group, 'GENERATE_VERIFY_MAC')
    const MacAlgorithm = group.algorithm as never
    const outcomes = await judge(group.vectors, async ({ message, mac }) => {
      return (await kms.verifyMac({ KeyId, Message: bytes(message), Mac: bytes(mac), MacAlgorithm })).MacValid
    })
    expect(outcomes).toEqual(
      expected(
        group.vectors,
        () => true,
        () => 'KMSInvalidMacException',
      ),
    )
  })

  it('makes the code that openssl makes', patience, async () => {
    const KeyId = await keyOf(group, 'GENERATE_VERIFY_MAC')
    const Message = Buffer.from('authenticated in the module')
    const { Mac } = await kms.generateMac({ KeyId, Message, MacAlgorithm: group.algorithm as never })
    const options = ['-mac', 'HMAC', '-macopt', `hexkey:${group.secretKey}`, '-binary']
    const expectedMac = await runOk('/usr/bin/openssl', ['dgst', `-sha${group.algorithm.slice(-3)}`, ...options], {
      input: Message,
    })
    expect(Buffer.from(Mac!)).toEqual(expectedMac)
  })
})

describe.each(load('rsa-oaep'))('Decrypt of %s', (_name, group) => {
  it('opens what is right and refuses every flaw alike', patience, async () => {
    const KeyId = await keyOf(group, 'ENCRYPT_DECRYPT')
    const EncryptionAlgorithm = group.algorithm as never
    const outcomes = await judge(group.vectors, async ({ ciphertext }) => {
      const { Plaintext } = await kms.decrypt({ KeyId, CiphertextBlob: bytes(ciphertext), EncryptionAlgorithm })
      return Buffer.from(Plaintext!).toString('hex')
    })
    expect(outcomes).toEqual(
      expected(
        group.vectors,
        ({ plaintext }) => plaintext,
        () => 'InvalidCiphertextException',
      ),
    )
  })

  it('encrypts what openssl opens with the imported key', patience, async () => {
    const KeyId = await keyOf(group, 'ENCRYPT_DECRYPT')
    const Plaintext = Buffer.from('sealed at the door')
    const { CiphertextBlob } = await kms.encrypt({ KeyId, Plaintext, EncryptionAlgorithm: group.algorithm as never })
    const keyFile = path.join(gateway.token.directory, `${group.algorithm}.key`)
    await writeFile(keyFile, bytes(group.privateKey))
    const hash = group.algorithm.endsWith('_1') ? 'sha1' : 'sha256'
    const padding = ['rsa_padding_mode:oaep', `rsa_oaep_md:${hash}`, `rsa_mgf1_md:${hash}`]
    const options = padding.flatMap((option) => ['-pkeyopt', option])
    const args = ['pkeyutl', '-decrypt', '-keyform', 'DER', '-inkey', keyFile, ...options]
    expect(await runOk('/usr/bin/openssl', args, { input: CiphertextBlob! })).toEqual(Plaintext)
  })
})

describe.each(load('ecdh'))('DeriveSharedSecret of %s', (_name, group) => {
  it('agrees with right keys, leading zeros included, and refuses every flaw alike', patience, async () => {
    const KeyId = await keyOf(group, 'KEY_AGREEMENT')
    const outcomes = await judge(group.vectors, async ({ publicKey }) => {
      const request = { KeyId, KeyAgreementAlgorithm: 'ECDH', PublicKey: bytes(publicKey) } as const
      return Buffer.from((await kms.deriveSharedSecret(request)).SharedSecret!).toString('hex')
    })
    expect(outcomes).toEqual(
      expected(
        group.vectors,
        ({ secret }) => secret,
        () => 'ValidationException',
      ),
    )
  })

  it('refuses a flawed key in a dry run too', patience, async () => {
    const KeyId = await keyOf(group, 'KEY_AGREEMENT')
    for (const { flaw, publicKey } of group.vectors) {
      const request = { KeyId, KeyAgreementAlgorithm: 'ECDH', PublicKey: bytes(publicKey), DryRun: true } as const
      const { name } = await refusalOf(kms.deriveSharedSecret(request))
      expect({ flaw, name }).toEqual({
        flaw,
        name: flaw === undefined ? 'DryRunOperationException' : 'ValidationException',
      })
    }
  })
})
