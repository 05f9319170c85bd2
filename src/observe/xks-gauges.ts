/** What is shown of external key stores when metrics are asked for: ages and switches that operators raise alarms on. */
import type { Metrics } from './metrics.ts'

export interface XksDoorState {
  readonly stores: readonly {
    readonly name: string
    readonly isBlocked: boolean
    readonly keysBlocked: number
    /** Epoch milliseconds of their creation. */
    readonly credentials: readonly number[]
  }[]
  /** Epoch milliseconds; undefined without TLS. */
  readonly certificateEndsAt: number | undefined
}

export function setXksGauges(metrics: Metrics, { stores, certificateEndsAt }: XksDoorState, now = Date.now()): void {
  for (const gauge of [metrics.xksCredentialAge, metrics.xksCredentials, metrics.xksBlocked, metrics.xksKeysBlocked])
    gauge.reset()
  for (const { name: store, isBlocked, keysBlocked, credentials } of stores) {
    metrics.xksBlocked.set({ store }, isBlocked ? 1 : 0)
    metrics.xksKeysBlocked.set({ store }, keysBlocked)
    metrics.xksCredentials.set({ store }, credentials.length)
    if (credentials.length > 0) metrics.xksCredentialAge.set({ store }, (now - Math.max(...credentials)) / 1000)
  }
  if (certificateEndsAt !== undefined) metrics.xksCertificate.set((certificateEndsAt - now) / 1000)
}
