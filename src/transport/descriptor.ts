/** Sockets as numbers, as a process passes them on, inherits them and asks the kernel about them. Node keeps them to itself (`_handle.fd`). */
import type { Server, Socket } from 'node:net'

export type ListenAddress =
  | { readonly host: string; readonly port: number }
  /** A listening socket that this process inherited. */
  | { readonly fd: number }

/** @throws TypeError when the server does not listen. */
export function descriptorOf(server: Server): number {
  const fd = findDescriptor(server)
  if (fd === undefined) throw new TypeError('the server does not listen')
  return fd
}

/** Who is at the other end of a Unix socket, as the kernel vouches for it; nobody when that can't be told. */
export function findPeer<P>(socket: Socket, peerCredentials: (fd: number) => P): P | undefined {
  const fd = findDescriptor(socket)
  if (fd === undefined) return undefined
  try {
    return peerCredentials(fd)
  } catch {
    return undefined
  }
}

/** Resolves when the server listens. @throws the system error when it can't. */
export function listenAt(server: Server, address: ListenAddress): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen(address, () => {
      server.off('error', reject)
      resolve()
    })
  })
}

function findDescriptor(owner: Server | Socket): number | undefined {
  const fd = (owner as unknown as { _handle?: { fd?: number } })._handle?.fd
  return fd === undefined || fd < 0 ? undefined : fd
}
