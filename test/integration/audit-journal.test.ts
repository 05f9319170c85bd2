import { readdirSync, readFileSync } from 'node:fs'
import path from 'node:path'
import { CreateKeyCommand, DecryptCommand, EncryptCommand, SignCommand } from '@aws-sdk/client-kms'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { verifyJournal } from '../../src/audit/verify.ts'
import { startGateway, type TestGateway } from '../support/gateway.ts'

let gateway: TestGateway
let keyId: string
const plaintext = Buffer.from('a plaintext that must not be recorded')
let ciphertext: Uint8Array
let signature: Uint8Array

beforeAll(async () => {
  gateway = await startGateway()
  const kms = gateway.client()
  keyId = String((await kms.send(new CreateKeyCommand({}))).KeyMetadata?.KeyId)
  const encrypted = await kms.send(
    new EncryptCommand({ KeyId: keyId, Plaintext: plaintext, EncryptionContext: { app: 'billing' } }),
  )
  ciphertext = encrypted.CiphertextBlob!
  await kms.send(new DecryptCommand({ CiphertextBlob: ciphertext, EncryptionContext: { app: 'billing' } }))
  await kms.send(new DecryptCommand({ CiphertextBlob: ciphertext })).catch(() => {})
  const signing = await kms.send(new CreateKeyCommand({ KeySpec: 'ECC_NIST_P256', KeyUsage: 'SIGN_VERIFY' }))
  const signed = await kms.send(
    new SignCommand({ KeyId: signing.KeyMetadata?.KeyId, Message: plaintext, SigningAlgorithm: 'ECDSA_SHA_256' }),
  )
  signature = signed.Signature!
})

afterAll(() => gateway[Symbol.asyncDispose]())

const journal = () => path.join(gateway.directory, 'audit')

describe('the audit journal of a gateway', () => {
  it('holds one record for each call, failures included', async () => {
    const events = (await gateway.auditRecords()).map(({ event }) => event)
    const calls = events.filter(
      ({ eventSource, eventType }) => eventSource === 'kms.amazonaws.com' && eventType === 'AwsApiCall',
    )
    expect(calls.map(({ eventName, errorCode }) => [eventName, errorCode])).toEqual([
      ['CreateKey', undefined],
      ['Encrypt', undefined],
      ['Decrypt', undefined],
      ['Decrypt', 'InvalidCiphertextException'],
      ['CreateKey', undefined],
      ['Sign', undefined],
    ])
    expect(calls[1]).toMatchObject({
      readOnly: true,
      requestParameters: { keyId, encryptionAlgorithm: 'SYMMETRIC_DEFAULT', encryptionContext: { app: 'billing' } },
      responseElements: null,
      resources: [{ type: 'AWS::KMS::Key', ARN: expect.stringContaining(keyId) }],
    })
    expect(calls[0]).toMatchObject({ readOnly: false, responseElements: { keyMetadata: { keyId } } })
  })

  it('holds no plaintext, ciphertext, signature or secret', () => {
    const text = readdirSync(journal())
      .filter((name) => name.endsWith('.jsonl'))
      .map((name) => readFileSync(path.join(journal(), name), 'utf8'))
      .join('')
    const secrets = [
      plaintext,
      Buffer.from(ciphertext),
      Buffer.from(signature),
      Buffer.from(gateway.credentials.secretAccessKey),
    ]
    for (const secret of secrets) {
      for (const encoding of ['latin1', 'base64', 'hex'] as const) expect(text).not.toContain(secret.toString(encoding))
    }
  })

  it('is whole and signed by the module after a restart, and goes on', async () => {
    await gateway.restart()
    const before = await verifyJournal(journal())
    expect(before).toMatchObject({ ok: true, checkpoints: 1, notes: [] })
    expect(before.signedThrough).toBe(before.records - 2)
    await gateway.client().send(new EncryptCommand({ KeyId: keyId, Plaintext: plaintext }))
    const after = await verifyJournal(journal(), { publicKeys: before.publicKeys })
    expect(after).toMatchObject({ ok: true, records: before.records + 1 })
  })
})

describe('the HTTP side of the operator door', () => {
  it('is ready and counts calls, tokens and records', async () => {
    const url = String(gateway.gateway.endpoints.operator)
    const ready = await fetch(`${url}/readyz`)
    expect([ready.status, await ready.json()]).toMatchObject([200, { ready: true, journal: { healthy: true } }])
    const readMetrics = async (): Promise<string> => (await fetch(`${url}/metrics`)).text()
    // The gateway serves as soon as one worker is warm; the second follows.
    const workers = /hsmgate_workers\{token="softhsm",role="serve",state="ready"\} 2/
    await expect.poll(readMetrics, { timeout: 20_000 }).toMatch(workers)
    const metrics = await readMetrics()
    expect(metrics).toMatch(/hsmgate_calls_total\{door="kms",operation="Encrypt",code="ok"\} [1-9]/)
    expect(metrics).toMatch(
      /hsmgate_hsm_calls_total\{group="default",operation="encrypt(ThenVerify)?",code="ok"\} [1-9]/,
    )
    expect(metrics).not.toContain(keyId)
  })
})
