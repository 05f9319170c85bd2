import { randomBytes } from 'node:crypto'
import fc from 'fast-check'
import { beforeEach, describe, expect, it } from 'vitest'
import { createSigV4Verifier, type IssuedSession } from '../../../src/authenticate/authenticate.ts'
import { createSessionTokens, type Session } from '../../../src/authenticate/session-tokens.ts'
import { createSessions, isSessionKeyId, type SessionRole, type Sessions } from '../../../src/authenticate/sessions.ts'
import { signRequest } from '../../../src/authenticate/sign-request.ts'

const account = '111122223333'
const region = 'us-east-1'
const key = randomBytes(32)
const request = { account, role: 'deploy', roleId: 'AROAEXAMPLE', sessionName: 's', durationSeconds: 900 }

let nowMs: number
let role: SessionRole | undefined
let lookups: number
let dropped: string[]
let sessions: Sessions

function open(): Sessions {
  return createSessions({
    tokens: createSessionTokens(Buffer.from(key)),
    async findRole() {
      lookups++
      return role
    },
    partition: 'aws',
    now: () => nowMs,
    dropped: (accessKeyId) => void dropped.push(accessKeyId),
  })
}

beforeEach(() => {
  nowMs = Date.UTC(2026, 6, 1, 12)
  role = { enabled: true, principalId: 'AROAEXAMPLE', tags: { team: 'blue', cost: '1' } }
  lookups = 0
  dropped = []
  sessions = open()
})

async function call({ accessKeyId, secretAccessKey, sessionToken }: IssuedSession) {
  using verifier = createSigV4Verifier({
    service: 'kms',
    regions: new Set([region]),
    now: () => nowMs,
    credentials: sessions,
  })
  const body = Buffer.from('{}')
  const headers = { host: 'kms.example', 'x-amz-security-token': sessionToken }
  const identity = { accessKeyId, secret: Buffer.from(secretAccessKey), region, service: 'kms' }
  const signed = signRequest({ method: 'POST', target: '/', headers, body }, identity, nowMs)
  return await verifier.verify({ method: 'POST', rawUrl: '/', rawHeaders: Object.entries(signed).flat(), body })
}

describe('a session', () => {
  it('is who it was issued to be, with the tags of its role under its own', async () => {
    const { principal } = await call(sessions.issue({ ...request, tags: { team: 'red' }, policy: '{"a":1}' }))
    expect(principal).toEqual({
      type: 'role-session',
      arn: `arn:aws:sts::${account}:assumed-role/deploy/s`,
      account,
      principalId: 'AROAEXAMPLE:s',
      accessKeyId: expect.stringMatching(/^ASIA/),
      roleArn: `arn:aws:iam::${account}:role/deploy`,
      issuedAt: nowMs / 1000,
      tags: { team: 'red', cost: '1' },
      sessionPolicy: '{"a":1}',
    })
  })

  it('ends when its time is over, remembered or not', async () => {
    const issued = sessions.issue(request)
    nowMs += 899_999
    await call(issued)
    nowMs += 1
    await expect(call(issued)).rejects.toMatchObject({ code: 'CredentialsExpired' })
    sessions = open()
    await expect(call(issued)).rejects.toMatchObject({ code: 'CredentialsExpired' })
  })

  it('is known to every gateway with the same key, and to none with another', async () => {
    const issued = sessions.issue(request)
    sessions = open()
    await call(issued)
    sessions = createSessions({
      tokens: createSessionTokens(randomBytes(32)),
      findRole: async () => role,
      partition: 'aws',
      now: () => nowMs,
      dropped: () => {},
    })
    await expect(call(issued)).rejects.toMatchObject({ code: 'CredentialsUnknown' })
  })

  it('asks for its role once, and again when the role changed', async () => {
    const issued = sessions.issue(request)
    for (let count = 0; count < 3; count++) await call(issued)
    expect(lookups).toBe(1)
    role = { enabled: false, principalId: 'AROAEXAMPLE', tags: {} }
    sessions.forgetRole(account, 'other')
    await call(issued)
    sessions.forgetRole(account, 'deploy')
    expect(dropped).toEqual([issued.accessKeyId])
    await expect(call(issued)).rejects.toMatchObject({ code: 'CredentialsUnknown' })
    role = undefined
    await expect(call(issued)).rejects.toMatchObject({ code: 'CredentialsUnknown' })
    role = { enabled: true, principalId: 'AROAANOTHER', tags: {} }
    await expect(call(issued)).rejects.toMatchObject({ code: 'CredentialsUnknown' })
  })

  it('is not remembered when its role changes while it is looked up', async () => {
    const issued = sessions.issue(request)
    const pending = sessions.find(issued.accessKeyId, issued.sessionToken)
    sessions.forgetRole(account, 'deploy')
    await pending
    role = undefined
    await expect(call(issued)).rejects.toMatchObject({ code: 'CredentialsUnknown' })
  })

  it('has a token of limited size', () => {
    const tags = Object.fromEntries(Array.from({ length: 50 }, (_, index) => [`k${index}`, 'v'.repeat(256)]))
    expect(() => sessions.issue({ ...request, tags })).toThrow(expect.objectContaining({ code: 'LimitExceeded' }))
  })

  it('has an access key id that no user has', () => {
    expect(isSessionKeyId(sessions.issue(request).accessKeyId)).toBe(true)
    expect(isSessionKeyId('AKIAIOSFODNN7EXAMPLE')).toBe(false)
  })
})

describe('a session token', () => {
  const session: Session = {
    accessKeyId: 'ASIAEXAMPLE',
    secretAccessKey: 'secret',
    account,
    role: 'r',
    roleId: 'AROA',
    sessionName: 's',
    issuedAt: 1,
    expiresAt: 2,
  }

  it('opens to what was sealed, for its own access key alone', () => {
    using tokens = createSessionTokens(Buffer.from(key))
    const token = tokens.seal(session)
    expect(tokens.open(token, session.accessKeyId)).toEqual(session)
    expect(tokens.open(token, 'ASIAOTHER')).toBeUndefined()
    expect(tokens.seal(session)).not.toBe(token)
  })

  it('opens in no other spelling and after no change', () => {
    using tokens = createSessionTokens(Buffer.from(key))
    const token = tokens.seal(session)
    const bytes = Buffer.from(token, 'base64')
    fc.assert(
      fc.property(fc.nat(bytes.length - 1), fc.integer({ min: 1, max: 255 }), (at, mask) => {
        const changed = Buffer.from(bytes)
        changed[at] = (changed[at] as number) ^ mask
        expect(tokens.open(changed.toString('base64'), session.accessKeyId)).toBeUndefined()
      }),
    )
    for (const other of [`${token}=`, ` ${token}`, token.slice(0, -4), bytes.toString('base64url'), '']) {
      if (other !== token) expect(tokens.open(other, session.accessKeyId)).toBeUndefined()
    }
  })

  it('that somebody made up is unknown, whatever it is', () => {
    using tokens = createSessionTokens(Buffer.from(key))
    fc.assert(
      fc.property(fc.oneof(fc.string(), fc.base64String(), fc.string({ maxLength: 9000, size: 'max' })), (token) => {
        expect(tokens.open(token, session.accessKeyId)).toBeUndefined()
      }),
    )
  })
})
