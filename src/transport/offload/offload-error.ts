/** Refusals that only this door knows. They travel through the pipeline like any GatewayError and are told apart by `offloadCode`. */
import { GatewayError } from '../../error.ts'

export type OffloadCode = 'PeerRefused' | 'PeerExpired' | 'PolicyRefused' | 'KeyMismatch' | 'RequestInvalid' | 'Busy'

export class OffloadError extends GatewayError<'ValidationFailed'> {
  readonly offloadCode: OffloadCode

  /** `text` is for the caller and the audit record: at most 200 bytes, no secret. */
  constructor(offloadCode: OffloadCode, text: string) {
    super('ValidationFailed', { text }, { detail: offloadCode })
    this.name = 'OffloadError'
    this.offloadCode = offloadCode
  }
}
