/** One HTTP request and its answer between listener and protocol, so that a listener can serve several protocols. */
import type { SignedRequest } from '../../authenticate/authenticate.ts'
import type { Source } from '../../call.ts'

export interface WireRequest extends SignedRequest {
  /** Lower-case names; where a header repeats, the last or the joined value as Node's parser has it. */
  readonly headers: Readonly<Record<string, string | readonly string[] | undefined>>
  /** UUID; also the answer's x-amzn-RequestId. */
  readonly requestId: string
  /** Epoch milliseconds. */
  readonly receivedAt: number
  readonly source: Source
}

export interface WireResponse {
  readonly status: number
  readonly contentType: string
  readonly body: string
}

/** Answers every request; never rejects for anything a request may contain. */
export type WireProtocol = (request: WireRequest) => Promise<WireResponse>

/** The service that a request's credential scope names, unverified: it only picks the protocol. */
export function claimedService(authorization: unknown): string | undefined {
  if (typeof authorization !== 'string') return undefined
  const start = authorization.indexOf('Credential=')
  if (start < 0) return undefined
  const end = authorization.indexOf(',', start)
  return authorization.slice(start, end < 0 ? undefined : end).split('/', 5)[3]
}
