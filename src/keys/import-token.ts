/**
 * Import tokens: what GetParametersForImport gives out with a public key and ImportKeyMaterial takes back. Sealed under the system key
 * `secret-sealing` and bound to the KMS key, the wrapping key, the algorithm and 24 hours; a token may be used again within them.
 */
import type { KeyName } from '../catalog/catalog.ts'
import { GatewayError, isCode } from '../error.ts'
import type { WrapAlgorithm } from '../hsm/port.ts'

export type ImportAlgorithm = Exclude<WrapAlgorithm, 'AES_KWP'>

export interface ImportToken {
  readonly key: KeyName
  readonly algorithm: ImportAlgorithm
  /** Key id of the system key that unwraps. */
  readonly wrappingKeyId: string
  /** Epoch milliseconds. */
  readonly issuedAt: number
}

export interface TokenSealer {
  seal(secret: Uint8Array, context: string): Promise<Buffer>
  unseal(sealed: Uint8Array, context: string): Promise<Buffer>
}

const sealContext = 'import-token'
export const importTokenMs = 24 * 60 * 60_000
/** How far clocks of two gateways may differ. */
const skewMs = 5 * 60_000

export function sealImportToken(sealer: TokenSealer, token: ImportToken): Promise<Buffer> {
  const { account, region, keyId } = token.key
  const fields = [account, region, keyId, token.algorithm, token.wrappingKeyId, token.issuedAt]
  return sealer.seal(Buffer.from(JSON.stringify(fields)), sealContext)
}

/** @throws GatewayError `ImportTokenInvalid` for anything but a token of this key, `ImportTokenExpired`. */
export async function openImportToken(
  sealer: TokenSealer,
  sealed: Uint8Array,
  key: KeyName,
  now: number,
): Promise<ImportToken> {
  const bytes = await sealer.unseal(sealed, sealContext).catch((cause) => {
    throw isCode(cause, 'CiphertextInvalid') ? new GatewayError('ImportTokenInvalid') : cause
  })
  const [account, region, keyId, algorithm, wrappingKeyId, issuedAt] = JSON.parse(bytes.toString())
  if (account !== key.account || region !== key.region || keyId !== key.keyId) {
    throw new GatewayError('ImportTokenInvalid')
  }
  // A token from the future: the clock was set back, so nothing tells how old it is.
  if (issuedAt > now + skewMs || issuedAt + importTokenMs <= now) throw new GatewayError('ImportTokenExpired')
  return { key, algorithm, wrappingKeyId, issuedAt }
}
