/** How a door over HTTP/1.1 ends a connection that carries no request it could answer: in its own words, after what is still to be answered. */
import type { ServerResponse } from 'node:http'
import type { Socket } from 'node:net'

/** Whether nobody is there to be told; the socket is destroyed then. */
export function isBeyondAnswer(error: Error, socket: Socket): boolean {
  if ((error as NodeJS.ErrnoException).code !== 'ECONNRESET' && socket.writable) return false
  socket.destroy()
  return true
}

/** An earlier request of the same connection, itself complete, may still wait for its answer, which must come first. */
export function afterPendingAnswer(socket: Socket, end: () => void): void {
  const pending = (socket as { _httpMessage?: ServerResponse | null })._httpMessage
  if (pending?.req.complete === true) pending.once('finish', end)
  else end()
}

/** `headers`: lines beside date, length and the end of the connection. */
export function endWith(socket: Socket, status: string, headers: readonly string[], body: string): void {
  const head = [
    `HTTP/1.1 ${status}`,
    `Date: ${new Date().toUTCString()}`,
    ...headers,
    `Content-Length: ${Buffer.byteLength(body)}`,
    'Connection: close',
  ]
  socket.end(`${head.join('\r\n')}\r\n\r\n${body}`)
}
