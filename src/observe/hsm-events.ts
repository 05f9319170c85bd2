/** What is noted about tokens and workers. Events of single calls cost counters only; a worker's or token's fate is also a line. */
import type { Logger } from 'pino'
import type { HsmEvents } from '../hsm/events.ts'
import type { LineLimit } from './line-limit.ts'
import type { Metrics } from './metrics.ts'

/** A worker's standard error is text of the module and of libraries: bounded, and one line each. */
const maxWorkerLineChars = 500

export function observeHsmEvents(metrics: Metrics, logger: Logger, limit: LineLimit): HsmEvents {
  return {
    workerStarted({ id, token, role, pid }) {
      metrics.workerStarts.inc({ token, role })
      logger.debug({ worker: id, token, role, workerPid: pid }, 'worker started')
    },
    workerReady({ id, token, role, pid }, startMs, objects) {
      metrics.workerStartSeconds.set({ token, role }, startMs / 1000)
      metrics.pinRefused.set({ token }, 0)
      logger.info({ worker: id, token, role, workerPid: pid, startMs: Math.round(startMs), objects }, 'worker ready')
    },
    workerDied({ id, token, role, pid }, reason, expected) {
      metrics.workerDeaths.inc({ token, role, expected: String(expected) })
      logger[expected ? 'debug' : 'error']({ worker: id, token, role, workerPid: pid, reason }, 'worker ended')
    },
    workerReplaced({ id, token, role }, reason) {
      metrics.workerReplacements.inc({ token, role })
      logger.warn({ worker: id, token, role, reason }, 'worker is being replaced')
    },
    workerLog({ id, token, role }, line) {
      const leftOut = limit.take(`worker ${id}`)
      if (leftOut === undefined) return
      const fields = { worker: id, token, role, line: line.slice(0, maxWorkerLineChars) }
      logger[levelOf(line)]({ ...fields, ...(leftOut > 0 && { leftOut }) }, 'a worker wrote to standard error')
    },
    pinRefused(token, name) {
      metrics.pinRefused.set({ token }, 1)
      const remedy =
        'correct the PIN file, or run: hsmgate token retry-login; of a custom key store: UpdateCustomKeyStore with the right password'
      logger.fatal({ token, ckr: name, remedy }, 'the token refused the PIN; it is not tried again')
    },
    tokenTrouble(token, trouble) {
      metrics.tokenTrouble.set({ token }, trouble === undefined ? 0 : 1)
      if (trouble === undefined) logger.info({ token }, 'the token can serve again')
      else logger.error({ token, trouble }, 'the token cannot serve')
    },
    capabilitiesKnown(token, cached, elapsedMs) {
      logger.info({ token, cached, elapsedMs: Math.round(elapsedMs) }, 'capabilities of the token are known')
    },
    callFinished(group, operation, outcome, queueMs, hsmMs) {
      metrics.hsmCalls.count(group, operation, outcome)
      metrics.hsmQueueSeconds.observe(queueMs / 1000, group, operation)
      if (hsmMs > 0) metrics.hsmModuleSeconds.observe(hsmMs / 1000, group, operation)
    },
    callQueued(group, lane, depth) {
      metrics.hsmQueueDepth.set(depth, group, lane)
    },
    callRetried(group, operation, reason) {
      metrics.hsmRetries.inc({ group, operation, reason })
      const leftOut = limit.take(`retry ${group} ${operation} ${reason}`)
      if (leftOut === undefined) return
      logger.warn({ group, operation, reason, ...(leftOut > 0 && { leftOut }) }, 'a call was sent once more')
    },
    ckr(token, name, call, action) {
      metrics.hsmCkr.inc({ token, call, ckr: name, action })
      const leftOut = limit.take(`ckr ${token} ${name} ${call}`)
      if (leftOut === undefined) return
      logger.warn({ token, ckr: name, call, action, ...(leftOut > 0 && { leftOut }) }, 'the module answered an error')
    },
    quarantined(group, operation, forMs) {
      metrics.hsmQuarantines.inc({ group, operation })
      logger.error({ group, operation, forMs }, 'an input that killed two workers is refused')
    },
    breaker(token, state, openMs) {
      metrics.breakerOpen.set({ token }, state === 'open' ? 1 : 0)
      if (state === 'open') metrics.breakerOpens.inc({ token })
      const leftOut = limit.take(`breaker ${token} ${state}`)
      if (leftOut !== undefined) logger.warn({ token, state, openMs }, 'breaker of the token changed')
    },
  }
}

/** Workers write JSON lines with a level; whatever else comes out of them is the module's own and worth a look. */
function levelOf(line: string): 'info' | 'warn' | 'error' {
  const [, level] = /^\{"level":"(info|warn|error)",/.exec(line) ?? []
  return (level as 'info' | 'warn' | 'error' | undefined) ?? 'warn'
}
