/**
 * Which of the listening sockets that another process left to this gateway it uses. What the configuration says holds: a hand-over is how a
 * changed one comes into use, so a socket of a door that was shut or has moved is closed, and the door opens where it is to be. Whoever made the
 * sockets for systemd settled their places; but plain HTTP leaves loopback only where the configuration insists.
 */
import { closeSync, statSync } from 'node:fs'
import { isIP, SocketAddress } from 'node:net'
import { type Config, isLoopback } from '../config/config.ts'
import { type Problem, ProblemsError } from '../problem.ts'
import type { InheritedListeners } from './inherited-listeners.ts'
import { findSocketAddress, findSocketName } from './socket-address.ts'
import { findGroupId } from './socket-group.ts'

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
  const areSocketsMoved = isHandedOver && offload !== null && areMoved(offload, inherited)
  const kept = new Map<string, number>()
  const problems: Problem[] = []
  for (const [name, fd] of inherited) {
    const isShut = isOffload(name) ? offload === null || areSocketsMoved : places.get(name) === null
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

function isOffload(name: string): boolean {
  return name.startsWith('offload')
}

/** Only what a gateway bound (unix-socket.ts) is the configuration's: its paths, and who may connect. */
function areMoved(
  { socket, moreSockets, mode, group }: NonNullable<Config['listen']['offload']>,
  inherited: InheritedListeners,
): boolean {
  const names = [...inherited].filter(([name]) => isOffload(name)).map(([, fd]) => findSocketName(fd) ?? '')
  if (names.length === 0 || !names.every((name) => name.endsWith('~'))) return false
  const files = new Set(names.map((name) => name.slice(0, -1)))
  const wanted = [socket, ...moreSockets]
  const gid = group === undefined ? undefined : findGroupId(group, 'listen.offload.group')
  return (
    files.size !== wanted.length ||
    wanted.some((file) => {
      const stats = files.has(file) ? statSync(file, { throwIfNoEntry: false }) : undefined
      return (
        stats === undefined ||
        (stats.mode & 0o777) !== Number.parseInt(mode, 8) ||
        (gid !== undefined && stats.gid !== gid)
      )
    })
  )
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
