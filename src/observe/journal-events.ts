/** What is noted about the audit journal. */
import type { Logger } from 'pino'
import type { JournalEvents } from '../audit/audit.ts'
import type { LineLimit } from './line-limit.ts'
import type { Metrics } from './metrics.ts'

export function observeJournalEvents(metrics: Metrics, logger: Logger, limit: LineLimit): JournalEvents {
  return {
    written(records, bytes, elapsedMs) {
      metrics.auditRecords.inc(records)
      metrics.auditBytes.inc(bytes)
      metrics.auditWriteSeconds.observe(elapsedMs / 1000)
    },
    synced(_records, lagMs) {
      metrics.auditLagSeconds.observe(lagMs / 1000)
    },
    appendFailed(records, cause) {
      metrics.auditFailures.inc({ step: 'append' })
      const leftOut = limit.take('audit append')
      if (leftOut === undefined) return
      const remedy = 'make room on the disk of the journal and see that the gateway may write there'
      logger.fatal({ records, remedy, cause, ...(leftOut > 0 && { leftOut }) }, 'audit records cannot be written')
    },
    syncFailed(cause) {
      metrics.auditFailures.inc({ step: 'sync' })
      logger.fatal({ cause }, 'audit records cannot be put on disk; calls are refused until they can')
    },
    diskLow(freeBytes) {
      metrics.auditFailures.inc({ step: 'disk-low' })
      logger.error(
        { freeBytes, remedy: 'make room on the disk of the journal' },
        'the disk of the journal is filling up',
      )
    },
    reserveUsed(remainingBytes) {
      metrics.auditFailures.inc({ step: 'reserve' })
      const remedy = 'make room at once: when the reserve is spent, calls fail'
      logger.fatal({ remainingBytes, remedy }, 'the disk of the journal is full; records use the reserve')
    },
    segmentStarted(file) {
      logger.info({ file }, 'a new journal segment was started')
    },
    checkpointSigned({ sequence, catalogRevision }) {
      metrics.auditCheckpoint.set(sequence)
      logger.info({ sequence, catalogRevision }, 'the journal was signed')
    },
    checkpointFailed(cause) {
      metrics.auditFailures.inc({ step: 'checkpoint' })
      logger.warn({ cause }, 'the journal could not be signed; it is tried again later')
    },
    recovered(file, bytes, wholeLines) {
      logger[wholeLines > 0 ? 'error' : 'warn'](
        { file, bytes, wholeLines },
        'the end of the journal was damaged; it was moved',
      )
    },
  }
}
