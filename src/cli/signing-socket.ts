/** The signing socket as a TLS server's user sees it: is it there, may that user connect to it, does it sign. */
import { createHash, createPublicKey, constants as cryptoConstants, randomBytes, verify } from 'node:crypto'
import type { Stats } from 'node:fs'
import { readFile, stat } from 'node:fs/promises'
import path from 'node:path'
import { type KeyReference, keyIdOf } from '../tls-reference.ts'
import { errorNumbers, hashAlgorithms, signatureAlgorithms } from '../transport/offload/frames.ts'
import { nameOfGroup } from './machine-users.ts'
import { askForSignature, type SignatureChoice } from './signing-client.ts'
import { bad, type Finding, good, notTried } from './tls-findings.ts'

export interface Identity {
  readonly name: string
  readonly uid: number
  readonly groups: readonly number[]
}

const signTimeoutMs = 2000
const startRemedy =
  'start the gateway (systemctl start hsmgate) or the relay (hsmgate-relay), and see that listen.offload.socket of its configuration names this path'
const serveRemedy =
  '`hsmgate token list` on the gateway shows whether the tokens can serve, its log (journalctl -u hsmgate) says why not; behind a relay, `hsmgate relay check` shows which gateways it reaches'

/** The users that a server's processes run as: those of its workers, else its own. */
export async function identitiesOf(pid: number): Promise<readonly Identity[]> {
  const tasks = await readFile(`/proc/${pid}/task/${pid}/children`, 'utf8').catch(() => '')
  const children = tasks.split(' ').filter((child) => /^\d+$/.test(child))
  const found = new Map<number, Identity>()
  for (const process of children.length === 0 ? [String(pid)] : children) {
    const status = await readFile(`/proc/${process}/status`, 'utf8').catch(() => '')
    const numbers = (name: string) =>
      (new RegExp(`^${name}:\\s*(.*)$`, 'm').exec(status)?.[1] ?? '').trim().split(/\s+/).map(Number)
    const uid = numbers('Uid')[1]
    const gid = numbers('Gid')[1]
    if (uid === undefined || gid === undefined) continue
    found.set(uid, { name: `uid ${uid} of process ${process}`, uid, groups: [gid, ...numbers('Groups')] })
  }
  return [...found.values()]
}

export async function examineSocket(
  file: string,
  identities: readonly Identity[],
): Promise<{ readonly findings: readonly Finding[]; readonly isThere: boolean }> {
  // an abstract socket has no rights: its gateway goes by uid and token alone
  if (file.startsWith('@')) {
    return { findings: [notTried(file, 'is an abstract socket, to which anybody may connect')], isThere: true }
  }
  const missing = (finding: Finding) => ({ findings: [finding], isThere: false })
  const found = await stat(file).catch((cause: NodeJS.ErrnoException) => cause)
  if (found instanceof Error) {
    const isClosed = found.code === 'EACCES'
    return missing(
      isClosed
        ? bad(file, 'is in a folder that you may not enter', 'run this as root')
        : bad(file, 'is missing', startRemedy),
    )
  }
  if (!found.isSocket()) return missing(bad(file, 'is no socket', startRemedy))
  const group = await nameOfGroup(found.gid)
  const mode = (found.mode & 0o777).toString(8).padStart(4, '0')
  const findings: Finding[] = [good(file, `is a socket, mode ${mode}, group ${group}`)]
  for (const identity of identities) {
    const closed = await firstClosed(file, identity)
    findings.push(
      closed === undefined
        ? good(file, `${identity.name} may connect`)
        : bad(
            file,
            `${identity.name} may not connect: ${closed} is closed to it`,
            closed === file ? openingRemedy(found, group) : `let that user pass ${closed} (chmod o+x)`,
          ),
    )
  }
  return { findings, isThere: true }
}

/** A group of root's, or one that may not connect, is nothing to put a web server into. */
function openingRemedy({ mode, gid }: Stats, group: string): string {
  return (mode & 0o020) !== 0 && gid !== 0
    ? `usermod --append --groups ${group} USER, then restart the server: its processes keep the groups that they began with`
    : 'give the socket mode 0660 and a group for web servers: listen.offload.mode and group, or SocketMode= and SocketGroup= of its systemd unit'
}

/** The folder or socket on the way that the identity may not pass (unix(7): connecting takes the right to write). */
async function firstClosed(file: string, { uid, groups }: Identity): Promise<string | undefined> {
  if (uid === 0) return undefined
  const places: string[] = []
  for (let folder = path.dirname(file); ; folder = path.dirname(folder)) {
    places.unshift(folder)
    if (folder === path.dirname(folder)) break
  }
  for (const [place, bit] of [...places.map((folder) => [folder, 1] as const), [file, 2] as const]) {
    const stats = await stat(place)
    const shift = stats.uid === uid ? 6 : groups.includes(stats.gid) ? 3 : 0
    if (((stats.mode >> shift) & bit) === 0) return place
  }
  return undefined
}

/** A real signature of what a handshake has signed, verified with the public key of the reference. */
export async function proveSignature(
  socket: string,
  { publicKey, token }: KeyReference,
  identity: string,
): Promise<Finding> {
  if (token === undefined) return notTried(socket, 'the reference has no token, so nothing was signed')
  const key = createPublicKey({ key: publicKey, format: 'der', type: 'spki' })
  const choice = chooseSignature(key.asymmetricKeyType, key.asymmetricKeyDetails?.namedCurve)
  const began = performance.now()
  for (const message of handshakeMessages()) {
    const question = { ...choice.request, keyId: keyIdOf(publicKey), token, message }
    const answer = await askForSignature(socket, question, signTimeoutMs).catch((cause: NodeJS.ErrnoException) => cause)
    if (answer instanceof Error) return unanswered(socket, answer, identity)
    if ('error' in answer) {
      if (answer.error.code === errorNumbers.policyDenied) continue
      return refused(socket, answer.error, identity, firstDigits(token))
    }
    const ms = (performance.now() - began).toFixed(1)
    if (verify(choice.hash, message, { key, ...choice.options }, answer.signature)) {
      return good(socket, `signs as ${identity}, and the signature verifies (${ms} ms)`)
    }
    const remedy =
      'write the reference anew (hsmgate tls bind); if that does not help, the log of the gateway says more'
    return bad(socket, 'signs, but the signature does not verify with the key of the reference', remedy)
  }
  const remedy = 'a key that signs handshakes has the policies tls13-server and tls12-server-ecdhe (hsmgate tls list)'
  return bad(socket, 'the policies of the binding allow no handshake signature', remedy)
}

/** What RFC 8446 section 4.4.3 and RFC 8422 section 5.4 have signed, over random transcripts that are nobody's. */
function* handshakeMessages(): Generator<Buffer> {
  const certificateVerify = (context: string) =>
    Buffer.concat([Buffer.alloc(64, 0x20), Buffer.from(`TLS 1.3, ${context} CertificateVerify\0`), randomBytes(32)])
  yield certificateVerify('server')
  // two randoms, named curve X25519, a point of 32 bytes
  yield Buffer.concat([randomBytes(64), Buffer.from([3, 0, 0x1d, 32]), randomBytes(32)])
  yield certificateVerify('client')
}

function chooseSignature(
  type: string | undefined,
  curve: string | undefined,
): { readonly request: SignatureChoice; readonly hash: string | null; readonly options: object } {
  const plain = { mgfHash: undefined, saltBytes: undefined }
  const { sha256, sha384, sha512, none } = hashAlgorithms
  if (type === 'ed25519') {
    return { request: { algorithm: signatureAlgorithms.eddsa, hash: none, ...plain }, hash: null, options: {} }
  }
  if (type === 'ec') {
    const [hash, name] =
      curve === 'secp384r1' ? [sha384, 'sha384'] : curve === 'secp521r1' ? [sha512, 'sha512'] : [sha256, 'sha256']
    return {
      request: { algorithm: signatureAlgorithms.ecdsa, hash: hash as number, ...plain },
      hash: name as string,
      options: {},
    }
  }
  const pss = { padding: cryptoConstants.RSA_PKCS1_PSS_PADDING, saltLength: 32 }
  const request = { algorithm: signatureAlgorithms.rsaPss, hash: sha256, mgfHash: sha256, saltBytes: 32 }
  return { request, hash: 'sha256', options: pss }
}

function unanswered(socket: string, cause: NodeJS.ErrnoException, identity: string): Finding {
  switch (cause.code) {
    case 'ENOENT':
      return bad(socket, 'is missing', startRemedy)
    case 'ECONNREFUSED':
      return bad(socket, 'nobody listens on it', startRemedy)
    case 'EACCES':
    case 'EPERM':
      return bad(
        socket,
        `${identity} may not connect`,
        'put that user into the group of the socket, and see to the rights of the folders above it',
      )
    case 'ETIMEDOUT':
      return bad(
        socket,
        'does not answer in time',
        'the gateway or relay behind it does not start, or hangs: journalctl -u hsmgate (-u hsmgate-relay) says why',
      )
    default:
      return bad(socket, `the connection failed: ${cause.message}`, 'the log of the gateway says more')
  }
}

/** As `hsmgate tls list` shows a token. */
function firstDigits(token: Buffer): string {
  return createHash('sha256').update(token).digest('hex').slice(0, 8)
}

function refused(
  socket: string,
  { code, text }: { code: number; text: string },
  identity: string,
  digits: string,
): Finding {
  const said = `refuses to sign for ${identity}: ${text}`
  switch (code) {
    case errorNumbers.unauthenticated:
      return bad(
        socket,
        said,
        `see with hsmgate tls list that a binding with the token ${digits} is there (else it was revoked: hsmgate tls bind makes a new reference) and names this user or relay; as root, --user tries as another user`,
      )
    case errorNumbers.keyNotFound:
      return bad(socket, said, 'the key was deleted or replaced: write the reference anew with hsmgate tls bind')
    case errorNumbers.busy:
    case errorNumbers.deadline:
    case errorNumbers.hsm:
      return bad(socket, said, serveRemedy)
    default:
      return bad(
        socket,
        said,
        "the gateway's audit journal and log say more; hsmgate key show tells the state of the key",
      )
  }
}
