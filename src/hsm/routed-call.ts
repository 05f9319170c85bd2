/**
 * One call on its way to a worker, and one attempt at it: plain mutable records that the router owns. A call settles exactly once; its attempts
 * may outlive it, because a worker's answer must be awaited even when nobody wants it any more.
 */
import type { Lane } from './events.ts'
import type { OperationName } from './frames.ts'

/**
 * What may happen to a call whose worker died or is silent. `hedge`: a second worker may be asked while the first is silent. `replay`: once
 * more after the worker is dead. `never`: the outcome is unknown then.
 */
export type Replay = 'hedge' | 'replay' | 'never'

/** How long a worker may take before it counts as hung and is killed; `undefined`: min(2 s, twice the call's deadline). */
export interface OperationRule {
  readonly lane: Lane
  readonly replay: Replay
  readonly hangMs?: number
}

export interface RoutedCall {
  readonly operation: OperationName
  readonly fields: Readonly<Record<string, unknown>>
  readonly rule: OperationRule
  /** Worker of the session object it uses. */
  readonly pinnedTo: string | undefined
  /** Names key, mechanism and input shape; computed only when it is needed. */
  readonly shape: () => string
  /** Index of the service-time estimate: operation and key spec. */
  readonly estimate: number
  /** Monotonic milliseconds, as all times here. */
  readonly submittedAtMs: number
  readonly deadlineAtMs: number
  /** Asked before every send. @throws GatewayError when the call may no longer run. */
  readonly admit: (() => void) | undefined
  /** Result of the answer's fields; `worker` is where session objects were made. */
  readonly pick: (fields: never, worker: string) => unknown
  readonly resolve: (value: never) => void
  readonly reject: (error: unknown) => void
  state: 'open' | 'succeeded' | 'failed'
  firstSentAtMs: number
  /** Attempts whose answer is outstanding. */
  live: number
  /** Workers that died with this call in flight. */
  deaths: number
  /** Times it was sent again because of a failure answer, and because of a throttling one. */
  retries: number
  throttles: number
  hedged: boolean
  /** Id of the worker it should not go to again, while there is a choice. */
  avoid: string | undefined
  /** It met a lost login or module: only a worker without such doubts may try it again. */
  needsSound: boolean
  notBeforeMs: number
}

export interface Attempt {
  readonly call: RoutedCall
  readonly operation: OperationName
  readonly sentAtMs: number
  /** From here on another worker may be asked as well; Infinity when it may not. */
  hedgeAtMs: number
  /** From here on the worker counts as hung. */
  killAtMs: number
  /** Sent again after a death or silence: few of them at a time, so that a second death tells which call was the cause. */
  readonly suspect: boolean
}
