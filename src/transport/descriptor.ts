/** Listening sockets as numbers, as a process passes them on and inherits them. */
import type { Server } from 'node:net'

/** The descriptor of a server that listens. Node keeps it to itself (`_handle.fd`). */
export function descriptorOf(server: Server): number {
  const fd = (server as unknown as { _handle?: { fd?: number } })._handle?.fd
  if (fd === undefined || fd < 0) throw new TypeError('the server does not listen')
  return fd
}

/** Listens on a socket that this process inherited. */
export function listenOn(server: Server, fd: number): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen({ fd }, () => {
      server.off('error', reject)
      resolve()
    })
  })
}
