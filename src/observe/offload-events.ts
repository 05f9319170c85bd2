/** What is noted about the offload door beside its calls: connections, requests refused, peers that were not let in. */
import type { Logger } from 'pino'
import type { OffloadEvents } from '../transport/offload/offload.ts'
import type { LineLimit } from './line-limit.ts'
import type { Metrics } from './metrics.ts'

export function observeOffloadEvents(metrics: Metrics, logger: Logger, limit: LineLimit): OffloadEvents {
  const write = (kind: string, message: string, fields: Record<string, string>) => {
    const leftOut = limit.take(`offload ${kind} ${message}`)
    if (leftOut !== undefined) logger.info({ peer: kind, ...fields, ...(leftOut > 0 && { leftOut }) }, message)
  }
  return {
    connectionOpened: (peer) => metrics.offloadConnections.inc({ peer }),
    connectionClosed(peer, reason) {
      metrics.offloadConnections.dec({ peer })
      metrics.offloadClosed.inc({ peer, reason })
    },
    protocolBroken: (peer, detail) => write(peer, 'a client of the signing socket broke the protocol', { detail }),
    refused: (peer, code) => metrics.offloadRefused.count(peer, code),
    peerRefused(peer, detail) {
      metrics.offloadStrangers.inc({ peer })
      write(peer, 'a connection to the signing socket was refused', { detail })
    },
    peerExpired: (peer, detail) => write(peer, 'the certificate of an open connection has expired', { detail }),
  }
}
