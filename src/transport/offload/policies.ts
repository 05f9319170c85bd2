/**
 * What a binding's policies permit, judged on the very bytes that are to be signed. The gateway hashes them itself, so nobody can have a
 * digest of something else signed. A digest shows nothing of its message: only `any` permits it.
 */
import type { OffloadPolicy } from '../../authenticate/tls-bindings.ts'
import { isCertificateInput } from './certificate-input.ts'
import { inputKinds, type Request, signatureAlgorithms } from './frames.ts'
import { isSignedAttributes } from './signed-attributes.ts'

type Input = Pick<Request, 'algorithm' | 'inputKind' | 'input'>

/** RFC 8446, section 4.4.3: 64 spaces, the context, a zero byte, the transcript hash. */
const certificateVerify = {
  server: Buffer.from(`${' '.repeat(64)}TLS 1.3, server CertificateVerify\0`, 'latin1'),
  client: Buffer.from(`${' '.repeat(64)}TLS 1.3, client CertificateVerify\0`, 'latin1'),
}
/** Of the cipher suites of TLS 1.3: SHA-256 or SHA-384. */
const transcriptHashBytes = [32, 48]

/** client_random and server_random (RFC 8422, section 5.4). */
const randomsBytes = 64
const namedCurve = 3
/** Length of the public value by NamedCurve: X25519, X448, then the uncompressed points of P-256, P-384, P-521. */
const pointBytes: ReadonlyMap<number, number> = new Map([
  [0x001d, 32],
  [0x001e, 56],
  [0x0017, 65],
  [0x0018, 97],
  [0x0019, 133],
])
const firstOfMontgomery = 0x001d

/** The first of `policies` that permits this input. */
export function findPolicy(policies: readonly OffloadPolicy[], input: Input): OffloadPolicy | undefined {
  for (const policy of policies) if (permits[policy](input)) return policy
  return undefined
}

const permits: Readonly<Record<OffloadPolicy, (input: Input) => boolean>> = {
  'tls13-server': (input) => isCertificateVerify(input, certificateVerify.server),
  'tls12-server-ecdhe': isServerKeyExchange,
  'tls13-client': (input) => isCertificateVerify(input, certificateVerify.client),
  x509: ({ inputKind, input }) => inputKind === inputKinds.message && isCertificateInput(input),
  cms: ({ inputKind, input }) => inputKind === inputKinds.message && isSignedAttributes(input),
  any: () => true,
}

/** PKCS#1 v1.5 signs no CertificateVerify (RFC 8446, section 4.2.3). */
function isCertificateVerify({ algorithm, inputKind, input }: Input, prefix: Buffer): boolean {
  return (
    inputKind === inputKinds.message &&
    algorithm !== signatureAlgorithms.rsaPkcs1 &&
    transcriptHashBytes.includes(input.length - prefix.length) &&
    prefix.compare(input, 0, prefix.length) === 0
  )
}

/** The randoms, then ServerECDHParams (RFC 8422, section 5.4): curve type, named curve, the point with its length, nothing after it. */
function isServerKeyExchange({ inputKind, input }: Input): boolean {
  if (inputKind !== inputKinds.message || input.length < randomsBytes + 4) return false
  if (input[randomsBytes] !== namedCurve) return false
  const curve = input.readUInt16BE(randomsBytes + 1)
  const length = pointBytes.get(curve)
  return (
    length !== undefined &&
    input[randomsBytes + 3] === length &&
    input.length === randomsBytes + 4 + length &&
    (curve >= firstOfMontgomery || input[randomsBytes + 4] === 4)
  )
}
