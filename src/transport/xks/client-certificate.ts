/**
 * Whether a client certificate is one that a store lets in: its common name or one of its DNS names is listed. That it chains to the configured CA
 * is the TLS layer's affair; Node itself compares no names of clients. Pure but for the socket that it asks.
 */
import type { Socket } from 'node:net'
import { type PeerCertificate, TLSSocket } from 'node:tls'

/** No names listed: every client is let in. */
export function isCertificateOf(names: readonly string[], socket: Socket): boolean {
  if (names.length === 0) return true
  if (!(socket instanceof TLSSocket) || !socket.authorized) return false
  return namesOf(socket.getPeerCertificate()).some((name) => names.includes(name))
}

function namesOf({ subject, subjectaltname = '' }: PeerCertificate): readonly string[] {
  const alternatives = subjectaltname
    .split(', ')
    .filter((name) => name.startsWith('DNS:'))
    .map((name) => name.slice('DNS:'.length))
  const common = (subject as { CN?: string | string[] } | undefined)?.CN ?? []
  return [...alternatives, ...(Array.isArray(common) ? common : [common])]
}
