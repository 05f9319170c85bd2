/** Errors that only the XKS door raises. They travel through the pipeline like any GatewayError and are told apart by `xksCode`. */
import { GatewayError } from '../../error.ts'

export type XksCode =
  | 'UriPathInvalid'
  | 'MethodNotAllowed'
  | 'RequestTooLarge'
  | 'RequestMalformed'
  | 'RequestTimedOut'
  | 'StoreBlocked'

export class XksError extends GatewayError<'ValidationFailed'> {
  readonly xksCode: XksCode

  constructor(xksCode: XksCode, text?: string, cause?: unknown) {
    super('ValidationFailed', text === undefined ? {} : { text }, { detail: xksCode, cause })
    this.name = 'XksError'
    this.xksCode = xksCode
  }
}

export function invalid(text: string): GatewayError<'ValidationFailed'> {
  return new GatewayError('ValidationFailed', { text })
}
