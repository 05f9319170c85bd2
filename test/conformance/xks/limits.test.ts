/** Every member of every request at, under and over its limit, of wrong types and in bad base64: the modelled error, its status, a printable message. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import {
  createStore,
  createXksClient,
  decryptBody,
  encryptBody,
  metadataOf,
  startXksGateway,
  type XksAnswer,
  type XksClient,
  type XksGateway,
} from '../../support/xks-client.ts'

let xks: XksGateway
let client: XksClient
let sealed: Record<string, unknown>

beforeAll(async () => {
  xks = await startXksGateway()
  const store = await createStore(xks, 'main')
  await xks.gateway.ask('xks-key', 'create', { store: 'main', id: 'foo' })
  client = createXksClient(xks, store)
  sealed = (await client.call('keys/foo/encrypt', encryptBody(Buffer.from('x')))).body
}, 180_000)

afterAll(async () => {
  client?.[Symbol.dispose]()
  await xks?.[Symbol.asyncDispose]()
})

function expectRefusal(answer: XksAnswer, status: number, errorName: string): void {
  expect(answer).toMatchObject({ status, contentType: 'application/json', body: { errorName } })
  expect(answer.text).not.toContain('\n')
  const { errorMessage = '' } = answer.body as { errorMessage?: string }
  expect(errorMessage.length).toBeLessThan(512)
  expect(errorMessage).toMatch(/^[\x20-\x7e]*$/)
}

const encrypt = (body: unknown) => client.call('keys/foo/encrypt', body)
const decrypt = (body: unknown) => client.call('keys/foo/decrypt', body)
const base64 = (bytes: number) => Buffer.alloc(bytes, 5).toString('base64')
const good = () => encryptBody(Buffer.from('x')) as Record<string, unknown>

describe('bodies', () => {
  it.each(['', '{', 'null', '[]', '"x"', '1', '{"requestMetadata":null}', '{"requestMetadata":"x"}', '\u0000'])(
    'such as %j are refused',
    async (body) => {
      for (const api of ['health', 'keys/foo/metadata', 'keys/foo/encrypt', 'keys/foo/decrypt']) {
        expectRefusal(await client.call(api, Buffer.from(body)), 400, 'ValidationException')
      }
    },
  )

  it('that are not UTF-8 are refused', async () => {
    const body = Buffer.concat([Buffer.from('{"a":"'), Buffer.from([0xff, 0xfe]), Buffer.from('"}')])
    expectRefusal(await client.call('health', body), 400, 'ValidationException')
  })

  it('with a prototype in them, deep nesting or unknown members work', async () => {
    const body = JSON.stringify({ ...good(), more: { any: [1, null] } })
    const odd = `{"__proto__":{"plaintext":"eA=="},"deep":${'['.repeat(500)}${']'.repeat(500)},${body.slice(1)}`
    expect(await encrypt(odd)).toMatchObject({ status: 200 })
    const inherited = JSON.stringify(good()).replace('"plaintext":"eA==",', '"__proto__":{"plaintext":"eA=="},')
    expectRefusal(await encrypt(inherited), 400, 'ValidationException')
  })

  it('up to 64 KiB are read, larger ones are more than the proxy supports', async () => {
    const filled = (bytes: number) => {
      const body = JSON.stringify({ ...good(), filler: '' })
      return body.replace('"filler":""', `"filler":"${'x'.repeat(bytes - body.length)}"`)
    }
    expect(await encrypt(filled(64 * 1024))).toMatchObject({ status: 200 })
    expectRefusal(await encrypt(filled(64 * 1024 + 1)), 501, 'UnsupportedOperationException')
  })
})

describe('requestMetadata', () => {
  const strings = ['kmsRequestId', 'kmsOperation', 'awsPrincipalArn', 'kmsKeyArn'] as const

  it.each(strings)('%s must be a string where it is required', async (name) => {
    for (const value of [undefined, null, 1, true, {}, []]) {
      expectRefusal(
        await encrypt({ ...good(), ...metadataOf('Encrypt', { [name]: value }) }),
        400,
        'ValidationException',
      )
    }
    for (const value of ['', 'x', '\u20ac', 'x'.repeat(2048)]) {
      const answer = await encrypt({ ...good(), ...metadataOf('Encrypt', { [name]: value }) })
      expect([name, value.length, answer.status]).toEqual([name, value.length, 200])
    }
    const long = metadataOf('Encrypt', { [name]: 'x'.repeat(2049) })
    expectRefusal(await encrypt({ ...good(), ...long }), 400, 'ValidationException')
  })

  it('needs no key for metadata, and no principal for health', async () => {
    const { requestMetadata } = metadataOf('CreateKey', { kmsKeyArn: undefined })
    expect(await client.call('keys/foo/metadata', { requestMetadata })).toMatchObject({ status: 200 })
    const without = { requestMetadata: { ...requestMetadata, awsPrincipalArn: undefined } }
    expectRefusal(await client.call('keys/foo/metadata', without), 400, 'ValidationException')
    expect(await client.call('health', without)).toMatchObject({ status: 200 })
  })

  it('may name operations and members that are not known yet', async () => {
    const more = { awsSourceVpc: 'vpc-1', awsSourceVpce: 'vpce-1', kmsViaService: 'ebs', future: { a: 1 } }
    const answer = await encrypt({ ...good(), ...metadataOf('GenerateQuantumDataKey', more) })
    expect(answer).toMatchObject({ status: 200 })
    expectRefusal(
      await encrypt({ ...good(), ...metadataOf('Encrypt', { kmsViaService: 1 }) }),
      400,
      'ValidationException',
    )
    expect(await encrypt({ ...good(), ...metadataOf('Encrypt', { kmsViaService: null }) })).toMatchObject({
      status: 200,
    })
  })
})

describe('base64', () => {
  it.each([
    ['URL-safe letters', '-_-_'],
    ['missing padding', 'eA'],
    ['too much padding', 'eA==='],
    ['padding alone', '===='],
    ['white space', 'eA= ='],
    ['a line break', 'eA==\n'],
    ['another encoding of the same byte', 'eB=='],
    ['letters outside the alphabet', '\u00e4\u00f6\u00fc='],
    ['a data URL', 'data:,x'],
  ])('with %s is refused', async (_what, text) => {
    expectRefusal(await encrypt({ ...good(), plaintext: text }), 400, 'ValidationException')
    expectRefusal(await encrypt({ ...good(), additionalAuthenticatedData: text }), 400, 'ValidationException')
    for (const name of ['ciphertext', 'initializationVector', 'authenticationTag', 'ciphertextMetadata']) {
      expectRefusal(await decrypt({ ...decryptBody(sealed), [name]: text }), 400, 'ValidationException')
    }
  })
})

describe('Encrypt', () => {
  it('takes 1 to 6144 bytes of plaintext', async () => {
    for (const bytes of [1, 4300, 6144]) {
      expect(await encrypt({ ...good(), plaintext: base64(bytes) })).toMatchObject({ status: 200 })
    }
    expectRefusal(await encrypt({ ...good(), plaintext: base64(6145) }), 501, 'UnsupportedOperationException')
    expectRefusal(await encrypt({ ...good(), plaintext: '' }), 400, 'ValidationException')
    expectRefusal(await encrypt({ ...good(), plaintext: undefined }), 400, 'ValidationException')
    for (const plaintext of [1, null, {}, ['eA==']]) {
      expectRefusal(await encrypt({ ...good(), plaintext }), 400, 'ValidationException')
    }
  })

  it('takes 0 to 12,288 bytes of additional data', async () => {
    for (const bytes of [0, 1, 8192, 12_288]) {
      const more = { additionalAuthenticatedData: base64(bytes) }
      const { status, body } = await encrypt({ ...good(), ...more })
      expect([bytes, status]).toEqual([bytes, 200])
      expect(await decrypt(decryptBody(body, more))).toMatchObject({ status: 200, body: { plaintext: 'eA==' } })
    }
    const long = { ...good(), additionalAuthenticatedData: base64(12_289) }
    expectRefusal(await encrypt(long), 501, 'UnsupportedOperationException')
    expectRefusal(await encrypt({ ...good(), additionalAuthenticatedData: 7 }), 400, 'ValidationException')
  })

  it('knows one algorithm and one digest', async () => {
    for (const encryptionAlgorithm of [undefined, null, '', 'aes_gcm', 'AES_CBC', 1]) {
      expectRefusal(await encrypt({ ...good(), encryptionAlgorithm }), 400, 'ValidationException')
    }
    for (const ciphertextDataIntegrityValueAlgorithm of ['', 'SHA_1', 'sha_256', 1, {}]) {
      expectRefusal(await encrypt({ ...good(), ciphertextDataIntegrityValueAlgorithm }), 400, 'ValidationException')
    }
  })
})

describe('Decrypt', () => {
  it('takes vectors of 12 and 16 bytes', async () => {
    for (const bytes of [0, 1, 11, 13, 15, 17, 32]) {
      const answer = await decrypt({ ...decryptBody(sealed), initializationVector: base64(bytes) })
      expectRefusal(answer, 400, 'ValidationException')
    }
    for (const bytes of [12, 16]) {
      const answer = await decrypt({ ...decryptBody(sealed), initializationVector: base64(bytes) })
      expectRefusal(answer, 400, 'InvalidCiphertextException')
    }
  })

  it('takes tags of 16 bytes', async () => {
    for (const bytes of [0, 1, 12, 15, 17]) {
      const answer = await decrypt({ ...decryptBody(sealed), authenticationTag: base64(bytes) })
      expectRefusal(answer, 400, 'ValidationException')
    }
    expectRefusal(
      await decrypt({ ...decryptBody(sealed), authenticationTag: base64(16) }),
      400,
      'InvalidCiphertextException',
    )
  })

  it('takes up to 20 bytes of metadata, foreign ones too', async () => {
    for (const bytes of [0, 1, 6, 20]) {
      const answer = await decrypt({ ...decryptBody(sealed), ciphertextMetadata: base64(bytes) })
      expectRefusal(answer, 400, 'InvalidCiphertextException')
    }
    expectRefusal(await decrypt({ ...decryptBody(sealed), ciphertextMetadata: base64(21) }), 400, 'ValidationException')
    const other = Buffer.from([0x68, 0x67, 1, 0, 0xff, 0xff]).toString('base64')
    expectRefusal(
      await decrypt({ ...decryptBody(sealed), ciphertextMetadata: other }),
      400,
      'InvalidCiphertextException',
    )
  })

  it('takes 1 to 6144 bytes of ciphertext', async () => {
    for (const bytes of [1, 6144]) {
      const answer = await decrypt({ ...decryptBody(sealed), ciphertext: base64(bytes) })
      expectRefusal(answer, 400, 'InvalidCiphertextException')
    }
    expectRefusal(
      await decrypt({ ...decryptBody(sealed), ciphertext: base64(6145) }),
      501,
      'UnsupportedOperationException',
    )
    for (const name of ['ciphertext', 'initializationVector', 'authenticationTag', 'encryptionAlgorithm']) {
      for (const value of [undefined, null, '', 1, {}]) {
        expectRefusal(await decrypt({ ...decryptBody(sealed), [name]: value }), 400, 'ValidationException')
      }
    }
  })
})

describe('external key ids', () => {
  it('have 1 to 128 letters, digits, dots, underscores and hyphens', async () => {
    for (const id of ['a', 'A.b_c-9', 'x'.repeat(128), '..', '.']) {
      expectRefusal(await client.call(`keys/${id}/encrypt`, good()), 404, 'KeyNotFoundException')
    }
    for (const id of ['', 'x'.repeat(129), 'a%20b', 'a+b', '%2e%2e', 'foo%2fencrypt', 'foo/../foo', 'a;b']) {
      expectRefusal(await client.call(`keys/${id}/encrypt`, good()), 404, 'InvalidUriPathException')
    }
  })
})
