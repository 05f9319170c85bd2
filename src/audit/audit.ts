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

/** Signs checkpoints with an HSM key. */
export interface CheckpointSigner {
  /** Highest revision of the catalog, which the checkpoint vouches for. */
  catalogRevision(): Promise<number>
  /** Signs the statement itself, not a digest of it; ECDSA signatures are DER, `publicKey` is a DER SubjectPublicKeyInfo. */
  sign(statement: Uint8Array): Promise<{
    readonly keyId: string
    readonly algorithm: CheckpointAlgorithm
    readonly signature: Uint8Array
    readonly publicKey: Uint8Array
  }>
}

export type CheckpointAlgorithm =
  | 'ECDSA_SHA_256'
  | 'ECDSA_SHA_384'
  | 'ECDSA_SHA_512'
  | 'RSASSA_PKCS1_V1_5_SHA_256'
  | 'RSASSA_PSS_SHA_256'
  | 'ED25519'

/** A signed statement about the chain up to and including `sequence`; a copy kept elsewhere is an anchor against truncation. */
export interface Checkpoint {
  readonly instance: string
  readonly sequence: number
  /** Hash of that record, 64 hex. */
  readonly hash: string
  readonly catalogRevision: number
  /** ISO 8601, milliseconds, UTC. */
  readonly signedAt: string
  readonly keyId: string
  readonly algorithm: CheckpointAlgorithm
  /** Base64. */
  readonly signature: string
  /** Base64 of the DER SubjectPublicKeyInfo. */
  readonly publicKey: string
}

/** What the journal tells whoever observes it. Called synchronously; implementations count and return. */
export interface JournalEvents {
  /** A batch is in the kernel. */
  written(records: number, bytes: number, elapsedMs: number): void
  /** Records up to now are on disk; `lagMs` is the age of the oldest of them. */
  synced(records: number, lagMs: number): void
  appendFailed(records: number, cause: unknown): void
  /** Durability is lost until a later sync succeeds; appends are refused meanwhile. */
  syncFailed(cause: unknown): void
  diskLow(freeBytes: number): void
  /** The disk is full and a part of the reserve was given up for records. */
  reserveUsed(remainingBytes: number): void
  segmentStarted(file: string): void
  checkpointSigned(checkpoint: Checkpoint): void
  checkpointFailed(cause: unknown): void
  /** At open: bytes at the end of the journal did not form whole records and were moved to `file`. */
  recovered(file: string, bytes: number, wholeLines: number): void
}
