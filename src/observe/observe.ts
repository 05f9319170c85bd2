/**
 * The face of observation: one function for each thing that happens; it counts and, where an operator should know, writes a line.
 *
 * Nothing here throws or waits. No secret can be logged: every function names its fields, and they are scalars.
 */
import type { DestinationStream } from 'pino'
import type { Journal, JournalEvents } from '../audit/audit.ts'
import type { HsmEvents } from '../hsm/events.ts'
import type { GroupState } from '../hsm/port.ts'
import type { PipelineObserver } from '../pipeline.ts'
import type { Problem } from '../problem.ts'
import type { OffloadEvents } from '../transport/offload/offload.ts'
import { observeCalls } from './call-events.ts'
import { observeHsmEvents } from './hsm-events.ts'
import { observeJournalEvents } from './journal-events.ts'
import { createLineLimit } from './line-limit.ts'
import { type LogLevel, openLog } from './log.ts'
import { createMetrics, type Metrics } from './metrics.ts'
import { observeOffloadEvents } from './offload-events.ts'
import { type RelaysState, setRelayGauges } from './relay-gauges.ts'
import { setXksGauges, type XksDoorState } from './xks-gauges.ts'

/** What the XKS door shows of itself. */
export type XksState = XksDoorState

export interface Observer {
  readonly calls: PipelineObserver
  readonly hsm: HsmEvents
  readonly journal: JournalEvents
  readonly offload: OffloadEvents

  /** State that is read when metrics are asked for; each may be installed once its part exists. */
  watch(parts: {
    readonly groups?: () => readonly GroupState[]
    readonly journal?: Pick<Journal, 'state'>
    /** What stands against destroying keys. */
    readonly pauses?: () => readonly { readonly reason: string }[]
    readonly xks?: () => XksState
    readonly relays?: () => RelaysState
  }): void
  /** The text exposition format of Prometheus, and its content type. */
  metrics(): Promise<{ readonly contentType: string; readonly text: string }>

  /** What the last look of GetHealthStatus at a group came to. */
  xksProven(group: string, isGood: boolean): void
  gatewayStarted(startMs: number): void
  doorOpened(door: string, address: string): void
  /** At every start, for each listener that serves plain HTTP beyond loopback. */
  insecureListener(door: string, address: string): void
  gatewayStopping(reason: string): void
  gatewayStopped(): void
  reloaded(): void
  /** From the next line on. */
  setLevel(level: LogLevel): void
  /** A part of the gateway that is not asked for by a call found something wrong. */
  problem(problem: Problem): void
  /** An error that nobody expected; the gateway goes on. */
  unexpected(where: string, cause: unknown): void
  /** Anything else, by name, with scalar fields. */
  note(level: LogLevel, message: string, fields?: Readonly<Record<string, string | number | boolean | null>>): void
  /** Writes out what is buffered. */
  flush(): void
}

export interface ObserverOptions {
  readonly level: LogLevel
  /** Where log lines go instead of standard error. */
  readonly stream?: DestinationStream
  /** Lines of one kind in a second, for kinds that callers or a failing HSM can cause at will. */
  readonly linesPerSecond?: number
}

export function createObserver(options: ObserverOptions): Observer {
  const { logger, flush } = openLog(options.level, options.stream)
  const metrics = createMetrics()
  const limit = createLineLimit(options.linesPerSecond ?? 5)
  let groups: () => readonly GroupState[] = () => []
  let journal: Pick<Journal, 'state'> | undefined
  let pauses: () => readonly { readonly reason: string }[] = () => []
  let xks: (() => XksState) | undefined
  let relays: (() => RelaysState) | undefined

  return {
    calls: observeCalls(metrics, logger, limit),
    hsm: observeHsmEvents(metrics, logger, limit),
    journal: observeJournalEvents(metrics, logger, limit),
    offload: observeOffloadEvents(metrics, logger, limit),

    watch(parts) {
      groups = parts.groups ?? groups
      journal = parts.journal ?? journal
      pauses = parts.pauses ?? pauses
      xks = parts.xks ?? xks
      relays = parts.relays ?? relays
    },
    async metrics() {
      setGroupGauges(metrics, groups())
      if (journal) setJournalGauges(metrics, journal.state())
      if (xks) setXksGauges(metrics, xks())
      if (relays) setRelayGauges(metrics, relays())
      for (const reason of pauseReasons) {
        metrics.destructionPaused.set({ reason }, pauses().some((pause) => pause.reason === reason) ? 1 : 0)
      }
      return { contentType: metrics.registry.contentType, text: await metrics.registry.metrics() }
    },

    xksProven: (group, isGood) => metrics.xksHealthy.set({ group }, isGood ? 1 : 0),
    gatewayStarted: (startMs) => logger.info({ startMs: Math.round(startMs) }, 'gateway started'),
    doorOpened: (door, address) => logger.info({ door, address }, 'door opened'),
    insecureListener: (door, address) =>
      logger.warn({ door, address }, 'plain HTTP beyond loopback, because `insecure` is true'),
    gatewayStopping: (reason) => logger.info({ reason }, 'gateway is stopping'),
    gatewayStopped: () => logger.info('gateway stopped'),
    reloaded: () => logger.info('configuration reloaded'),
    setLevel(level) {
      logger.level = level
    },
    problem: ({ at, cause, remedy }) => logger.error({ at, problem: cause, remedy }, 'problem'),
    unexpected: (where, cause) => logger.error({ where, cause }, 'unexpected error'),
    note: (level, message, fields = {}) => logger[level](fields, message),
    flush,
  }
}

/** Named here so that each is shown as 0 before it first happens. */
const pauseReasons = ['clock', 'restored-catalog']

function setGroupGauges(metrics: Metrics, groups: readonly GroupState[]): void {
  metrics.workers.reset()
  metrics.workerInFlight.reset()
  metrics.sessions.reset()
  metrics.sessionsInUse.reset()
  for (const { name, ready, tokens, workers } of groups) {
    metrics.groupReady.set({ group: name }, ready ? 1 : 0)
    for (const { name: token, trouble, pinRefused } of tokens) {
      metrics.tokenTrouble.set({ token }, trouble === undefined ? 0 : 1)
      metrics.pinRefused.set({ token }, pinRefused ? 1 : 0)
    }
    for (const { token, role, state, inFlight, sessions } of workers) {
      metrics.workers.inc({ token, role, state })
      metrics.workerInFlight.inc({ token, role }, inFlight)
      metrics.sessions.inc({ token, role }, sessions)
      // A worker is sent more calls than it has sessions, so that the next one is there when one ends.
      metrics.sessionsInUse.inc({ token, role }, Math.min(inFlight, sessions))
    }
  }
}

function setJournalGauges(metrics: Metrics, state: ReturnType<Journal['state']>): void {
  metrics.auditHealthy.set(state.healthy ? 1 : 0)
  metrics.auditSequence.set(state.sequence)
  metrics.auditUnsynced.set(state.unsyncedRecords)
  metrics.auditFreeBytes.set(state.freeBytes)
}
