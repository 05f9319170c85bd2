/** The signing socket of a real gateway on SoftHSM2, spoken to in raw frames: what it signs, for whom, and what its journal says. */
import { constants, createHash, randomBytes, verify } from 'node:crypto'
import { statSync } from 'node:fs'
import {
  DisableKeyCommand,
  EnableKeyCommand,
  GetKeyPolicyCommand,
  PutKeyPolicyCommand,
  ScheduleKeyDeletionCommand,
} from '@aws-sdk/client-kms'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import {
  errorNumbers,
  hashAlgorithms,
  inputKinds,
  type Request,
  signatureAlgorithms,
} from '../../src/transport/offload/frames.ts'
import { startGateway, type TestGateway, testAccount } from '../support/gateway.ts'
import { certificateVerify, connectHks, type HksAnswer } from '../support/hks-client.ts'
import { type BoundKey, bindKey, createTlsKey, offloadRecords } from '../support/offload.ts'
import { createSignedDocuments, type SignedDocuments } from '../support/signed-documents.ts'

let gateway: TestGateway
let documents: SignedDocuments
beforeAll(async () => {
  ;[gateway, documents] = await Promise.all([startGateway(), createSignedDocuments()])
})
afterAll(async () => {
  await gateway?.[Symbol.asyncDispose]()
})

const socket = () => gateway.gateway.endpoints.offload[0] as string
const message = certificateVerify('server', randomBytes(32))
const { rsaPkcs1, rsaPss, eddsa } = signatureAlgorithms
const { none, sha256, sha384, sha512 } = hashAlgorithms

/** One request on a connection of its own. */
async function ask(key: BoundKey, request: Partial<Request> = {}, budgetMs = 0): Promise<HksAnswer> {
  await using client = await connectHks(socket(), { tokens: [key.token] })
  return await client.sign({ keyId: key.spkiDigest, input: message, ...request }, budgetMs)
}

async function boundKey(spec: string, options: Parameters<typeof bindKey>[2] = {}): Promise<BoundKey> {
  return bindKey(gateway, await createTlsKey(gateway, spec), options)
}

describe('a signature for a TLS handshake', () => {
  const hashes = [
    ['sha256', sha256, 32],
    ['sha384', sha384, 48],
    ['sha512', sha512, 64],
  ] as const

  it('is RSA-PSS or PKCS#1 v1.5 with each hash, verified by OpenSSL, each with one record', async () => {
    const key = await boundKey('RSA_2048', { policies: 'any' })
    for (const [name, hash, saltLength] of hashes) {
      const pkcs1 = await ask(key, { algorithm: rsaPkcs1, hash })
      expect(pkcs1.ok && verify(name, message, key.publicKey, pkcs1.signature)).toBe(true)
      const pss = await ask(key, { algorithm: rsaPss, hash, mgfHash: hash, saltBytes: saltLength })
      const options = { key: key.publicKey, padding: constants.RSA_PKCS1_PSS_PADDING, saltLength }
      expect(pss.ok && verify(name, message, options, pss.signature)).toBe(true)
    }
    const records = await offloadRecords(gateway, key.name)
    expect(records.map(({ requestParameters }) => requestParameters.signingAlgorithm)).toEqual(
      [256, 384, 512].flatMap((bits) => [`RSASSA_PKCS1_V1_5_SHA_${bits}`, `RSASSA_PSS_SHA_${bits}`]),
    )
  })

  it('is RSA-PSS with any salt that the modulus has room for, as CMS asks for', async () => {
    const key = await boundKey('RSA_2048', { policies: 'any' })
    for (const [name, hash, digestBytes] of hashes) {
      const most = 256 - digestBytes - 2
      for (const saltLength of [0, 20, most]) {
        const answer = await ask(key, { algorithm: rsaPss, hash, mgfHash: hash, saltBytes: saltLength })
        const options = { key: key.publicKey, padding: constants.RSA_PKCS1_PSS_PADDING, saltLength }
        expect(answer.ok && verify(name, message, options, answer.signature)).toBe(true)
      }
      const refused = await ask(key, { algorithm: rsaPss, hash, mgfHash: hash, saltBytes: most + 1 })
      expect(refused).toMatchObject({ ok: false, code: errorNumbers.unsupported, retryable: false })
    }
  })

  it.each(['ECC_NIST_P256', 'ECC_NIST_P384', 'ECC_NIST_P521'])(
    'is ECDSA with %s and each hash, in DER',
    async (spec) => {
      const key = await boundKey(spec)
      for (const [name, hash] of hashes) {
        const answer = await ask(key, { hash })
        expect(answer.ok && verify(name, message, key.publicKey, answer.signature)).toBe(true)
      }
      expect(await offloadRecords(gateway, key.name)).toHaveLength(3)
    },
  )

  it('is Ed25519 over the message itself', async () => {
    const key = await boundKey('ECC_NIST_EDWARDS25519')
    const answer = await ask(key, { algorithm: eddsa, hash: none })
    expect(answer.ok && verify(null, message, key.publicKey, answer.signature)).toBe(true)
  })

  it('leaves one record with who asked, for what, how long it took, and no secret', async () => {
    const key = await boundKey('ECC_NIST_P256')
    const traceId = randomBytes(16)
    const answer = await ask(key, { traceId })
    const [record, ...more] = await offloadRecords(gateway, key.name)
    expect(more).toEqual([])
    expect(record).toMatchObject({
      eventSource: 'hsmgate.offload',
      eventName: 'Sign',
      userIdentity: { arn: `arn:aws:iam::${testAccount}:user/hsmgate/tls/${key.name}` },
      sourceIPAddress: 'local',
      requestParameters: {
        keyId: key.keyId,
        binding: key.name,
        signingAlgorithm: 'ECDSA_SHA_256',
        messageType: 'RAW',
        messageBytes: 130,
      },
      additionalEventData: {
        app: 'test',
        pid: process.pid,
        uid: process.getuid?.(),
        policy: 'tls13-server',
        traceId: traceId.toString('hex'),
        latencyMicros: expect.any(Number),
        decidedBy: `tls binding ${key.name}: tls13-server`,
      },
      resources: [{ ARN: key.arn, type: 'AWS::KMS::Key', accountId: testAccount }],
    })
    expect(record).not.toHaveProperty('errorCode')
    const text = JSON.stringify(record)
    for (const secret of [key.token, answer.ok ? answer.signature : Buffer.alloc(0), message])
      for (const encoding of ['hex', 'base64'] as const) expect(text).not.toContain(secret.toString(encoding))
  })

  it('comes for many requests of one connection at once', async () => {
    const key = await boundKey('ECC_NIST_P256')
    await using client = await connectHks(socket(), { tokens: [key.token] })
    const messages = Array.from({ length: client.welcome.maxInFlight }, () =>
      certificateVerify('server', randomBytes(32)),
    )
    const answers = await Promise.all(messages.map((input) => client.sign({ keyId: key.spkiDigest, input })))
    for (const [index, answer] of answers.entries())
      expect(answer.ok && verify('sha256', messages[index]!, key.publicKey, answer.signature)).toBe(true)
    expect(await offloadRecords(gateway, key.name)).toHaveLength(messages.length)
  })
})

/** What the client and the journal are told. */
async function refusal(key: BoundKey, request: Partial<Request> = {}) {
  const answer = await ask(key, request)
  const record = (await offloadRecords(gateway, key.name)).at(-1)
  return answer.ok ? { signed: true } : { code: answer.code, audited: record?.errorCode, reason: record?.errorMessage }
}

describe('a key for TLS servers', () => {
  let key: BoundKey
  beforeAll(async () => {
    key = await boundKey('ECC_NIST_P256')
  })
  const denied = { code: errorNumbers.policyDenied, audited: 'PolicyDenied' }
  const reason = expect.stringContaining('tls13-server, tls12-server-ecdhe')

  it('signs no certificate and no certificate request', async () => {
    expect(await refusal(key, { input: documents.certificate })).toEqual({ ...denied, reason })
    expect(await refusal(key, { input: documents.request })).toEqual({ ...denied, reason })
  })

  it('signs no CMS message', async () => {
    expect(await refusal(key, { input: documents.signedAttributes })).toEqual({ ...denied, reason })
  })

  it('signs no JWT', async () => {
    expect(await refusal(key, { input: documents.jwt })).toEqual({ ...denied, reason })
  })

  it('signs no raw digest', async () => {
    const input = createHash('sha256').update(message).digest()
    expect(await refusal(key, { inputKind: inputKinds.digest, input })).toEqual({ ...denied, reason })
  })

  it('signs no CertificateVerify of a client', async () => {
    expect(await refusal(key, { input: certificateVerify('client', randomBytes(32)) })).toEqual({ ...denied, reason })
  })

  it('signs certificates and requests where the binding says x509, CMS where it says cms, and nothing else', async () => {
    const ca = await bindKey(gateway, key, { policies: 'x509' })
    const mail = await bindKey(gateway, key, { policies: 'cms' })
    const signs = async (binding: BoundKey, input: Buffer) => {
      const answer = await ask(binding, { input })
      return answer.ok && verify('sha256', input, binding.publicKey, answer.signature)
    }
    expect(await signs(ca, documents.certificate)).toBe(true)
    expect(await signs(ca, documents.request)).toBe(true)
    expect(await signs(ca, documents.signedAttributes)).toBe(false)
    expect(await signs(mail, documents.signedAttributes)).toBe(true)
    expect(await signs(mail, documents.request)).toBe(false)
    expect(await signs(mail, message)).toBe(false)
  })

  it('signs a digest where the binding says any', async () => {
    const free = await bindKey(gateway, key, { policies: 'any' })
    const input = createHash('sha384').update(documents.jwt).digest()
    const answer = await ask(free, { inputKind: inputKinds.digest, hash: sha384, input })
    expect(answer.ok && verify('sha384', documents.jwt, free.publicKey, answer.signature)).toBe(true)
    expect(await refusal(free, { inputKind: inputKinds.digest, input: input.subarray(1), hash: sha384 })).toMatchObject(
      {
        code: errorNumbers.badRequest,
        audited: 'BadRequest',
      },
    )
  })

  it.each([
    ['a hash that there is not', { hash: 9 }],
    ['an algorithm that there is not', { algorithm: 77 }],
    ['RSA decryption', { algorithm: 5 }],
    ['PKCS#1 blocks', { inputKind: inputKinds.rawPkcs1 }],
    ['RSA with an EC key', { algorithm: rsaPkcs1 }],
    ['Ed25519 with an EC key', { algorithm: eddsa, hash: none }],
    ['PSS with another hash for the mask', { algorithm: rsaPss, mgfHash: sha512, saltBytes: 32 }],
  ] as const)('answers UNSUPPORTED for %s', async (_what, request) => {
    const free = await bindKey(gateway, key, { policies: 'any' })
    expect(await refusal(free, request)).toMatchObject({
      code: errorNumbers.unsupported,
      audited: expect.stringMatching(/^(Unsupported|KeyUsageInvalid)$/),
    })
  })
})

describe('a stolen key reference', () => {
  it('signs nothing for another user, and the journal tells', async () => {
    const stranger = (process.getuid?.() ?? 0) + 4242
    const key = await boundKey('ECC_NIST_P256', { users: [stranger] })
    expect(await refusal(key)).toEqual({
      code: errorNumbers.unauthenticated,
      audited: 'PeerRefused',
      reason: 'the token is not bound to this user',
    })
    const [record] = await offloadRecords(gateway, key.name)
    expect(record?.additionalEventData).toMatchObject({ uid: process.getuid?.(), app: 'test' })
  })

  it('cannot fill the journal: of many refusals in a second some are records, all are counted', async () => {
    const key = await boundKey('ECC_NIST_P256', { users: [(process.getuid?.() ?? 0) + 4242] })
    await using client = await connectHks(socket(), { tokens: [key.token] })
    const answers = await Promise.all(
      Array.from({ length: 60 }, () => client.sign({ keyId: key.spkiDigest, input: message })),
    )
    for (const answer of answers) expect(answer).toMatchObject({ ok: false, code: errorNumbers.unauthenticated })
    const records = await offloadRecords(gateway, key.name)
    expect(records.length).toBeGreaterThanOrEqual(5)
    expect(records.length).toBeLessThanOrEqual(15)
    const { text } = await gateway.gateway.observer.metrics()
    const counted = Number(/offload_refused_total\{peer="local",code="PeerRefused"\} (\d+)/.exec(text)?.[1])
    expect(counted).toBeGreaterThanOrEqual(60)
  })

  it('signs nothing after its token was revoked, on connections that were open before either', async () => {
    const key = await boundKey('ECC_NIST_P256')
    await using client = await connectHks(socket(), { tokens: [key.token] })
    const request = { keyId: key.spkiDigest, input: message }
    expect(await client.sign(request)).toMatchObject({ ok: true })
    await gateway.ask('tls', 'revoke', { name: key.name })
    const refused = { ok: false, code: errorNumbers.unauthenticated, retryable: false }
    expect(await client.sign(request)).toMatchObject(refused)
    expect(await ask(key)).toMatchObject(refused)
  })

  it('signs nothing with a key id that is not the token’s', async () => {
    const [mine, other] = [await boundKey('ECC_NIST_P256'), await boundKey('ECC_NIST_P256')]
    expect(await refusal(mine, { keyId: other.spkiDigest })).toMatchObject({
      code: errorNumbers.keyNotFound,
      audited: 'KeyMismatch',
    })
    expect(await refusal(mine, { keyId: randomBytes(32) })).toMatchObject({ code: errorNumbers.keyNotFound })
  })

  it('signs nothing with a token that nobody gave, which is not journaled but counted', async () => {
    const key = await boundKey('ECC_NIST_P256')
    const before = (await offloadRecords(gateway)).length
    expect(await ask({ ...key, token: randomBytes(32) })).toMatchObject({
      ok: false,
      code: errorNumbers.unauthenticated,
    })
    expect((await offloadRecords(gateway)).length).toBe(before)
    const { text } = await gateway.gateway.observer.metrics()
    expect(text).toMatch(/hsmgate_unauthenticated_calls_total\{door="offload",code="CredentialsUnknown"\} \d+/)
    expect(text).toMatch(/hsmgate_offload_refused_total\{peer="local",code="Unauthenticated"\} \d+/)
  })
})

describe('what stands against a binding', () => {
  it('is the state of the key: disabled it signs nothing, from the next request on', async () => {
    const key = await boundKey('ECC_NIST_P256')
    const kms = gateway.client()
    await using client = await connectHks(socket(), { tokens: [key.token] })
    const request = { keyId: key.spkiDigest, input: message }
    expect(await client.sign(request)).toMatchObject({ ok: true })
    await kms.send(new DisableKeyCommand({ KeyId: key.keyId }))
    expect(await client.sign(request)).toMatchObject({ ok: false, code: errorNumbers.keyNotFound, retryable: false })
    expect((await offloadRecords(gateway, key.name)).at(-1)).toMatchObject({ errorCode: 'KeyDisabled' })
    await kms.send(new EnableKeyCommand({ KeyId: key.keyId }))
    expect(await client.sign(request)).toMatchObject({ ok: true })
    await kms.send(new ScheduleKeyDeletionCommand({ KeyId: key.keyId, PendingWindowInDays: 7 }))
    expect(await client.sign(request)).toMatchObject({ ok: false, code: errorNumbers.keyNotFound })
    expect((await offloadRecords(gateway, key.name)).at(-1)).toMatchObject({ errorCode: 'KeyStateInvalid' })
  })

  it('is an explicit Deny of its principal in the key policy, from the next request on', async () => {
    const key = await boundKey('ECC_NIST_P256')
    const kms = gateway.client()
    const { Policy } = await kms.send(new GetKeyPolicyCommand({ KeyId: key.keyId, PolicyName: 'default' }))
    const policy = JSON.parse(Policy as string)
    const deny = (name: string) => ({
      Sid: 'no-more',
      Effect: 'Deny',
      Principal: { AWS: `arn:aws:iam::${testAccount}:user/hsmgate/tls/${name}` },
      Action: 'kms:Sign',
      Resource: '*',
    })
    const put = (statement: object) =>
      kms.send(
        new PutKeyPolicyCommand({
          KeyId: key.keyId,
          Policy: JSON.stringify({ ...policy, Statement: [...policy.Statement, statement] }),
        }),
      )
    await put(deny('somebody-else'))
    expect(await ask(key)).toMatchObject({ ok: true })
    await put(deny(key.name))
    expect(await refusal(key)).toMatchObject({ code: errorNumbers.policyDenied, audited: 'AccessDenied' })
    expect((await offloadRecords(gateway, key.name)).at(-1)?.additionalEventData.decidedBy).toContain('no-more')
  })

  it('is its own rate and concurrency', async () => {
    const slow = await boundKey('ECC_NIST_P256', { rate: 2 })
    await using client = await connectHks(socket(), { tokens: [slow.token] })
    const request = { keyId: slow.spkiDigest, input: message }
    const answers = await Promise.all(Array.from({ length: 20 }, () => client.sign(request)))
    const refused = answers.filter((answer) => !answer.ok)
    expect(refused.length).toBeGreaterThanOrEqual(10)
    for (const answer of refused) expect(answer).toMatchObject({ code: errorNumbers.busy, retryable: true })
    expect(await offloadRecords(gateway, slow.name)).toHaveLength(20)

    const narrow = await boundKey('RSA_2048', { concurrency: 1 })
    await using other = await connectHks(socket(), { tokens: [narrow.token] })
    const pss = { keyId: narrow.spkiDigest, input: message, algorithm: rsaPss }
    const both = await Promise.all([other.sign(pss), other.sign(pss)])
    expect(both.map(({ ok }) => ok)).toEqual([true, false])
    expect(both[1]).toMatchObject({ code: errorNumbers.busy, retryable: true })
  })
})

describe('the signing socket', () => {
  it('can be reached by its group and nobody else, unless configured', () => {
    expect(statSync(socket()).mode & 0o777).toBe(0o660)
  })

  it('announces what it takes', async () => {
    await using client = await connectHks(socket())
    expect(client.welcome).toMatchObject({
      version: 1,
      maxInputBytes: 16_384,
      maxInFlight: 64,
      maxBudgetMs: 1000,
      features: 0,
    })
  })

  it('shows its connections in the metrics', async () => {
    await using client = await connectHks(socket())
    await client.ping()
    const { text } = await gateway.gateway.observer.metrics()
    expect(text).toMatch(/hsmgate_offload_connections\{peer="local"\} [1-9]/)
    expect(text).toMatch(/hsmgate_calls_total\{door="offload",operation="Sign",code="ok"\} [1-9]/)
  })
})
