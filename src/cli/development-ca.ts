/**
 * The development CA and the server certificate for this machine's loopback names. Keys are written before their certificates: a
 * certificate that is there always has its key, and a key without one gets a certificate at the next time.
 *
 * The CA is constrained to loopback names (RFC 5280 section 4.2.1.10), so that a developer who trusts it trusts it for nothing else.
 */
import 'reflect-metadata' // @peculiar/x509 cannot be loaded without it
import { createPrivateKey, createPublicKey, type KeyObject, randomBytes, webcrypto } from 'node:crypto'
import path from 'node:path'
import {
  AuthorityKeyIdentifierExtension,
  BasicConstraintsExtension,
  ExtendedKeyUsage,
  ExtendedKeyUsageExtension,
  Extension,
  KeyUsageFlags,
  KeyUsagesExtension,
  SubjectAlternativeNameExtension,
  SubjectKeyIdentifierExtension,
  X509Certificate,
  X509CertificateGenerator,
} from '@peculiar/x509'
import { ProblemsError } from '../problem.ts'
import { createFile, findText } from './files.ts'

const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const
const dayMs = 86_400_000
const caDays = 3650
/** The most that clients such as Apple's accept of a server certificate (support.apple.com/103769). */
const serverDays = 825
const idCeNameConstraints = '2.5.29.30'

interface Pair {
  readonly keyFile: string
  readonly certificateFile: string
}

interface CertificateAuthority {
  readonly certificate: X509Certificate
  readonly key: webcrypto.CryptoKey
}

/**
 * Completes ca.pem, ca.key, server.pem and server.key in `directory`; answers the files that it made.
 * @throws ProblemsError when a certificate has lost its key.
 */
export async function completeDevelopmentTls(directory: string, now = Date.now()): Promise<readonly string[]> {
  const made: string[] = []
  const pair = (name: string): Pair => ({
    keyFile: path.join(directory, `${name}.key`),
    certificateFile: path.join(directory, `${name}.pem`),
  })
  const ca = pair('ca')
  const server = pair('server')
  const hasServer =
    (await findText(server.certificateFile)) !== undefined && (await findText(server.keyFile)) !== undefined
  if (hasServer && (await findText(ca.certificateFile)) !== undefined) return made

  await completePair(ca, made, (keys) => issueCaCertificate(keys, now))
  const authority = {
    certificate: new X509Certificate((await findText(ca.certificateFile))!),
    key: (await loadKeys(ca.keyFile)).privateKey,
  }
  await completePair(server, made, (keys) => issueServerCertificate(keys, authority, now))
  await requireIssued(server, authority.certificate)
  return made
}

/** A pair that was replaced by hand would make certificates that nobody can verify. */
async function requireIssued({ certificateFile }: Pair, ca: X509Certificate): Promise<void> {
  const certificate = new X509Certificate((await findText(certificateFile))!)
  if (await certificate.verify({ publicKey: ca.publicKey, signatureOnly: true })) return
  const remedy = `remove ${certificateFile}, and ca.pem with ca.key when those two do not belong together, then run it again`
  throw new ProblemsError([{ at: certificateFile, cause: 'was not issued by the ca.pem beside it', remedy }])
}

async function completePair(
  { keyFile, certificateFile }: Pair,
  made: string[],
  issue: (keys: webcrypto.CryptoKeyPair) => Promise<X509Certificate>,
): Promise<void> {
  const hasCertificate = (await findText(certificateFile)) !== undefined
  if ((await findText(keyFile)) === undefined) {
    if (hasCertificate) {
      const cause = `${path.basename(certificateFile)} is there, but its key is missing`
      const remedy = `put the key back, or remove ${certificateFile} and run it again for a new one`
      throw new ProblemsError([{ at: keyFile, cause, remedy }])
    }
    if (await createFile(keyFile, await makeKey())) made.push(keyFile)
  }
  if (hasCertificate) return
  const certificate = await issue(await loadKeys(keyFile))
  if (await createFile(certificateFile, `${certificate.toString('pem')}\n`)) made.push(certificateFile)
}

function issueCaCertificate(keys: webcrypto.CryptoKeyPair, now: number): Promise<X509Certificate> {
  return issue(keys.publicKey, keys.privateKey, 'CN=hsmgate development CA', caDays, now, async () => [
    new BasicConstraintsExtension(true, 0, true),
    new KeyUsagesExtension(KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign, true),
    await SubjectKeyIdentifierExtension.create(keys.publicKey),
    new Extension(idCeNameConstraints, true, encodeLoopbackConstraints()),
  ])
}

function issueServerCertificate(
  { publicKey }: webcrypto.CryptoKeyPair,
  ca: CertificateAuthority,
  now: number,
): Promise<X509Certificate> {
  return issue(
    publicKey,
    ca.key,
    'CN=localhost',
    serverDays,
    now,
    async () => [
      new BasicConstraintsExtension(false, undefined, true),
      new KeyUsagesExtension(KeyUsageFlags.digitalSignature, true),
      new ExtendedKeyUsageExtension([ExtendedKeyUsage.serverAuth]),
      new SubjectAlternativeNameExtension([
        { type: 'dns', value: 'localhost' },
        { type: 'ip', value: '127.0.0.1' },
        { type: 'ip', value: '::1' },
      ]),
      await SubjectKeyIdentifierExtension.create(publicKey),
      await AuthorityKeyIdentifierExtension.create(ca.certificate.publicKey),
    ],
    ca.certificate.subject,
  )
}

async function issue(
  publicKey: webcrypto.CryptoKey,
  signingKey: webcrypto.CryptoKey,
  subject: string,
  days: number,
  now: number,
  extensions: () => Promise<Extension[]>,
  issuer = subject,
): Promise<X509Certificate> {
  return X509CertificateGenerator.create({
    serialNumber: makeSerial(),
    subject,
    issuer,
    notBefore: new Date(now),
    notAfter: new Date(now + days * dayMs - 1000), // both ends count (RFC 5280 section 4.1.2.5)
    publicKey,
    signingKey,
    signingAlgorithm: algorithm,
    extensions: await extensions(),
  })
}

/** 127 random bits, positive and not zero (RFC 5280 section 4.1.2.2). */
function makeSerial(): string {
  const serial = randomBytes(16)
  serial[0] = (serial[0]! & 0x3f) | 0x40
  return serial.toString('hex')
}

/** NameConstraints with permittedSubtrees localhost, 127.0.0.0/8 and ::1/128, in DER. */
function encodeLoopbackConstraints(): Buffer {
  const tlv = (tag: number, ...parts: readonly Uint8Array[]) => {
    const value = Buffer.concat(parts)
    return Buffer.concat([Buffer.from([tag, value.length]), value])
  }
  const ipv6 = Buffer.alloc(32, 0xff).fill(0, 0, 15)
  ipv6[15] = 1
  const dnsName = tlv(0x82, Buffer.from('localhost'))
  const ipv4Address = tlv(0x87, Buffer.from([127, 0, 0, 0, 255, 0, 0, 0]))
  const ipv6Address = tlv(0x87, ipv6)
  return tlv(0x30, tlv(0xa0, tlv(0x30, dnsName), tlv(0x30, ipv4Address), tlv(0x30, ipv6Address)))
}

async function makeKey(): Promise<string> {
  const { privateKey } = await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify'])
  const key = createPrivateKeyFrom(await webcrypto.subtle.exportKey('pkcs8', privateKey))
  return key.export({ format: 'pem', type: 'pkcs8' }) as string
}

function createPrivateKeyFrom(der: ArrayBuffer): KeyObject {
  const bytes = Buffer.from(der)
  try {
    return createPrivateKey({ key: bytes, format: 'der', type: 'pkcs8' })
  } finally {
    bytes.fill(0)
  }
}

async function loadKeys(file: string): Promise<webcrypto.CryptoKeyPair> {
  const { subtle } = webcrypto
  const pem = (await findText(file)) ?? ''
  try {
    const key = createPrivateKey(pem)
    const pkcs8 = key.export({ format: 'der', type: 'pkcs8' })
    const spki = createPublicKey(key).export({ format: 'der', type: 'spki' })
    const privateKey = await subtle.importKey('pkcs8', pkcs8, algorithm, false, ['sign'])
    pkcs8.fill(0)
    return { privateKey, publicKey: await subtle.importKey('spki', spki, algorithm, true, ['verify']) }
  } catch (cause) {
    const remedy = 'remove it together with its certificate, then run it again for a new pair'
    throw new ProblemsError([{ at: file, cause: 'is not a private key on P-256 in PEM', remedy }], { cause })
  }
}
