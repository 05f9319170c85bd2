/**
 * The bytes that certificates, requests, CMS messages and JWTs are signed over, taken out of what the openssl command line made of them.
 * Everything lies in a temporary folder that is gone afterwards.
 */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { DerCursor, derTags, readElement } from '../../src/transport/offload/der.ts'
import { runOk } from './command.ts'

export interface SignedDocuments {
  /** CertificationRequestInfo with extensions wanted, and with no attribute at all. */
  readonly request: Buffer
  readonly plainRequest: Buffer
  /** TBSCertificate, version 3. */
  readonly certificate: Buffer
  /** The SET of signed attributes of a SignerInfo. */
  readonly signedAttributes: Buffer
  /** TBSCertList with one entry. */
  readonly revocationList: Buffer
  readonly jwt: Buffer
}

export async function createSignedDocuments(): Promise<SignedDocuments> {
  const folder = await mkdtemp(path.join(os.tmpdir(), 'hsmgate-documents-'))
  const openssl = (...words: string[]) => runOk('/usr/bin/openssl', words, { cwd: folder })
  const read = (name: string) => readFile(path.join(folder, name))
  try {
    const subject = ['-subj', '/C=DE/O=Example/CN=www.example.org', '-key', 'key.pem']
    await openssl('genpkey', '-algorithm', 'EC', '-pkeyopt', 'ec_paramgen_curve:P-256', '-out', 'key.pem')
    const names = ['-addext', 'subjectAltName=DNS:www.example.org,DNS:example.org']
    await openssl('req', '-new', ...subject, ...names, '-outform', 'DER', '-out', 'request.der')
    await openssl('req', '-new', ...subject, '-outform', 'DER', '-out', 'plain.der')
    await openssl('req', '-x509', '-days', '30', ...subject, ...names, '-out', 'certificate.pem')
    await openssl('x509', '-in', 'certificate.pem', '-outform', 'DER', '-out', 'certificate.der')
    await writeFile(path.join(folder, 'content'), 'a message')
    const signer = ['-signer', 'certificate.pem', '-inkey', 'key.pem']
    await openssl('cms', '-sign', '-in', 'content', ...signer, '-outform', 'DER', '-out', 'cms.der')
    await writeFile(path.join(folder, 'index'), 'R\t400101000000Z\t260101000000Z,keyCompromise\t07\tunknown\t/CN=old\n')
    await writeFile(path.join(folder, 'ca.cnf'), '[ca]\ndefault_ca=one\n[one]\ndatabase=index\ndefault_md=sha256\n')
    const issuer = ['-keyfile', 'key.pem', '-cert', 'certificate.pem']
    await openssl('ca', '-config', 'ca.cnf', '-gencrl', '-crldays', '1', ...issuer, '-out', 'crl.pem')
    await openssl('crl', '-in', 'crl.pem', '-outform', 'DER', '-out', 'crl.der')
    return {
      request: toBeSigned(await read('request.der')),
      plainRequest: toBeSigned(await read('plain.der')),
      certificate: toBeSigned(await read('certificate.der')),
      signedAttributes: signedAttributesOf(await read('cms.der')),
      revocationList: toBeSigned(await read('crl.der')),
      jwt: Buffer.from(`${base64({ alg: 'ES256', typ: 'JWT' })}.${base64({ sub: 'admin', exp: 4_000_000_000 })}`),
    }
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}

const base64 = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url')

/** The first element of SEQUENCE { toBeSigned, algorithm, signature }. */
function toBeSigned(der: Buffer): Buffer {
  const { from, to } = readElement(der, 0, der.length)
  return der.subarray(from, readElement(der, from, to).to)
}

/** ContentInfo { type, [0] SignedData { version, digests, content, [0] certificates, [1] crls, SET { SignerInfo } } } (RFC 5652). */
function signedAttributesOf(der: Buffer): Buffer {
  const info = new DerCursor(der).enter(derTags.sequence)
  info.take(derTags.oid)
  const signed = info.enter(0xa0).enter(derTags.sequence)
  for (let i = 0; i < 3; i++) signed.skip()
  while (!signed.sees(derTags.set)) signed.skip()
  const signer = signed.enter(derTags.set).enter(derTags.sequence)
  for (let i = 0; i < 3; i++) signer.skip()
  const { from, to } = signer.take(0xa0)
  const headBytes = to - from < 0x80 ? 2 : to - from < 0x100 ? 3 : 4
  const attributes = Buffer.from(der.subarray(from - headBytes, to))
  attributes[0] = derTags.set
  return attributes
}
