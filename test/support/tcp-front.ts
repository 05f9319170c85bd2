/**
 * A TCP front with a port of its own that passes bytes on to wherever it is told: so that a server behind it can be restarted on another port, replaced by
 * another one, or be away, and its clients know nothing of it.
 */
import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'

export interface TcpFront extends AsyncDisposable {
  readonly port: number
  /** Connections accepted so far. */
  readonly accepted: number
  /** Where new connections go; undefined: they are reset. Those that are open end. */
  pointAt(port: number | undefined): void
}

export async function startTcpFront(target?: number): Promise<TcpFront> {
  let at = target
  let accepted = 0
  const open = new Set<Socket>()
  const server = createServer((incoming) => {
    accepted++
    open.add(incoming)
    incoming.on('error', () => {}).on('close', () => open.delete(incoming))
    if (at === undefined) {
      incoming.resetAndDestroy()
      return
    }
    const outgoing = connect({ host: '127.0.0.1', port: at })
    outgoing.on('error', () => incoming.destroy())
    incoming.on('close', () => outgoing.destroy())
    incoming.pipe(outgoing).pipe(incoming)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const end = () => {
    for (const socket of open) socket.destroy()
  }
  return {
    port: (server.address() as AddressInfo).port,
    get accepted() {
      return accepted
    },
    pointAt(next) {
      at = next
      end()
    },
    async [Symbol.asyncDispose]() {
      const closed = once(server, 'close')
      server.close()
      end()
      await closed
    },
  }
}
