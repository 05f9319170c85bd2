/** Who is at the other end of a connection, as far as the kernel or TLS vouches for it; frozen, one for each connection. */
import { createHash } from 'node:crypto'
import type { Socket } from 'node:net'
import type { TLSSocket } from 'node:tls'
import type { TlsBinding } from '../../authenticate/tls-bindings.ts'
import type { Source } from '../../call.ts'
import { endOfCertificates } from '../certificate-end.ts'
import { findPeer } from '../descriptor.ts'
import { OffloadError } from './offload-error.ts'

export type Peer =
  | { readonly kind: 'local'; readonly uid: number; readonly gid: number; readonly pid: number }
  | {
      readonly kind: 'relay'
      /** Lower-case hex SHA-256 of the SubjectPublicKeyInfo of its certificate. */
      readonly spkiDigest: string
      readonly subject: string
      readonly address: string
      readonly cipher: string
      /** End of its certificate, or of an authority's above it that ends sooner; epoch milliseconds. */
      readonly notAfter: number
    }

/** Whether a relay (lower-case hex SHA-256 of its SubjectPublicKeyInfo) is approved now; asked at every call. */
export type RelayCheck = (spkiDigest: string) => boolean

/** Why a binding refuses this peer, or undefined. What a relay reports of its own clients decides nothing. */
export function refusalOfPeer(binding: TlsBinding, peer: Peer, isApproved: RelayCheck): OffloadError | undefined {
  if (peer.kind === 'relay') {
    if (hasExpired(peer)) return new OffloadError('PeerExpired', 'the certificate of the relay has expired')
    if (!isApproved(peer.spkiDigest)) return refused('the relay is not approved, or not any more')
    return binding.relays.includes(peer.spkiDigest) ? undefined : refused('the token is not bound to this relay')
  }
  if (binding.users === 'any' || binding.users.includes(peer.uid)) return undefined
  return refused('the token is not bound to this user')
}

const refused = (text: string) => new OffloadError('PeerRefused', text)

/** Whether what let it in when its connection began would not let it in now. */
export function hasExpired(peer: Peer): boolean {
  return peer.kind === 'relay' && peer.notAfter <= Date.now()
}

/** For the log. */
export function describePeer(peer: Peer): string {
  return peer.kind === 'local'
    ? `process ${peer.pid} of uid ${peer.uid}`
    : `relay ${peer.spkiDigest.slice(0, 8)} (${peer.subject})`
}

export function sourceOf(peer: Peer, app: string): Source {
  if (peer.kind === 'local') return Object.freeze({ ip: 'local', userAgent: app })
  const tls = { version: 'TLSv1.3', cipherSuite: peer.cipher, host: '' }
  return Object.freeze({ ip: peer.address, userAgent: app, tls: Object.freeze(tls) })
}

export type PeerCredentials = (fd: number) => { readonly pid: number; readonly uid: number; readonly gid: number }

export function findLocalPeer(socket: Socket, peerCredentials: PeerCredentials): Peer | undefined {
  const found = findPeer(socket, peerCredentials)
  return found && Object.freeze({ kind: 'local', uid: found.uid, gid: found.gid, pid: found.pid })
}

export function findRelayPeer(socket: TLSSocket): Peer | undefined {
  const certificate = socket.getPeerX509Certificate()
  const notAfter = endOfCertificates(socket)
  // TLS does not verify again what a resumed session showed
  if (certificate === undefined || !socket.authorized || notAfter <= Date.now()) return undefined
  const spki = certificate.publicKey.export({ format: 'der', type: 'spki' })
  return Object.freeze({
    kind: 'relay',
    spkiDigest: createHash('sha256').update(spki).digest('hex'),
    subject: certificate.subject.slice(0, 256),
    address: socket.remoteAddress ?? '',
    cipher: socket.getCipher().name,
    notAfter,
  })
}
