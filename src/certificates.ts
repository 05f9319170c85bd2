/**
 * X.509 for keys that stay in the module: requests (PKCS#10, RFC 2986) and certificates (RFC 5280) whose signatures the caller makes. The library
 * is given a crypto provider that signs through the key and knows nothing else of it; it takes long to load, so it is loaded when first used.
 */
import { randomBytes, webcrypto, X509Certificate } from 'node:crypto'
import { isIP } from 'node:net'
import { domainToASCII } from 'node:url'
import type { Extension, JsonGeneralName } from '@peculiar/x509'
import { GatewayError } from './error.ts'
import type { KeySpec } from './hsm/port.ts'

/** A key pair that signs through the module. */
export interface CertificateKey {
  readonly spec: KeySpec
  /** DER SubjectPublicKeyInfo. */
  readonly publicKey: Buffer
  /** The raw signature by {@link signatureAlgorithms}; ECDSA as r || s. */
  sign(tbs: Uint8Array): Promise<Uint8Array>
}

/** Whom a certificate names. */
export interface CertificateNames {
  /** Distinguished name, `CN=shop.example,O=Shop`. Without it: the first alternative name as common name. */
  readonly subject?: string
  /** DNS names and IP addresses, with or without `DNS:` and `IP:` before them. */
  readonly san: readonly string[]
}

/** What a request for a certificate says, its signature verified. */
export interface CertificateRequest {
  /** DER SubjectPublicKeyInfo. */
  readonly publicKey: Buffer
  readonly subject: string
}

const ecdsa = (namedCurve: string, hash: string) => ({ name: 'ECDSA', namedCurve, hash })
const rsa = { name: 'RSASSA-PKCS1-v1_5', hash: 'SHA-256' }
/** How a key of each spec signs certificates, in Web Crypto's names. */
const signatureAlgorithms: Readonly<Partial<Record<KeySpec, Algorithm>>> = {
  RSA_2048: rsa,
  RSA_3072: rsa,
  RSA_4096: rsa,
  ECC_NIST_P256: ecdsa('P-256', 'SHA-256'),
  ECC_NIST_P384: ecdsa('P-384', 'SHA-384'),
  ECC_NIST_P521: ecdsa('P-521', 'SHA-512'),
  ECC_NIST_EDWARDS25519: { name: 'Ed25519' },
}
type Algorithm = { readonly name: string; readonly namedCurve?: string; readonly hash?: string }

const dayMs = 86_400_000
/** Certificates begin a little earlier, for clocks that are slow. */
const slackMs = 5 * 60_000
const maxSubjectChars = 1024
const maxNames = 100
const maxRequestChars = 32 * 1024

async function loadX509() {
  await import('reflect-metadata') // the library cannot be loaded without it
  return await import('@peculiar/x509')
}

/** PEM. @throws GatewayError `ValidationFailed` */
export async function makeCertificateRequest(key: CertificateKey, names: CertificateNames): Promise<string> {
  const x509 = await loadX509()
  const alternatives = parseAlternatives(names.san)
  const { crypto, keys, signingAlgorithm } = providerOf(key)
  const request = await x509.Pkcs10CertificateRequestGenerator.create(
    {
      name: await parseSubject(names.subject, alternatives),
      keys,
      signingAlgorithm,
      extensions: alternatives.length === 0 ? [] : [new x509.SubjectAlternativeNameExtension(alternatives)],
    },
    crypto,
  )
  return `${request.toString('pem')}\n`
}

/** A server certificate that vouches for itself; for tests. PEM. @throws GatewayError `ValidationFailed` */
export async function makeSelfSignedCertificate(
  key: CertificateKey,
  names: CertificateNames,
  days: number,
  nowMs: number,
): Promise<string> {
  const x509 = await loadX509()
  const alternatives = parseAlternatives(names.san)
  const subject = await parseSubject(names.subject, alternatives)
  return await issue(key, {
    publicKey: key.publicKey,
    subject,
    issuer: subject,
    days,
    nowMs,
    extensions: [
      new x509.BasicConstraintsExtension(false, undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
      new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth]),
      ...(alternatives.length === 0 ? [] : [new x509.SubjectAlternativeNameExtension(alternatives)]),
    ],
  })
}

/** The certificate of an authority that issues end-entity certificates only. PEM. */
export async function makeAuthorityCertificate(
  key: CertificateKey,
  commonName: string,
  days: number,
  nowMs: number,
): Promise<string> {
  const x509 = await loadX509()
  const name = await nameOf(commonName)
  return await issue(key, {
    publicKey: key.publicKey,
    subject: name,
    issuer: name,
    days,
    nowMs,
    extensions: [
      new x509.BasicConstraintsExtension(true, 0, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
    ],
  })
}

/** A certificate for TLS clients. PEM. */
export async function makeClientCertificate(
  authority: CertificateKey,
  authorityName: string,
  client: { readonly publicKey: Buffer; readonly commonName: string; readonly days: number; readonly nowMs: number },
): Promise<string> {
  const x509 = await loadX509()
  return await issue(authority, {
    publicKey: client.publicKey,
    subject: await nameOf(client.commonName),
    issuer: await nameOf(authorityName),
    days: client.days,
    nowMs: client.nowMs,
    extensions: [
      new x509.BasicConstraintsExtension(false, undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
      new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.clientAuth]),
      await x509.AuthorityKeyIdentifierExtension.create(new x509.PublicKey(authority.publicKey)),
    ],
  })
}

/**
 * Reads a request and verifies that whoever made it holds the key in it.
 * @throws GatewayError `ValidationFailed`
 */
export async function parseCertificateRequest(pem: string): Promise<CertificateRequest> {
  const refuse = (text: string, cause?: unknown) => new GatewayError('ValidationFailed', { text }, { cause })
  if (pem.length > maxRequestChars) throw refuse(`A request has at most ${maxRequestChars} characters.`)
  if (!/-----BEGIN (?:NEW )?CERTIFICATE REQUEST-----/.test(pem)) {
    throw refuse('That is no certificate request in PEM (BEGIN CERTIFICATE REQUEST).')
  }
  const { Pkcs10CertificateRequest } = await loadX509()
  let request: InstanceType<typeof Pkcs10CertificateRequest>
  let isValid: boolean
  try {
    request = new Pkcs10CertificateRequest(pem.replace(/NEW CERTIFICATE REQUEST/g, 'CERTIFICATE REQUEST'))
    isValid = await request.verify()
  } catch (cause) {
    throw refuse('The certificate request cannot be read, or its kind of key is not known here.', cause)
  }
  if (!isValid) throw refuse('The signature of the certificate request is wrong.')
  return { publicKey: Buffer.from(request.publicKey.rawData), subject: request.subject }
}

/** DER SubjectPublicKeyInfo of a certificate in PEM. */
export function publicKeyOfCertificate(pem: string): Buffer {
  return new X509Certificate(pem).publicKey.export({ format: 'der', type: 'spki' })
}

async function issue(
  key: CertificateKey,
  plan: {
    readonly publicKey: Buffer
    readonly subject: InstanceType<Awaited<ReturnType<typeof loadX509>>['Name']>
    readonly issuer: InstanceType<Awaited<ReturnType<typeof loadX509>>['Name']>
    readonly days: number
    readonly nowMs: number
    readonly extensions: readonly Extension[]
  },
): Promise<string> {
  const { PublicKey, SubjectKeyIdentifierExtension, X509CertificateGenerator } = await loadX509()
  const { crypto, keys, signingAlgorithm } = providerOf(key)
  const notBefore = plan.nowMs - slackMs
  const publicKey = new PublicKey(plan.publicKey)
  const certificate = await X509CertificateGenerator.create(
    {
      serialNumber: makeSerial(),
      subject: plan.subject,
      issuer: plan.issuer,
      notBefore: new Date(notBefore),
      // both ends count (RFC 5280 section 4.1.2.5)
      notAfter: new Date(notBefore + plan.days * dayMs - 1000),
      publicKey,
      signingKey: keys.privateKey,
      signingAlgorithm,
      extensions: [...plan.extensions, await SubjectKeyIdentifierExtension.create(publicKey)],
    },
    crypto,
  )
  return `${certificate.toString('pem')}\n`
}

/** 127 random bits, positive and not zero (RFC 5280 section 4.1.2.2). */
function makeSerial(): string {
  const serial = randomBytes(16)
  serial[0] = ((serial[0] ?? 0) & 0x3f) | 0x40
  return serial.toString('hex')
}

/** The key as Web Crypto would show it, with the two operations that the library asks of it. */
function providerOf({ spec, publicKey, sign }: CertificateKey) {
  const algorithm = signatureAlgorithms[spec]
  if (algorithm === undefined) {
    throw new GatewayError('ValidationFailed', { text: `A ${spec} key signs no certificates.` })
  }
  const keyOf = (type: 'public' | 'private') =>
    ({ type, algorithm, extractable: type === 'public', usages: ['sign'] }) as unknown as webcrypto.CryptoKey
  const subtle = {
    digest: (name: string, data: Uint8Array) => webcrypto.subtle.digest(name, data),
    exportKey: async () => Uint8Array.from(publicKey).buffer,
    async sign(_algorithm: unknown, _key: unknown, tbs: ArrayBuffer) {
      return Uint8Array.from(await sign(new Uint8Array(tbs))).buffer
    },
  }
  return {
    // the library's types are those of browsers; it asks for no more than this
    crypto: { subtle } as never,
    keys: { publicKey: keyOf('public'), privateKey: keyOf('private') },
    signingAlgorithm: algorithm as never,
  }
}

async function nameOf(commonName: string) {
  const { Name } = await loadX509()
  return new Name([{ CN: [commonName] }])
}

async function parseSubject(subject: string | undefined, alternatives: readonly JsonGeneralName[]) {
  const first = alternatives[0]?.value
  if (subject === undefined) {
    if (first === undefined) throw invalid('A subject is missing: name one, or an alternative name.')
    return nameOf(first)
  }
  if (subject.length === 0 || subject.length > maxSubjectChars) {
    throw invalid(`A subject has 1 to ${maxSubjectChars} characters.`)
  }
  const { Name } = await loadX509()
  try {
    const name = new Name(subject)
    const values = name.toJSON().flatMap((attributes) => Object.values(attributes).flat())
    name.toArrayBuffer()
    if (values.length > 0 && values.every(isNameValue)) return name
  } catch {
    // said below
  }
  throw invalid('The subject is no distinguished name such as CN=shop.example,O=Shop,C=DE.')
}

/** X.520, upper bounds of name, organization name and their like. `#` begins DER of the caller's own (RFC 4514 section 2.4). */
function isNameValue(value: string | object): boolean {
  return typeof value === 'string' && value.length >= 1 && value.length <= 64 && !value.startsWith('#')
}

/** @throws GatewayError `ValidationFailed` */
function parseAlternatives(names: readonly string[]): JsonGeneralName[] {
  if (names.length > maxNames) throw invalid(`There are at most ${maxNames} alternative names.`)
  return names.map((name) => {
    const [, type = '', value = ''] = /^(?:(dns|ip):)?(.*)$/is.exec(name) ?? []
    if (type.toLowerCase() !== 'dns' && isIP(value) !== 0) return { type: 'ip', value: canonicalAddress(value) }
    const host = value.startsWith('*.') ? value.slice(2) : value
    const ascii = domainToASCII(host).toLowerCase()
    const isName = ascii.length <= 253 && /^(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9-]+$/.test(ascii)
    if (type.toLowerCase() === 'ip' || !isName) throw invalid(`${name} is neither a DNS name nor an IP address.`)
    return { type: 'dns', value: value.startsWith('*.') ? `*.${ascii}` : ascii }
  })
}

/** In hexadecimal throughout: the library knows no IPv4 addresses inside IPv6 ones. A zone (`%eth0`) is of this machine alone. */
function canonicalAddress(address: string): string {
  if (isIP(address) === 4) return address
  const url = URL.parse(`http://[${address}]`)
  if (url === null) throw invalid(`${address} is no address that a certificate can name.`)
  return url.hostname.slice(1, -1)
}

function invalid(text: string): GatewayError {
  return new GatewayError('ValidationFailed', { text })
}
