import { createHash, createHmac } from 'node:crypto'
import { SignatureV4 } from '@smithy/signature-v4'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import {
  type Authenticated,
  type Credential,
  createSigV4Verifier,
  type SignedRequest,
  type SigV4Options,
} from '../../../src/authenticate/authenticate.ts'
import type { Principal } from '../../../src/call.ts'
import { GatewayError } from '../../../src/error.ts'

const principal: Principal = {
  type: 'user',
  arn: 'arn:aws:iam::000000000000:user/alice',
  account: '000000000000',
  principalId: 'AIDAEXAMPLE',
  userName: 'alice',
}
const accessKeyId = 'AKIDEXAMPLE'
const secretText = 'wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY'
const at = Date.UTC(2026, 6, 1, 12, 0, 0)

class Sha256 {
  readonly #hash
  constructor(secret?: string | ArrayBuffer | ArrayBufferView) {
    this.#hash = secret === undefined ? createHash('sha256') : createHmac('sha256', secret as Buffer)
  }
  update(data: Uint8Array | string) {
    this.#hash.update(data)
  }
  async digest() {
    return new Uint8Array(this.#hash.digest())
  }
  reset() {}
}

interface Draft {
  method?: string
  path?: string
  query?: Record<string, string>
  headers?: Record<string, string>
  body?: string
  atMs?: number
  region?: string
  service?: string
  secret?: string
  keyId?: string
  sessionToken?: string
}

/** Signs with the SDK's own signer. */
async function sign(draft: Draft = {}): Promise<SignedRequest> {
  const body = draft.body ?? '{"KeyId":"alias/x"}'
  const signer = new SignatureV4({
    service: draft.service ?? 'kms',
    region: draft.region ?? 'us-east-1',
    credentials: {
      accessKeyId: draft.keyId ?? accessKeyId,
      secretAccessKey: draft.secret ?? secretText,
      ...(draft.sessionToken === undefined ? {} : { sessionToken: draft.sessionToken }),
    },
    sha256: Sha256,
  })
  const signed = await signer.sign(
    {
      method: draft.method ?? 'POST',
      protocol: 'http:',
      hostname: '127.0.0.1',
      path: draft.path ?? '/',
      query: draft.query ?? {},
      headers: {
        host: '127.0.0.1:8600',
        'content-type': 'application/x-amz-json-1.1',
        'x-amz-target': 'TrentService.DescribeKey',
        ...draft.headers,
      },
      body,
    },
    { signingDate: new Date(draft.atMs ?? at) },
  )
  const query = new URLSearchParams(draft.query ?? {}).toString().replaceAll('+', '%20')
  return {
    method: signed.method,
    rawUrl: query === '' ? signed.path : `${signed.path}?${query}`,
    rawHeaders: Object.entries(signed.headers).flat(),
    body: Buffer.from(body),
  }
}

function alter(request: SignedRequest, name: string, change: (value: string) => string | undefined): SignedRequest {
  const rawHeaders: string[] = []
  for (let i = 0; i < request.rawHeaders.length; i += 2) {
    const key = request.rawHeaders[i] as string
    const value = request.rawHeaders[i + 1] as string
    const changed = key.toLowerCase() === name ? change(value) : value
    if (changed !== undefined) rawHeaders.push(key, changed)
  }
  return { ...request, rawHeaders }
}

function verifier(overrides: Partial<SigV4Options> & { credential?: Partial<Credential> | null } = {}) {
  const { credential: shape, ...options } = overrides
  const credential =
    shape === null ? undefined : { accessKeyId, secret: Buffer.from(secretText), principal, ...(shape ?? {}) }
  return createSigV4Verifier({
    service: 'kms',
    regions: new Set(['us-east-1', 'eu-west-1']),
    now: () => at,
    credentials: { find: (id) => (id === accessKeyId ? credential : undefined) },
    ...options,
  })
}

function failure(run: () => unknown): { code: string; text: string | undefined } {
  try {
    run()
  } catch (error) {
    if (error instanceof GatewayError) {
      return { code: error.code, text: (error.params as { text?: string } | undefined)?.text }
    }
    throw error
  }
  throw new Error('verification passed')
}

function failureOf(run: () => void): string | undefined {
  try {
    run()
    return undefined
  } catch (error) {
    return (error as GatewayError).code
  }
}

describe('createSigV4Verifier', () => {
  it('accepts a request signed by the SDK and names principal and Region', async () => {
    expect(verifier().verify(await sign({ region: 'eu-west-1' }))).toMatchObject({ principal, region: 'eu-west-1' })
  })

  it('admits a call that waited only while its credential is there', async () => {
    let present = true
    const credential = { accessKeyId, secret: Buffer.from(secretText), principal }
    const answer = verifier({ credentials: { find: () => (present ? credential : undefined) } }).verify(await sign())
    if (answer instanceof Promise) throw new Error('the source is synchronous')
    expect(failureOf(answer.admit)).toBeUndefined()
    present = false
    expect(failureOf(answer.admit)).toBe('CredentialsUnknown')
  })

  it('accepts any body, query, path and header values that the SDK signs', async () => {
    const word = fc.string({ unit: 'grapheme-ascii', maxLength: 12 })
    const segment = fc.string({ unit: fc.constantFrom(...'abcXYZ019-._~'), minLength: 1, maxLength: 8 })
    await fc.assert(
      fc.asyncProperty(
        fc.string({ unit: 'binary', maxLength: 300 }),
        fc.dictionary(segment, word, { maxKeys: 4 }),
        fc.array(segment, { maxLength: 4 }),
        word,
        async (body, query, segments, value) => {
          const request = await sign({
            body: Buffer.from(body)
              .toString('latin1')
              .replace(/[^ -~]/g, 'x'),
            query,
            path: `/${segments.filter((part) => !/^\.+$/.test(part)).join('/')}`,
            headers: { 'x-amz-custom': `a${value}` },
          })
          expect((verifier().verify(request) as Authenticated).principal).toBe(principal)
        },
      ),
      { numRuns: 200 },
    )
  })

  it('refuses every request in which one signed thing changed', async () => {
    const request = await sign({ headers: { 'x-amz-custom': 'one' }, query: { a: 'b' } })
    const altered: Record<string, SignedRequest> = {
      method: { ...request, method: 'PUT' },
      path: { ...request, rawUrl: '/x?a=b' },
      query: { ...request, rawUrl: '/?a=c' },
      host: alter(request, 'host', () => 'other:8600'),
      target: alter(request, 'x-amz-target', () => 'TrentService.Decrypt'),
      custom: alter(request, 'x-amz-custom', (value) => `${value}x`),
      date: alter(request, 'x-amz-date', () => '20260701T120001Z'),
      'signed header left out': alter(request, 'x-amz-custom', () => undefined),
      'first digit of the signature': alter(request, 'authorization', (value) =>
        value.replace(/Signature=(.)/, (_, digit) => `Signature=${digit === '0' ? '1' : '0'}`),
      ),
      'short signature': alter(request, 'authorization', (value) => value.slice(0, -1)),
      'long signature': alter(request, 'authorization', (value) => `${value}0`),
      'signature in upper case': alter(request, 'authorization', (value) =>
        value.replace(/Signature=.*/, (text) => `Signature=${text.slice(10).toUpperCase()}`),
      ),
    }
    for (const [what, changed] of Object.entries(altered)) {
      expect({ what, code: failure(() => verifier().verify(changed)).code }).toEqual({
        what,
        code: 'SignatureMismatch',
      })
    }
  })

  it('refuses a body that is not the signed one, whether or not x-amz-content-sha256 is sent', async () => {
    const request = { ...(await sign()), body: Buffer.from('{}') }
    expect(failure(() => verifier().verify(request)).text).toMatch(/x-amz-content-sha256/)
    const botocore = signLikeBotocore({ body: 'one' })
    expect(verifier().verify(botocore)).toMatchObject({ principal })
    expect(failure(() => verifier().verify({ ...botocore, body: Buffer.from('two') })).code).toBe('SignatureMismatch')
  })

  it('refuses an unsigned payload', async () => {
    const request = await sign({ headers: { 'x-amz-content-sha256': 'UNSIGNED-PAYLOAD' } })
    expect(failure(() => verifier().verify(request)).code).toBe('SignatureMismatch')
  })

  it('answers an unknown access key with CredentialsUnknown, rightly signed or not', async () => {
    const request = await sign({ keyId: 'AKIDOTHER' })
    expect(failure(() => verifier().verify(request))).toEqual({ code: 'CredentialsUnknown', text: undefined })
    const wrong = await sign({ keyId: 'AKIDOTHER', secret: 'other' })
    expect(failure(() => verifier().verify(wrong)).code).toBe('CredentialsUnknown')
  })

  it('waits for a credential source that answers later', async () => {
    const request = await sign()
    const later = verifier({
      credentials: { find: async () => ({ accessKeyId, secret: Buffer.from(secretText), principal }) },
    })
    await expect(later.verify(request)).resolves.toMatchObject({ principal })
  })

  it('allows five minutes either way and says what it expected', async () => {
    const early = await sign({ atMs: at - 300_000 })
    const late = await sign({ atMs: at + 300_000 })
    expect(verifier().verify(early)).toMatchObject({ principal })
    expect(verifier().verify(late)).toMatchObject({ principal })
    const tooEarly = await sign({ atMs: at - 301_000 })
    expect(failure(() => verifier().verify(tooEarly))).toEqual({
      code: 'SignatureMismatch',
      text: 'Signature expired: 20260701T115459Z is now earlier than 20260701T115500Z (20260701T120000Z - 5 min.)',
    })
    const tooLate = await sign({ atMs: at + 301_000 })
    expect(failure(() => verifier().verify(tooLate))).toEqual({
      code: 'SignatureMismatch',
      text: 'Signature not yet current: 20260701T120501Z is still later than 20260701T120500Z (20260701T120000Z + 5 min.)',
    })
  })

  it('names the wrong Region, the wrong service and the wrong terminator', async () => {
    const region = await sign({ region: 'mars-1' })
    expect(failure(() => verifier().verify(region)).text).toBe(
      "Credential should be scoped to a valid region, not 'mars-1'. ",
    )
    const service = await sign({ service: 'sts' })
    expect(failure(() => verifier().verify(service)).text).toBe(
      "Credential should be scoped to correct service: 'kms'. ",
    )
    const terminator = alter(await sign(), 'authorization', (value) => value.replace('aws4_request', 'aws5_request'))
    expect(failure(() => verifier().verify(terminator)).text).toBe(
      "Credential should be scoped with a valid terminator: 'aws4_request', not 'aws5_request'. ",
    )
  })

  it('refuses a scope date other than the date of the request', async () => {
    const request = alter(await sign(), 'authorization', (value) => value.replace('20260701/', '20260630/'))
    expect(failure(() => verifier().verify(request)).text).toBe(
      "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: '20260630' != '20260701', from '20260701T120000Z'.",
    )
  })

  it('demands a signature over host and every x-amz header', async () => {
    const request = await sign()
    const extra = { ...request, rawHeaders: [...request.rawHeaders, 'X-Amz-Extra', '1'] }
    expect(failure(() => verifier().verify(extra)).text).toBe(
      "'x-amz-extra' must be a 'SignedHeader' in the AWS Authorization.",
    )
    const noHost = signLikeBotocore({ signed: ['x-amz-date', 'x-amz-target'] })
    expect(failure(() => verifier().verify(noHost)).text).toBe(
      "'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization.",
    )
    const noDate = signLikeBotocore({ signed: ['host', 'x-amz-target'] })
    expect(failure(() => verifier().verify(noDate)).text).toMatch(/'x-amz-date' must be a 'SignedHeader'/)
  })

  it('refuses signed headers that repeat or are out of order', () => {
    for (const signed of [
      ['host', 'host', 'x-amz-date', 'x-amz-target'],
      ['x-amz-target', 'host', 'x-amz-date'],
      ['Host', 'x-amz-date', 'x-amz-target'],
    ]) {
      expect(failure(() => verifier().verify(signLikeBotocore({ signed }))).code).toBe('SignatureMismatch')
    }
  })

  it('refuses a second header of those that decide something', async () => {
    for (const name of ['Authorization', 'X-Amz-Target', 'Host', 'X-Amz-Date', 'X-Amz-Content-Sha256']) {
      const request = await sign()
      const doubled = { ...request, rawHeaders: [...request.rawHeaders, name, 'x'] }
      expect(failure(() => verifier().verify(doubled)).code).toBe('CredentialsIncomplete')
    }
  })

  it('joins repeated other headers with a comma before it checks the signature', async () => {
    const request = await sign({ headers: { 'x-amz-custom': 'one,two' } })
    const split = alter(request, 'x-amz-custom', () => 'one')
    const rawHeaders = [...split.rawHeaders, 'x-amz-custom', 'two']
    expect(verifier().verify({ ...request, rawHeaders })).toMatchObject({ principal })
  })

  it('takes an HTTP Date header where X-Amz-Date is absent', () => {
    const httpDate = new Date(at).toUTCString()
    const request = signLikeBotocore({ headers: { date: httpDate }, signed: ['date', 'host', 'x-amz-target'] })
    expect(verifier().verify(request)).toMatchObject({ principal })
  })

  it('calls a request without AWS credentials unauthenticated', async () => {
    const request = await sign()
    const bare = alter(request, 'authorization', () => undefined)
    expect(failure(() => verifier().verify(bare)).code).toBe('CredentialsMissing')
    for (const value of ['Basic YTpi', 'Bearer x', 'aws4-hmac-sha256 x', '']) {
      expect(failure(() => verifier().verify(alter(request, 'authorization', () => value))).code).toBe(
        'CredentialsMissing',
      )
    }
  })

  it.each([
    [
      'AWS4-HMAC-SHA256',
      "Authorization header requires 'Credential' parameter. Authorization header requires 'Signature' parameter. Authorization header requires 'SignedHeaders' parameter. Authorization=AWS4-HMAC-SHA256",
    ],
    [
      'AWS4-HMAC-SHA256 Credential=a/b/c/d/e, SignedHeaders=host',
      "Authorization header requires 'Signature' parameter. Authorization=AWS4-HMAC-SHA256",
    ],
    [
      'AWS4-HMAC-SHA256 Credential=a/b, SignedHeaders=host, Signature=00',
      "Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term, got 'a/b'",
    ],
    [
      'AWS4-HMAC-SHA256 Credential=a/b/c/d/e, Credential=a/b/c/d/e, SignedHeaders=host, Signature=00',
      "Authorization header has more than one 'Credential' parameter.",
    ],
    [
      'AWS4-ECDSA-P256-SHA256 Credential=a/b/c/d, SignedHeaders=host, Signature=00',
      "Unsupported AWS 'algorithm': 'AWS4-ECDSA-P256-SHA256'.",
    ],
  ])('calls %j incomplete', async (value, text) => {
    const request = alter(await sign(), 'authorization', () => value)
    expect(failure(() => verifier().verify(request))).toEqual({ code: 'CredentialsIncomplete', text })
  })

  it('asks for a date', async () => {
    const request = alter(await sign(), 'x-amz-date', () => undefined)
    expect(failure(() => verifier().verify(request)).text).toBe(
      "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header. Authorization=AWS4-HMAC-SHA256",
    )
    for (const value of ['2026-07-01T12:00:00Z', '20261301T120000Z', '20260701T120000', 'yesterday']) {
      const wrong = alter(await sign(), 'x-amz-date', () => value)
      expect(failure(() => verifier().verify(wrong)).code).toBe('CredentialsIncomplete')
    }
  })

  it('does not echo an authorization header that it cannot read', async () => {
    const request = alter(await sign(), 'authorization', () => 'AWS4-HMAC-SHA256 topsecret')
    const { text } = failure(() => verifier().verify(request))
    expect(text).toMatch(/^Invalid key=value pair \(missing equal-sign\)/)
    expect(text).not.toContain('topsecret')
  })

  it('takes session tokens only from the credential that has one', async () => {
    const sessionToken = Buffer.from('token-of-the-session')
    const temporary = { credential: { sessionToken, expiresAt: at + 1000 } }
    const request = await sign({ sessionToken: 'token-of-the-session' })
    expect(verifier(temporary).verify(request)).toMatchObject({ principal })
    expect(failure(() => verifier().verify(request)).code).toBe('CredentialsUnknown')
    const none = await sign()
    expect(failure(() => verifier(temporary).verify(none)).code).toBe('CredentialsUnknown')
    const other = await sign({ sessionToken: 'token-of-the-sessioN' })
    expect(failure(() => verifier(temporary).verify(other)).code).toBe('CredentialsUnknown')
    const expired = { credential: { sessionToken, expiresAt: at } }
    expect(failure(() => verifier(expired).verify(request)).code).toBe('CredentialsExpired')
  })

  it('stops serving a secret as soon as the source names another or none', async () => {
    let credential: Credential | undefined = { accessKeyId, secret: Buffer.from(secretText), principal }
    const changing = verifier({ credentials: { find: () => credential } })
    const request = await sign()
    expect(changing.verify(request)).toMatchObject({ principal })
    credential = { accessKeyId, secret: Buffer.from('another secret'), principal }
    expect(failure(() => changing.verify(request)).code).toBe('SignatureMismatch')
    credential = undefined
    changing.forget(accessKeyId)
    expect(failure(() => changing.verify(request)).code).toBe('CredentialsUnknown')
  })

  it('keeps working when strangers and scopes overflow its memory of derived keys', async () => {
    const small = verifier({ maxSigningKeys: 1 })
    const here = await sign()
    const there = await sign({ region: 'eu-west-1' })
    for (let i = 0; i < 3; i += 1) {
      expect(small.verify(here)).toMatchObject({ region: 'us-east-1' })
      expect(small.verify(there)).toMatchObject({ region: 'eu-west-1' })
    }
  })

  it('answers any header soup with a modelled error', async () => {
    const request = await sign()
    fc.assert(
      fc.property(
        fc.string({ maxLength: 200 }),
        fc.constantFrom('', 'AWS4-HMAC-SHA256 ', 'AWS4-HMAC-SHA256 Credential=a/20260701/us-east-1/kms/aws4_request,'),
        (text, prefix) => {
          const soup = alter(request, 'authorization', () => prefix + text)
          expect(failure(() => verifier().verify(soup)).code).toMatch(/^(Credentials|SignatureMismatch)/)
        },
      ),
      { numRuns: 500 },
    )
  })
})

/** A second, independent signer that signs the few headers botocore signs, and whatever a test wants. */
function signLikeBotocore(draft: {
  body?: string
  signed?: readonly string[]
  headers?: Record<string, string>
}): SignedRequest {
  const body = Buffer.from(draft.body ?? '{}')
  const headers: Record<string, string> = {
    host: '127.0.0.1:8600',
    'x-amz-target': 'TrentService.ListKeys',
    ...(draft.headers ?? { 'x-amz-date': '20260701T120000Z' }),
  }
  const signed = draft.signed ?? ['host', 'x-amz-date', 'x-amz-target']
  const canonical = [
    'POST',
    '/',
    '',
    ...signed.map((name) => `${name}:${headers[name.toLowerCase()]}`),
    '',
    signed.join(';'),
    createHash('sha256').update(body).digest('hex'),
  ].join('\n')
  const scope = '20260701/us-east-1/kms/aws4_request'
  const digest = createHash('sha256').update(canonical).digest('hex')
  let key: Buffer | string = `AWS4${secretText}`
  for (const part of scope.split('/')) key = createHmac('sha256', key).update(part).digest()
  const signature = createHmac('sha256', key)
    .update(`AWS4-HMAC-SHA256\n20260701T120000Z\n${scope}\n${digest}`)
    .digest('hex')
  const authorization = `AWS4-HMAC-SHA256 Credential=${accessKeyId}/${scope}, SignedHeaders=${signed.join(';')}, Signature=${signature}`
  return {
    method: 'POST',
    rawUrl: '/',
    rawHeaders: [...Object.entries(headers).flat(), 'Authorization', authorization],
    body,
  }
}
