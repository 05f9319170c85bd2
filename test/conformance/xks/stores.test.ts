/** What operators do with stores, and what holds then: kill switch, allow-list, principals, quotas, faults, doctor; what log and journal say. */
import { readFileSync } from 'node:fs'
import path from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Diagnosis } from '../../../src/transport/xks/xks.ts'
import { runHsmgateProcess } from '../../support/hsmgate-process.ts'
import {
  createStore,
  createXksClient,
  decryptBody,
  encryptBody,
  metadataOf,
  startXksGateway,
  type XksClient,
  type XksGateway,
  type XksStore,
} from '../../support/xks-client.ts'

let xks: XksGateway
let store: XksStore
let client: XksClient
let arn: string
const log: string[] = []

beforeAll(async () => {
  xks = await startXksGateway({
    config: { log: { level: 'debug' } },
    overrides: { log: { write: (line: string) => void log.push(line) } },
  })
  store = await createStore(xks, 'main')
  ;({ arn } = await xks.gateway.ask<{ arn: string }>('xks-key', 'create', { store: 'main', id: 'foo' }))
  client = createXksClient(xks, store)
}, 180_000)

afterAll(async () => {
  client?.[Symbol.dispose]()
  await xks?.[Symbol.asyncDispose]()
})

const ask = <T>(noun: string, verb: string, question = {}) => xks.gateway.ask<T>(noun, verb, question)
const encrypt = (id = 'foo', more = {}, using = client) =>
  using.call(`keys/${id}/encrypt`, encryptBody(Buffer.from('x'), more))
const blocked = { status: 400, body: { errorName: 'InvalidStateException' } }

describe('the kill switch', () => {
  it('of a key holds from the next call on, for this key alone, and is lifted again', async () => {
    await ask('xks-key', 'create', { store: 'main', id: 'spare' })
    const { body } = await encrypt()
    await ask('xks', 'block', { store: 'main', key: 'foo' })
    expect(await encrypt()).toMatchObject(blocked)
    expect(await client.call('keys/foo/decrypt', decryptBody(body))).toMatchObject(blocked)
    expect(await client.call('keys/foo/metadata', metadataOf('CreateKey'))).toMatchObject(blocked)
    expect(await encrypt('spare')).toMatchObject({ status: 200 })
    await ask('xks', 'unblock', { store: 'main', key: 'foo' })
    expect(await client.call('keys/foo/decrypt', decryptBody(body))).toMatchObject({ status: 200 })
  })

  it('of a store holds for all of it, health included, for this store alone', async () => {
    const other = await createStore(xks, 'unharmed')
    using bystander = createXksClient(xks, other)
    await ask('xks', 'block', { store: 'main' })
    expect(await encrypt()).toMatchObject(blocked)
    expect(await client.call('health', metadataOf('KmsHealthCheck'))).toMatchObject(blocked)
    expect(await bystander.call('health', metadataOf('KmsHealthCheck'))).toMatchObject({ status: 200 })
    await ask('xks', 'unblock', { store: 'main' })
    expect(await encrypt()).toMatchObject({ status: 200 })
  })

  it('survives a restart, and is in the journal', async () => {
    await ask('xks', 'block', { store: 'main', key: 'foo' })
    await xks.gateway.restart()
    using again = createXksClient(xks, store)
    expect(await encrypt('foo', {}, again)).toMatchObject(blocked)
    await ask('xks', 'unblock', { store: 'main', key: 'foo' })
    client[Symbol.dispose]()
    client = createXksClient(xks, store)
    expect(await encrypt()).toMatchObject({ status: 200 })
    const records = (await xks.gateway.auditRecords()).map(({ event }) => event)
    expect(records).toContainEqual(
      expect.objectContaining({
        eventName: 'XksBlock',
        eventSource: 'hsmgate.operator',
        requestParameters: { store: 'main', key: 'foo' },
      }),
    )
    expect(records).toContainEqual(
      expect.objectContaining({ eventSource: 'hsmgate.xks', errorCode: 'InvalidStateException' }),
    )
  })

  it('is not needed for a key that is disabled or waits for its deletion', async () => {
    const { arn: disabled } = await ask<{ arn: string }>('xks-key', 'create', { store: 'main', id: 'disabled' })
    await ask('xks-key', 'disable', { key: disabled })
    expect(await encrypt('disabled')).toMatchObject(blocked)
    expect(await client.call('keys/disabled/metadata', metadataOf('CreateKey'))).toMatchObject({
      status: 200,
      body: { keyStatus: 'DISABLED' },
    })
    await ask('xks-key', 'enable', { key: disabled })
    expect(await encrypt('disabled')).toMatchObject({ status: 200 })
    expect(await ask('xks-key', 'schedule-deletion', { key: disabled, days: 7 })).toMatchObject({
      state: 'PendingDeletion',
    })
    expect(await encrypt('disabled')).toMatchObject(blocked)
    expect(await ask('xks-key', 'cancel-deletion', { key: disabled })).toMatchObject({ state: 'Disabled' })
    await expect(ask('xks-key', 'schedule-deletion', { key: disabled, days: 6 })).rejects.toThrow(/7 to 30/)
  })
})

describe('the URI path of a store', () => {
  it('belongs to one store, also when several are made at one moment', async () => {
    const attempts = ['left', 'right', 'middle'].map((name) => createStore(xks, name, { prefix: '/same/path' }))
    const outcomes = await Promise.allSettled(attempts)
    expect(outcomes.filter(({ status }) => status === 'fulfilled')).toHaveLength(1)
    for (const outcome of outcomes) {
      if (outcome.status === 'rejected') expect(String(outcome.reason)).toMatch(/\/same\/path.* belongs to store/)
    }
  })
})

describe('the allow-list', () => {
  it('names what a store may use; keys of others are not there', async () => {
    const other = await createStore(xks, 'lists')
    using lists = createXksClient(xks, other)
    expect(await encrypt('foo', {}, lists)).toMatchObject({ status: 404, body: { errorName: 'KeyNotFoundException' } })
    await ask('xks-key', 'add', { store: 'lists', id: 'shared', key: arn })
    expect(await encrypt('shared', {}, lists)).toMatchObject({ status: 200 })
    await ask('xks-key', 'remove', { store: 'lists', id: 'shared' })
    expect(await encrypt('shared', {}, lists)).toMatchObject({ status: 404 })
  })

  it('takes keys of purpose xks alone', async () => {
    const { CreateKeyCommand } = await import('@aws-sdk/client-kms')
    const { KeyMetadata } = await xks.gateway.client().send(new CreateKeyCommand({}))
    const key = KeyMetadata!.KeyId as string
    await expect(ask('xks-key', 'add', { store: 'main', id: 'kms', key })).rejects.toThrow(/purpose xks/)
    await expect(ask('xks-key', 'add', { store: 'main', id: 'foo', key: arn })).rejects.toThrow(/has a key foo/)
    await expect(ask('xks-key', 'add', { store: 'main', id: 'a/b', key: arn })).rejects.toThrow(/external key id/)
    await expect(ask('xks-key', 'add', { store: 'nowhere', id: 'a', key: arn })).rejects.toThrow(
      /no external key store/,
    )
  })

  it('is nothing to the KMS door: the key can’t seal there (confused purposes)', async () => {
    const { EncryptCommand } = await import('@aws-sdk/client-kms')
    const sealing = xks.gateway.client().send(new EncryptCommand({ KeyId: arn, Plaintext: Buffer.from('x') }))
    await expect(sealing).rejects.toThrow()
  })
})

describe('patterns of AWS principals', () => {
  it('let in who matches, for every API but health', async () => {
    const narrow = await createStore(xks, 'narrow', {
      principals: 'arn:aws:iam::123456789012:user/*\nebs.amazonaws.com',
    })
    await ask('xks-key', 'add', { store: 'narrow', id: 'foo', key: arn })
    using own = createXksClient(xks, narrow)
    const as = (awsPrincipalArn: string) => metadataOf('Encrypt', { awsPrincipalArn })
    for (const principal of ['arn:aws:iam::123456789012:user/Alice', 'ebs.amazonaws.com']) {
      expect([principal, await encrypt('foo', as(principal), own)]).toMatchObject([principal, { status: 200 }])
    }
    for (const principal of ['arn:aws:iam::999999999999:user/Alice', 'AWS Internal', '']) {
      const answer = await encrypt('foo', as(principal), own)
      expect([principal, answer]).toMatchObject([
        principal,
        { status: 403, body: { errorName: 'AccessDeniedException' } },
      ])
      expect(answer.text).not.toContain('999999999999')
    }
    expect(await own.call('health', metadataOf('KmsHealthCheck'))).toMatchObject({ status: 200 })
  })
})

describe('a quota', () => {
  it('throttles what is above it, and other stores not', async () => {
    const limited = await createStore(xks, 'limited', { requestsPerSecond: 5 })
    using own = createXksClient(xks, limited)
    const calls = Array.from({ length: 40 }, () => own.call('health', metadataOf('KmsHealthCheck')))
    const answers = await Promise.all(calls)
    const refused = answers.filter(({ status }) => status === 429)
    expect(refused.length).toBeGreaterThan(0)
    expect(answers.filter(({ status }) => status === 200).length).toBeGreaterThanOrEqual(5)
    expect(refused[0]?.body).toMatchObject({ errorName: 'ThrottlingException' })
    expect(await encrypt()).toMatchObject({ status: 200 })
  })
})

describe('rehearsed faults', () => {
  const rehearse = async (kind: string) => {
    const name = `fault-${kind.replace(/:.*/, '')}`
    const own = await createStore(xks, name)
    await ask('xks-key', 'add', { store: name, id: 'foo', key: arn })
    await ask('xks', 'fault', { store: name, kind, duration: '60s' })
    return createXksClient(xks, own)
  }

  it('deny, throttle, answer garbage or nothing', async () => {
    using deny = await rehearse('deny')
    expect(await encrypt('foo', {}, deny)).toMatchObject({ status: 403, body: { errorName: 'AccessDeniedException' } })
    using throttle = await rehearse('429')
    expect(await encrypt('foo', {}, throttle)).toMatchObject({
      status: 429,
      body: { errorName: 'ThrottlingException' },
    })
    using garbage = await rehearse('garbage')
    expect(await encrypt('foo', {}, garbage)).toMatchObject({ status: 200, contentType: 'text/html' })
    using reset = await rehearse('reset')
    await expect(encrypt('foo', {}, reset)).rejects.toThrow(/hang up|ECONNRESET/)
  })

  it('spoil the integrity value', async () => {
    using spoilt = await rehearse('bad-cdiv')
    const more = { ciphertextDataIntegrityValueAlgorithm: 'SHA_256' }
    const { body } = await encrypt('foo', more, spoilt)
    const { createHash } = await import('node:crypto')
    const digest = createHash('sha256')
    for (const name of ['ciphertextMetadata', 'initializationVector', 'ciphertext', 'authenticationTag'])
      digest.update(Buffer.from(body[name] as string, 'base64'))
    expect(body.ciphertextDataIntegrityValue).not.toBe(digest.digest('base64'))
    expect(await spoilt.call('keys/foo/decrypt', decryptBody(body))).toMatchObject({ status: 200 })
  })

  it('make answers late', async () => {
    using late = await rehearse('latency:300ms')
    const startedMs = performance.now()
    expect(await encrypt('foo', {}, late)).toMatchObject({ status: 200 })
    expect(performance.now() - startedMs).toBeGreaterThanOrEqual(300)
  })

  it('end by themselves, and are refused when they make no sense', async () => {
    const own = await createStore(xks, 'brief')
    using brief = createXksClient(xks, own)
    await ask('xks', 'fault', { store: 'brief', kind: 'deny', duration: '0ms' })
    expect(await brief.call('health', metadataOf('KmsHealthCheck'))).toMatchObject({ status: 200 })
    for (const [kind, duration] of [
      ['explode', '60s'],
      ['latency', '60s'],
      ['deny:1s', '60s'],
      ['deny', '61m'],
      ['deny', 'soon'],
      ['latency:61s', '60s'],
    ]) {
      await expect(ask('xks', 'fault', { store: 'brief', kind, duration })).rejects.toThrow()
    }
    await expect(ask('xks', 'fault', { store: 'nowhere', kind: 'deny', duration: '1s' })).rejects.toThrow()
  })
})

describe('hsmgate xks store doctor', () => {
  it('asks what AWS KMS asks and says what to enter in the console', async () => {
    const ca = readFileSync(path.join(xks.tlsDirectory, 'ca.pem'), 'utf8')
    const endpoint = xks.endpoint.replace('127.0.0.1', 'localhost')
    const { findings, console } = await ask<Diagnosis>('xks-store', 'doctor', { store: 'main', endpoint, ca })
    const of = (step: string) => findings.filter((finding) => finding.step === step)
    expect(findings.filter(({ verdict }) => verdict === 'failed')).toEqual([])
    expect(of('tls').map(({ verdict }) => verdict)).toEqual(['ok', 'ok'])
    expect(of('certificate')[0]).toMatchObject({ verdict: 'ok' })
    expect(of('health')[0]).toMatchObject({ verdict: 'ok', detail: 'GetHealthStatus: ACTIVE' })
    expect(of('key foo')[0]).toMatchObject({ verdict: 'ok', detail: 'AES_256, ENCRYPT+DECRYPT, ENABLED' })
    expect(of('port')[0]).toMatchObject({ verdict: 'note' })
    expect(console).toMatchObject({
      'Proxy URI endpoint': 'https://localhost',
      'Proxy URI path prefix': '/main',
      'Access key ID': store.credential.accessKeyId,
    })
    expect(JSON.stringify({ findings, console })).not.toContain(store.credential.secretAccessKey)
  })

  it('says so when the certificate is not trusted, the store is blocked, or nobody listens', async () => {
    await createStore(xks, 'examined')
    const untrusted = await ask<Diagnosis>('xks-store', 'doctor', { store: 'examined' })
    expect(untrusted.findings).toContainEqual(expect.objectContaining({ step: 'certificate', verdict: 'note' }))
    await ask('xks', 'block', { store: 'examined' })
    const shut = await ask<Diagnosis>('xks-store', 'doctor', { store: 'examined' })
    expect(shut.findings).toContainEqual(
      expect.objectContaining({ step: 'health', verdict: 'failed', detail: expect.stringContaining('InvalidState') }),
    )
    const nobody = await ask<Diagnosis>('xks-store', 'doctor', { store: 'examined', endpoint: 'https://127.0.0.1:1' })
    expect(nobody.findings).toContainEqual(expect.objectContaining({ step: 'tls', verdict: 'failed' }))
    await expect(ask('xks-store', 'doctor', { store: 'examined', endpoint: 'http://x' })).rejects.toThrow(/https/)
  })
})

describe('the command line', () => {
  const hsmgate = (...words: string[]) =>
    runHsmgateProcess(['--config', path.join(xks.gateway.directory, 'config.json'), ...words])

  it('makes a store and a key, shows the secret once, lists, rotates and deletes', async () => {
    const { writeFile } = await import('node:fs/promises')
    const { module, label, pinFile } = xks.gateway.token
    const document = { development: true, tokens: { softhsm: { module, label, pinFile } } }
    await writeFile(path.join(xks.gateway.directory, 'config.json'), JSON.stringify(document))
    const made = await hsmgate('xks', 'store', 'create', 'shell', '--prefix', '/from/shell')
    expect(made).toMatchObject({ code: 0, err: '' })
    const [, secret] = /secret access key\s+(\S+)/.exec(made.out) as unknown as [string, string]
    expect(made.out).toContain('/from/shell/kms/xks/v1')
    expect((await hsmgate('xks', 'key', 'create', '--store', 'shell', '--id', 'one')).out).toMatch(/^one {2}arn:/)
    expect((await hsmgate('xks', 'key', 'list', '--store', 'shell')).out).toMatch(/one\s+open\s+encrypt, decrypt/)
    const listed = await hsmgate('xks', 'store', 'list')
    expect(listed.out).toMatch(/shell\s+\/from\/shell\/kms\/xks\/v1\s+us-east-1\s+spec\s+1\s+open/)
    expect(listed.out).not.toContain(secret)
    expect((await hsmgate('xks', 'store', 'rotate-credential', 'shell')).out).toMatch(/shown this once/)
    expect((await hsmgate('xks', 'block', '--store', 'shell', '--key', 'one')).out).toBe('shell one: blocked\n')
    expect(await hsmgate('xks', 'store', 'delete', 'shell')).toMatchObject({ code: 1 })
    expect((await hsmgate('xks', 'key', 'remove', '--store', 'shell', '--id', 'one')).code).toBe(0)
    expect((await hsmgate('xks', 'store', 'delete', 'shell')).out).toBe('shell: deleted\n')
    const doctor = await hsmgate('xks', 'store', 'doctor', 'main')
    expect(doctor.out).toMatch(/ok {4}health: GetHealthStatus: ACTIVE[\s\S]*Proxy URI path prefix\s+\/main/)
    expect((await hsmgate('xks', 'fault', '--store', 'main', '--kind', 'explode')).code).toBe(1)
    const everything = JSON.stringify(await xks.gateway.auditRecords()) + log.join('')
    expect(everything).not.toContain(secret)
    expect(everything).not.toContain(store.credential.secretAccessKey)
  })
})

describe('log and journal', () => {
  it('join with CloudTrail by the request id and name the AWS principal', async () => {
    const kmsRequestId = 'a7f1d3c2-0000-4000-8000-00000000beef'
    await encrypt('foo', metadataOf('GenerateDataKey', { kmsRequestId, kmsViaService: 'ebs' }))
    const line = log.map((text) => JSON.parse(text)).find((fields) => fields.kmsRequestId === kmsRequestId)
    expect(line).toMatchObject({
      door: 'xks',
      operation: 'Encrypt',
      store: 'main',
      kmsOperation: 'GenerateDataKey',
      awsPrincipalArn: 'arn:aws:iam::123456789012:user/Alice',
    })
    const records = (await xks.gateway.auditRecords()).map(({ event }) => event)
    const record = records.find(
      ({ requestParameters }) => (requestParameters as { kmsRequestId?: string } | null)?.kmsRequestId === kmsRequestId,
    )
    expect(record).toMatchObject({
      eventSource: 'hsmgate.xks',
      eventName: 'Encrypt',
      readOnly: true,
      userIdentity: { type: 'ExternalKeyStore', accessKeyId: store.credential.accessKeyId },
      requestParameters: {
        store: 'main',
        externalKeyId: 'foo',
        kmsOperation: 'GenerateDataKey',
        kmsViaService: 'ebs',
        kmsKeyArn: expect.stringContaining('1234abcd'),
      },
      responseElements: null,
      resources: [{ type: 'AWS::KMS::Key', ARN: arn }],
      tlsDetails: { tlsVersion: 'TLSv1.3' },
      additionalEventData: { decidedBy: expect.stringContaining('external key store main') },
    })
  })

  it('hold neither plaintext nor ciphertext nor additional data', async () => {
    const secret = Buffer.from('never to be written anywhere but to memory')
    const hidden = Buffer.from('additional data that nobody should read')
    const more = { additionalAuthenticatedData: hidden.toString('base64') }
    const sealed = await client.call('keys/foo/encrypt', encryptBody(secret, more))
    expect(sealed.status).toBe(200)
    expect(await client.call('keys/foo/decrypt', decryptBody(sealed.body, more))).toMatchObject({ status: 200 })
    await client.call('keys/foo/encrypt', { ...encryptBody(secret, more), encryptionAlgorithm: secret.toString() })
    await client.call('keys/foo/encrypt', JSON.stringify(encryptBody(secret, more)).slice(0, -1))
    await client.call('keys/nowhere/encrypt', encryptBody(secret, more))
    const everything = JSON.stringify(await xks.gateway.auditRecords()) + log.join('')
    for (const bytes of [secret, hidden, Buffer.from(sealed.body.ciphertext as string, 'base64')]) {
      for (const encoding of ['utf8', 'base64', 'hex'] as const) {
        expect(everything).not.toContain(bytes.toString(encoding).slice(0, 24))
      }
    }
  })

  it('count calls by operation and outcome', async () => {
    const { text } = await xks.gateway.gateway.observer.metrics()
    expect(text).toMatch(/hsmgate_calls_total\{door="xks",operation="Encrypt",code="ok"\} [1-9]/)
    expect(text).toMatch(/hsmgate_xks_credential_age_seconds\{store="main"\} \d/)
    expect(text).toMatch(/hsmgate_xks_blocked\{store="examined"\} 1/)
    expect(text).toMatch(/hsmgate_xks_certificate_expires_seconds [1-9]\d{6}/)
  })
})
