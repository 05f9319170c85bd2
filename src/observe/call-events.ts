/**
 * What is noted about calls: the metric and, where an operator should know, the log line. On the path of every call: an ordinary
 * outcome costs two counters and no line unless the level is `debug`.
 */
import type { Logger } from 'pino'
import { errorCodes, type GatewayError } from '../error.ts'
import type { PipelineObserver } from '../pipeline.ts'
import type { LineLimit } from './line-limit.ts'
import type { Metrics } from './metrics.ts'

export function observeCalls(metrics: Metrics, logger: Logger, limit: LineLimit): PipelineObserver {
  return {
    callFinished(call, outcome, principal, milliseconds) {
      const operation = call.operation.name
      const { door } = call
      metrics.calls.count(door, operation, outcome.ok ? 'ok' : outcome.error.code)
      metrics.callSeconds.observe(milliseconds / 1000, door, operation)
      const level = outcome.ok ? 'debug' : levelOf(outcome.error)
      if (!logger.isLevelEnabled(level)) return
      const leftOut = level === 'debug' ? 0 : limit.take(`${door} ${operation} ${outcome.ok ? '' : outcome.error.code}`)
      if (leftOut === undefined) return
      const fields = {
        door,
        operation,
        requestId: call.requestId,
        principal: principal?.arn,
        milliseconds: Math.round(milliseconds * 1000) / 1000,
        ...call.trace,
        ...(leftOut > 0 && { leftOut }),
      }
      if (outcome.ok) logger.debug(fields, 'call answered')
      else logger[level]({ ...fields, ...describe(outcome.error) }, 'call failed')
    },

    callUnauthenticated(call, error) {
      const { door } = call
      metrics.unauthenticated.inc({ door, code: error.code })
      const level = errorCodes[error.code].fault === 'caller' ? 'info' : 'error'
      const leftOut = limit.take(`${door} ${error.code}`)
      if (leftOut === undefined) return
      const { requestId, source } = call
      const fields = { door, requestId, sourceIp: source.ip, ...(leftOut > 0 && { leftOut }), ...describe(error) }
      logger[level](fields, 'unauthenticated call refused')
    },
  }
}

/** A caller's mistake is in the journal; what the gateway or the HSM did wrong is for the operator. */
function levelOf(error: GatewayError): 'debug' | 'warn' | 'error' {
  const { fault } = errorCodes[error.code]
  if (fault === 'caller') return 'debug'
  return fault === 'hsm' ? 'warn' : 'error'
}

/** `params` are left out: they repeat what the caller sent. */
function describe({ code, detail, cause }: GatewayError) {
  return { code, ...(detail !== undefined && { detail }), ...(cause !== undefined && { cause }) }
}
