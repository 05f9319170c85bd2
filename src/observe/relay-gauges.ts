/** What is shown of relays when metrics are asked for: how long their certificates and the one that they are shown are good for. */
import type { Metrics } from './metrics.ts'

export interface RelaysState {
  /** Those that this gateway approved; times are epoch milliseconds. */
  readonly approved: readonly { readonly name: string; readonly notAfter: number }[]
  /** Undefined without a listener for relays. */
  readonly certificateEndsAt: number | undefined
}

export function setRelayGauges(metrics: Metrics, { approved, certificateEndsAt }: RelaysState, now = Date.now()): void {
  metrics.relayCertificate.reset()
  for (const { name: relay, notAfter } of approved) metrics.relayCertificate.set({ relay }, (notAfter - now) / 1000)
  if (certificateEndsAt !== undefined) metrics.relayDoorCertificate.set((certificateEndsAt - now) / 1000)
}
