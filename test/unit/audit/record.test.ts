import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { AuditedCall } from '../../../src/audit/audit.ts'
import { encodeCall, encodeEvent, formatSecond } from '../../../src/audit/record.ts'

const call: AuditedCall = {
  door: 'kms',
  operation: 'Encrypt',
  readOnly: true,
  requestId: '9a1d6f0e-0000-4000-8000-000000000001',
  receivedAt: Date.UTC(2022, 2, 7, 22, 36, 44, 999),
  region: 'us-east-1',
  source: { ip: '192.0.2.7', userAgent: 'aws-cli/1.45' },
  principal: {
    type: 'user',
    arn: 'arn:aws:iam::000000000000:user/ann',
    account: '000000000000',
    principalId: 'AIDAEXAMPLE',
    userName: 'ann',
    accessKeyId: 'AKIAEXAMPLE',
  },
  requestParameters: { keyId: 'alias/app', encryptionAlgorithm: 'SYMMETRIC_DEFAULT', encryptionContext: { a: 'b' } },
  responseElements: null,
  additionalEventData: { keyMaterialId: 'ab' },
  resources: [{ account: '000000000000', type: 'AWS::KMS::Key', arn: 'arn:aws:kms:us-east-1:000000000000:key/k' }],
  decidedBy: 'key-policy:Root',
}

const encode = (changes: Partial<AuditedCall> = {}) => JSON.parse(encodeCall({ ...call, ...changes })[0].event)

describe('the record of a call', () => {
  it('has the members of a CloudTrail record', () => {
    const [record, ...more] = encodeCall(call)
    expect(more).toEqual([])
    expect(JSON.parse(record.event)).toEqual({
      eventVersion: '1.11',
      userIdentity: {
        type: 'IAMUser',
        principalId: 'AIDAEXAMPLE',
        arn: 'arn:aws:iam::000000000000:user/ann',
        accountId: '000000000000',
        accessKeyId: 'AKIAEXAMPLE',
        userName: 'ann',
      },
      eventTime: '2022-03-07T22:36:44Z',
      eventSource: 'kms.amazonaws.com',
      eventName: 'Encrypt',
      awsRegion: 'us-east-1',
      sourceIPAddress: '192.0.2.7',
      userAgent: 'aws-cli/1.45',
      requestParameters: call.requestParameters,
      responseElements: null,
      additionalEventData: { keyMaterialId: 'ab', decidedBy: 'key-policy:Root' },
      requestID: call.requestId,
      eventID: record.eventId,
      readOnly: true,
      resources: [
        {
          accountId: '000000000000',
          type: 'AWS::KMS::Key',
          ARN: 'arn:aws:kms:us-east-1:000000000000:key/k',
        },
      ],
      eventType: 'AwsApiCall',
      managementEvent: true,
      recipientAccountId: '000000000000',
      eventCategory: 'Management',
    })
  })

  it('tells the error only when there is one', () => {
    expect(encode()).not.toHaveProperty('errorCode')
    expect(encode({ error: { code: 'AccessDenied', text: 'no' } })).toMatchObject({
      errorCode: 'AccessDenied',
      errorMessage: 'no',
    })
  })

  it('tells the session of a role', () => {
    const principal = {
      type: 'role-session',
      arn: 'arn:aws:sts::000000000000:assumed-role/ops/night',
      account: '000000000000',
      principalId: 'AROAEXAMPLE:night',
      roleArn: 'arn:aws:iam::000000000000:role/ops',
      issuedAt: 1_646_692_604,
    } as const
    expect(encode({ principal }).userIdentity).toMatchObject({
      type: 'AssumedRole',
      sessionContext: {
        sessionIssuer: { type: 'Role', principalId: 'AROAEXAMPLE', arn: principal.roleArn, userName: 'ops' },
        attributes: { creationDate: '2022-03-07T22:36:44Z', mfaAuthenticated: 'false' },
      },
    })
  })

  it('tells TLS only where there was TLS', () => {
    expect(encode()).not.toHaveProperty('tlsDetails')
    const tls = { version: 'TLSv1.3', cipherSuite: 'TLS_AES_128_GCM_SHA256', host: 'kms.example' }
    expect(encode({ source: { ...call.source, tls } }).tlsDetails).toEqual({
      tlsVersion: 'TLSv1.3',
      cipherSuite: 'TLS_AES_128_GCM_SHA256',
      clientProvidedHostHeader: 'kms.example',
    })
  })

  it.each([
    ['sts', 'sts.amazonaws.com'],
    ['xks', 'hsmgate.xks'],
    ['offload', 'hsmgate.offload'],
    ['operator', 'hsmgate.operator'],
  ] as const)('names the door %s as %s', (door, source) => {
    expect(encode({ door }).eventSource).toBe(source)
  })

  it('is written for both accounts of a cross-account call, with one shared id', () => {
    const foreign = { account: '111122223333', type: 'AWS::KMS::Key', arn: 'arn:aws:kms:us-east-1:111122223333:key/k' }
    const records = encodeCall({ ...call, resources: [foreign] }).map(({ event }) => JSON.parse(event))
    expect(records.map((record) => record.recipientAccountId)).toEqual(['000000000000', '111122223333'])
    expect(records[0].sharedEventID).toBe(records[1].sharedEventID)
    expect(records[0].eventID).not.toBe(records[1].eventID)
  })

  it('leaves out parameters that would make it too large', () => {
    const record = encode({ requestParameters: { policy: 'x'.repeat(300_000) } })
    expect(record.requestParameters).toMatchObject({ omitted: true, originalSize: 300_013 })
  })

  it('is one line of JSON that gives every text back, whatever callers send', () => {
    const text = fc.string({ unit: 'binary' })
    fc.assert(
      fc.property(text, text, text, text, (userAgent, ip, operation, context) => {
        const [{ event }] = encodeCall({
          ...call,
          operation,
          source: { ip, userAgent },
          requestParameters: { context },
          error: { code: operation, text: context },
        })
        expect(event).not.toContain('\n')
        expect(JSON.parse(event)).toMatchObject({
          eventName: operation,
          sourceIPAddress: ip,
          userAgent,
          requestParameters: { context },
          errorMessage: context,
        })
      }),
      { numRuns: 50 },
    )
  })
})

describe('the record of an event without a caller', () => {
  it('is a service event', () => {
    const { event, eventId } = encodeEvent(
      { name: 'DeleteKey', account: '000000000000', region: 'us-east-1', details: { keyId: 'k' } },
      0,
    )
    expect(JSON.parse(event)).toMatchObject({
      eventTime: '1970-01-01T00:00:00Z',
      eventSource: 'kms.amazonaws.com',
      eventType: 'AwsServiceEvent',
      userIdentity: { accountId: '000000000000', invokedBy: 'AWS Internal' },
      requestParameters: null,
      serviceEventDetails: { keyId: 'k' },
      eventID: eventId,
    })
  })

  it('has the gateway as its source when AWS knows no such event', () => {
    const { event } = encodeEvent({ name: 'Start', account: 'system', region: 'system', details: {} }, 0)
    expect(JSON.parse(event).eventSource).toBe('hsmgate.gateway')
  })
})

describe('the time of an event', () => {
  it('is cut to the second', () => {
    expect([formatSecond(1999), formatSecond(2000), formatSecond(1000)]).toEqual([
      '1970-01-01T00:00:01Z',
      '1970-01-01T00:00:02Z',
      '1970-01-01T00:00:01Z',
    ])
  })
})
