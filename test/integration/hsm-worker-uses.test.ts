/** What keys of each spec do through real workers on SoftHSM2, checked in software; and what a compromised gateway can't make them do. */
import {
  constants,
  createCipheriv,
  createHash,
  createHmac,
  createPublicKey,
  diffieHellman,
  generateKeyPairSync,
  publicEncrypt,
  randomBytes,
  verify,
} from 'node:crypto'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { ObjectSummary, SignAlgorithm } from '../../src/hsm/port.ts'
import {
  algorithmCode,
  generateKey,
  keyFields,
  startWorker,
  type TestKey,
  type TestWorker,
  targetFields,
} from '../support/hsm-worker.ts'
import { createTestToken, type TestToken } from '../support/softhsm.ts'

let token: TestToken
let manage: TestWorker
let serve: TestWorker

beforeAll(async () => {
  token = await createTestToken()
  manage = await startWorker(token, { role: 'manage' })
  serve = await startWorker(token, { role: 'serve' })
})

afterAll(async () => {
  await serve?.[Symbol.asyncDispose]()
  await manage?.[Symbol.asyncDispose]()
  await token?.[Symbol.asyncDispose]()
})

const spki = (key: TestKey) => createPublicKey({ key: key.publicKey, format: 'der', type: 'spki' })
const digest = (hash: string, data: Buffer) => createHash(hash).update(data).digest()
const none = { prefix: Buffer.alloc(0), context: Buffer.alloc(0) }
const seal = algorithmCode('SEAL')

async function sign(key: TestKey, algorithm: SignAlgorithm, input: Buffer): Promise<Buffer> {
  const { signature } = await serve.ask('sign', { ...keyFields(key), algorithm: algorithmCode(algorithm), input })
  return Buffer.from(signature)
}

async function sealed(key: TestKey, data: Buffer, worker = serve): Promise<Buffer> {
  const { output } = await worker.ask('encrypt', {
    ...keyFields(key),
    algorithm: seal,
    ...none,
    data: Buffer.from(data),
  })
  return Buffer.from(output)
}

async function opened(key: TestKey, data: Buffer, worker = serve): Promise<Buffer> {
  const { output } = await worker.ask('decrypt', { ...keyFields(key), algorithm: seal, ...none, data })
  return Buffer.from(output)
}

describe('signing', () => {
  it('makes every RSA signature that node:crypto accepts', async () => {
    const key = await generateKey(manage, { spec: 'RSA_2048', usage: 'SIGN_VERIFY' })
    const data = randomBytes(77)
    for (const [name, hash] of [
      ['SHA_1', 'sha1'],
      ['SHA_224', 'sha224'],
      ['SHA_256', 'sha256'],
      ['SHA_384', 'sha384'],
      ['SHA_512', 'sha512'],
    ] as const) {
      const signature = await sign(key, `RSASSA_PKCS1_V1_5_${name}`, digest(hash, data))
      expect(verify(hash, data, spki(key), signature), name).toBe(true)
    }
    for (const [name, hash] of [
      ['SHA_256', 'sha256'],
      ['SHA_384', 'sha384'],
      ['SHA_512', 'sha512'],
    ] as const) {
      const signature = await sign(key, `RSASSA_PSS_${name}`, digest(hash, data))
      const how = {
        key: spki(key),
        padding: constants.RSA_PKCS1_PSS_PADDING,
        saltLength: constants.RSA_PSS_SALTLEN_DIGEST,
      }
      expect(verify(hash, data, how, signature), `PSS ${name}`).toBe(true)
    }
  })

  it.each([
    ['ECC_NIST_P256', 'sha256', 64],
    ['ECC_NIST_P384', 'sha384', 96],
    ['ECC_NIST_P521', 'sha512', 132],
    ['ECC_SECG_P256K1', 'sha256', 64],
  ] as const)('answers r and s of %s in fixed width', async (spec, hash, length) => {
    const key = await generateKey(manage, { spec, usage: 'SIGN_VERIFY' })
    const data = randomBytes(77)
    for (let i = 0; i < 20; i++) {
      const signature = await sign(key, 'ECDSA', digest(hash, data))
      expect(signature).toHaveLength(length)
      expect(verify(hash, data, { key: spki(key), dsaEncoding: 'ieee-p1363' }, signature)).toBe(true)
    }
  })

  it('makes RSA-PSS signatures with the salt that the input names, if there is room for it', async () => {
    const key = await generateKey(manage, { spec: 'RSA_2048', usage: 'SIGN_VERIFY' })
    const salted = (hash: number, saltLength: number, bytes: Buffer) =>
      Buffer.concat([Buffer.from([hash, saltLength >> 8, saltLength & 255]), bytes])
    const data = randomBytes(100)
    const padding = constants.RSA_PKCS1_PSS_PADDING
    for (const [number, hash, most] of [
      [1, 'sha256', 222],
      [2, 'sha384', 206],
      [3, 'sha512', 190],
    ] as const) {
      for (const saltLength of [0, most]) {
        const signature = await sign(key, 'RSASSA_PSS_SALTED', salted(number, saltLength, digest(hash, data)))
        expect(verify(hash, data, { key: spki(key), padding, saltLength }, signature)).toBe(true)
      }
    }
    const sha256 = digest('sha256', data)
    const algorithm = algorithmCode('RSASSA_PSS_SALTED')
    const wrong = [
      salted(1, 223, sha256),
      salted(0, 32, sha256),
      salted(4, 32, sha256),
      salted(2, 32, sha256),
      Buffer.alloc(0),
    ]
    for (const input of wrong) {
      const refusal = await serve.refusal('sign', { ...keyFields(key), algorithm, input })
      expect(refusal).toMatchObject({ code: 'ValidationFailed', rv: 0 })
    }
  })

  it('signs messages with Ed25519, the empty one included', async () => {
    const key = await generateKey(manage, { spec: 'ECC_NIST_EDWARDS25519', usage: 'SIGN_VERIFY' })
    for (const message of [Buffer.alloc(0), randomBytes(5000)]) {
      expect(verify(null, message, spki(key), await sign(key, 'ED25519', message))).toBe(true)
    }
  })

  it('refuses digests of another length and algorithms of other keys', async () => {
    const rsa = await generateKey(serve, { spec: 'RSA_2048', usage: 'SIGN_VERIFY', residence: 'session' })
    const ask = (algorithm: SignAlgorithm, bytes: number) =>
      serve.refusal('sign', {
        ...keyFields(rsa),
        algorithm: algorithmCode(algorithm),
        input: randomBytes(bytes),
      })
    expect(await ask('RSASSA_PKCS1_V1_5_SHA_256', 31)).toMatchObject({ code: 'ValidationFailed', rv: 0 })
    expect(await ask('RSASSA_PSS_SHA_512', 32)).toMatchObject({ code: 'ValidationFailed', rv: 0 })
    expect(await ask('ECDSA', 32)).toMatchObject({ code: 'KeyUsageInvalid', rv: 0 })
    expect(await ask('ML_DSA', 32)).toMatchObject({ code: 'KeyUsageInvalid', rv: 0 })
  })
})

describe('MACs', () => {
  it.each([
    ['HMAC_224', 28],
    ['HMAC_256', 32],
    ['HMAC_384', 48],
    ['HMAC_512', 64],
  ] as const)('%s answers its full length, the same for the same message', async (spec, length) => {
    const key = await generateKey(manage, { spec, usage: 'GENERATE_VERIFY_MAC' })
    const algorithm = algorithmCode(`HMAC_SHA_${spec.slice(5)}` as 'HMAC_SHA_256')
    const ask = async (message: string) => {
      const { mac } = await serve.ask('mac', { ...keyFields(key), algorithm, message: Buffer.from(message) })
      return Buffer.from(mac).toString('hex')
    }
    const mac = await ask('message')
    expect(mac).toHaveLength(2 * length)
    expect(await ask('message')).toBe(mac)
    expect(await ask('messagf')).not.toBe(mac)
    expect(await ask('')).toHaveLength(2 * length)
  })

  it('gives one material id per key and message, on every worker', async () => {
    await using another = await startWorker(token, { role: 'serve' })
    const ask = async (key: TestKey, message: string, worker = serve) => {
      const fields = { ...keyFields(key), algorithm: algorithmCode('MATERIAL_ID'), message: Buffer.from(message) }
      return Buffer.from((await worker.ask('mac', fields)).mac).toString('hex')
    }
    const keys = [
      await generateKey(manage, { spec: 'SYMMETRIC_DEFAULT', usage: 'ENCRYPT_DECRYPT' }),
      await generateKey(manage, { spec: 'SYMMETRIC_DEFAULT', usage: 'ENCRYPT_DECRYPT', purpose: 'xks' }),
      await generateKey(manage, { spec: 'HMAC_384', usage: 'GENERATE_VERIFY_MAC' }),
    ]
    const ids = new Set<string>()
    for (const key of keys) {
      const id = await ask(key, 'one')
      expect(id).toHaveLength(64)
      expect(await ask(key, 'one', another)).toBe(id)
      ids.add(id).add(await ask(key, 'two'))
    }
    expect(ids.size).toBe(6)
  })
})

describe('sealing', () => {
  let key: TestKey
  beforeAll(async () => {
    key = await generateKey(manage, { spec: 'SYMMETRIC_DEFAULT', usage: 'ENCRYPT_DECRYPT' })
  })

  it('opens on another worker what one worker sealed', async () => {
    await using another = await startWorker(token, { role: 'serve' })
    for (const data of [Buffer.alloc(0), randomBytes(1), randomBytes(4096), randomBytes(65_536)]) {
      expect((await opened(key, await sealed(key, data), another)).equals(data)).toBe(true)
    }
  })

  it('never repeats an initialisation vector under one salt', async () => {
    const all = await Promise.all(Array.from({ length: 1000 }, () => sealed(key, Buffer.alloc(0))))
    expect(new Set(all.map((blob) => blob.subarray(0, 46).toString('hex'))).size).toBe(1000)
    expect(new Set(all.map((blob) => blob.subarray(0, 33).toString('hex'))).size).toBe(1)
  })

  it('answers one error for every bit that was changed, and for every shorter ciphertext', async () => {
    const blob = await sealed(key, Buffer.from('secret'))
    const ask = (data: Buffer) => serve.refusal('decrypt', { ...keyFields(key), algorithm: seal, ...none, data })
    const answers = new Set<string>()
    for (let at = 0; at < blob.length; at++) {
      const changed = Buffer.from(blob)
      changed[at] = changed[at]! ^ 1
      answers.add((await ask(changed)).code)
    }
    for (let length = 0; length < blob.length; length++) answers.add((await ask(blob.subarray(0, length))).code)
    expect([...answers]).toEqual(['CiphertextInvalid'])
    expect((await opened(key, blob)).toString()).toBe('secret')
  })

  it('binds prefix and context, and tells them apart', async () => {
    const fields = { ...keyFields(key), algorithm: seal }
    const prefix = Buffer.from('ab')
    const context = Buffer.from('c')
    const { output } = await serve.ask('encrypt', { ...fields, prefix, context, data: Buffer.from('x') })
    const data = Buffer.from(output)
    for (const other of [
      { prefix, context: Buffer.from('d') },
      { prefix: Buffer.from('a'), context },
      { prefix: Buffer.from('a'), context: Buffer.from('bc') },
      { prefix: context, context: prefix },
    ]) {
      expect((await serve.refusal('decrypt', { ...fields, ...other, data })).code).toBe('CiphertextInvalid')
    }
    expect((await serve.ask('decrypt', { ...fields, prefix, context, data })).output).toHaveLength(1)
  })

  it('does not open with another key', async () => {
    const other = await generateKey(manage, { spec: 'SYMMETRIC_DEFAULT', usage: 'ENCRYPT_DECRYPT' })
    const blob = await sealed(key, Buffer.from('secret'))
    const refused = await serve.refusal('decrypt', { ...keyFields(other), algorithm: seal, ...none, data: blob })
    expect(refused.code).toBe('CiphertextInvalid')
  })

  it('encrypts and verifies in one operation', async () => {
    const data = randomBytes(100)
    const fields = { ...keyFields(key), algorithm: seal, ...none, data: Buffer.from(data) }
    const { output } = await serve.ask('encryptThenVerify', fields)
    expect((await opened(key, Buffer.from(output))).equals(data)).toBe(true)
  })

  it('uses an XKS key itself, with the caller additional data', async () => {
    const xks = await generateKey(manage, { spec: 'SYMMETRIC_DEFAULT', usage: 'ENCRYPT_DECRYPT', purpose: 'xks' })
    expect(xks.construction).toBe('direct')
    const fields = { ...keyFields(xks), algorithm: algorithmCode('AES_GCM'), prefix: none.prefix }
    const context = Buffer.from('aad')
    const { output } = await serve.ask('encrypt', { ...fields, context, data: Buffer.from('x') })
    expect(output).toHaveLength(1 + 12 + 1 + 16)
    const data = Buffer.from(output)
    expect(Buffer.from((await serve.ask('decrypt', { ...fields, context, data })).output).toString()).toBe('x')
    const refused = await serve.refusal('decrypt', { ...fields, context: none.context, data })
    expect(refused.code).toBe('CiphertextInvalid')
  })
})

describe('RSA decryption', () => {
  it('opens OAEP with SHA-1 in the module and with SHA-256 by raw RSA', async () => {
    const key = await generateKey(manage, { spec: 'RSA_2048', usage: 'ENCRYPT_DECRYPT' })
    for (const [name, oaepHash] of [
      ['RSAES_OAEP_SHA_1', 'sha1'],
      ['RSAES_OAEP_SHA_256', 'sha256'],
    ] as const) {
      const algorithm = algorithmCode(name)
      const fields = { ...keyFields(key), algorithm, ...none }
      const padding = constants.RSA_PKCS1_OAEP_PADDING
      const data = publicEncrypt({ key: spki(key), padding, oaepHash }, Buffer.from('data key'))
      expect(Buffer.from((await serve.ask('decrypt', { ...fields, data })).output).toString()).toBe('data key')

      const { output } = await serve.ask('encrypt', { ...fields, data: Buffer.from('made here') })
      const back = await serve.ask('decrypt', { ...fields, data: Buffer.from(output) })
      expect(Buffer.from(back.output).toString()).toBe('made here')

      const foreign = publicEncrypt({ key: spki(key), padding: constants.RSA_PKCS1_PADDING }, Buffer.from('x'))
      for (const bad of [foreign, data.subarray(1), Buffer.alloc(256), Buffer.alloc(256, 0xff), Buffer.alloc(0)]) {
        expect(await serve.refusal('decrypt', { ...fields, data: bad })).toMatchObject({ code: 'CiphertextInvalid' })
      }
    }
  })
})

describe('key agreement', () => {
  it.each(['ECC_NIST_P256', 'ECC_NIST_P384', 'ECC_NIST_P521'] as const)('agrees on %s as node:crypto', async (spec) => {
    const key = await generateKey(manage, { spec, usage: 'KEY_AGREEMENT' })
    const namedCurve = spki(key).asymmetricKeyDetails?.namedCurve as string
    const peer = generateKeyPairSync('ec', { namedCurve })
    const peerPublicKey = peer.publicKey.export({ format: 'der', type: 'spki' })
    const { secret } = await serve.ask('derive', { ...keyFields(key), peerPublicKey })
    const expected = diffieHellman({ privateKey: peer.privateKey, publicKey: spki(key) })
    expect(Buffer.from(secret).equals(expected)).toBe(true)
  })

  it('refuses a point off the curve, of another curve, and garbage (invalid-curve attack)', async () => {
    const key = await generateKey(manage, { spec: 'ECC_NIST_P256', usage: 'KEY_AGREEMENT' })
    const good = generateKeyPairSync('ec', { namedCurve: 'P-256' }).publicKey.export({ format: 'der', type: 'spki' })
    const offCurve = Buffer.from(good)
    offCurve[good.length - 1] = offCurve[good.length - 1]! ^ 1
    const otherCurve = generateKeyPairSync('ec', { namedCurve: 'P-384' })
    const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 })
    for (const peerPublicKey of [
      offCurve,
      otherCurve.publicKey.export({ format: 'der', type: 'spki' }),
      rsa.publicKey.export({ format: 'der', type: 'spki' }),
      Buffer.from('garbage'),
      Buffer.alloc(0),
    ]) {
      const refused = await serve.refusal('derive', { ...keyFields(key), peerPublicKey })
      expect(refused).toMatchObject({ code: 'ValidationFailed', rv: 0 })
    }
  })
})

describe('wrapping', () => {
  it('takes an exportable session key out under a system key, and brings it back', async () => {
    const domain = await generateKey(manage, { spec: 'SYMMETRIC_DEFAULT', usage: 'WRAP_UNWRAP', purpose: 'system' })
    const usages = ((await manage.ask('attributes', keyFields(domain))).object as ObjectSummary).usages
    expect(usages).toEqual(['wrap', 'unwrap'])
    const intent = { usage: 'SIGN_VERIFY', residence: 'session', exportable: true } as const
    const key = await generateKey(serve, { spec: 'ECC_NIST_P256', ...intent })
    const kwp = algorithmCode('AES_KWP')
    const { wrapped } = await serve.ask('wrap', { ...keyFields(domain), ...targetFields(key), algorithm: kwp })
    const back = await serve.ask('unwrap', {
      ...keyFields(domain),
      algorithm: kwp,
      wrapped: Buffer.from(wrapped),
      intent: {
        group: 'test',
        spec: 'ECC_NIST_P256',
        usage: 'SIGN_VERIFY',
        purpose: 'kms',
        objectId: randomBytes(16),
        keyId: 'wrapped',
        number: 1,
        residence: 'session',
      },
    })
    const signature = await sign({ ...key, session: back.session }, 'ECDSA', digest('sha256', Buffer.from('x')))
    expect(verify('sha256', Buffer.from('x'), { key: spki(key), dsaEncoding: 'ieee-p1363' }, signature)).toBe(true)
    const tampered = Buffer.from(wrapped)
    tampered[9] = tampered[9]! ^ 1
    const unwrapOf = (bytes: Buffer, spec: string) => ({
      ...keyFields(domain),
      algorithm: kwp,
      wrapped: bytes,
      intent: {
        group: 'test',
        spec,
        usage: 'SIGN_VERIFY',
        purpose: 'kms',
        objectId: randomBytes(16),
        keyId: 'wrapped',
        number: 1,
        residence: 'session',
      },
    })
    expect((await serve.refusal('unwrap', unwrapOf(tampered, 'ECC_NIST_P256'))).code).toBe('CiphertextInvalid')
    expect((await serve.refusal('unwrap', unwrapOf(Buffer.from(wrapped), 'ECC_NIST_P384'))).code).toBe(
      'KeyMaterialIncorrect',
    )
  })

  it('lets no key out that is not exportable, nor a token key, nor under a key that is not for wrapping', async () => {
    const domain = await generateKey(manage, { spec: 'SYMMETRIC_DEFAULT', usage: 'WRAP_UNWRAP', purpose: 'system' })
    const wrapped = await generateKey(serve, {
      spec: 'HMAC_256',
      usage: 'GENERATE_VERIFY_MAC',
      residence: 'session',
    })
    const exportable = await generateKey(serve, {
      spec: 'HMAC_256',
      usage: 'GENERATE_VERIFY_MAC',
      residence: 'session',
      exportable: true,
    })
    const resident = await generateKey(manage, { spec: 'HMAC_256', usage: 'GENERATE_VERIFY_MAC' })
    const kms = await generateKey(manage, { spec: 'SYMMETRIC_DEFAULT', usage: 'ENCRYPT_DECRYPT' })
    const algorithm = algorithmCode('AES_KWP')
    const ask = (key: TestKey, target: TestKey) =>
      serve.refusal('wrap', { ...keyFields(key), ...targetFields(target), algorithm })
    expect((await ask(domain, wrapped)).code).toBe('KeyUsageInvalid')
    expect((await ask(domain, resident)).code).toBe('KeyUsageInvalid')
    expect((await ask(kms, exportable)).code).toBe('KeyUsageInvalid')
    expect((await ask({ ...kms, purpose: 'system' }, exportable)).code).toBe('KeyUsageInvalid')
  })

  it('neither brings a wrapping key in nor lets a stored key out by unwrapping (known wrapping key attack)', async () => {
    const domain = await generateKey(manage, { spec: 'SYMMETRIC_DEFAULT', usage: 'WRAP_UNWRAP', purpose: 'system' })
    const key = await generateKey(serve, {
      spec: 'HMAC_256',
      usage: 'GENERATE_VERIFY_MAC',
      residence: 'session',
      exportable: true,
    })
    const algorithm = algorithmCode('AES_KWP')
    const { wrapped } = await serve.ask('wrap', { ...keyFields(domain), ...targetFields(key), algorithm })
    const intent = {
      group: 'test',
      spec: 'HMAC_256',
      usage: 'GENERATE_VERIFY_MAC',
      purpose: 'kms',
      objectId: randomBytes(16),
      keyId: 'x',
      number: 1,
      residence: 'session',
    }
    const wrappingKey = { ...intent, spec: 'SYMMETRIC_DEFAULT', usage: 'WRAP_UNWRAP', purpose: 'system' }
    const fields = { ...keyFields(domain), algorithm, wrapped: Buffer.from(wrapped) }
    for (const forbidden of [{ ...intent, exportable: true }, wrappingKey]) {
      expect((await serve.refusal('unwrap', { ...fields, intent: forbidden })).code).toBe('KeyUsageInvalid')
    }
    const asToken = { ...wrappingKey, residence: 'token' }
    expect((await manage.refusal('unwrap', { ...fields, intent: asToken })).code).toBe('KeyUsageInvalid')
    expect((await serve.ask('unwrap', { ...fields, intent })).session).toBeGreaterThan(0)
  })

  it('makes no extractable token object, whatever the intent says', async () => {
    const intent = {
      group: 'test',
      spec: 'HMAC_256',
      usage: 'GENERATE_VERIFY_MAC',
      purpose: 'kms',
      objectId: randomBytes(16),
      keyId: 'x',
      number: 1,
      residence: 'token',
      exportable: true,
    }
    expect((await manage.refusal('generate', { intent })).code).toBe('ValidationFailed')
  })

  describe('imports', () => {
    let importing: TestKey
    beforeAll(async () => {
      importing = await generateKey(manage, { spec: 'RSA_2048', usage: 'WRAP_UNWRAP', purpose: 'system' })
    })
    const oaep = (oaepHash: string, data: Buffer) =>
      publicEncrypt({ key: spki(importing), padding: constants.RSA_PKCS1_OAEP_PADDING, oaepHash }, data)
    const kwp = (kek: Buffer, data: Buffer) => {
      const cipher = createCipheriv('id-aes256-wrap-pad', kek, Buffer.from('a65959a6', 'hex'))
      return Buffer.concat([cipher.update(data), cipher.final()])
    }
    const intent = (spec: 'HMAC_256' | 'SYMMETRIC_DEFAULT' | 'ECC_NIST_P256') => ({
      group: 'test',
      spec,
      usage: spec === 'HMAC_256' ? 'GENERATE_VERIFY_MAC' : spec === 'ECC_NIST_P256' ? 'SIGN_VERIFY' : 'ENCRYPT_DECRYPT',
      purpose: 'kms' as const,
      objectId: randomBytes(16),
      keyId: 'imported',
      number: 1,
      residence: 'token',
    })

    it('unwraps a token key that nobody can take out, and that computes as the imported one', async () => {
      const value = randomBytes(32)
      const wanted = intent('HMAC_256')
      await manage.ask('unwrap', {
        ...keyFields(importing),
        algorithm: algorithmCode('RSAES_OAEP_SHA_1'),
        wrapped: oaep('sha1', value),
        intent: wanted,
      })
      const key = { ...importing, ...wanted, session: 0, construction: 'none' as const } as TestKey
      const message = Buffer.from('message')
      const { mac } = await serve.ask('mac', {
        ...keyFields(key),
        algorithm: algorithmCode('HMAC_SHA_256'),
        message: Buffer.from(message),
      })
      expect(Buffer.from(mac).equals(createHmac('sha256', value).update(message).digest())).toBe(true)
      const { object } = await manage.ask('attributes', keyFields(key))
      expect(object).toMatchObject({ sensitive: true, extractable: false, local: false, usages: ['sign', 'verify'] })
    })

    it('unwraps a private key in two steps inside the module', async () => {
      const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
      const pkcs8 = privateKey.export({ format: 'der', type: 'pkcs8' })
      const aes = randomBytes(32)
      const wanted = intent('ECC_NIST_P256')
      await manage.ask('unwrap', {
        ...keyFields(importing),
        algorithm: algorithmCode('RSA_AES_KEY_WRAP_SHA_1'),
        wrapped: Buffer.concat([oaep('sha1', aes), kwp(aes, pkcs8)]),
        intent: wanted,
      })
      const key = { ...importing, ...wanted, session: 0, construction: 'none' as const } as TestKey
      const signature = await sign(key, 'ECDSA', digest('sha256', Buffer.from('x')))
      expect(verify('sha256', Buffer.from('x'), { key: publicKey, dsaEncoding: 'ieee-p1363' }, signature)).toBe(true)
    })

    it('refuses keys of a wrong length, garbage, and an id that exists', async () => {
      const ask = (wrapped: Buffer, spec: 'HMAC_256' | 'SYMMETRIC_DEFAULT' = 'SYMMETRIC_DEFAULT') =>
        manage.refusal('unwrap', {
          ...keyFields(importing),
          algorithm: algorithmCode('RSAES_OAEP_SHA_1'),
          wrapped,
          intent: intent(spec),
        })
      expect((await ask(oaep('sha1', randomBytes(16)))).code).toBe('KeyMaterialIncorrect')
      expect((await ask(oaep('sha1', randomBytes(31)))).code).toBe('KeyMaterialIncorrect')
      expect((await ask(oaep('sha1', randomBytes(33)))).code).toBe('KeyMaterialIncorrect')
      expect((await ask(oaep('sha1', randomBytes(16)), 'HMAC_256')).code).toBe('KeyMaterialIncorrect')
      expect((await ask(randomBytes(256))).code).toBe('CiphertextInvalid')
      expect((await ask(randomBytes(255))).code).toBe('CiphertextInvalid')
      const again = { ...intent('SYMMETRIC_DEFAULT'), objectId: importing.objectId }
      const fields = { ...keyFields(importing), algorithm: algorithmCode('RSAES_OAEP_SHA_1') }
      await manage.ask('unwrap', { ...fields, wrapped: oaep('sha1', randomBytes(32)), intent: again })
      const refused = await manage.refusal('unwrap', {
        ...fields,
        wrapped: oaep('sha1', randomBytes(32)),
        intent: again,
      })
      expect(refused.code).toBe('AlreadyExists')
    })

    it('passes nothing through memory unless that is allowed', async () => {
      const wrapped = oaep('sha256', randomBytes(32))
      const fields = { ...keyFields(importing), algorithm: algorithmCode('RSAES_OAEP_SHA_256') }
      const refused = await manage.refusal('unwrap', { ...fields, wrapped, intent: intent('HMAC_256') })
      expect(refused.code).toBe('Unsupported')
      await using lenient = await startWorker(token, { role: 'manage', allowImportThroughMemory: true })
      await lenient.ask('unwrap', { ...fields, wrapped, intent: intent('HMAC_256') })
    })

    it('does not decrypt with an importing key', async () => {
      const fields = { ...keyFields(importing), algorithm: algorithmCode('RSAES_OAEP_SHA_1'), ...none }
      const refused = await serve.refusal('decrypt', { ...fields, data: oaep('sha1', randomBytes(32)) })
      expect(refused).toMatchObject({ code: 'KeyUsageInvalid', rv: 0 })
    })
  })
})

describe('purposes', () => {
  it('refuses a key under another purpose than its label carries', async () => {
    const tls = await generateKey(manage, { spec: 'ECC_NIST_P256', usage: 'SIGN_VERIFY', purpose: 'tls' })
    const { object } = await manage.ask('attributes', keyFields(tls))
    expect((object as ObjectSummary).label).toMatch(/^hsmgate-tls:/)
    const fields = { algorithm: algorithmCode('ECDSA'), input: randomBytes(32) }
    await serve.ask('sign', { ...keyFields(tls), ...fields })
    for (const purpose of ['kms', 'system'] as const) {
      const refused = await serve.refusal('sign', { ...keyFields(tls, { purpose }), ...fields })
      expect(refused).toMatchObject({ code: 'KeyUsageInvalid', rv: 0 })
    }
    expect((await manage.refusal('destroy', keyFields(tls, { purpose: 'kms' }))).code).toBe('KeyUsageInvalid')
  })

  it('refuses operations that a purpose has no business with', async () => {
    const xks = await generateKey(manage, { spec: 'SYMMETRIC_DEFAULT', usage: 'ENCRYPT_DECRYPT', purpose: 'xks' })
    const ask = async (purpose: 'kms' | 'tls' | 'xks' | 'system', name: 'SEAL' | 'AES_GCM') => {
      const fields = { ...keyFields(xks, { purpose }), algorithm: algorithmCode(name), ...none, data: randomBytes(5) }
      return (await serve.refusal('encrypt', fields)).code
    }
    expect(await ask('xks', 'SEAL')).toBe('KeyUsageInvalid')
    expect(await ask('kms', 'AES_GCM')).toBe('KeyUsageInvalid')
    expect(await ask('kms', 'SEAL')).toBe('KeyUsageInvalid')
    expect(await ask('tls', 'AES_GCM')).toBe('KeyUsageInvalid')
  })

  it('does not use a working key of another purpose that it happens to hold', async () => {
    const kms = await generateKey(manage, { spec: 'SYMMETRIC_DEFAULT', usage: 'ENCRYPT_DECRYPT' })
    const blob = await sealed(kms, Buffer.from('x'))
    const asSystem = { ...keyFields(kms, { purpose: 'system' }), algorithm: seal, ...none }
    expect((await serve.refusal('decrypt', { ...asSystem, data: blob })).code).toBe('CiphertextInvalid')
    expect((await serve.refusal('encrypt', { ...asSystem, data: Buffer.from('x') })).code).toBe('KeyUsageInvalid')
  })

  it('does not open a blob of one purpose with a salt of another', async () => {
    const system = await generateKey(manage, { spec: 'SYMMETRIC_DEFAULT', usage: 'ENCRYPT_DECRYPT', purpose: 'system' })
    const blob = await sealed(system, Buffer.from('x'))
    expect(blob[1]).toBe(4)
    for (const byte of [0x01, 0x02, 0x05, 0x84]) {
      const other = Buffer.from(blob)
      other[1] = byte
      other[17] = byte
      const fields = { ...keyFields(system), algorithm: seal, ...none, data: other }
      expect((await serve.refusal('decrypt', fields)).code).toBe('CiphertextInvalid')
    }
  })
})
