/** What the relay shows to gateways, and whom it believes: read from files at start and again at SIGHUP. The key stays in the TLS context. */
import { createHash, createPrivateKey, X509Certificate } from 'node:crypto'
import { readFileSync, statSync } from 'node:fs'
import { createSecureContext, type SecureContext } from 'node:tls'
import { ProblemsError } from '../problem.ts'

export interface CredentialFiles {
  readonly certificateFile: string
  readonly keyFile: string
  readonly caFile: string
}

export interface Credentials {
  readonly context: SecureContext
  readonly subject: string
  /** Lower-case hex SHA-256 of the SubjectPublicKeyInfo: what bindings list. */
  readonly digest: string
  /** Epoch milliseconds. */
  readonly notBefore: number
  readonly notAfter: number
}

const maxFileBytes = 1024 * 1024

/** @throws ProblemsError: a file that is missing, open to others, no PEM, or does not go with the others; a certificate that has expired. */
export function loadCredentials(files: CredentialFiles, nowMs = Date.now()): Credentials {
  const cert = read('certificateFile', files.certificateFile)
  const key = read('keyFile', files.keyFile)
  const ca = read('caFile', files.caFile)
  try {
    requireClosed(files.keyFile)
    const certificate = parse('certificateFile', files.certificateFile, () => new X509Certificate(cert))
    const privateKey = parse('keyFile', files.keyFile, () => createPrivateKey(key))
    parse('caFile', files.caFile, () => new X509Certificate(ca))
    if (!certificate.checkPrivateKey(privateKey)) {
      const remedy = 'have the request that belongs to this key approved, and put that certificate here'
      throw problem('certificateFile', `${files.certificateFile} does not belong to the key`, remedy)
    }
    if (certificate.validToDate.getTime() <= nowMs) {
      const remedy = 'have the request approved again (`hsmgate tls relay approve` on a gateway)'
      throw problem('certificateFile', `expired at ${certificate.validToDate.toISOString()}`, remedy)
    }
    const spki = certificate.publicKey.export({ format: 'der', type: 'spki' })
    return {
      context: createSecureContext({ cert, key, ca, minVersion: 'TLSv1.3' }),
      subject: certificate.subject,
      digest: createHash('sha256').update(spki).digest('hex'),
      notBefore: certificate.validFromDate.getTime(),
      notAfter: certificate.validToDate.getTime(),
    }
  } finally {
    key.fill(0)
  }
}

function read(option: string, file: string): Buffer {
  try {
    if (statSync(file).size > maxFileBytes)
      throw problem(option, `${file} is longer than a megabyte`, 'name a PEM file')
    return readFileSync(file)
  } catch (cause) {
    if (cause instanceof ProblemsError) throw cause
    const { code } = cause as NodeJS.ErrnoException
    const remedy =
      code === 'ENOENT'
        ? 'put it there: docs/relay.md says where each file comes from'
        : 'make it readable to the user of the relay'
    throw problem(option, `${file} ${code === 'ENOENT' ? 'does not exist' : `cannot be read (${code})`}`, remedy, cause)
  }
}

function requireClosed(file: string): void {
  if ((statSync(file).mode & 0o077) === 0) return
  throw problem('keyFile', `${file} is open to other users`, `chmod 600 ${file}`)
}

function parse<T>(option: string, file: string, decode: () => T): T {
  try {
    return decode()
  } catch (cause) {
    const what = option === 'keyFile' ? 'a private key' : 'a certificate'
    throw problem(option, `${file} is not ${what} in PEM`, `name a file that holds ${what} in PEM`, cause)
  }
}

function problem(at: string, text: string, remedy: string, cause?: unknown): ProblemsError {
  return new ProblemsError([{ at, cause: text, remedy }], { cause })
}
