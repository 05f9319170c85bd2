/**
 * `hsmgate xks store doctor`: asks the endpoint what AWS KMS asks at ConnectCustomKeyStore and CreateKey, from this machine, and says what to enter
 * in the AWS console. Uses no key of a store for anything but its metadata. Each question has a limit of time; they are asked in turn.
 */

import { resolve4 } from 'node:dns/promises'
import { Agent, request } from 'node:https'
import { isIP } from 'node:net'
import { buffer } from 'node:stream/consumers'
import { type ConnectionOptions, connect, rootCertificates, type TLSSocket } from 'node:tls'
import { type SigningIdentity, signRequest } from '../../authenticate/authenticate.ts'
import type { Store } from './stores.ts'
import { uriPathOf } from './uri-path.ts'

export interface Finding {
  readonly step: string
  /** `note`: works, but AWS KMS would not take it, or an operator should know. */
  readonly verdict: 'ok' | 'note' | 'failed'
  readonly detail: string
  readonly remedy?: string
}

export interface Diagnosis {
  readonly findings: readonly Finding[]
  /** What the AWS console asks for. */
  readonly console: Readonly<Record<string, string>>
}

export interface DoctorRequest {
  readonly store: Store
  readonly endpoint: URL
  readonly accessKeyId: string
  readonly secret: Buffer
  /** PEM of CAs to trust besides the public ones. */
  readonly ca?: string
}

/** AWS KMS waits 250 ms, connection set-up included. */
const awsPatienceMs = 250
const limitMs = 5_000
const dayMs = 86_400_000
/** AWS recommends an alarm below this. */
const certificateDays = 10
const keysMax = 50
/** The suites of which AWS KMS needs one (XKS proxy API, "TLS"). */
const suites = {
  'TLSv1.3': 'TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256',
  'TLSv1.2': 'ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-AES256-GCM-SHA384',
} as const

const ok = (step: string, detail: string): Finding => ({ step, verdict: 'ok', detail })
const note = (step: string, detail: string, remedy: string): Finding => ({ step, verdict: 'note', detail, remedy })
const failed = (step: string, detail: string, remedy: string): Finding => ({ step, verdict: 'failed', detail, remedy })

export async function examineStore(asked: DoctorRequest): Promise<Diagnosis> {
  const { store, endpoint } = asked
  const findings: Finding[] = [...(await examineAddress(endpoint))]
  if (store.isBlocked) findings.push(note('store', 'is blocked', 'hsmgate xks unblock lifts it'))
  const tls = await examineTls(asked)
  findings.push(...tls)
  if (!tls.some(({ verdict }) => verdict === 'failed')) {
    const agent = new Agent({ keepAlive: true, maxSockets: 1, ...trust(asked) })
    try {
      findings.push(...(await examineApi(asked, agent)))
    } finally {
      agent.destroy()
    }
  }
  return {
    findings,
    console: {
      'Proxy URI endpoint': `https://${endpoint.hostname}`,
      'Proxy URI path prefix': store.prefix === '' ? '(leave empty)' : store.prefix,
      'Proxy URI path': uriPathOf(store.prefix),
      'Access key ID': asked.accessKeyId,
      'Secret access key': 'shown once by `xks store create` or `xks store rotate-credential`',
      Region: store.region,
      'External key IDs': [...store.keys.keys()].slice(0, keysMax).join(', ') || '(none yet: hsmgate xks key create)',
    },
  }
}

async function examineAddress({ hostname, port }: URL): Promise<readonly Finding[]> {
  const findings: Finding[] = []
  if (port !== '' && port !== '443') {
    findings.push(note('port', `is ${port}`, 'AWS KMS calls port 443 alone: forward it to this door'))
  }
  if (isIP(hostname) !== 0 || !hostname.includes('.')) {
    findings.push(note('host', `${hostname} is no domain name`, 'AWS KMS needs a name with an IPv4 address'))
    return findings
  }
  const addresses = await resolve4(hostname).catch(() => [])
  if (addresses.length > 0) return [...findings, ok('host', `${hostname} is ${addresses.join(', ')}`)]
  return [...findings, failed('host', `${hostname} has no IPv4 address`, 'add an A record; AWS KMS uses IPv4 alone')]
}

async function examineTls(asked: DoctorRequest): Promise<readonly Finding[]> {
  const findings: Finding[] = []
  let socket: TLSSocket | undefined
  for (const version of ['TLSv1.2', 'TLSv1.3'] as const) {
    const tried = await handshake(asked, version).catch((cause: NodeJS.ErrnoException) => cause)
    if (tried instanceof Error) {
      findings.push(note('tls', `${version} fails: ${tried.code ?? tried.message}`, 'AWS KMS needs 1.2 or 1.3'))
      continue
    }
    findings.push(ok('tls', `${version} with ${tried.getCipher().standardName}`))
    socket?.destroy()
    socket = tried
  }
  if (socket === undefined) {
    return [
      ...findings,
      failed('tls', 'no connection', 'open the port, and offer TLS 1.2 or 1.3 with an AES-256-GCM suite'),
    ]
  }
  const { valid_to: validTo, subjectaltname = '' } = socket.getPeerCertificate()
  const { authorizationError: problem } = socket
  socket.destroy()
  const days = Math.floor((Date.parse(validTo) - Date.now()) / dayMs)
  if (problem) {
    const remedy =
      'AWS KMS takes certificates of public CAs for exactly this host; `--ca` names a CA of your own for this check'
    findings.push(note('certificate', `is not trusted here: ${String(problem)}`, remedy))
  } else findings.push(ok('certificate', `is valid for ${subjectaltname}`))
  findings.push(
    days < certificateDays
      ? note('certificate', `ends in ${days} days`, 'renew it: when it ends, nothing can be decrypted')
      : ok('certificate', `ends in ${days} days`),
  )
  return findings
}

function trust({ ca, endpoint }: DoctorRequest): ConnectionOptions {
  const name = isIP(endpoint.hostname) === 0 ? { servername: endpoint.hostname } : {}
  return { rejectUnauthorized: false, ...name, ...(ca === undefined ? {} : { ca: [...rootCertificates, ca] }) }
}

function handshake(asked: DoctorRequest, version: keyof typeof suites): Promise<TLSSocket> {
  const { hostname: host, port } = asked.endpoint
  return new Promise((resolve, reject) => {
    const options = { minVersion: version, maxVersion: version, ciphers: suites[version], timeout: limitMs }
    const place = { host, port: Number(port || 443) }
    const socket = connect({ ...place, ...options, ...trust(asked) }, () => resolve(socket))
    socket.once('error', reject)
    socket.once('timeout', () => socket.destroy(new Error('no answer in time')))
  })
}

async function examineApi(asked: DoctorRequest, agent: Agent): Promise<readonly Finding[]> {
  const { store } = asked
  const base = uriPathOf(store.prefix)
  const findings: Finding[] = []
  const health = await ask(asked, agent, `${base}/health`, metadata('ConnectCustomKeyStore'))
  if (health.status !== 200) return [...findings, refusal('health', health)]
  const fleet = (health.body.ekmFleetDetails ?? []) as readonly { healthStatus?: string }[]
  const states = fleet.map(({ healthStatus }) => healthStatus)
  findings.push(
    states.every((state) => state === 'UNAVAILABLE')
      ? failed('health', 'every token is unavailable', '`hsmgate token list` says why; AWS KMS refuses to connect')
      : ok('health', `GetHealthStatus: ${states.join(', ')}`),
  )
  const warm = await ask(asked, agent, `${base}/health`, metadata('KmsHealthCheck'))
  const times = `${Math.round(health.ms)} ms with a new connection, ${Math.round(warm.ms)} ms with an open one`
  findings.push(
    warm.ms < awsPatienceMs && health.ms < awsPatienceMs
      ? ok('time', times)
      : note('time', times, `AWS KMS waits ${awsPatienceMs} ms, its way to here included`),
  )
  const unsigned = await ask(asked, agent, `${base}/health`, metadata('ConnectCustomKeyStore'), 'unsigned')
  findings.push(expected('signature', unsigned, 401, 'AuthenticationFailedException'))
  const lost = await ask(asked, agent, `${base}/none`, metadata('ConnectCustomKeyStore'))
  findings.push(expected('path', lost, 404, 'InvalidUriPathException'))
  for (const externalKeyId of [...store.keys.keys()].slice(0, keysMax)) {
    findings.push(await examineKey(asked, agent, externalKeyId))
  }
  return findings
}

async function examineKey(asked: DoctorRequest, agent: Agent, externalKeyId: string): Promise<Finding> {
  const step = `key ${externalKeyId}`
  const path = `${uriPathOf(asked.store.prefix)}/keys/${externalKeyId}/metadata`
  const answer = await ask(asked, agent, path, metadata('CreateKey'))
  if (answer.status !== 200) return refusal(step, answer)
  const { keySpec, keyUsage = [], keyStatus } = answer.body as Partial<Record<string, string>> & { keyUsage?: string[] }
  const said = `${keySpec}, ${(keyUsage as string[]).join('+')}, ${keyStatus}`
  const isUsable = keyStatus === 'ENABLED' && ['ENCRYPT', 'DECRYPT'].every((usage) => keyUsage.includes(usage))
  return isUsable ? ok(step, said) : note(step, said, 'CreateKey needs AES_256, ENCRYPT and DECRYPT, ENABLED')
}

interface Answer {
  readonly status: number
  readonly body: Readonly<Record<string, unknown>>
  readonly ms: number
}

async function ask(
  asked: DoctorRequest,
  agent: Agent,
  path: string,
  message: object,
  how?: 'unsigned',
): Promise<Answer> {
  const { endpoint, accessKeyId, secret, store } = asked
  const body = Buffer.from(JSON.stringify(message))
  const plain = { host: endpoint.host, 'content-type': 'application/json', 'content-length': String(body.length) }
  const identity: SigningIdentity = { accessKeyId, secret, region: store.region, service: 'kms-xks-proxy' }
  const toSign = { method: 'POST', target: path, headers: plain, body }
  const headers = how === 'unsigned' ? plain : signRequest(toSign, identity, Date.now())
  const startedMs = performance.now()
  try {
    return await new Promise<Answer>((resolve, reject) => {
      const place = { host: endpoint.hostname, port: endpoint.port || 443, path, agent }
      const signal = AbortSignal.timeout(limitMs)
      const asking = request({ ...place, method: 'POST', headers, signal }, (response) => {
        buffer(response).then((bytes) => {
          const parsed = parse(bytes.subarray(0, 64 * 1024).toString('utf8'))
          resolve({ status: response.statusCode ?? 0, body: parsed, ms: performance.now() - startedMs })
        }, reject)
      })
      asking.on('error', reject)
      asking.end(body)
    })
  } catch (cause) {
    const { code, message: text } = cause as NodeJS.ErrnoException
    return { status: 0, body: { errorName: code ?? text }, ms: performance.now() - startedMs }
  }
}

function parse(text: string): Readonly<Record<string, unknown>> {
  try {
    return JSON.parse(text) as Record<string, unknown>
  } catch {
    return { errorName: 'an answer that is not JSON' }
  }
}

function refusal(step: string, { status, body }: Answer): Finding {
  const { errorName, errorMessage = '' } = body as { errorName?: string; errorMessage?: string }
  return failed(step, `${status} ${errorName ?? ''} ${errorMessage}`.trim(), 'docs/xks.md tells what each error means')
}

function expected(step: string, answer: Answer, status: number, name: string): Finding {
  if (answer.status === status && answer.body.errorName === name) return ok(step, `${status} ${name} where it should`)
  const remedy = 'something between here and the door answers in its place'
  return failed(step, `${answer.status} instead of ${status} ${name}`, remedy)
}

function metadata(kmsOperation: string) {
  const awsPrincipalArn = 'arn:aws:iam::000000000000:role/hsmgate-doctor'
  return { requestMetadata: { kmsRequestId: 'hsmgate-doctor', kmsOperation, awsPrincipalArn } }
}
