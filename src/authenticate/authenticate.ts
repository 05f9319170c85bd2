/**
 * The face of authentication by AWS Signature Version 4: evidence of a request → who calls. Identity only; no I/O of its own.
 *
 * Everything is computed over the raw bytes of the request. An unknown access key takes the same path as a known one with a wrong
 * signature, under a secret that nobody has. Synchronous whenever the credential source is; safe for concurrent requests.
 */
import { randomBytes, timingSafeEqual } from 'node:crypto'
import type { Principal } from '../call.ts'
import { GatewayError } from '../error.ts'
import { type AmzDate, formatAmzDate } from './amz-date.ts'
import { printable } from './authorization-header.ts'
import { type Evidence, mismatch, type RawRequest, readEvidence, stringToSign } from './evidence.ts'
import { hmac } from './hmac-sha256.ts'
import { type RequestToSign, type SigningIdentity as Signer, signRequest as sign } from './sign-request.ts'
import { createSigningKeys } from './signing-keys.ts'

export interface Credential {
  readonly accessKeyId: string
  /** The secret access key; must be the same Buffer for as long as the secret is the same, derived keys hang on it. */
  readonly secret: Buffer
  readonly principal: Principal
  /** Temporary credentials: what X-Amz-Security-Token must carry. */
  readonly sessionToken?: Buffer
  /** Epoch milliseconds. */
  readonly expiresAt?: number
}

/** Active credentials only: a disabled access key is an unknown one. */
export interface CredentialSource {
  /** `sessionToken` is what the request presents, unverified. */
  find(accessKeyId: string, sessionToken?: string): Credential | undefined | Promise<Credential | undefined>
}

/** Temporary credentials of a role. */
export interface IssuedSession {
  readonly accessKeyId: string
  readonly secretAccessKey: string
  readonly sessionToken: string
  /** Epoch milliseconds. */
  readonly expiresAt: number
}

export interface SessionIssuer {
  /** @throws GatewayError `LimitExceeded` when policy and tags make the token too large. */
  issue(request: {
    readonly account: string
    readonly role: string
    readonly roleId: string
    readonly sessionName: string
    readonly durationSeconds: number
    readonly policy?: string
    readonly tags?: Readonly<Record<string, string>>
  }): IssuedSession
}

/** The credentials in memory, as their administration changes them. */
export interface CredentialStore extends CredentialSource, Disposable {
  find(accessKeyId: string): Credential | undefined
  /** Takes the credential over; an older one of the same id is wiped. */
  put(credential: Credential): void
  drop(accessKeyId: string): void
  /** Drops every credential of a principal; answers their ids. */
  dropPrincipal(arn: string): readonly string[]
  /** Of every credential of a principal. */
  idsOf(arn: string): readonly string[]
  /** The ARN of everybody who has a credential. */
  principals(): ReadonlySet<string>
  readonly size: number
}

/** A request as it came over the wire. */
export type SignedRequest = RawRequest

export interface SigV4Options {
  /** The service that the credential scope must name, e.g. `kms`. */
  readonly service: string
  readonly regions: ReadonlySet<string>
  /** Wall time, epoch milliseconds. */
  readonly now: () => number
  readonly credentials: CredentialSource
  /** How far X-Amz-Date may be off, both ways. */
  readonly toleranceMs?: number
  readonly maxSigningKeys?: number
}

export interface Authenticated {
  readonly principal: Principal
  readonly region: string
  /** Asked again when work of the call leaves a queue. @throws GatewayError `CredentialsUnknown` when the credential was withdrawn. */
  readonly admit: () => void
}

export interface SigV4Verifier extends Disposable {
  /** @throws GatewayError of the Credentials codes and `SignatureMismatch`, with AWS's texts. */
  verify(request: SignedRequest): Authenticated | Promise<Authenticated>
  /** Wipes what was derived from an access key's secret; call it when the key is disabled or deleted. */
  forget(accessKeyId: string): void
}

/** Whose secret signs, and for what scope. */
export type SigningIdentity = Signer

/** The other direction: signs a request of the gateway's own, see sign-request.ts. `now` in epoch milliseconds. */
export function signRequest(request: RequestToSign, identity: SigningIdentity, now: number): Record<string, string> {
  return sign(request, identity, now)
}

export function createSigV4Verifier(options: SigV4Options): SigV4Verifier {
  const { credentials, now, service, regions, toleranceMs = 5 * 60_000, maxSigningKeys = 4096 } = options
  const signingKeys = createSigningKeys(maxSigningKeys)
  // Kept apart, so that made-up access keys can't push real ones out.
  const decoyKeys = createSigningKeys(256)
  const decoySecret = randomBytes(40)

  function finish(
    evidence: Evidence,
    request: SignedRequest,
    credential: Credential | undefined,
    nowMs: number,
  ): Authenticated {
    const keys = credential === undefined ? decoyKeys : signingKeys
    const key = keys.find(evidence.authorization, credential?.secret ?? decoySecret)
    const expected = hmac(key, stringToSign(evidence, request), 'hex')
    const matches = equalHex(expected, evidence.authorization.signature)
    if (credential === undefined) throw new GatewayError('CredentialsUnknown')
    if (!matches) throw new GatewayError('SignatureMismatch', {})
    checkSession(credential, evidence.headers.get('x-amz-security-token'), nowMs)
    const { accessKeyId, region } = evidence.authorization
    return {
      principal: credential.principal,
      region,
      admit() {
        if (credentials.find(accessKeyId) === undefined) throw new GatewayError('CredentialsUnknown')
      },
    }
  }

  return {
    verify(request) {
      const nowMs = now()
      const evidence = readEvidence(request)
      checkScope(evidence, service, regions)
      checkTime(evidence.date, nowMs, toleranceMs)
      const found = credentials.find(evidence.authorization.accessKeyId, evidence.headers.get('x-amz-security-token'))
      return found instanceof Promise
        ? found.then((credential) => finish(evidence, request, credential, nowMs))
        : finish(evidence, request, found, nowMs)
    },
    forget(accessKeyId) {
      signingKeys.forget(accessKeyId)
    },
    [Symbol.dispose]() {
      signingKeys.clear()
      decoyKeys.clear()
      decoySecret.fill(0)
    },
  }
}

function checkScope({ authorization, date }: Evidence, service: string, regions: ReadonlySet<string>): void {
  let problems = ''
  if (authorization.terminator !== 'aws4_request') {
    problems += `Credential should be scoped with a valid terminator: 'aws4_request', not ${printable(authorization.terminator)}. `
  }
  if (!regions.has(authorization.region)) {
    problems += `Credential should be scoped to a valid region, not ${printable(authorization.region)}. `
  }
  if (authorization.service !== service) {
    problems += `Credential should be scoped to correct service: '${service}'. `
  }
  if (problems !== '') throw mismatch(problems)
  const day = date.text.slice(0, 8)
  if (authorization.date !== day) {
    throw mismatch(
      `Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: ${printable(authorization.date)} != '${day}', from '${date.text}'.`,
    )
  }
}

function checkTime(date: AmzDate, nowMs: number, toleranceMs: number): void {
  const minutes = Math.round(toleranceMs / 60_000)
  if (date.atMs < nowMs - toleranceMs) {
    const limit = formatAmzDate(nowMs - toleranceMs)
    throw mismatch(
      `Signature expired: ${date.text} is now earlier than ${limit} (${formatAmzDate(nowMs)} - ${minutes} min.)`,
    )
  }
  if (date.atMs > nowMs + toleranceMs) {
    const limit = formatAmzDate(nowMs + toleranceMs)
    throw mismatch(
      `Signature not yet current: ${date.text} is still later than ${limit} (${formatAmzDate(nowMs)} + ${minutes} min.)`,
    )
  }
}

const left = Buffer.alloc(64)
const right = Buffer.alloc(64)

/** Constant time for a given length; `expected` is 64 hex digits. */
function equalHex(expected: string, given: string): boolean {
  left.write(expected, 'latin1')
  right.fill(0)
  right.write(given, 'latin1')
  return timingSafeEqual(left, right) && given.length === left.length
}

function checkSession(credential: Credential, token: string | undefined, nowMs: number): void {
  const { sessionToken, expiresAt } = credential
  if (sessionToken === undefined ? token !== undefined : !equalToken(sessionToken, token)) {
    throw new GatewayError('CredentialsUnknown')
  }
  if (expiresAt !== undefined && nowMs >= expiresAt) throw new GatewayError('CredentialsExpired')
}

function equalToken(expected: Buffer, token: string | undefined): boolean {
  const given = Buffer.from(token ?? '', 'latin1')
  return given.length === expected.length && timingSafeEqual(given, expected)
}
