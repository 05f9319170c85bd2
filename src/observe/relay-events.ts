/**
 * What is noted about a relay: lines for what an operator should know, as many of one kind in a second as make sense, and counters of what
 * local clients were answered, for the report that goes to the log now and then.
 */
import type { DestinationStream } from 'pino'
import type { RelayEvents } from '../relay/relay.ts'
import { createLineLimit } from './line-limit.ts'
import { type LogLevel, openLog } from './log.ts'

type Fields = Readonly<Record<string, string | number | boolean | object>>

export interface RelayObserver extends RelayEvents {
  /** Local connections that ended and requests that were refused, by reason, since the start. */
  counts(): Readonly<Record<string, number>>
  note(level: LogLevel, message: string, fields?: Fields): void
  /** Writes out what is buffered. */
  flush(): void
}

const linesPerSecond = 5

export function openRelayObserver(level: LogLevel, stream?: DestinationStream): RelayObserver {
  const log = openLog(level, stream)
  const limit = createLineLimit(linesPerSecond)
  const counts = new Map<string, number>()
  const count = (name: string) => counts.set(name, (counts.get(name) ?? 0) + 1)
  const write = (level: LogLevel, message: string, fields: Fields) => {
    const leftOut = limit.take(`${message} ${fields.gateway ?? ''}`)
    if (leftOut !== undefined) log.logger[level]({ ...fields, ...(leftOut > 0 && { leftOut }) }, message)
  }

  return {
    local: {
      connectionOpened: () => {},
      connectionClosed: (_, reason) => void count(`closed.${reason}`),
      protocolBroken: (_, detail) => write('info', 'a client of the signing socket broke the protocol', { detail }),
      refused: (_, code) => void count(`refused.${code}`),
      peerRefused(_, detail) {
        count('strangers')
        write('info', 'a connection to the signing socket was refused', { detail })
      },
      // users of a socket have no certificates
      peerExpired() {},
    },
    gatewayUp: (gateway) => write('info', 'a gateway can be reached', { gateway }),
    gatewayDown: (gateway, detail) => write('error', 'a gateway cannot be reached', { gateway, detail }),
    connectFailed: (gateway, detail) => write('warn', 'connecting to a gateway failed', { gateway, detail }),
    connectionLost: (gateway, detail) => write('warn', 'a connection to a gateway was lost', { gateway, detail }),
    gatewayLeaving: (gateway) => write('info', 'a gateway takes leave of a connection', { gateway }),
    gatewayRests: (gateway, restMs) => write('warn', 'a gateway fails and is asked last', { gateway, restMs }),
    attemptFailed: (gateway, end, detail) => write('warn', 'a signature is asked for again', { gateway, end, detail }),
    counts: () => Object.fromEntries([...counts].sort()),
    note: (level, message, fields = {}) => log.logger[level](fields, message),
    flush: () => log.flush(),
  }
}
