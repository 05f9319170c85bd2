/** Composition of the offload door: sockets with their rights, inherited ones, the listener for relays. Closing the door closes them all. */
import { X509Certificate } from 'node:crypto'
import { readFileSync } from 'node:fs'
import type { AddressInfo, Server } from 'node:net'
import type { TlsBindings } from '../../authenticate/tls-bindings.ts'
import type { Config } from '../../config/config.ts'
import type { TlsSigner } from '../../keys/keys.ts'
import type { Pipeline } from '../../pipeline.ts'
import type { Unread } from '../../unread.ts'
import { descriptorOf } from '../descriptor.ts'
import { type LocalSockets, listening, listenOnDescriptor, openLocalSockets } from './local-sockets.ts'
import { createOffloadDoor, type OffloadDoorParts, type OffloadEvents } from './offload.ts'

/** The relays that this gateway approved, and the authority of their certificates. */
export interface ApprovedRelays extends Unread {
  find(spkiDigest: string): object | undefined
  /** PEM. */
  authorityCertificate(): Promise<string>
}

export interface OffloadParts {
  readonly config: Pick<Config, 'listen' | 'offload' | 'runDirectory'>
  readonly partition: string
  readonly pipeline: Pipeline
  readonly bindings: TlsBindings
  readonly signer: TlsSigner
  readonly relays: ApprovedRelays
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
  /**
   * What relays are shown and measured by from now on; connections that are open stay. Without `ca`: the authority of before.
   * @throws Error when OpenSSL refuses them
   */
  setCertificates(tls: { readonly cert: Buffer; readonly key: Buffer; readonly ca?: Buffer }): void
  /** End of the certificate that relays are shown, epoch milliseconds; undefined without a listener for them. */
  readonly certificateEndsAt: number | undefined
}

const backlog = 4096
const relayInFlightFactor = 16

/** Opens what is configured and what was inherited. @throws ProblemsError */
export async function openOffload(parts: OffloadParts): Promise<OpenedOffload> {
  const { config, inherited, relays, ...doorParts } = parts
  const { offload: local, relay } = config.listen
  const bounds = config.offload
  const door = createOffloadDoor({
    ...doorParts,
    // With an authority of its own choice the operator approves by binding alone.
    isRelayApproved: (digest) => relay?.tls.clientCaFile !== undefined || relays.find(digest) !== undefined,
    ...(relay?.tls.clientCaFile === undefined ? { relays } : {}),
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
  let sockets: LocalSockets | undefined
  let certificateEndsAt: number | undefined
  let authority: string | Buffer | undefined
  const opened: OpenedOffload = {
    listeners,
    endpoints,
    setCertificates({ cert, key, ca = authority }) {
      if (ca === undefined) throw new TypeError('there is no listener for relays')
      door.setRelayCertificates({ cert, key, ca })
      certificateEndsAt = Date.parse(new X509Certificate(cert).validTo)
    },
    get certificateEndsAt() {
      return certificateEndsAt
    },
    async [Symbol.asyncDispose]() {
      await door.close()
      await sockets?.[Symbol.asyncDispose]()
    },
  }

  try {
    if (local !== null) {
      const { runDirectory } = config
      const open = (bind: (server: Server) => Promise<void>) => door.openLocal(bind)
      sockets = await openLocalSockets(local, { prefix: 'listen.offload.', runDirectory, inherited, open })
      for (const [name, fd] of sockets.listeners) listeners.set(name, fd)
      endpoints.push(...sockets.endpoints)
    }
    if (relay !== null) await openRelay(relay)
  } catch (cause) {
    await opened[Symbol.asyncDispose]()
    throw cause
  }
  return opened

  async function openRelay({ address, port, tls }: NonNullable<typeof relay>): Promise<void> {
    const pem = {
      cert: readFileSync(tls.certificateFile),
      key: readFileSync(tls.keyFile),
      ca: tls.clientCaFile === undefined ? await relays.authorityCertificate() : readFileSync(tls.clientCaFile),
    }
    authority = pem.ca
    const fd = inherited.get('relay')
    const server = await door.openRelay(pem, (each) =>
      fd === undefined ? listenOnPort(each, address, port) : listenOnDescriptor(each, fd),
    )
    listeners.set('relay', descriptorOf(server))
    certificateEndsAt = Date.parse(new X509Certificate(pem.cert).validTo)
    const bound = server.address() as AddressInfo
    endpoints.push(`tls://${bound.family === 'IPv6' ? `[${bound.address}]` : bound.address}:${bound.port}`)
  }
}

function listenOnPort(server: Server, host: string, port: number): Promise<void> {
  const place = `${host}:${port}`
  return listening(server, () => server.listen({ host, port, backlog }), place, 'choose a free address of this machine')
}
