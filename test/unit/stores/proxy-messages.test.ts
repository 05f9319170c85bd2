import { describe, expect, it } from 'vitest'
import { kindOfErrorName } from '../../../src/stores/proxy-failures.ts'
import {
  checkHealthAnswer,
  encodeDecryptRequest,
  encodeEncryptRequest,
  integrityValueOf,
  parseAnswer,
  parseDecryptAnswer,
  parseEncryptAnswer,
  parseKeyMetadataAnswer,
} from '../../../src/stores/proxy-messages.ts'

const malformed = expect.objectContaining({ kind: 'Malformed' })
const thrown = (work: () => unknown): unknown => {
  try {
    work()
  } catch (cause) {
    return cause
  }
  return 'nothing was thrown'
}

// Test vector of the XKS proxy API specification, "ciphertextDataIntegrityValue".
const aad = Buffer.from('cHJvamVjdD1uaWxlLGRlcGFydG1lbnQ9bWFya2V0aW5n', 'base64')
const vector = {
  ciphertext: 'ghxkK1txeDNn3q8Y',
  initializationVector: 'HMrlRw85cAJUd5Ax',
  authenticationTag: 'vBxN2ncH1oEkR8WVXpmyYQ==',
  ciphertextMetadata: 'a2V5X3ZlcnNpb249MQ==',
  ciphertextDataIntegrityValue: 'qHA/ImC9h5HsLRXqCyPmWgYx7tzyoTplzILbP0fPXsc=',
}
const plaintext = Buffer.alloc(12)

describe('an answer to Encrypt', () => {
  it('is taken when its data integrity value is that of the specification', () => {
    const sealed = parseEncryptAnswer(vector, plaintext, aad)
    expect(Buffer.from(sealed.metadata).toString()).toBe('key_version=1')
    expect(integrityValueOf(sealed, aad).toString('base64')).toBe(vector.ciphertextDataIntegrityValue)
  })

  it.each([
    ['a ciphertext of another length', { ciphertext: Buffer.alloc(13).toString('base64') }],
    ['an IV of 13 bytes', { initializationVector: Buffer.alloc(13).toString('base64') }],
    ['a tag of 12 bytes', { authenticationTag: Buffer.alloc(12).toString('base64') }],
    ['21 bytes of metadata', { ciphertextMetadata: Buffer.alloc(21).toString('base64') }],
    ['no integrity value', { ciphertextDataIntegrityValue: undefined }],
    ['an integrity value of something else', { ciphertextDataIntegrityValue: Buffer.alloc(32).toString('base64') }],
    ['another IV', { initializationVector: 'HMrlRw85cAJUd5AA' }],
    ['no metadata where there was some', { ciphertextMetadata: null }],
    ['the URL alphabet', { authenticationTag: 'vBxN2ncH1oEkR8WVXpmyYQ__' }],
    ['missing padding', { authenticationTag: 'vBxN2ncH1oEkR8WVXpmyYQ' }],
    ['bits after the end', { authenticationTag: 'vBxN2ncH1oEkR8WVXpmyYR==' }],
    ['a number', { ciphertext: 5 }],
  ])('is refused with %s', (_, change) => {
    expect(thrown(() => parseEncryptAnswer({ ...vector, ...change }, plaintext, aad))).toEqual(malformed)
  })

  it('is refused for other additional data than was sent', () => {
    expect(thrown(() => parseEncryptAnswer(vector, plaintext, Buffer.from('other')))).toEqual(malformed)
  })
})

describe('an answer to Decrypt', () => {
  const sealed = parseEncryptAnswer(vector, plaintext, aad)

  it('is as long as its ciphertext', () => {
    expect(parseDecryptAnswer({ plaintext: Buffer.alloc(12, 1).toString('base64') }, sealed)).toEqual(
      Buffer.alloc(12, 1),
    )
    for (const length of [0, 11, 13]) {
      const answer = { plaintext: Buffer.alloc(length).toString('base64') }
      expect(thrown(() => parseDecryptAnswer(answer, sealed))).toEqual(malformed)
    }
  })
})

describe('an answer to GetHealthStatus', () => {
  const fleet = (...states: string[]) => states.map((healthStatus, at) => ({ id: `${at}`, model: 'm', healthStatus }))
  const health = (changes: object = {}) => ({
    xksProxyFleetSize: 1,
    xksProxyVendor: 'v',
    xksProxyModel: 'm',
    ekmVendor: 'e',
    ekmFleetDetails: fleet('ACTIVE'),
    ...changes,
  })

  it('is good while one key manager serves', () => {
    checkHealthAnswer(health())
    checkHealthAnswer(health({ ekmFleetDetails: fleet('UNAVAILABLE', 'DEGRADED') }))
    const none = thrown(() => checkHealthAnswer(health({ ekmFleetDetails: fleet('UNAVAILABLE', 'UNAVAILABLE') })))
    expect(none).toMatchObject({ kind: 'Unhealthy' })
  })

  it.each([
    ['xksProxyFleetSize', 0],
    ['xksProxyFleetSize', '1'],
    ['xksProxyVendor', undefined],
    ['xksProxyModel', null],
    ['ekmVendor', 1],
    ['ekmFleetDetails', []],
    ['ekmFleetDetails', fleet(...Array<string>(11).fill('ACTIVE'))],
    ['ekmFleetDetails', fleet('FINE')],
    ['ekmFleetDetails', [null]],
    ['ekmFleetDetails', 'ACTIVE'],
  ])('is refused with %s %j', (name, value) => {
    expect(thrown(() => checkHealthAnswer(health({ [name]: value })))).toEqual(malformed)
  })
})

describe('an answer to GetKeyMetadata', () => {
  it.each([
    { keySpec: 1 },
    { keyUsage: 'ENCRYPT' },
    { keyUsage: [1] },
    { keyUsage: Array(11).fill('SIGN') },
    { keyStatus: null },
  ])('is refused with %j', (change) => {
    const answer = { keySpec: 'AES_256', keyUsage: ['ENCRYPT', 'DECRYPT'], keyStatus: 'ENABLED' }
    expect(parseKeyMetadataAnswer(answer)).toEqual(answer)
    expect(thrown(() => parseKeyMetadataAnswer({ ...answer, ...change }))).toEqual(malformed)
  })
})

describe('an error of a proxy', () => {
  it('is what its name says, and nothing that only we say', () => {
    expect(thrown(() => parseAnswer(429, '{"errorName":"ThrottlingException"}'))).toMatchObject({ kind: 'Throttling' })
    for (const name of ['TimedOutException', 'TlsException', 'toStringException', 'Throttling', 5, undefined]) {
      expect(kindOfErrorName(name)).toBeUndefined()
    }
  })

  it.each([
    [500, '<html>'],
    [500, '{}'],
    [302, '{"errorName":"ThrottlingException"}'],
    [200, '[]'],
    [200, 'null'],
    [200, ''],
  ])('with status %i and body %s is malformed', (status, text) => {
    expect(thrown(() => parseAnswer(status, text))).toEqual(malformed)
  })

  it('never quotes the body, which might hold a plaintext', () => {
    expect(String(thrown(() => parseAnswer(200, 'c2VjcmV0')))).not.toContain('c2VjcmV0')
  })
})

describe('requests', () => {
  const metadata = { kmsRequestId: 'r', kmsOperation: 'Encrypt', awsPrincipalArn: 'arn', kmsKeyArn: 'key' }

  it('ask for the integrity value and carry standard base64', () => {
    expect(JSON.parse(encodeEncryptRequest(metadata, Buffer.of(0xff, 0xfe), Buffer.of(0xfb)).toString())).toEqual({
      requestMetadata: metadata,
      plaintext: '//4=',
      additionalAuthenticatedData: '+w==',
      encryptionAlgorithm: 'AES_GCM',
      ciphertextDataIntegrityValueAlgorithm: 'SHA_256',
    })
  })

  it('hand a ciphertext back as it came, with metadata only where there was some', () => {
    const sealed = parseEncryptAnswer(vector, plaintext, aad)
    const { ciphertextDataIntegrityValue: _, ...members } = vector
    const request = JSON.parse(encodeDecryptRequest(metadata, sealed, aad).toString())
    expect(request).toMatchObject(members)
    const bare = encodeDecryptRequest(metadata, { ...sealed, metadata: Buffer.alloc(0) }, aad)
    expect(JSON.parse(bare.toString())).not.toHaveProperty('ciphertextMetadata')
  })
})
