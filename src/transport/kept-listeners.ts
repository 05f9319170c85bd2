/**
 * Which of the listening sockets that another process left to this gateway it uses. What the configuration says holds: a hand-over is how a
 * changed one comes into use, so a socket of a door that was shut or has moved is closed, and the door opens where it is to be. Whoever made the
 * sockets for systemd settled their places; but plain HTTP leaves loopback only where the configuration insists.
 */
import { closeSync } from 'node:fs'
import { isIP, SocketAddress } from 'node:net'
import { type Config, isLoopback } from '../config/config.ts'
import { type Problem, ProblemsError } from '../problem.ts'
import type { InheritedListeners } from './inherited-listeners.ts'
import { findSocketAddress } from './socket-address.ts'

type Place = NonNullable<Config['listen']['kms']>

/** To be asked before any of them is used, once. @throws ProblemsError */
export function keepListeners(
  inherited: InheritedListeners,
  { listen, insecure }: Pick<Config, 'listen' | 'insecure'>,
  isHandedOver: boolean,
): InheritedListeners {
  const { kms, xks, relay, offload, operator } = listen
  const places = new Map<string, Place | null>([
    ['kms', kms],
    ['xks', xks],
    ['relay', relay],
    ['operator-http', operator.http],
  ])
  const kept = new Map<string, number>()
  const problems: Problem[] = []
  for (const [name, fd] of inherited) {
    const isShut = name.startsWith('offload') ? offload === null : places.get(name) === null
    const place = places.get(name)
    const bound = findSocketAddress(fd)
    if (isShut || (isHandedOver && place && bound !== undefined && isMoved(bound, place))) {
      closeSync(fd)
      continue
    }
    if (place && place.tls === undefined && bound !== undefined && !insecure && !isLoopback(bound.address)) {
      const cause = `the socket for ${name} would serve plain HTTP on ${bound.address}`
      problems.push({ at: 'LISTEN_FDS', cause, remedy: 'add tls to the listener, or bind the socket to 127.0.0.1' })
    }
    kept.set(name, fd)
  }
  if (problems.length > 0) throw new ProblemsError(problems)
  return kept
}

/** A name may stand for any address. */
function isMoved(bound: { readonly address: string; readonly port: number }, { address, port }: Place): boolean {
  if (port !== 0 && port !== bound.port) return true
  if (isIP(address) === 0) return address === 'localhost' && !isLoopback(bound.address)
  return canonical(address) !== canonical(bound.address)
}

function canonical(address: string): string {
  return new SocketAddress({ address, family: isIP(address) === 6 ? 'ipv6' : 'ipv4' }).address
}
