/**
 * An authority of a test for certificates of sites, wherever their keys are, and its OCSP responder (RFC 6960): the openssl command line behind
 * a listener on loopback. The authority signs its answers itself (section 4.2.2.2).
 */
import 'reflect-metadata' // @peculiar/x509 cannot be loaded without it
import { KeyObject, webcrypto, X509Certificate } from 'node:crypto'
import { once } from 'node:events'
import { appendFileSync, writeFileSync } from 'node:fs'
import { createServer, type IncomingMessage } from 'node:http'
import type { AddressInfo } from 'node:net'
import path from 'node:path'
import { buffer } from 'node:stream/consumers'
import {
  BasicConstraintsExtension,
  PublicKey,
  SubjectAlternativeNameExtension,
  X509CertificateGenerator,
} from '@peculiar/x509'
import { run } from './command.ts'

export interface SiteAuthority {
  /** Its certificate, a PEM file. */
  readonly certificate: string
  /** A certificate for one DNS name and whoever has the key; PEM. */
  issue(publicKey: KeyObject, name: string): Promise<string>
  /** DER: the answer about a certificate that was issued here, as servers take it from a file. */
  answerFor(certificate: string): Promise<Buffer>
  /** DER OCSPRequest to DER OCSPResponse. */
  answer(request: Buffer): Promise<Buffer>
}

export interface OcspResponder extends AsyncDisposable {
  readonly url: string
  /** Requests so far. */
  readonly asked: number
}

const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const
const dayMs = 86_400_000
const issuer = 'CN=sites'

/** In `folder`. */
export async function makeSiteAuthority(folder: string): Promise<SiteAuthority> {
  const keys = await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify'])
  const certify = async (publicKey: PublicKey, serial: number, subject: string, name?: string): Promise<string> => {
    const certificate = await X509CertificateGenerator.create({
      serialNumber: serial.toString(16).padStart(4, '0'),
      subject,
      issuer,
      notBefore: new Date(Date.now() - dayMs),
      notAfter: new Date(Date.now() + dayMs),
      publicKey,
      signingKey: keys.privateKey,
      signingAlgorithm: algorithm,
      extensions: [
        new BasicConstraintsExtension(name === undefined, undefined, true),
        ...(name === undefined ? [] : [new SubjectAlternativeNameExtension([{ type: 'dns', value: name }])]),
      ],
    })
    return `${certificate.toString('pem')}\n`
  }
  const place = (name: string) => path.join(folder, name)
  const [certificate, key, index] = [place('authority.pem'), place('authority.key'), place('authority.index')]
  let serial = 0x1000
  writeFileSync(certificate, await certify(await PublicKey.create(keys.publicKey), serial, issuer))
  writeFileSync(key, KeyObject.from(keys.privateKey).export({ format: 'pem', type: 'pkcs8' }), { mode: 0o600 })
  writeFileSync(index, '')

  const ocsp = async (args: readonly string[], input?: Buffer): Promise<Buffer> => {
    const signer = ['-index', index, '-CA', certificate, '-rsigner', certificate, '-rkey', key, '-ndays', '1']
    const { status, stdout, stderr } = await run('openssl', ['ocsp', ...signer, ...args, '-respout', '-'], {
      ...(input === undefined ? {} : { input }),
    })
    if (status !== 0) throw new Error(stderr)
    return stdout
  }

  return {
    certificate,
    async issue(publicKey, name) {
      const subject = new PublicKey(publicKey.export({ format: 'der', type: 'spki' }))
      const pem = await certify(subject, ++serial, `CN=${name}`, name)
      const { serialNumber, validToDate } = new X509Certificate(pem)
      // YYMMDDHHMMSSZ; subjects are unique in there, so a serial number stands in for the name
      const end = validToDate.toISOString().replace(/^..|[-:T]|\.\d+/g, '')
      appendFileSync(index, `V\t${end}\t\t${serialNumber}\tunknown\t/CN=${serialNumber}\n`)
      return pem
    },
    answerFor: (leaf) => ocsp(['-issuer', certificate, '-cert', leaf, '-no_nonce', '-noverify']),
    answer: (request) => ocsp(['-reqin', '-', '-noverify'], request),
  }
}

export async function startOcspResponder(authority: SiteAuthority): Promise<OcspResponder> {
  let asked = 0
  const server = createServer((request, response) => {
    asked++
    requestOf(request)
      .then((der) => authority.answer(der))
      .then(
        (der) => response.writeHead(200, { 'content-type': 'application/ocsp-response' }).end(der),
        () => response.writeHead(500).end(),
      )
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/`,
    get asked() {
      return asked
    },
    async [Symbol.asyncDispose]() {
      const closed = once(server, 'close')
      server.close()
      server.closeAllConnections()
      await closed
    },
  }
}

/** NGINX asks with GET, Apache with POST (RFC 6960, appendix A.1). */
async function requestOf(request: IncomingMessage): Promise<Buffer> {
  if (request.method === 'POST') return buffer(request)
  return Buffer.from(decodeURIComponent((request.url ?? '').slice(1)), 'base64')
}
