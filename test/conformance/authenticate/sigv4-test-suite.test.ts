/** Cases of AWS's Signature Version 4 test suite: requests with the signatures that AWS published for them. */
import { describe, expect, it } from 'vitest'
import { createSigV4Verifier } from '../../../src/authenticate/authenticate.ts'
import type { Principal } from '../../../src/call.ts'

const principal: Principal = {
  type: 'user',
  arn: 'arn:aws:iam::000000000000:user/suite',
  account: '000000000000',
  principalId: 'AIDASUITE',
}

interface Case {
  readonly name: string
  readonly method: string
  /** As its UTF-8 bytes come over the wire. */
  readonly target: string
  readonly headers?: readonly string[]
  readonly signedHeaders?: string
  readonly body?: string
  readonly signature: string
}

const cases: readonly Case[] = [
  {
    name: 'get-vanilla',
    method: 'GET',
    target: '/',
    signature: '5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31',
  },
  {
    name: 'post-vanilla',
    method: 'POST',
    target: '/',
    signature: '5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b',
  },
  {
    name: 'get-vanilla-query-order-key-case',
    method: 'GET',
    target: '/?Param2=value2&Param1=value1',
    signature: 'b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500',
  },
  {
    name: 'get-utf8',
    method: 'GET',
    target: '/ሴ',
    signature: '8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85',
  },
  {
    name: 'get-unreserved',
    method: 'GET',
    target: '/-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz',
    signature: '07ef7494c76fa4850883e2b006601f940f8a34d404d0cfa977f52a65bbf5f24f',
  },
  {
    name: 'get-header-value-trim',
    method: 'GET',
    target: '/',
    headers: ['My-Header1', ' value1', 'My-Header2', ' "a   b   c"'],
    signedHeaders: 'host;my-header1;my-header2;x-amz-date',
    signature: 'acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736',
  },
  {
    name: 'post-x-www-form-urlencoded',
    method: 'POST',
    target: '/',
    headers: ['Content-Type', 'application/x-www-form-urlencoded'],
    signedHeaders: 'content-type;host;x-amz-date',
    body: 'Param1=value1',
    signature: 'ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a',
  },
]

describe('AWS Signature Version 4 test suite', () => {
  it.each(cases)(
    'verifies $name',
    ({ method, target, headers = [], signedHeaders = 'host;x-amz-date', body = '', signature }) => {
      using verifier = createSigV4Verifier({
        service: 'service',
        regions: new Set(['us-east-1']),
        now: () => Date.UTC(2015, 7, 30, 12, 36, 0),
        credentials: {
          find: (accessKeyId) => ({
            accessKeyId,
            secret: Buffer.from('wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY'),
            principal,
          }),
        },
      })
      const authorization = `AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, SignedHeaders=${signedHeaders}, Signature=${signature}`
      const request = {
        method,
        rawUrl: Buffer.from(target).toString('latin1'),
        rawHeaders: [
          'Host',
          'example.amazonaws.com',
          'X-Amz-Date',
          '20150830T123600Z',
          ...headers,
          'Authorization',
          authorization,
        ],
        body: Buffer.from(body),
      }
      expect(verifier.verify(request)).toMatchObject({ principal, region: 'us-east-1' })
    },
  )
})
