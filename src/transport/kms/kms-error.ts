/** Errors that only the KMS door raises. They travel through the pipeline like any GatewayError and are told apart by `kmsCode`. */
import { GatewayError } from '../../error.ts'

export type KmsCode =
  | 'SerializationFailed'
  | 'UnknownOperation'
  | 'RequestTooLarge'
  | 'RequestMalformed'
  | 'RequestTimedOut'
  | 'GrantTokenInvalid'
  | 'GrantIdInvalid'
  | 'ArnInvalid'
  | 'AliasNameInvalid'

export class KmsError extends GatewayError<'ValidationFailed'> {
  readonly kmsCode: KmsCode

  constructor(kmsCode: KmsCode, text?: string, cause?: unknown) {
    super('ValidationFailed', text === undefined ? {} : { text }, { detail: kmsCode, cause })
    this.name = 'KmsError'
    this.kmsCode = kmsCode
  }
}

/** A rule that spans members or goes beyond the framework's grammar; `text` is AWS's wording where it is known. */
export function invalid(text: string): GatewayError<'ValidationFailed'> {
  return new GatewayError('ValidationFailed', { text })
}
