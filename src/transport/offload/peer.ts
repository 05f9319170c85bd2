/** Who is at the other end of a connection, as far as the kernel or TLS vouches for it; frozen, one for each connection. */
import { createHash } from 'node:crypto'
import type { Socket } from 'node:net'
import type { TLSSocket } from 'node:tls'
import type { TlsBinding } from '../../authenticate/tls-bindings.ts'
import type { Source } from '../../call.ts'
import { findPeer } from '../descriptor.ts'

export type Peer =
  | { readonly kind: 'local'; readonly uid: number; readonly gid: number; readonly pid: number }
  | {
      readonly kind: 'relay'
      /** Lower-case hex SHA-256 of the SubjectPublicKeyInfo of its certificate. */
      readonly spkiDigest: string
      readonly subject: string
      readonly address: string
      readonly cipher: string
    }

/** Whether a relay (lower-case hex SHA-256 of its SubjectPublicKeyInfo) is approved now; asked at every call. */
export type RelayCheck = (spkiDigest: string) => boolean

/** Why a binding refuses this peer, or undefined. What a relay reports of its own clients decides nothing. */
export function refusalOfPeer(binding: TlsBinding, peer: Peer, isApproved: RelayCheck): string | undefined {
  if (peer.kind === 'relay') {
    if (!isApproved(peer.spkiDigest)) return 'the relay is not approved, or not any more'
    return binding.relays.includes(peer.spkiDigest) ? undefined : 'the token is not bound to this relay'
  }
  if (binding.users === 'any' || binding.users.includes(peer.uid)) return undefined
  return 'the token is not bound to this user'
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
  if (certificate === undefined || !socket.authorized) return undefined
  const spki = certificate.publicKey.export({ format: 'der', type: 'spki' })
  return Object.freeze({
    kind: 'relay',
    spkiDigest: createHash('sha256').update(spki).digest('hex'),
    subject: certificate.subject.slice(0, 256),
    address: socket.remoteAddress ?? '',
    cipher: socket.getCipher().name,
  })
}
