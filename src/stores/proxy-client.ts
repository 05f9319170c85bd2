/**
 * The client of one XKS proxy: HTTPS with connections that stay open, requests signed for `kms-xks-proxy`, 250 ms for each, one more try when the network
 * failed. Owns its connections and the credential's secret, which closing wipes; safe for any number of concurrent calls.
 */
import { Agent, request } from 'node:https'
import { isIP } from 'node:net'
import { rootCertificates } from 'node:tls'
import { signRequest } from '../authenticate/sign-request.ts'
import { type Deadline, remainingMs } from '../call.ts'
import type { ExternalCiphertext } from '../keys/keys.ts'
import { createProxyBreaker } from './proxy-breaker.ts'
import { type FailureKind, ProxyFailure } from './proxy-failures.ts'
import {
  checkHealthAnswer,
  type ExternalKeyMetadata,
  encodeDecryptRequest,
  encodeEncryptRequest,
  encodeMetadataRequest,
  parseAnswer,
  parseDecryptAnswer,
  parseEncryptAnswer,
  parseKeyMetadataAnswer,
  type RequestMetadata,
} from './proxy-messages.ts'
import type { ProxyAddress } from './stores.ts'

/** How proxies are reached, of the configuration. */
export interface ProxyTransport {
  readonly isStrict: boolean
  readonly timeoutMs: number
  /** Authorities beside the public ones, PEM. */
  readonly ca?: string
  readonly clientCertificate?: { readonly cert: string; readonly key: string }
}

export interface ProxyClient extends Disposable {
  /** @throws ProxyFailure, as all of them. */
  health(metadata: RequestMetadata, deadline: Deadline): Promise<void>
  keyMetadata(keyId: string, metadata: RequestMetadata, deadline: Deadline): Promise<ExternalKeyMetadata>
  encrypt(
    keyId: string,
    metadata: RequestMetadata,
    plaintext: Uint8Array,
    aad: Uint8Array,
    deadline: Deadline,
  ): Promise<ExternalCiphertext>
  decrypt(
    keyId: string,
    metadata: RequestMetadata,
    sealed: ExternalCiphertext,
    aad: Uint8Array,
    deadline: Deadline,
  ): Promise<Buffer>
}

/** The longest answer, an Encrypt of 4300 bytes, is a third of this. */
const maxAnswerBytes = 32 * 1024
const maxConnections = 64
/** Below the 350 s after which load balancers forget a connection (XKS proxy API specification, "Connection keep-alive"). */
const idleLimitMs = 300_000
const keepAliveProbeMs = 60_000
/** The suites of the specification. */
const cipherSuites = [
  'TLS_AES_256_GCM_SHA384',
  'TLS_CHACHA20_POLY1305_SHA256',
  'ECDHE-RSA-AES256-GCM-SHA384',
  'ECDHE-ECDSA-AES256-GCM-SHA384',
].join(':')

/** `secret` becomes the client's own. */
export function createProxyClient(
  address: ProxyAddress,
  secret: Buffer,
  region: string,
  { isStrict, timeoutMs, ca, clientCertificate }: ProxyTransport,
): ProxyClient {
  const { hostname, port, host } = new URL(address.endpoint)
  const identity = { accessKeyId: address.accessKeyId, secret, region, service: 'kms-xks-proxy' }
  const breaker = createProxyBreaker()
  const agent = new Agent({
    keepAlive: true,
    keepAliveMsecs: keepAliveProbeMs,
    timeout: idleLimitMs,
    maxSockets: maxConnections,
    scheduling: 'lifo',
    minVersion: 'TLSv1.2',
    ciphers: cipherSuites,
    ...(ca === undefined ? {} : { ca: [...rootCertificates, ca] }),
    ...clientCertificate,
  })

  function send(target: string, body: Buffer, limitMs: number): Promise<{ status: number; text: string }> {
    return new Promise((resolve, reject) => {
      const signed = signRequest({ method: 'POST', target, headers: { host }, body }, identity, Date.now())
      const headers = { ...signed, 'content-type': 'application/json', 'content-length': String(body.length) }
      const outgoing = request({ agent, hostname, port: port || 443, method: 'POST', path: target, headers })
      const timer = setTimeout(() => outgoing.destroy(new ProxyFailure('TimedOut', `${limitMs} ms`)), limitMs)
      const fail = (cause: Error) => {
        clearTimeout(timer)
        reject(cause instanceof ProxyFailure ? cause : new ProxyFailure(kindOf(cause), codeOf(cause), cause))
      }
      outgoing.on('error', fail)
      outgoing.on('response', (incoming) => {
        const chunks: Buffer[] = []
        let length = 0
        incoming.on('error', fail)
        incoming.on('data', (chunk: Buffer) => {
          chunks.push(chunk)
          length += chunk.length
          if (length > maxAnswerBytes) outgoing.destroy(new ProxyFailure('Malformed', 'the answer is too long'))
        })
        incoming.on('end', () => {
          clearTimeout(timer)
          const bytes = Buffer.concat(chunks)
          resolve({ status: incoming.statusCode ?? 0, text: bytes.toString() })
          for (const each of [bytes, ...chunks]) each.fill(0)
        })
      })
      outgoing.end(body)
    })
  }

  async function sendWithRetry(target: string, body: Buffer, deadline: Deadline) {
    for (let attempt = 1; ; attempt++) {
      const limitMs = Math.min(timeoutMs, Math.floor(remainingMs(deadline)))
      if (limitMs <= 0) throw new ProxyFailure('TimedOut', 'the call had no time left')
      try {
        return await send(target, body, limitMs)
      } catch (cause) {
        const { kind } = cause as ProxyFailure
        if (attempt === 2 || (kind !== 'TimedOut' && kind !== 'Unreachable')) throw cause
      }
    }
  }

  async function ask(path: string, body: Buffer, deadline: Deadline): Promise<Readonly<Record<string, unknown>>> {
    // AWS KMS reaches proxies by name.
    if (isStrict && isIP(hostname) !== 0) throw new ProxyFailure('Unreachable', 'the endpoint is an address')
    const refusal = breaker.refusal(performance.now())
    if (refusal !== undefined) throw refusal
    try {
      const { status, text } = await sendWithRetry(`${address.path}${path}`, body, deadline)
      breaker.answered()
      return parseAnswer(status, text)
    } catch (cause) {
      const isNetwork = cause instanceof ProxyFailure && networkKinds.has(cause.kind)
      if (isNetwork) breaker.failed(cause, performance.now())
      throw cause
    } finally {
      body.fill(0)
    }
  }

  return {
    async health(metadata, deadline) {
      checkHealthAnswer(await ask('/health', encodeMetadataRequest(metadata), deadline))
    },
    async keyMetadata(keyId, metadata, deadline) {
      return parseKeyMetadataAnswer(await ask(`/keys/${keyId}/metadata`, encodeMetadataRequest(metadata), deadline))
    },
    async encrypt(keyId, metadata, plaintext, aad, deadline) {
      const body = encodeEncryptRequest(metadata, plaintext, aad)
      return parseEncryptAnswer(await ask(`/keys/${keyId}/encrypt`, body, deadline), plaintext, aad)
    },
    async decrypt(keyId, metadata, sealed, aad, deadline) {
      const body = encodeDecryptRequest(metadata, sealed, aad)
      return parseDecryptAnswer(await ask(`/keys/${keyId}/decrypt`, body, deadline), sealed)
    },
    [Symbol.dispose]() {
      agent.destroy()
      secret.fill(0)
    },
  }
}

const networkKinds: ReadonlySet<FailureKind> = new Set(['TimedOut', 'Unreachable', 'Tls'])

function codeOf(cause: Error): string {
  return (cause as NodeJS.ErrnoException).code ?? cause.name
}

/** Node's and OpenSSL's codes: verification of certificates, the handshake, HTTP that is none; the rest is the network. */
function kindOf(cause: Error): FailureKind {
  const code = codeOf(cause)
  if (/^(?:ERR_TLS|ERR_SSL|CERT_|CRL_|UNABLE_TO_|SELF_SIGNED|DEPTH_ZERO|HOSTNAME_|INVALID_|EPROTO)/.test(code))
    return 'Tls'
  return code.startsWith('HPE_') ? 'Malformed' : 'Unreachable'
}
