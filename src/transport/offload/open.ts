/** Composition of the offload door: sockets with their rights, inherited ones, the listener for relays. Closing the door closes them all. */
import { chmodSync, chownSync, readFileSync, statSync } from 'node:fs'
import type { AddressInfo, Server } from 'node:net'
import path from 'node:path'
import type { TlsBindings } from '../../authenticate/tls-bindings.ts'
import type { Config } from '../../config/config.ts'
import type { TlsSigner } from '../../keys/keys.ts'
import type { Pipeline } from '../../pipeline.ts'
import { ProblemsError } from '../../problem.ts'
import { descriptorOf } from '../descriptor.ts'
import { giveUpPath, listenOnPath } from '../unix-socket.ts'
import { createOffloadDoor, type OffloadDoorParts, type OffloadEvents } from './offload.ts'

export interface OffloadParts {
  readonly config: Pick<Config, 'listen' | 'offload' | 'runDirectory'>
  readonly partition: string
  readonly pipeline: Pipeline
  readonly bindings: TlsBindings
  readonly signer: TlsSigner
  readonly events: OffloadEvents
  readonly peerCredentials: OffloadDoorParts['peerCredentials']
  /** Descriptors of listening sockets that this process got from another one. */
  readonly inherited: ReadonlyMap<string, number>
}

export interface OpenedOffload extends AsyncDisposable {
  /** Descriptors of its listeners: `offload`, `offload-2`, ..., `relay`. */
  readonly listeners: ReadonlyMap<string, number>
  /** Paths of sockets, and `tls://` for relays. */
  readonly endpoints: readonly string[]
}

const backlog = 4096
const relayInFlightFactor = 16

/** Opens what is configured and what was inherited. @throws ProblemsError */
export async function openOffload(parts: OffloadParts): Promise<OpenedOffload> {
  const { config, inherited, ...doorParts } = parts
  const { offload: local, relay } = config.listen
  const bounds = config.offload
  const door = createOffloadDoor({
    ...doorParts,
    limits: {
      maxBudgetMs: bounds.maxBudgetMs,
      maxInputBytes: bounds.maxMessageBytes,
      maxBodyBytes: bounds.maxMessageBytes + 1024,
      maxPending: bounds.maxPending,
      maxConnections: bounds.maxConnections,
      maxInFlight: bounds.maxInFlight,
      maxRelayInFlight: bounds.maxInFlight * relayInFlightFactor,
      idleMs: bounds.idleSeconds * 1000,
      strangerIdleMs: Math.min(30, bounds.idleSeconds) * 1000,
    },
  })
  const listeners = new Map<string, number>()
  const endpoints: string[] = []
  const paths: string[] = []
  const opened: OpenedOffload = {
    listeners,
    endpoints,
    async [Symbol.asyncDispose]() {
      await door.close()
      for (const file of paths) await giveUpPath(file)
    },
  }

  try {
    if (local !== null) await openSockets(local)
    if (relay !== null) await openRelay(relay)
  } catch (cause) {
    await opened[Symbol.asyncDispose]()
    throw cause
  }
  return opened

  /** Inherited sockets first, in their order; whoever made them has settled their rights. */
  async function openSockets({ socket, moreSockets, mode, group }: NonNullable<typeof local>): Promise<void> {
    const gid = group === undefined ? undefined : findGroupId(group)
    for (const [name, fd] of inherited) {
      if (!/^offload(-\d+)?$/.test(name)) continue
      const server = await door.openLocal((each) => listenOnDescriptor(each, fd))
      listeners.set(name, descriptorOf(server))
      endpoints.push(String(server.address()))
    }
    if (listeners.size > 0) return
    for (const [index, file] of [socket, ...moreSockets].entries()) {
      const option = index === 0 ? 'listen.offload.socket' : `listen.offload.moreSockets[${index - 1}]`
      const server = await door.openLocal((each) =>
        listenOnPath(each, { file, mode: Number.parseInt(mode, 8), option }),
      )
      paths.push(file)
      if (gid !== undefined) giveToGroup(file, gid)
      if (mode !== '0600' && path.dirname(file) === config.runDirectory) letPass(config.runDirectory)
      listeners.set(index === 0 ? 'offload' : `offload-${index + 1}`, descriptorOf(server))
      endpoints.push(file)
    }
  }

  async function openRelay({ address, port, tls }: NonNullable<typeof relay>): Promise<void> {
    const pem = {
      cert: readFileSync(tls.certificateFile),
      key: readFileSync(tls.keyFile),
      ca: readFileSync(tls.clientCaFile),
    }
    const fd = inherited.get('relay')
    const server = await door.openRelay(pem, (each) =>
      fd === undefined ? listenOnPort(each, address, port) : listenOnDescriptor(each, fd),
    )
    listeners.set('relay', descriptorOf(server))
    const bound = server.address() as AddressInfo
    endpoints.push(`tls://${bound.family === 'IPv6' ? `[${bound.address}]` : bound.address}:${bound.port}`)
  }
}

function listenOnDescriptor(server: Server, fd: number): Promise<void> {
  return listening(server, () => server.listen({ fd }), `descriptor ${fd}`, 'pass a socket that listens')
}

function listenOnPort(server: Server, host: string, port: number): Promise<void> {
  const place = `${host}:${port}`
  return listening(server, () => server.listen({ host, port, backlog }), place, 'choose a free address of this machine')
}

function listening(server: Server, listen: () => void, place: string, remedy: string): Promise<void> {
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

/** By number, or by name in /etc/group (Node asks no name service). @throws ProblemsError */
function findGroupId(group: string): number {
  if (/^\d{1,10}$/.test(group)) return Number(group)
  for (const line of readFileSync('/etc/group', 'utf8').split('\n')) {
    const [name, , gid] = line.split(':')
    if (name === group && gid !== undefined) return Number(gid)
  }
  const remedy = 'create it, or give its number'
  throw new ProblemsError([{ at: 'listen.offload.group', cause: `there is no group '${group}'`, remedy }])
}

function giveToGroup(file: string, gid: number): void {
  try {
    chownSync(file, -1, gid)
  } catch (cause) {
    const text = `${file} cannot be given to group ${gid} (${(cause as NodeJS.ErrnoException).code})`
    const remedy = 'run the gateway with that group among its own, or let systemd make the socket'
    throw new ProblemsError([{ at: 'listen.offload.group', cause: text, remedy }], { cause })
  }
}

/** Who may use a socket must be able to reach it: the folder lets pass, but shows no names. */
function letPass(directory: string): void {
  chmodSync(directory, (statSync(directory).mode & 0o777) | 0o011)
}
