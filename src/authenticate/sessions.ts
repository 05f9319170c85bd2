/**
 * Sessions of roles: issued with temporary credentials, found again by their tokens. A session lives as long as its role exists, is
 * enabled and its time is not over; nothing is stored but a bounded memory of those in use, which a change of the role empties.
 */
import { randomBytes } from 'node:crypto'
import type { Principal } from '../call.ts'
import { GatewayError } from '../error.ts'
import type { Credential, CredentialSource, IssuedSession, SessionIssuer } from './authenticate.ts'
import { maxTokenChars, type Session, type SessionTokens } from './session-tokens.ts'

/** A role as sessions see it. */
export interface SessionRole {
  readonly enabled: boolean
  readonly principalId: string
  readonly tags: Readonly<Record<string, string>>
}

export interface SessionParts {
  readonly tokens: SessionTokens
  readonly findRole: (account: string, name: string) => Promise<SessionRole | undefined>
  readonly partition: string
  /** Wall time, epoch milliseconds. */
  readonly now: () => number
  /** Told of every access key that leaves the memory, so that what was derived from its secret can be wiped. */
  readonly dropped: (accessKeyId: string) => void
}

export interface Sessions extends SessionIssuer, CredentialSource, Disposable {
  /** Forgets the sessions of a role, or of all; each asks for its role again. */
  forgetRole(account: string, name: string): void
  forgetAll(): void
}

const maxRemembered = 10_000
const prefix = 'ASIA'
const base32 = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567'

export function isSessionKeyId(accessKeyId: string): boolean {
  return accessKeyId.startsWith(prefix)
}

export function createSessions(parts: SessionParts): Sessions {
  const { tokens, findRole, partition, now, dropped } = parts
  const remembered = new Map<string, { readonly credential: Credential; readonly role: string }>()
  let changes = 0

  function drop(accessKeyId: string): void {
    const entry = remembered.get(accessKeyId)
    if (entry === undefined) return
    remembered.delete(accessKeyId)
    entry.credential.secret.fill(0)
    entry.credential.sessionToken?.fill(0)
    dropped(accessKeyId)
  }

  function dropWhere(isStale: (role: string) => boolean): void {
    changes++
    for (const [id, { role }] of [...remembered]) if (isStale(role)) drop(id)
  }

  async function load(session: Session, token: string): Promise<Credential | undefined> {
    const before = changes
    const role = await findRole(session.account, session.role)
    if (role?.enabled !== true || role.principalId !== session.roleId) return undefined
    const { accessKeyId } = session
    const credential: Credential = {
      accessKeyId,
      secret: Buffer.from(session.secretAccessKey),
      principal: principalOf(session, role, partition),
      sessionToken: Buffer.from(token),
      expiresAt: session.expiresAt,
    }
    if (before === changes && session.expiresAt > now()) {
      drop(accessKeyId)
      if (remembered.size >= maxRemembered) drop(remembered.keys().next().value as string)
      remembered.set(accessKeyId, { credential, role: `${session.account}/${session.role}` })
    }
    return credential
  }

  return {
    find(accessKeyId, token) {
      const known = remembered.get(accessKeyId)
      if (known !== undefined) {
        remembered.delete(accessKeyId)
        remembered.set(accessKeyId, known)
        return known.credential
      }
      const session = token === undefined ? undefined : tokens.open(token, accessKeyId)
      return session && load(session, token as string)
    },

    issue({ account, role, roleId, sessionName, durationSeconds, policy, tags }): IssuedSession {
      const issuedAt = now()
      const session: Session = {
        accessKeyId: `${prefix}${Array.from(randomBytes(16), (byte) => base32[byte & 31]).join('')}`,
        // As long as those of users: 30 random bytes.
        secretAccessKey: randomBytes(30).toString('base64'),
        account,
        role,
        roleId,
        sessionName,
        issuedAt,
        expiresAt: issuedAt + durationSeconds * 1000,
        ...(policy === undefined ? {} : { policy }),
        ...(tags === undefined ? {} : { tags }),
      }
      const sessionToken = tokens.seal(session)
      if (sessionToken.length > maxTokenChars) {
        const text = `Packed size of session tags and policy is ${sessionToken.length - maxTokenChars} characters over the limit.`
        throw new GatewayError('LimitExceeded', { text })
      }
      const { accessKeyId, secretAccessKey, expiresAt } = session
      return { accessKeyId, secretAccessKey, sessionToken, expiresAt }
    },

    forgetRole(account, name) {
      dropWhere((role) => role === `${account}/${name}`)
    },

    forgetAll() {
      dropWhere(() => true)
    },

    [Symbol.dispose]() {
      dropWhere(() => true)
      tokens[Symbol.dispose]()
    },
  }
}

function principalOf(session: Session, role: SessionRole, partition: string): Principal {
  const { account, sessionName, policy } = session
  return Object.freeze({
    type: 'role-session',
    arn: `arn:${partition}:sts::${account}:assumed-role/${session.role}/${sessionName}`,
    account,
    principalId: `${role.principalId}:${sessionName}`,
    accessKeyId: session.accessKeyId,
    roleArn: `arn:${partition}:iam::${account}:role/${session.role}`,
    issuedAt: Math.floor(session.issuedAt / 1000),
    tags: Object.freeze({ ...role.tags, ...session.tags }),
    ...(policy === undefined ? {} : { sessionPolicy: policy }),
  })
}
