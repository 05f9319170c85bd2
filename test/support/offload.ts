/** Keys of TLS servers, bound to tokens, on a gateway of a test; and what its journal says about them. */
import { createPublicKey, type KeyObject } from 'node:crypto'
import type { TestGateway } from './gateway.ts'

export interface BoundKey {
  readonly keyId: string
  readonly arn: string
  readonly name: string
  readonly token: Buffer
  readonly publicKey: KeyObject
  /** What goes into requests: SHA-256 of the SubjectPublicKeyInfo. */
  readonly spkiDigest: Buffer
}

export interface BindOptions {
  readonly policies?: string
  readonly users?: readonly number[]
  readonly relays?: readonly string[]
  readonly rate?: number
  readonly concurrency?: number
}

let names = 0

/** Whatever answers commands of the operator socket. */
type Asked = Pick<TestGateway, 'ask'>

export async function createTlsKey(gateway: Asked, spec: string): Promise<{ keyId: string; arn: string }> {
  return gateway.ask('tls', 'create-key', { spec })
}

/** Binds a key; without `users`, any user may present the token. */
export async function bindKey(
  gateway: Asked,
  key: { readonly keyId: string; readonly arn: string },
  { policies = 'tls13-server,tls12-server-ecdhe', users, relays, rate, concurrency }: BindOptions = {},
): Promise<BoundKey> {
  const name = `web-${++names}`
  const answer = await gateway.ask<{ token: string; publicKey: string; spkiDigest: string }>('tls', 'bind', {
    name,
    key: key.keyId,
    policies,
    ...(users === undefined ? { anyUser: true } : { users: users.join(',') }),
    ...(relays === undefined ? {} : { relays: relays.join(',') }),
    ...(rate === undefined ? {} : { rate }),
    ...(concurrency === undefined ? {} : { concurrency }),
  })
  const spki = Buffer.from(answer.publicKey, 'base64')
  return {
    ...key,
    name,
    token: Buffer.from(answer.token, 'base64'),
    publicKey: createPublicKey({ key: spki, format: 'der', type: 'spki' }),
    spkiDigest: Buffer.from(answer.spkiDigest, 'hex'),
  }
}

export interface OffloadRecord {
  readonly eventSource: string
  readonly eventName: string
  readonly errorCode?: string
  readonly errorMessage?: string
  readonly userIdentity: { readonly arn: string; readonly type: string }
  readonly requestParameters: Readonly<Record<string, unknown>>
  readonly additionalEventData: Readonly<Record<string, unknown>>
  readonly resources: readonly { readonly ARN: string }[]
  readonly requestID: string
}

/** Records of the signing socket, of one binding unless all are wanted. */
export async function offloadRecords(gateway: TestGateway, name?: string): Promise<readonly OffloadRecord[]> {
  return recordsOf(await gateway.auditRecords(), name)
}

/** Of lines of a journal. */
export function recordsOf(lines: readonly { readonly event: object }[], name?: string): readonly OffloadRecord[] {
  return lines
    .map(({ event }) => event as unknown as OffloadRecord)
    .filter(({ eventSource }) => eventSource === 'hsmgate.offload')
    .filter(({ userIdentity }) => name === undefined || userIdentity.arn.endsWith(`:user/hsmgate/tls/${name}`))
}

/** What `work` adds to the journal for a binding. */
export async function recordsDuring(
  gateway: TestGateway,
  name: string,
  work: () => Promise<unknown>,
): Promise<readonly OffloadRecord[]> {
  const before = (await offloadRecords(gateway, name)).length
  await work()
  return (await offloadRecords(gateway, name)).slice(before)
}
