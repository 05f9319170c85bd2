/** Until when what a peer showed in the handshake is worth something: TLS verifies certificates when a connection begins, and never again. */
import type { DetailedPeerCertificate, TLSSocket } from 'node:tls'

/** End of the peer's certificate, or of an authority's above it that ends sooner; epoch milliseconds. The peer was verified. */
export function endOfCertificates(socket: TLSSocket): number {
  let end = Number.POSITIVE_INFINITY
  const seen = new Set<DetailedPeerCertificate>()
  let certificate: DetailedPeerCertificate | undefined = socket.getPeerCertificate(true)
  while (certificate?.valid_to !== undefined && !seen.has(certificate)) {
    seen.add(certificate)
    end = Math.min(end, Date.parse(certificate.valid_to))
    certificate = certificate.issuerCertificate
  }
  return end
}
