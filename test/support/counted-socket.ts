/**
 * A Unix socket before the gateway's that passes bytes on and counts, by process, who connects: what a server asks of the gateway, and over how
 * many connections. Anybody may connect; the gateway takes this process for the one that asks.
 */
import { once } from 'node:events'
import { chmodSync } from 'node:fs'
import { connect, createServer, type Socket } from 'node:net'
import { loadAddon } from '../../src/hsm/worker/addon.ts'
import { findPeer } from '../../src/transport/descriptor.ts'

export interface CountedSocket extends AsyncDisposable {
  readonly socket: string
  /** Connections so far. */
  readonly accepted: number
  /** By process id: the most connections that were open at one time. */
  readonly most: ReadonlyMap<number, number>
}

/** `socket`: where to listen; in a folder that others may enter. */
export async function startCountedSocket(socket: string, gateway: string): Promise<CountedSocket> {
  const { peerCredentials } = loadAddon()
  const open = new Map<Socket, number>()
  const most = new Map<number, number>()
  let accepted = 0
  const server = createServer((incoming) => {
    accepted++
    const pid = findPeer(incoming, peerCredentials)?.pid ?? 0
    open.set(incoming, pid)
    const now = [...open.values()].filter((other) => other === pid).length
    most.set(pid, Math.max(most.get(pid) ?? 0, now))
    const outgoing = connect(gateway)
    outgoing.on('error', () => incoming.destroy()).on('close', () => incoming.destroy())
    incoming
      .on('error', () => {})
      .on('close', () => {
        open.delete(incoming)
        outgoing.destroy()
      })
    incoming.pipe(outgoing).pipe(incoming)
  })
  server.listen(socket)
  await once(server, 'listening')
  chmodSync(socket, 0o666)
  return {
    socket,
    get accepted() {
      return accepted
    },
    most,
    async [Symbol.asyncDispose]() {
      const closed = once(server, 'close')
      server.close()
      for (const each of open.keys()) each.destroy()
      await closed
    },
  }
}
