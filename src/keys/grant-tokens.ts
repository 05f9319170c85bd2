/**
 * Grant tokens: proof that this gateway made a grant (AWS KMS Developer Guide, "Grant tokens"). Grants hold at once here, so a token
 * gives nothing; it names its grant, cannot be forged, and is another one at every call.
 *
 *     u8 version = 1 | 16 random bytes | 32 bytes grant id | UTF-8 `<account>/<region>/<key id>` | 32 bytes HMAC-SHA-256
 */
import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto'
import type { GrantRecord, KeyName } from '../catalog/catalog.ts'

export interface GrantTokens {
  /** Standard base64. */
  encode(grant: Pick<GrantRecord, keyof KeyName | 'grantId'>): string
  /** What a token names; undefined unless {@link encode} made it. Whether the grant still exists is another question. */
  parse(token: string): (KeyName & { readonly grantId: string }) | undefined
}

const version = 1
const nonceBytes = 16
const idBytes = 32
const macBytes = 32
const headBytes = 1 + nonceBytes + idBytes
const maxTokenChars = 512

export function createGrantTokens(key: Uint8Array): GrantTokens {
  const macOf = (payload: Uint8Array) => createHmac('sha256', key).update(payload).digest()
  return {
    encode({ account, region, keyId, grantId }) {
      const payload = Buffer.concat([
        Buffer.of(version),
        randomBytes(nonceBytes),
        Buffer.from(grantId, 'hex'),
        Buffer.from(`${account}/${region}/${keyId}`),
      ])
      return Buffer.concat([payload, macOf(payload)]).toString('base64')
    },

    parse(token) {
      if (token.length > maxTokenChars) return undefined
      const bytes = Buffer.from(token, 'base64')
      // Encoding it again refuses other spellings of the same bytes.
      if (bytes.length <= headBytes + macBytes || bytes.toString('base64') !== token) return undefined
      const payload = bytes.subarray(0, -macBytes)
      if (!timingSafeEqual(bytes.subarray(-macBytes), macOf(payload)) || payload[0] !== version) return undefined
      const [account, region, keyId] = payload.subarray(headBytes).toString().split('/')
      if (account === undefined || region === undefined || keyId === undefined) return undefined
      return { account, region, keyId, grantId: payload.subarray(1 + nonceBytes, headBytes).toString('hex') }
    },
  }
}
