/**
 * A TCP front with a port of its own that passes bytes on to wherever it is told: so that a server behind it can be restarted on another port, replaced by
 * another one, be away, far, behind a bad line or stopped, and its clients know nothing of it.
 */
import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'

export interface TcpFront extends AsyncDisposable {
  readonly port: number
  readonly address: string
  /** Connections accepted so far. */
  readonly accepted: number
  /** Times that the line stalled. */
  readonly stalls: number
  /** Where new connections go; undefined: they are reset. Those that are open end. */
  pointAt(port: number | undefined): void
  /** From now on bytes stay where they are, as before a process that is stopped; new connections are made, but nothing passes. */
  freeze(): void
}

export interface TcpLine {
  /** Of each direction. */
  readonly delayMs?: number
  /** One piece in so many takes `stallMs` longer, and what is behind it waits, as in TCP for a packet that is sent again. */
  readonly stallEvery?: number
  readonly stallMs?: number
}

export async function startTcpFront(target?: number, line: TcpLine = {}): Promise<TcpFront> {
  const { delayMs = 0, stallEvery = Number.POSITIVE_INFINITY, stallMs = 0 } = line
  let at = target
  let accepted = 0
  let pieces = 0
  let stalls = 0
  let isFrozen = false
  const open = new Set<Socket>()

  /** How long the next piece takes. */
  function lineMs(): number {
    if (++pieces % stallEvery !== 0) return delayMs
    stalls++
    return delayMs + stallMs
  }

  function pass(from: Socket, to: Socket): void {
    const late: { readonly dueMs: number; readonly chunk: Buffer | undefined }[] = []
    let lastDueMs = 0
    let timer: NodeJS.Timeout | undefined
    const deliver = (chunk: Buffer | undefined) => {
      if (isFrozen || to.destroyed) return
      if (chunk === undefined) to.end()
      else if (!to.write(chunk)) {
        from.pause()
        to.once('drain', () => from.resume())
      }
    }
    const flush = () => {
      timer = undefined
      while (late[0] !== undefined && late[0].dueMs <= performance.now()) deliver(late.shift()?.chunk)
      if (late[0] !== undefined) timer = setTimeout(flush, Math.max(0, late[0].dueMs - performance.now()))
    }
    const take = (chunk: Buffer | undefined) => {
      const ms = lineMs()
      if (ms === 0 && late.length === 0) deliver(chunk)
      else {
        lastDueMs = Math.max(lastDueMs, performance.now() + ms)
        late.push({ dueMs: lastDueMs, chunk })
        timer ??= setTimeout(flush, ms)
      }
    }
    from.on('data', take)
    from.on('end', () => take(undefined))
    from.on('close', () => clearTimeout(timer))
  }

  const server = createServer({ allowHalfOpen: true }, (incoming) => {
    accepted++
    open.add(incoming)
    incoming.on('error', () => {}).on('close', () => open.delete(incoming))
    if (at === undefined) {
      incoming.resetAndDestroy()
      return
    }
    const outgoing = connect({ host: '127.0.0.1', port: at, allowHalfOpen: true })
    outgoing.on('error', () => incoming.destroy())
    incoming.on('close', () => outgoing.destroy())
    pass(incoming, outgoing)
    pass(outgoing, incoming)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const end = () => {
    for (const socket of open) socket.destroy()
  }
  const { port } = server.address() as AddressInfo
  return {
    port,
    address: `127.0.0.1:${port}`,
    get accepted() {
      return accepted
    },
    get stalls() {
      return stalls
    },
    pointAt(next) {
      at = next
      end()
    },
    freeze() {
      isFrozen = true
    },
    async [Symbol.asyncDispose]() {
      const closed = once(server, 'close')
      server.close()
      end()
      await closed
    },
  }
}
