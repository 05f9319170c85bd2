/** AWS JSON 1.1 and Signature Version 4 as KMS speaks them, through the whole gateway. */
import { KMSClient, ListKeysCommand } from '@aws-sdk/client-kms'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { run } from '../../support/command.ts'
import { startGateway, type TestGateway, testAccount } from '../../support/gateway.ts'
import { base64, type Call, createCall, refusal, succeed } from '../../support/kms-call.ts'

let gateway: TestGateway
let call: Call
let keyId: string

beforeAll(async () => {
  gateway = await startGateway()
  call = createCall(gateway)
  keyId = ((await succeed(call('CreateKey'))).KeyMetadata as { KeyId: string }).KeyId
}, 180_000)

afterAll(async () => {
  await gateway?.[Symbol.asyncDispose]()
})

describe('requests', () => {
  it('that lack a member are told so in the grammar of the framework', async () => {
    expect(await refusal(call('Encrypt', {}))).toEqual({
      __type: 'ValidationException',
      message:
        "2 validation errors detected: Value null at 'keyId' failed to satisfy constraint: Member must not be null; Value null at 'plaintext' failed to satisfy constraint: Member must not be null",
    })
  })

  it('that are no JSON, or of other types, fail to deserialize', async () => {
    for (const body of ['{', '[]', '"x"', '{"KeyId":1}', '{"KeyId":"a","Plaintext":"%"}']) {
      expect(await refusal(call('Encrypt', body))).toMatchObject({ __type: 'SerializationException' })
    }
  })

  it('that are no JSON leave an audit record without parameters', async () => {
    const answer = await call('Encrypt', '{')
    const record = (await gateway.auditRecords()).find(
      ({ event }) => event.requestID === answer.headers.get('x-amzn-requestid'),
    )
    expect(record?.event).toMatchObject({ errorCode: 'SerializationException', requestParameters: null })
  })

  it('for operations that do not exist are unknown', async () => {
    expect(await refusal(call('MakeCoffee'))).toEqual({ __type: 'UnknownOperationException' })
  })

  it('with names of prototypes in the encryption context work like any other', async () => {
    const EncryptionContext = '{"__proto__":"a","constructor":"b"}'
    const sealed = await succeed(
      call('Encrypt', `{"KeyId":"${keyId}","Plaintext":"eA==","EncryptionContext":${EncryptionContext}}`),
    )
    const open = (context: string) =>
      call('Decrypt', `{"CiphertextBlob":"${sealed.CiphertextBlob}","EncryptionContext":${context}}`)
    expect((await succeed(open('{"constructor":"b","__proto__":"a"}'))).Plaintext).toBe('eA==')
    expect(await refusal(open('{"constructor":"b"}'))).toEqual({ __type: 'InvalidCiphertextException' })
  })
})

describe('answers', () => {
  it('carry a request id that the audit record carries too', async () => {
    const answer = await call('DescribeKey', { KeyId: keyId })
    const requestId = answer.headers.get('x-amzn-requestid')
    const records = await gateway.auditRecords()
    expect(records.filter(({ event }) => event.requestID === requestId)).toHaveLength(1)
  })

  it('never contain null', async () => {
    const text = JSON.stringify((await call('DescribeKey', { KeyId: keyId })).body)
    expect(text).not.toContain('null')
  })
})

describe('audit records', () => {
  it('hold neither plaintext nor ciphertext nor grant tokens', async () => {
    const secret = 'never-to-be-recorded'
    const sealed = await succeed(
      call('Encrypt', { KeyId: keyId, Plaintext: base64(secret), EncryptionContext: { a: 'b' } }),
    )
    await refusal(call('Encrypt', { KeyId: keyId, Plaintext: base64(secret), GrantTokens: [base64(secret)] }))
    await refusal(call('Encrypt', { KeyId: base64(secret.repeat(200)), Plaintext: base64(secret) }))
    const records = await gateway.auditRecords()
    const encrypt = records.find(({ event }) => event.eventName === 'Encrypt' && event.errorCode === undefined)
    expect(encrypt?.event).toMatchObject({
      eventSource: 'kms.amazonaws.com',
      readOnly: true,
      responseElements: null,
      requestParameters: { keyId, encryptionAlgorithm: 'SYMMETRIC_DEFAULT' },
      resources: [{ accountId: testAccount, type: 'AWS::KMS::Key' }],
    })
    const text = JSON.stringify(records.filter(({ event }) => event.errorCode !== 'ValidationException'))
    expect(text).not.toContain(base64(secret).slice(0, 12))
    expect(text).not.toContain((sealed.CiphertextBlob as string).slice(60, 90))
  })
})

describe('signatures', () => {
  it('by an unknown access key, a wrong secret, for a wrong Region or with a wrong clock are refused', async () => {
    const attempt = async (credentials: { accessKeyId: string; secretAccessKey: string }, region = 'us-east-1') => {
      const client = new KMSClient({ endpoint: gateway.endpoint, region, credentials, maxAttempts: 1 })
      try {
        await client.send(new ListKeysCommand({}))
        return 'accepted'
      } catch (error) {
        return (error as Error).name
      } finally {
        client.destroy()
      }
    }
    const { accessKeyId, secretAccessKey } = gateway.credentials
    expect(await attempt(gateway.credentials)).toBe('accepted')
    expect(await attempt({ accessKeyId: 'AKIAAAAAAAAAAAAAAAAA', secretAccessKey })).toBe('UnrecognizedClientException')
    expect(await attempt({ accessKeyId, secretAccessKey: 'x' })).toBe('InvalidSignatureException')
    expect(await attempt(gateway.credentials, 'mars-north-1')).toBe('InvalidSignatureException')
    const late = new KMSClient({
      endpoint: gateway.endpoint,
      region: 'us-east-1',
      credentials: gateway.credentials,
      systemClockOffset: -6 * 60_000,
      maxAttempts: 1,
    })
    await expect(late.send(new ListKeysCommand({}))).rejects.toMatchObject({
      name: 'InvalidSignatureException',
      message: expect.stringMatching(/^Signature expired: \d{8}T\d{6}Z is now earlier than .* - 5 min\.\)$/),
    })
    late.destroy()
  })
})

describe("Debian's AWS CLI", () => {
  const aws = (...args: string[]) =>
    run('/usr/bin/aws', ['--endpoint-url', gateway.endpoint, 'kms', ...args, '--output', 'json'], {
      env: gateway.cliEnvironment,
    })

  it('pages through keys, reads times and shows our refusals as those of AWS', async () => {
    await succeed(call('CreateKey'))
    const listed = await aws('list-keys', '--page-size', '1')
    expect(JSON.parse(listed.stdout.toString()).Keys).toHaveLength(2)
    const described = await aws('describe-key', '--key-id', keyId)
    expect(JSON.parse(described.stdout.toString()).KeyMetadata.CreationDate).toMatch(/^\d{4}-\d\d-\d\dT|^\d+(\.\d+)?$/)
    const refused = await aws('encrypt', '--key-id', 'alias/nothing', '--plaintext', 'eA==')
    expect(refused.stderr).toContain(
      `An error occurred (NotFoundException) when calling the Encrypt operation: Alias arn:aws:kms:us-east-1:${testAccount}:alias/nothing is not found.`,
    )
  })
})
