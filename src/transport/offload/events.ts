/** What the offload door tells its observer beside the calls that go through the pipeline. Must not throw; counts and returns. */

export type CloseReason =
  | 'client'
  | 'idle'
  | 'slow'
  | 'unread'
  | 'protocol'
  | 'error'
  | 'drained'
  | 'stopped'
  | 'crowded'
  | 'expired'
export type PeerKind = 'local' | 'relay'

export interface OffloadEvents {
  connectionOpened(kind: PeerKind): void
  connectionClosed(kind: PeerKind, reason: CloseReason): void
  /** Bytes that are no HKS/1; the connection ends. */
  protocolBroken(kind: PeerKind, detail: string): void
  /** A request that got an ERROR frame; `code` as the audit record names it. */
  refused(kind: PeerKind, code: string): void
  /** A peer that was not let in: TLS failed, or the kernel names nobody. */
  peerRefused(kind: PeerKind, detail: string): void
  /** The certificate of a peer with a connection ended; it has to come again, with another one. */
  peerExpired(kind: PeerKind, detail: string): void
}
