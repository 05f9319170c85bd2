/** Signed KMS calls as they go over the wire: for requests that no SDK would send, and answers before an SDK interprets them. */
import { signRequest } from '../../src/authenticate/sign-request.ts'
import { type TestCredentials, type TestGateway, testRegion } from './gateway.ts'

export interface Answer {
  readonly status: number
  readonly headers: Headers
  /** Parsed body; undefined where it is empty. */
  readonly body: Record<string, unknown> | undefined
}

export type Call = (operation: string, body?: object | string) => Promise<Answer>

export function createCall(
  gateway: Pick<TestGateway, 'endpoint' | 'credentials'>,
  options: { readonly credentials?: TestCredentials; readonly region?: string } = {},
): Call {
  const { credentials = gateway.credentials, region = testRegion } = options
  return async (operation, body = {}) => {
    const bytes = Buffer.from(typeof body === 'string' ? body : JSON.stringify(body))
    const { host } = new URL(gateway.endpoint)
    const headers = signRequest(
      {
        method: 'POST',
        target: '/',
        headers: { host, 'content-type': 'application/x-amz-json-1.1', 'x-amz-target': `TrentService.${operation}` },
        body: bytes,
      },
      {
        accessKeyId: credentials.accessKeyId,
        secret: Buffer.from(credentials.secretAccessKey),
        region,
        service: 'kms',
      },
      Date.now(),
    )
    const response = await fetch(gateway.endpoint, { method: 'POST', headers, body: bytes })
    const text = await response.text()
    return {
      status: response.status,
      headers: response.headers,
      body: text === '' ? undefined : (JSON.parse(text) as Record<string, unknown>),
    }
  }
}

/** The output of a call that must succeed. */
export async function succeed(answer: Promise<Answer>): Promise<Record<string, unknown>> {
  const { status, body } = await answer
  if (status !== 200) throw new Error(`${status} ${JSON.stringify(body)}`)
  return body ?? {}
}

/** The body of a call that must be refused with status 400. */
export async function refusal(answer: Promise<Answer>): Promise<Record<string, unknown>> {
  const { status, body } = await answer
  if (status !== 400 || body === undefined) throw new Error(`${status} ${JSON.stringify(body)}`)
  return body
}

export const base64 = (text: string | Uint8Array): string => Buffer.from(text as string).toString('base64')
