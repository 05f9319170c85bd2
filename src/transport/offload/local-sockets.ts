/** The Unix sockets of a signing door, of the gateway or of a relay: inherited ones or paths, with the rights of those who may connect. */
import { chmodSync, chownSync, statSync } from 'node:fs'
import type { Server } from 'node:net'
import path from 'node:path'
import { ProblemsError } from '../../problem.ts'
import { descriptorOf } from '../descriptor.ts'
import { findSocketName } from '../socket-address.ts'
import { findGroupId } from '../socket-group.ts'
import { giveUpPath, listenOnPath } from '../unix-socket.ts'

export interface LocalSocketPlaces {
  readonly socket: string
  /** Further paths of the same door, such as one inside a chroot. */
  readonly moreSockets: readonly string[]
  /** Octal. */
  readonly mode: string
  /** Name or number; absent: the group of the process. */
  readonly group?: string
}

export interface LocalSocketParts {
  /** What stands before the names of the options in the configuration: `listen.offload.`, or nothing. */
  readonly prefix: string
  readonly runDirectory: string
  /** Descriptors of listening sockets that this process got from another one. */
  readonly inherited: ReadonlyMap<string, number>
  readonly open: (bind: (server: Server) => Promise<void>) => Promise<Server>
}

export interface LocalSockets extends AsyncDisposable {
  /** Descriptors: `offload`, `offload-2`, ... */
  readonly listeners: ReadonlyMap<string, number>
  readonly endpoints: readonly string[]
}

/**
 * Inherited sockets in their order, whoever made them has settled their rights; without any, the paths. Disposing gives the paths up, after
 * the servers are closed.
 * @throws ProblemsError
 */
export async function openLocalSockets(places: LocalSocketPlaces, parts: LocalSocketParts): Promise<LocalSockets> {
  const { prefix, runDirectory, inherited, open } = parts
  const { socket, moreSockets, mode, group } = places
  const listeners = new Map<string, number>()
  const endpoints: string[] = []
  const paths: string[] = []
  const opened: LocalSockets = {
    listeners,
    endpoints,
    async [Symbol.asyncDispose]() {
      for (const file of paths) await giveUpPath(file)
    },
  }
  const gid = group === undefined ? undefined : findGroupId(group, `${prefix}group`)

  for (const [name, fd] of inherited) {
    if (!/^offload(-\d+)?$/.test(name)) continue
    const server = await open((each) => listenOnDescriptor(each, fd))
    listeners.set(name, descriptorOf(server))
    // The kernel knows a socket of ours by the name that it was bound under (unix-socket.ts).
    endpoints.push(findSocketName(fd)?.replace(/~$/, '') ?? `descriptor ${fd}`)
  }
  if (listeners.size > 0) return opened

  try {
    for (const [index, file] of [socket, ...moreSockets].entries()) {
      const option = index === 0 ? `${prefix}socket` : `${prefix}moreSockets[${index - 1}]`
      const server = await open((each) => listenOnPath(each, { file, mode: Number.parseInt(mode, 8), option }))
      paths.push(file)
      if (gid !== undefined) giveToGroup(file, gid, `${prefix}group`)
      if (mode !== '0600' && path.dirname(file) === runDirectory) letPass(runDirectory)
      listeners.set(index === 0 ? 'offload' : `offload-${index + 1}`, descriptorOf(server))
      endpoints.push(file)
    }
  } catch (cause) {
    await opened[Symbol.asyncDispose]()
    throw cause
  }
  return opened
}

export function listenOnDescriptor(server: Server, fd: number): Promise<void> {
  return listening(server, () => server.listen({ fd }), `descriptor ${fd}`, 'pass a socket that listens')
}

/** @throws ProblemsError that names `place` and the remedy. */
export function listening(server: Server, listen: () => void, place: string, remedy: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const refuse = (cause: NodeJS.ErrnoException) =>
      reject(new ProblemsError([{ at: place, cause: `cannot listen there (${cause.code})`, remedy }], { cause }))
    server.once('error', refuse)
    server.once('listening', () => {
      server.off('error', refuse)
      resolve()
    })
    listen()
  })
}

function giveToGroup(file: string, gid: number, option: string): void {
  try {
    chownSync(file, -1, gid)
  } catch (cause) {
    const text = `${file} cannot be given to group ${gid} (${(cause as NodeJS.ErrnoException).code})`
    const remedy = 'run hsmgate with that group among its own, or let systemd make the socket'
    throw new ProblemsError([{ at: option, cause: text, remedy }], { cause })
  }
}

/** Who may use a socket must be able to reach it: the folder lets pass, but shows no names. */
function letPass(directory: string): void {
  chmodSync(directory, (statSync(directory).mode & 0o777) | 0o011)
}
