/** What the relay tells its observer. Must not throw; counts and returns. */
import type { OffloadEvents } from '../transport/offload/offload.ts'

/** Why one attempt at a gateway came to nothing: an error that another gateway may not have, the connection, or time. */
export type AttemptEnd = 'refused' | 'lost' | 'late'

export interface RelayEvents {
  /** The signing socket. */
  readonly local: OffloadEvents
  /** A gateway can be reached, again or for the first time; until `notAfter` (epoch milliseconds) its certificate is valid. */
  gatewayUp(gateway: string, notAfter: number): void
  /** No connection to the gateway is left. */
  gatewayDown(gateway: string, detail: string): void
  /** An attempt to connect failed; said again while that goes on. */
  connectFailed(gateway: string, detail: string): void
  /** One connection ended before its time. */
  connectionLost(gateway: string, detail: string): void
  /** A gateway takes nothing new on a connection. */
  gatewayLeaving(gateway: string): void
  /** A gateway gets a rest after failures; it is asked when no other can be. */
  gatewayRests(gateway: string, restMs: number): void
  attemptFailed(gateway: string, end: AttemptEnd, detail: string): void
}
