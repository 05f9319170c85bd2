/** Bad input that an administrator or an attacker may send: each is a modelled error, and afterwards everything is as it was. */
import {
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  generatePrimeSync,
  type JsonWebKey,
  type KeyObject,
  randomBytes,
  verify,
} from 'node:crypto'
import type { AlgorithmSpec, KeySpec, KeyUsageType, KMS } from '@aws-sdk/client-kms'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { startGateway, type TestGateway, testAccount } from '../../support/gateway.ts'
import { wrapMaterial } from '../../support/import-wrapping.ts'
import { makeKey, type NewKey, openKms, refusalOf } from '../../support/kms-sdk.ts'
import { createMovingClock, dayMs, type MovingClock } from '../../support/moving-clock.ts'
import { listObjectIds } from '../../support/token-objects.ts'

let gateway: TestGateway
let kms: KMS
let clock: MovingClock
let key: NewKey

beforeAll(async () => {
  clock = createMovingClock()
  gateway = await startGateway({ config: { allowImportThroughMemory: true }, overrides: { clock } })
  kms = openKms(gateway)
  key = await makeKey(kms)
  await gateway.createUser('grantee')
}, 60_000)

afterAll(async () => {
  kms?.destroy()
  await gateway?.[Symbol.asyncDispose]()
})

const patience = { timeout: 120_000 }
const root = `arn:aws:iam::${testAccount}:root`
const GranteePrincipal = `arn:aws:iam::${testAccount}:user/grantee`
const allowAll = { Effect: 'Allow', Principal: { AWS: root }, Action: 'kms:*', Resource: '*' }
const policyOf = (...Statement: readonly object[]) => JSON.stringify({ Version: '2012-10-17', Statement })
const forEver = { ExpirationModel: 'KEY_MATERIAL_DOES_NOT_EXPIRE' } as const

/** Everything that the API tells of a key. */
async function snapshot(KeyId: string): Promise<object> {
  const [described, policy, grants, tags, aliases] = await Promise.all([
    kms.describeKey({ KeyId }),
    kms.getKeyPolicy({ KeyId }),
    kms.listGrants({ KeyId }),
    kms.listResourceTags({ KeyId }),
    kms.listAliases({ KeyId }),
  ])
  const whole = { described, policy, grants, tags, aliases }
  return JSON.parse(JSON.stringify(whole, (name, value) => (name === '$metadata' ? undefined : value)))
}

async function countKeys(): Promise<number> {
  return (await kms.listKeys({ Limit: 1000 })).Keys!.length
}

describe('policies', () => {
  const malformed: Readonly<Record<string, string>> = {
    'no JSON': 'not json',
    'cut short': policyOf(allowAll).slice(0, -2),
    'two documents': `${policyOf(allowAll)}{}`,
    'a list': '[]',
    null: 'null',
    'no statement': '{"Version":"2012-10-17"}',
    'an empty list of statements': policyOf(),
    'a statement that is a text': '{"Version":"2012-10-17","Statement":["Allow"]}',
    'an unknown version': policyOf(allowAll).replace('2012-10-17', '2020-01-01'),
    'an unknown element': policyOf({ ...allowAll, Comment: 'x' }),
    'an unknown effect': policyOf({ ...allowAll, Effect: 'Permit' }),
    'an effect in another case': policyOf({ ...allowAll, Effect: 'allow' }),
    'no effect': policyOf({ ...allowAll, Effect: undefined }),
    'no principal': policyOf({ ...allowAll, Principal: undefined }),
    'an empty principal': policyOf({ ...allowAll, Principal: {} }),
    'a principal of an unknown type': policyOf({ ...allowAll, Principal: { Group: 'x' } }),
    'a principal with a wildcard inside': policyOf({
      ...allowAll,
      Principal: { AWS: `arn:aws:iam::${testAccount}:user/*` },
    }),
    'a group as a principal': policyOf({ ...allowAll, Principal: { AWS: `arn:aws:iam::${testAccount}:group/g` } }),
    'Action and NotAction': policyOf({ ...allowAll, NotAction: 'kms:Decrypt' }),
    'an unknown condition operator': policyOf({ ...allowAll, Condition: { StringAlmost: { 'aws:userid': 'x' } } }),
    'a condition that is a text': policyOf({ ...allowAll, Condition: 'x' }),
    'a key twice': policyOf(allowAll).replace('"Effect":"Allow"', '"Effect":"Deny","Effect":"Allow"'),
    'an Sid twice': policyOf({ ...allowAll, Sid: 'a' }, { ...allowAll, Sid: 'a' }),
  }

  it.each(Object.entries(malformed))(
    'that are %s are refused, for a new key and a present one',
    async (_name, Policy) => {
      const [before, keys] = [await snapshot(key.id), await countKeys()]
      const refused = { name: 'MalformedPolicyDocumentException', status: 400 }
      for (const BypassPolicyLockoutSafetyCheck of [false, true]) {
        const more = { Policy, BypassPolicyLockoutSafetyCheck }
        expect(await refusalOf(kms.putKeyPolicy({ KeyId: key.id, ...more }))).toMatchObject(refused)
        expect(await refusalOf(kms.createKey(more))).toMatchObject(refused)
      }
      expect(await snapshot(key.id)).toEqual(before)
      expect(await countKeys()).toBe(keys)
    },
  )

  it('at the limit of their size are taken whole, beyond it refused', async () => {
    const { id: KeyId } = await makeKey(kms)
    const whole = policyOf(allowAll).padEnd(32_768)
    await kms.putKeyPolicy({ KeyId, Policy: whole })
    expect(Buffer.byteLength((await kms.getKeyPolicy({ KeyId })).Policy!)).toBe(32_768)
    const before = await snapshot(KeyId)
    for (const Policy of [`${whole} `, policyOf({ ...allowAll, Sid: 'é'.repeat(16_384) })]) {
      expect(await refusalOf(kms.putKeyPolicy({ KeyId, Policy }))).toMatchObject({ name: 'LimitExceededException' })
      expect(await refusalOf(kms.createKey({ Policy }))).toMatchObject({ name: 'LimitExceededException' })
    }
    expect(await snapshot(KeyId)).toEqual(before)
  })

  it('that name principals who do not exist are refused', async () => {
    const before = await snapshot(key.id)
    for (const AWS of [
      `arn:aws:iam::${testAccount}:user/nobody`,
      `arn:aws:iam::${testAccount}:role/nobody`,
      `arn:aws:sts::${testAccount}:assumed-role/nobody/session`,
      'AIDAEXAMPLE',
    ]) {
      for (const element of ['Principal', 'NotPrincipal']) {
        const { Principal: _, ...rest } = allowAll
        const Policy = policyOf(allowAll, { ...rest, Effect: 'Deny', Action: 'kms:Sign', [element]: { AWS } })
        const refusal = await refusalOf(kms.putKeyPolicy({ KeyId: key.id, Policy }))
        expect(refusal).toMatchObject({ name: 'MalformedPolicyDocumentException', status: 400 })
      }
    }
    expect(await snapshot(key.id)).toEqual(before)
  })

  it('with characters that policies can not have are invalid', async () => {
    for (const character of ['\u0000', '\u0100', '\u2028', '😀']) {
      const Policy = policyOf({ ...allowAll, Sid: 'x' }).replace('"x"', `"${character}"`)
      expect(await refusalOf(kms.putKeyPolicy({ KeyId: key.id, Policy }))).toMatchObject({
        name: 'ValidationException',
      })
    }
  })
})

describe('grants', () => {
  it('to principals who do not exist, or by tokens of other keys, are refused', async () => {
    const [one, two] = [await makeKey(kms), await makeKey(kms)]
    const Operations = ['Encrypt' as const]
    const before = await snapshot(one.id)
    for (const principal of [`${GranteePrincipal}-nobody`, '*', 'grantee', root.replace('root', 'group/g')]) {
      const grant = { KeyId: one.id, GranteePrincipal: principal, Operations }
      const { name } = await refusalOf(kms.createGrant(grant))
      expect({ principal, name: ['InvalidArnException', 'ValidationException'].includes(name) }).toEqual({
        principal,
        name: true,
      })
      const retiring = { KeyId: one.id, GranteePrincipal, RetiringPrincipal: principal, Operations }
      await refusalOf(kms.createGrant(retiring))
    }
    const { GrantToken } = await kms.createGrant({ KeyId: two.id, GranteePrincipal, Operations })
    const bent = `${GrantToken!.slice(0, -2)}${GrantToken!.endsWith('A') ? 'BB' : 'AA'}`
    const Plaintext = Buffer.from('x')
    for (const token of [GrantToken!, bent, 'x', GrantToken!.slice(0, -8), `${GrantToken}${GrantToken}`]) {
      const GrantTokens = [token]
      for (const call of [
        () => kms.encrypt({ KeyId: one.id, Plaintext, GrantTokens }),
        () => kms.generateDataKey({ KeyId: one.id, KeySpec: 'AES_256', GrantTokens }),
        () => kms.describeKey({ KeyId: one.id, GrantTokens }),
        () => kms.createGrant({ KeyId: one.id, GranteePrincipal, Operations, GrantTokens }),
      ]) {
        expect(await refusalOf(call())).toMatchObject({ name: 'InvalidGrantTokenException', status: 400 })
      }
    }
    for (const token of [bent, 'x']) {
      expect(await refusalOf(kms.retireGrant({ GrantToken: token }))).toMatchObject({
        name: 'InvalidGrantTokenException',
      })
    }
    expect(await snapshot(one.id)).toEqual(before)
    expect((await kms.listGrants({ KeyId: two.id })).Grants).toHaveLength(1)
  })
})

/** What GetParametersForImport gave, and material sent under it. */
async function parametersOf(KeyId: string, algorithm: AlgorithmSpec) {
  const parameters = await kms.getParametersForImport({
    KeyId,
    WrappingAlgorithm: algorithm,
    WrappingKeySpec: 'RSA_2048',
  })
  const wrap = (material: Uint8Array) => wrapMaterial(algorithm, parameters.PublicKey!, material)
  const send = (EncryptedKeyMaterial: Uint8Array, more: object = {}) =>
    kms.importKeyMaterial({ KeyId, ImportToken: parameters.ImportToken, EncryptedKeyMaterial, ...forEver, ...more })
  return { wrap, send, token: parameters.ImportToken! }
}

const der = (privateKey: KeyObject) => privateKey.export({ format: 'der', type: 'pkcs8' }) as Buffer

async function expectNoMaterial(KeyId: string, objects: readonly string[]): Promise<void> {
  const { KeyMetadata } = await kms.describeKey({ KeyId })
  expect(KeyMetadata).toMatchObject({ KeyState: 'PendingImport', Enabled: false })
  expect(KeyMetadata).not.toHaveProperty('CurrentKeyMaterialId')
  expect(await listObjectIds(gateway.token)).toEqual(objects)
}

describe('imported material', () => {
  it.each(['RSAES_OAEP_SHA_1', 'RSAES_OAEP_SHA_256'] as const)(
    'that was cut short, lengthened or bent under %s does not open',
    patience,
    async (algorithm) => {
      const { id } = await makeKey(kms, { Origin: 'EXTERNAL' })
      const { wrap, send } = await parametersOf(id, algorithm)
      const objects = await listObjectIds(gateway.token)
      const good = wrap(randomBytes(32))
      const bent = Buffer.from(good)
      bent.writeUInt8(bent.readUInt8(100) ^ 1, 100)
      for (const encrypted of [
        good.subarray(0, -1),
        good.subarray(1),
        good.subarray(0, 1),
        bent,
        Buffer.concat([good, Buffer.from([0])]),
        Buffer.alloc(256),
        Buffer.alloc(256, 0xff),
      ]) {
        expect(await refusalOf(send(encrypted))).toMatchObject({ name: 'InvalidCiphertextException', status: 400 })
      }
      await expectNoMaterial(id, objects)
    },
  )

  it.each(['RSA_AES_KEY_WRAP_SHA_1', 'RSA_AES_KEY_WRAP_SHA_256'] as const)(
    'that was cut short, lengthened or bent in either part under %s does not open',
    patience,
    async (algorithm) => {
      const { id } = await makeKey(kms, { Origin: 'EXTERNAL', KeySpec: 'ECC_NIST_P256', KeyUsage: 'SIGN_VERIFY' })
      const { wrap, send } = await parametersOf(id, algorithm)
      const objects = await listObjectIds(gateway.token)
      const good = wrap(der(generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey))
      const bentAt = (at: number) => {
        const copy = Buffer.from(good)
        copy.writeUInt8(copy.readUInt8(at) ^ 1, at)
        return copy
      }
      for (const encrypted of [
        good.subarray(0, -1),
        good.subarray(0, -8),
        good.subarray(0, 256),
        good.subarray(0, 255),
        bentAt(0),
        bentAt(200),
        bentAt(256),
        bentAt(good.length - 1),
        Buffer.concat([good, Buffer.alloc(8)]),
      ]) {
        expect(await refusalOf(send(encrypted))).toMatchObject({ name: 'InvalidCiphertextException', status: 400 })
      }
      await expectNoMaterial(id, objects)
    },
  )

  it.each([
    ['SYMMETRIC_DEFAULT', 'ENCRYPT_DECRYPT', [1, 16, 24, 31, 33, 64]],
    ['HMAC_256', 'GENERATE_VERIFY_MAC', [1, 31, 33, 64]],
    ['HMAC_384', 'GENERATE_VERIFY_MAC', [32, 47, 49, 64]],
    ['HMAC_512', 'GENERATE_VERIFY_MAC', [32, 63, 65]],
  ] as const)('of the wrong length for %s is incorrect', patience, async (KeySpec, KeyUsage, lengths) => {
    const { id } = await makeKey(kms, { Origin: 'EXTERNAL', KeySpec, KeyUsage })
    const { wrap, send } = await parametersOf(id, 'RSAES_OAEP_SHA_1')
    const objects = await listObjectIds(gateway.token)
    for (const length of lengths) {
      const { name } = await refusalOf(send(wrap(randomBytes(length))))
      expect({ length, name }).toEqual({ length, name: 'IncorrectKeyMaterialException' })
    }
    await expectNoMaterial(id, objects)
  })

  it.each([
    ['ECC_NIST_P256', 'SIGN_VERIFY', weakEcKeys],
    ['RSA_2048', 'SIGN_VERIFY', weakRsaKeys],
    ['RSA_2048', 'ENCRYPT_DECRYPT', weakRsaKeys],
  ] as const)('of a weak or false form for %s to %s is incorrect', patience, async (KeySpec, KeyUsage, forms) => {
    const { id } = await makeKey(kms, {
      Origin: 'EXTERNAL',
      KeySpec: KeySpec as KeySpec,
      KeyUsage: KeyUsage as KeyUsageType,
    })
    const { wrap, send } = await parametersOf(id, 'RSA_AES_KEY_WRAP_SHA_1')
    const objects = await listObjectIds(gateway.token)
    for (const [form, material] of Object.entries(forms())) {
      const { name, status } = await refusalOf(send(wrap(material)))
      const isModelled = name === 'IncorrectKeyMaterialException' || name === 'InvalidCiphertextException'
      expect({ form, name, status, isModelled }).toEqual({ form, name, status: 400, isModelled: true })
    }
    await expectNoMaterial(id, objects)
  })

  it.each([
    ['ECC_NIST_P256', 'ECDSA_SHA_256', contradictoryEcKeys],
    ['RSA_2048', 'RSASSA_PKCS1_V1_5_SHA_256', contradictoryRsaKeys],
  ] as const)(
    'that contradicts itself is taken for %s only if the module computes right results with it',
    patience,
    async (KeySpec, SigningAlgorithm, forms) => {
      for (const [form, material] of Object.entries(forms())) {
        const { id: KeyId } = await makeKey(kms, { Origin: 'EXTERNAL', KeySpec, KeyUsage: 'SIGN_VERIFY' })
        const { wrap, send } = await parametersOf(KeyId, 'RSA_AES_KEY_WRAP_SHA_1')
        const refused = await send(wrap(material)).then(
          () => undefined,
          ({ name }: Error) => name,
        )
        if (refused !== undefined) {
          expect({ form, refused }).toEqual({ form, refused: 'IncorrectKeyMaterialException' })
          continue
        }
        const Message = Buffer.from('right')
        const { Signature } = await kms.sign({ KeyId, Message, SigningAlgorithm })
        const { PublicKey } = await kms.getPublicKey({ KeyId })
        const publicKey = createPublicKey({ key: Buffer.from(PublicKey!), format: 'der', type: 'spki' })
        expect({ form, valid: verify('sha256', Message, publicKey, Signature!) }).toEqual({ form, valid: true })
      }
    },
  )

  it(
    'under a token that was bent, or is of another key, is refused; a token serves again within its day',
    patience,
    async () => {
      const [one, two] = [await makeKey(kms, { Origin: 'EXTERNAL' }), await makeKey(kms, { Origin: 'EXTERNAL' })]
      const { wrap, send, token } = await parametersOf(one.id, 'RSAES_OAEP_SHA_1')
      const other = await parametersOf(two.id, 'RSAES_OAEP_SHA_1')
      const objects = await listObjectIds(gateway.token)
      const material = randomBytes(32)
      const bent = Buffer.from(token)
      bent.writeUInt8(bent.readUInt8(bent.length - 1) ^ 1, bent.length - 1)
      for (const ImportToken of [bent, token.subarray(0, -1), Buffer.from('x'), other.token]) {
        expect(await refusalOf(send(wrap(material), { ImportToken }))).toMatchObject({
          name: 'InvalidImportTokenException',
          status: 400,
        })
      }
      expect((await refusalOf(other.send(wrap(material)))).name).toMatch(
        /^(InvalidCiphertext|IncorrectKeyMaterial)Exception$/,
      )
      await expectNoMaterial(one.id, objects)
      const { KeyMaterialId } = await send(wrap(material))
      await kms.deleteImportedKeyMaterial({ KeyId: one.id })
      expect((await send(wrap(material))).KeyMaterialId).toBe(KeyMaterialId)
      await kms.deleteImportedKeyMaterial({ KeyId: one.id })
      const late = wrap(material)
      clock.passes(dayMs)
      await gateway.gateway.settle()
      expect(await refusalOf(send(late))).toMatchObject({ name: 'ExpiredImportTokenException', status: 400 })
      expect((await kms.describeKey({ KeyId: one.id })).KeyMetadata).toMatchObject({ KeyState: 'PendingImport' })
    },
  )
})

describe('a clock that is wrong', () => {
  it('a month forward or back destroys neither keys nor material, and expires nothing for good', patience, async () => {
    const doomed = await makeKey(kms)
    const { DeletionDate } = await kms.scheduleKeyDeletion({ KeyId: doomed.id, PendingWindowInDays: 7 })
    const expiring = await makeKey(kms, { Origin: 'EXTERNAL' })
    const { wrap, send } = await parametersOf(expiring.id, 'RSAES_OAEP_SHA_1')
    const ValidTo = new Date(clock.wallMs() + 10 * dayMs)
    await send(wrap(randomBytes(32)), { ExpirationModel: 'KEY_MATERIAL_EXPIRES', ValidTo })
    await kms.enableKeyRotation({ KeyId: key.id, RotationPeriodInDays: 90 })
    const { NextRotationDate } = await kms.getKeyRotationStatus({ KeyId: key.id })
    const objects = await listObjectIds(gateway.token)
    for (const days of [31, -62, 31]) {
      clock.jumps(days * dayMs)
      await gateway.gateway.settle()
      expect(await listObjectIds(gateway.token)).toEqual(objects)
      expect((await kms.describeKey({ KeyId: doomed.id })).KeyMetadata).toMatchObject({
        KeyState: 'PendingDeletion',
        DeletionDate,
      })
    }
    const { CiphertextBlob } = await kms.encrypt({ KeyId: expiring.id, Plaintext: Buffer.from('x') })
    await kms.decrypt({ CiphertextBlob })
    expect((await kms.describeKey({ KeyId: expiring.id })).KeyMetadata!.ValidTo!.getTime()).toBe(
      Math.floor(ValidTo.getTime() / 1000) * 1000 + (ValidTo.getTime() % 1000),
    )
    expect((await kms.getKeyRotationStatus({ KeyId: key.id })).NextRotationDate).toEqual(NextRotationDate)
    await kms.cancelKeyDeletion({ KeyId: doomed.id })
    await kms.enableKey({ KeyId: doomed.id })
    await kms.encrypt({ KeyId: doomed.id, Plaintext: Buffer.from('still here') })
  })
})

const url = (value: bigint, bytes?: number): string => {
  const text = value.toString(16)
  const width = bytes === undefined ? text.length + (text.length % 2) : bytes * 2
  return Buffer.from(text.padStart(width, '0'), 'hex').toString('base64url')
}
const read = (text = ''): bigint => BigInt(`0x${Buffer.from(text, 'base64url').toString('hex')}`)

function weakEcKeys(): Readonly<Record<string, Buffer>> {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const good = der(privateKey)
  const order = Buffer.from('ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551', 'hex')
  const own = Buffer.from((privateKey.export({ format: 'jwk' }) as JsonWebKey).d as string, 'base64url')
  const at = good.indexOf(own)
  const withScalar = (scalar: Uint8Array) => {
    const copy = Buffer.from(good)
    copy.set(scalar, at)
    return copy
  }
  return {
    'the scalar is 0': withScalar(Buffer.alloc(32)),
    'the scalar is the order': withScalar(order),
    'another curve': der(generateKeyPairSync('ec', { namedCurve: 'P-384' }).privateKey),
    'a curve of the same size': der(generateKeyPairSync('ec', { namedCurve: 'secp256k1' }).privateKey),
    'SEC1 without PKCS #8': privateKey.export({ format: 'der', type: 'sec1' }) as Buffer,
    'an RSA key': der(generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey),
    'the public key alone': generateKeyPairSync('ec', { namedCurve: 'P-256' }).publicKey.export({
      format: 'der',
      type: 'spki',
    }) as Buffer,
    'cut short': good.subarray(0, -16),
    'random bytes': randomBytes(138),
  }
}

function weakRsaKeys(): Readonly<Record<string, Buffer>> {
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })
  const jwk = privateKey.export({ format: 'jwk' }) as JsonWebKey
  const one = url(1n)
  const identity = createPrivateKey({ key: { ...jwk, e: one, d: one, dp: one, dq: one }, format: 'jwk' })
  return {
    'the exponent is 1': der(identity),
    'the exponent is 3': der(generateKeyPairSync('rsa', { modulusLength: 2048, publicExponent: 3 }).privateKey),
    'the modulus is divisible by 3': der(rsaWithPrime(3n)),
    'the modulus is divisible by 241': der(rsaWithPrime(241n)),
    'of 1024 bits': der(generateKeyPairSync('rsa', { modulusLength: 1024 }).privateKey),
    'of 3072 bits': der(generateKeyPairSync('rsa', { modulusLength: 3072 }).privateKey),
    'PKCS #1 without PKCS #8': privateKey.export({ format: 'der', type: 'pkcs1' }) as Buffer,
    'an EC key': der(generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey),
    'cut short': der(privateKey).subarray(0, -32),
  }
}

/** A whole key of 2048 bits, one of whose primes is small. */
function rsaWithPrime(p: bigint): KeyObject {
  const e = 65_537n
  // The two top bits of generated primes are set, so that the product has all of its bits.
  const q = generatePrimeSync(2048 - p.toString(2).length, { bigint: true })
  const d = inverse(e, (p - 1n) * (q - 1n))
  const numbers = { n: p * q, e, d, p, q, dp: d % (p - 1n), dq: d % (q - 1n), qi: inverse(q % p, p) }
  const members = Object.entries(numbers).map(([name, value]) => [name, url(value)])
  return createPrivateKey({ key: { kty: 'RSA', ...Object.fromEntries(members) }, format: 'jwk' })
}

function inverse(value: bigint, modulus: bigint): bigint {
  let [r, next, s, nextS] = [modulus, value % modulus, 0n, 1n]
  while (next !== 0n) [r, next, s, nextS] = [next, r % next, nextS, s - (r / next) * nextS]
  return ((s % modulus) + modulus) % modulus
}

/** The module never looks at the public key inside, and the gateway computes its own. */
function contradictoryEcKeys(): Readonly<Record<string, Buffer>> {
  const [one, two] = [0, 1].map(() => generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey)
  const scalarOf = (key: KeyObject) => Buffer.from((key.export({ format: 'jwk' }) as JsonWebKey).d!, 'base64url')
  const mixed = der(one!)
  mixed.set(scalarOf(two!), mixed.indexOf(scalarOf(one!)))
  return { 'the public key is of another scalar': mixed }
}

/** The module corrects its results, or never uses the part that is false. */
function contradictoryRsaKeys(): Readonly<Record<string, Buffer>> {
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })
  const jwk = privateKey.export({ format: 'jwk' }) as JsonWebKey & { readonly qi?: string }
  const other = generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey.export({ format: 'jwk' }) as typeof jwk
  const changed = (changes: object) => der(createPrivateKey({ key: { ...jwk, ...changes }, format: 'jwk' }))
  return {
    'a private exponent of another key': changed({ d: other.d }),
    'primes of another key': changed({ p: other.p, q: other.q, dp: other.dp, dq: other.dq, qi: other.qi }),
    'a wrong CRT exponent': changed({ dp: url(read(jwk.dp) ^ 2n) }),
    'a wrong CRT coefficient': changed({ qi: url(read(jwk.qi) ^ 2n) }),
  }
}
