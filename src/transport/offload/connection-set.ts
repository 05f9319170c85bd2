/**
 * The connections of a signing socket, of the gateway or of a relay: who is let in, who makes room, who has been silent for too long, and how
 * all of them end. It owns the connections, not what they ask for; one event loop.
 */
import type { Server, Socket } from 'node:net'
import { type Connection, type ConnectionParts, createConnection } from './connection.ts'
import type { OffloadEvents } from './events.ts'
import type { Peer } from './peer.ts'

export interface ConnectionSetLimits {
  readonly maxConnections: number
  /** How long closing waits for what is open. */
  readonly drainTimeoutMs: number
}

export interface ConnectionSet {
  /** A peer that nobody vouches for, or for whom there is no room, loses its connection. */
  admit(socket: Socket, peer: Peer | undefined, kind: Peer['kind'], parts: Omit<ConnectionParts, 'closed'>): void
  /** Binds a server whose connections come here; it is closed with them. */
  open(server: Server, bind: (server: Server) => Promise<void>): Promise<Server>
  readonly size: number
  /** Lets nobody in any more, answers what is open, ends all. */
  close(): Promise<void>
}

const sweepIntervalMs = 1000

export function createConnectionSet(limits: ConnectionSetLimits, events: OffloadEvents): ConnectionSet {
  const connections = new Set<Connection>()
  const servers = new Set<Server>()
  let sweeper: NodeJS.Timeout | undefined
  let closing: Promise<void> | undefined
  let emptied: (() => void) | undefined

  function closed(connection: Connection): void {
    connections.delete(connection)
    if (connections.size > 0) return
    clearInterval(sweeper)
    sweeper = undefined
    emptied?.()
  }

  function sweep(): void {
    const now = performance.now()
    for (const connection of connections) connection.sweep(now)
  }

  /** When all places are taken, the one goes that came first, waits for nothing and never presented a token that is valid for it. */
  function makeRoom(): boolean {
    if (connections.size < limits.maxConnections) return true
    for (const connection of connections) {
      if (connection.isKnown || !connection.isIdle) continue
      connections.delete(connection)
      connection.destroy('crowded')
      return true
    }
    return false
  }

  async function end(): Promise<void> {
    const gone = [...servers].map((server) => new Promise<void>((resolve) => server.close(() => resolve())))
    for (const connection of connections) connection.drain()
    if (connections.size > 0) {
      await new Promise<void>((resolve) => {
        const timer = setTimeout(() => {
          for (const connection of connections) connection.destroy('stopped')
        }, limits.drainTimeoutMs)
        emptied = () => {
          clearTimeout(timer)
          resolve()
        }
      })
    }
    await Promise.all(gone)
  }

  return {
    admit(socket, peer, kind, parts) {
      if (peer === undefined || closing !== undefined || !makeRoom()) {
        if (closing === undefined)
          events.peerRefused(kind, peer === undefined ? 'nobody vouches for it' : 'too many connections')
        socket.on('error', () => {})
        socket.destroy()
        return
      }
      events.connectionOpened(kind)
      connections.add(createConnection(socket, peer, { ...parts, closed }))
      sweeper ??= setInterval(sweep, sweepIntervalMs).unref()
    },
    async open(server, bind) {
      await bind(server)
      servers.add(server)
      return server
    },
    get size() {
      return connections.size
    },
    close() {
      closing ??= end()
      return closing
    },
  }
}
