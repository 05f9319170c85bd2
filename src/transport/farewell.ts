/**
 * How a door over HTTP takes leave: for a moment it goes on as before, but every answer says that its connection ends; then it accepts
 * nothing more. HTTP/1.1 lets a client send on an idle connection just as it is closed (RFC 9112, section 9.5): so few are left by then.
 */
import { Server } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'

/** Busy connections all end with an answer meanwhile. */
const farewellMs = 300
/** For what was accepted last. */
const lingerMs = 50

/** The caller marks its answers from now on, and closes what is idle when this resolves. */
export async function takeLeave(server: Server): Promise<void> {
  if ((await countConnections(server)) > 0) await delay(farewellMs)
  // `close` of an HTTP server would also end its idle connections.
  if (server.listening) Server.prototype.close.call(server)
  if ((await countConnections(server)) > 0) await delay(lingerMs)
}

function countConnections(server: Server): Promise<number> {
  return new Promise((resolve) => server.getConnections((error, count) => resolve(error ? 0 : count)))
}
