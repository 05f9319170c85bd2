/**
 * The secret behind the tokens that the gateway hands out and checks on every call: grant tokens and session tokens. It is made once,
 * kept in the catalog sealed under the system key `secret-sealing`, unsealed once at start. So tokens survive a restart, hold on every
 * gateway that shares the catalog, and neither a stranger's made-up token nor a token that is down costs the HSM or the caller anything.
 */
import { hkdfSync, randomBytes } from 'node:crypto'
import type { Catalog } from '../catalog/catalog.ts'
import { isCode } from '../error.ts'

const settingName = 'token-secret'
const sealContext = 'token-secret'
const secretBytes = 32

export interface TokenSecret extends Disposable {
  /** 32 bytes for one purpose; the same as long as the secret is (RFC 5869). */
  derive(purpose: 'grant-token' | 'session-token'): Buffer
}

export interface TokenSecretParts {
  readonly catalog: Pick<Catalog, 'getSetting' | 'putSetting'>
  readonly sealer: {
    seal(secret: Uint8Array, context: string): Promise<Buffer>
    unseal(sealed: Uint8Array, context: string): Promise<Buffer>
  }
  /** Told when the stored secret was damaged and replaced: sessions end, and grant tokens are no longer known. */
  readonly replaced: () => void
}

export async function openTokenSecret(parts: TokenSecretParts): Promise<TokenSecret> {
  const secret = (await findSecret(parts)) ?? (await makeSecret(parts))
  return {
    derive: (purpose) => Buffer.from(hkdfSync('sha256', secret, Buffer.alloc(0), `hsmgate ${purpose}`, secretBytes)),
    [Symbol.dispose]() {
      secret.fill(0)
    },
  }
}

async function findSecret({ catalog, sealer, replaced }: TokenSecretParts): Promise<Buffer | undefined> {
  const sealed = await catalog.getSetting(settingName)
  if (sealed === undefined) return undefined
  try {
    return await sealer.unseal(Buffer.from(sealed, 'base64'), sealContext)
  } catch (error) {
    // Only what was never sealed by us is given up; a module that fails is asked again at the next start.
    if (!isCode(error, 'CiphertextInvalid')) throw error
    replaced()
    return undefined
  }
}

async function makeSecret({ catalog, sealer }: TokenSecretParts): Promise<Buffer> {
  const secret = randomBytes(secretBytes)
  const sealed = await sealer.seal(secret, sealContext)
  await catalog.putSetting(settingName, sealed.toString('base64'))
  return secret
}
