/**
 * Session tokens: everything about a session of a role, sealed (AES-256-GCM under a key of this gateway) and handed to its caller. So
 * sessions need no store, survive a restart and hold on every gateway that shares the catalog; whether the role still lets them is
 * asked where they are used.
 *
 *     u8 version = 1 | 12 bytes nonce | ciphertext of the session as JSON | 16 bytes tag;   associated data: the access key id
 */
import { createCipheriv, createDecipheriv, randomBytes } from 'node:crypto'

/** A session as it is issued. Times in epoch milliseconds. */
export interface Session {
  readonly accessKeyId: string
  readonly secretAccessKey: string
  readonly account: string
  /** Name of the role, and its unique id: a role made anew under the same name is another one. */
  readonly role: string
  readonly roleId: string
  readonly sessionName: string
  readonly issuedAt: number
  readonly expiresAt: number
  /** Session policy: narrows what the role may. */
  readonly policy?: string
  /** Session tags, which go before those of the role. */
  readonly tags?: Readonly<Record<string, string>>
}

export interface SessionTokens extends Disposable {
  /** Standard base64. */
  seal(session: Session): string
  /** Undefined unless {@link seal} made the token for this access key id. */
  open(token: string, accessKeyId: string): Session | undefined
}

const version = 1
const nonceBytes = 12
const tagBytes = 16

/** What clients can be expected to carry in a header; the listener takes 16 KiB of headers. */
export const maxTokenChars = 8192

/** `secret`: 32 bytes, taken over and wiped in the end. Nonces are random, good for 2^32 sessions (NIST SP 800-38D, section 8.3). */
export function createSessionTokens(secret: Buffer): SessionTokens {
  return {
    seal(session) {
      const nonce = randomBytes(nonceBytes)
      const cipher = createCipheriv('aes-256-gcm', secret, nonce, { authTagLength: tagBytes })
      cipher.setAAD(Buffer.from(session.accessKeyId))
      const sealed = Buffer.concat([cipher.update(JSON.stringify(session), 'utf8'), cipher.final()])
      return Buffer.concat([Buffer.of(version), nonce, sealed, cipher.getAuthTag()]).toString('base64')
    },

    open(token, accessKeyId) {
      if (token.length > maxTokenChars) return undefined
      const bytes = Buffer.from(token, 'base64')
      const isCanonical = bytes[0] === version && bytes.toString('base64') === token
      if (!isCanonical || bytes.length <= 1 + nonceBytes + tagBytes) return undefined
      const nonce = bytes.subarray(1, 1 + nonceBytes)
      const decipher = createDecipheriv('aes-256-gcm', secret, nonce, { authTagLength: tagBytes })
      decipher.setAAD(Buffer.from(accessKeyId))
      decipher.setAuthTag(bytes.subarray(-tagBytes))
      const opened = decipher.update(bytes.subarray(1 + nonceBytes, -tagBytes))
      try {
        // GCM is a stream: all is out already, and this only checks the tag.
        decipher.final()
        return JSON.parse(opened.toString()) as Session
      } catch {
        return undefined
      } finally {
        opened.fill(0)
      }
    },

    [Symbol.dispose]() {
      secret.fill(0)
    },
  }
}
