/**
 * A gateway for tests of relays: the listener and the connections of the real door, TLS and all, but signatures by a software key and no
 * pipeline. It can be slow, refuse, fall silent, take leave, and be killed.
 *
 *   const pki = await makeRelayPki(folder)
 *   await using gateway = await startRelayGateway(pki, key)
 *   gateway.onSign = () => ({ error: 'busy' })
 */
import { createPrivateKey, createPublicKey, generateKeyPairSync, type KeyObject, randomBytes, sign } from 'node:crypto'
import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs'
import type { Server, Socket } from 'node:net'
import path from 'node:path'
import { createServer } from 'node:tls'
import {
  type CertificateKey,
  makeAuthorityCertificate,
  makeClientCertificate,
  makeSelfSignedCertificate,
} from '../../src/certificates.ts'
import { completeDevelopmentTls } from '../../src/cli/development-ca.ts'
import { keyIdOf } from '../../src/tls-reference.ts'
import type { Answer, Asked, ConnectionLimits } from '../../src/transport/offload/connection.ts'
import { type ConnectionSet, createConnectionSet } from '../../src/transport/offload/connection-set.ts'
import { errorNumbers } from '../../src/transport/offload/frames.ts'
import { findRelayPeer } from '../../src/transport/offload/peer.ts'

export interface RelayPki {
  readonly folder: string
  /** Of gateways: certificate for 127.0.0.1 and localhost, and who issued it. */
  readonly server: { readonly cert: string; readonly key: string; readonly caFile: string }
  /** PEM of the authority of relays. */
  readonly clientCa: string
  /** Files of a relay; they may be over already. */
  issue(name: string, options?: { readonly endsInMs?: number }): Promise<RelayFiles>
}

export interface RelayFiles {
  readonly certificateFile: string
  readonly keyFile: string
  /** Lower-case hex SHA-256 of the SubjectPublicKeyInfo. */
  readonly digest: string
}

const dayMs = 86_400_000

function makeKeyPair(): { readonly pem: string; readonly key: CertificateKey } {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const publicKey = createPublicKey(privateKey).export({ format: 'der', type: 'spki' })
  const signWith = async (tbs: Uint8Array) => sign('sha256', tbs, { key: privateKey, dsaEncoding: 'ieee-p1363' })
  return {
    pem: privateKey.export({ format: 'pem', type: 'pkcs8' }).toString(),
    key: { spec: 'ECC_NIST_P256', publicKey, sign: signWith },
  }
}

export async function makeRelayPki(folder: string): Promise<RelayPki> {
  await completeDevelopmentTls(folder)
  const read = (name: string) => readFileSync(path.join(folder, name), 'utf8')
  const authority = makeKeyPair()
  const authorityName = `relays of ${path.basename(folder)}`
  const clientCa = await makeAuthorityCertificate(authority.key, authorityName, 30, Date.now())
  return {
    folder,
    server: { cert: read('server.pem'), key: read('server.key'), caFile: path.join(folder, 'ca.pem') },
    clientCa,
    async issue(name, { endsInMs = 30 * dayMs } = {}) {
      const { pem, key } = makeKeyPair()
      const { publicKey } = key
      const client = { publicKey, commonName: name, ...lifeUntil(endsInMs) }
      const certificate = await makeClientCertificate(authority.key, authorityName, client)
      const write = (file: string, text: string) => {
        const place = path.join(folder, file)
        writeFileSync(place, text, { mode: 0o600 })
        return place
      }
      return {
        certificateFile: write(`${name}.crt`, certificate),
        keyFile: write(`${name}.key`, pem),
        digest: keyIdOf(publicKey).toString('hex'),
      }
    },
  }
}

/** With a certificate of its own for gateways, which vouches for itself and ends when the test wants; `caFile` holds the authority before, too. */
export async function withServerCertificate(pki: RelayPki, endsInMs: number): Promise<RelayPki> {
  const { pem, key } = makeKeyPair()
  const { days, nowMs } = lifeUntil(endsInMs)
  const cert = await makeSelfSignedCertificate(key, { san: ['127.0.0.1'] }, days, nowMs)
  const caFile = path.join(mkdtempSync(path.join(pki.folder, 'gateway-')), 'ca.pem')
  writeFileSync(caFile, cert + readFileSync(pki.server.caFile, 'utf8'))
  return { ...pki, server: { cert, key: pem, caFile } }
}

/** What a certificate that begins a day or more ago has to be told to end then. */
function lifeUntil(endsInMs: number): { readonly days: number; readonly nowMs: number } {
  const days = Math.max(1, Math.ceil(endsInMs / dayMs) + 1)
  // it begins five minutes earlier, and its last second counts
  return { days, nowMs: Date.now() + endsInMs - days * dayMs + 5 * 60_000 + 1000 }
}

/** A key that all gateways of a test hold. */
export interface SoftKey {
  readonly privateKey: KeyObject
  readonly publicKey: KeyObject
  readonly keyId: Buffer
  readonly token: Buffer
}

export function makeSoftKey(): SoftKey {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const keyId = keyIdOf(publicKey.export({ format: 'der', type: 'spki' }))
  return {
    privateKey: createPrivateKey(privateKey.export({ format: 'pem', type: 'pkcs8' })),
    publicKey,
    keyId,
    token: randomBytes(32),
  }
}

/** What becomes of a request. */
export type OnSign = (
  asked: Asked,
) => 'sign' | 'silence' | { readonly error: keyof typeof errorNumbers } | { readonly afterMs: number }

export interface RelayGateway extends AsyncDisposable {
  /** `127.0.0.1:port` */
  readonly address: string
  readonly port: number
  readonly asked: Asked[]
  readonly connections: number
  onSign: OnSign
  /** Ends everything at once, as a process that is killed. */
  kill(): Promise<void>
  /** Takes leave of all connections, answers what is open, ends. */
  leave(): Promise<void>
  /** Listens again on the same port. */
  start(): Promise<void>
}

export interface RelayGatewayOptions {
  readonly limits?: Partial<ConnectionLimits>
}

const limits: ConnectionLimits = {
  maxBodyBytes: 17_408,
  maxInputBytes: 16_384,
  maxInFlight: 1024,
  maxBudgetMs: 10_000,
  frameTimeoutMs: 5000,
  idleMs: 600_000,
  strangerIdleMs: 30_000,
}
const retryable: readonly (keyof typeof errorNumbers)[] = ['busy', 'hsm', 'shuttingDown']
const nothing = {
  connectionOpened() {},
  connectionClosed() {},
  protocolBroken() {},
  refused() {},
  peerRefused() {},
  peerExpired() {},
}

export async function startRelayGateway(
  pki: RelayPki,
  key: SoftKey,
  options: RelayGatewayOptions = {},
): Promise<RelayGateway> {
  const sockets = new Set<Socket>()
  const asked: Asked[] = []
  let server: Server | undefined
  let connections: ConnectionSet | undefined
  let port = 0

  async function answer(request: Asked): Promise<Answer> {
    asked.push(request)
    const what = request.token.equals(key.token) ? gateway.onSign(request) : { error: 'unauthenticated' as const }
    if (what === 'silence') return new Promise(() => {})
    if (typeof what === 'object' && 'error' in what) {
      const { error } = what
      const failure = {
        number: errorNumbers[error],
        code: error,
        retryable: retryable.includes(error),
        text: 'as the test wants',
      }
      return { ok: false, failure }
    }
    if (typeof what === 'object') await new Promise((resolve) => setTimeout(resolve, what.afterMs))
    return { ok: true, signature: sign('sha256', request.request.input, key.privateKey) }
  }

  const gateway: RelayGateway = {
    get address() {
      return `127.0.0.1:${port}`
    },
    get port() {
      return port
    },
    asked,
    get connections() {
      return connections?.size ?? 0
    },
    onSign: () => 'sign',
    async start() {
      const set = createConnectionSet({ maxConnections: 1000, drainTimeoutMs: 5000 }, nothing)
      const parts = {
        limits: { ...limits, ...options.limits },
        instanceId: randomBytes(16),
        events: nothing,
        sign: answer,
        knows: () => true,
      }
      const { cert, key: serverKey } = pki.server
      const tls = { cert, key: serverKey, ca: pki.clientCa, requestCert: true, minVersion: 'TLSv1.3' as const }
      const listening = createServer(tls, (socket) => set.admit(socket, findRelayPeer(socket), 'relay', parts))
      // the raw connections, so that a kill does not say goodbye as TLS would
      listening.on('connection', (socket: Socket) => {
        sockets.add(socket)
        socket.on('error', () => {})
        socket.on('close', () => sockets.delete(socket))
      })
      connections = set
      server = await set.open(listening, (each) => new Promise((resolve) => each.listen(port, '127.0.0.1', resolve)))
      port = (server.address() as { port: number }).port
    },
    async kill() {
      const closed = new Promise((resolve) => server?.close(resolve))
      for (const socket of sockets) socket.resetAndDestroy()
      await closed
    },
    async leave() {
      await connections?.close()
    },
    async [Symbol.asyncDispose]() {
      server?.close()
      for (const socket of sockets) socket.destroy()
    },
  }
  await gateway.start()
  return gateway
}
