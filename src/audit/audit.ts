/**
 * The face of the audit journal: one CloudTrail-shaped record per authenticated call, in an append-only hash chain.
 */
import type { Door, Principal, Source } from '../call.ts'

/** What the pipeline knows about one finished call. Never plaintext, ciphertext, key material, signature or token. */
export interface AuditedCall {
  readonly door: Door
  readonly operation: string
  readonly readOnly: boolean
  readonly requestId: string
  /** Epoch milliseconds. */
  readonly receivedAt: number
  readonly region: string
  readonly source: Source
  readonly principal: Principal
  /** lowerCamel members of the request, secrets left out; null when the request never parsed. */
  readonly requestParameters: Readonly<Record<string, unknown>> | null
  readonly responseElements: Readonly<Record<string, unknown>> | null
  readonly additionalEventData?: Readonly<Record<string, unknown>>
  readonly resources: readonly { readonly account: string; readonly type: string; readonly arn: string }[]
  /** The statement that allowed or denied, e.g. `key-policy:Enable IAM User Permissions`. */
  readonly decidedBy?: string
  readonly error?: { readonly code: string; readonly text: string }
}

/** Events that no caller made (RotateKey, DeleteKey, start, stop, ...). */
export interface AuditedEvent {
  readonly name: string
  readonly account: string
  readonly region: string
  readonly details: Readonly<Record<string, unknown>>
  readonly resources?: AuditedCall['resources']
}

export interface Journal extends AsyncDisposable {
  /**
   * Resolves with the event id when the record is in the kernel (durability `fsync`: on disk).
   * @throws GatewayError `AuditUnavailable`: the caller must withhold its result.
   */
  appendCall(call: AuditedCall): Promise<string>
  appendEvent(event: AuditedEvent): Promise<string>
  state(): {
    readonly healthy: boolean
    readonly sequence: number
    readonly unsyncedRecords: number
    readonly freeBytes: number
  }
}
