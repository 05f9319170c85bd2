/**
 * A gateway with an XKS door over TLS of a development CA, and clients of it as AWS KMS is one: signed requests over HTTP/1.1 or HTTP/2, answers as they
 * come over the wire.
 */
import { mkdir, readFile } from 'node:fs/promises'
import { type ClientHttp2Session, connect } from 'node:http2'
import { Agent, request } from 'node:https'
import path from 'node:path'
import { buffer } from 'node:stream/consumers'
import { signRequest } from '../../src/authenticate/sign-request.ts'
import { completeDevelopmentTls } from '../../src/cli/development-ca.ts'
import { startGateway, type TestGateway, type TestGatewayOptions, testRegion } from './gateway.ts'
import { createTestToken } from './softhsm.ts'

export interface XksCredential {
  readonly accessKeyId: string
  readonly secretAccessKey: string
}

export interface XksGateway extends AsyncDisposable {
  readonly gateway: TestGateway
  readonly endpoint: string
  readonly ca: Buffer
  readonly tlsDirectory: string
}

/** `xks.deadlineMs` is long unless told: the machine of a test may be busy. */
export async function startXksGateway(
  options: TestGatewayOptions & { readonly tls?: Readonly<Record<string, string>> } = {},
): Promise<XksGateway> {
  const token = options.token ?? (await createTestToken())
  const tlsDirectory = path.join(token.directory, 'tls')
  await mkdir(tlsDirectory, { recursive: true })
  await completeDevelopmentTls(tlsDirectory)
  const certificateFile = path.join(tlsDirectory, 'server.pem')
  const keyFile = path.join(tlsDirectory, 'server.key')
  const gateway = await startGateway({
    ...options,
    token,
    config: {
      listen: {
        kms: { address: '127.0.0.1', port: 0 },
        xks: { address: '127.0.0.1', port: 0, tls: { certificateFile, keyFile, ...options.tls } },
        operator: { http: { address: '127.0.0.1', port: 0 } },
      },
      xks: { deadlineMs: 10_000 },
      ...options.config,
    },
  })
  return {
    gateway,
    tlsDirectory,
    get endpoint() {
      return gateway.gateway.endpoints.xks as string
    },
    ca: await readFile(path.join(tlsDirectory, 'ca.pem')),
    async [Symbol.asyncDispose]() {
      await gateway[Symbol.asyncDispose]()
      if (options.token === undefined) await token[Symbol.asyncDispose]()
    },
  }
}

export interface XksStore {
  readonly name: string
  readonly uriPath: string
  readonly credential: XksCredential
}

export async function createStore(
  { gateway }: Pick<XksGateway, 'gateway'>,
  name: string,
  options: Readonly<Record<string, string | number>> = {},
): Promise<XksStore> {
  return gateway.ask<XksStore>('xks-store', 'create', { store: name, ...options })
}

export interface XksAnswer {
  readonly status: number
  readonly contentType: string
  readonly text: string
  /** Parsed body. */
  readonly body: Record<string, unknown>
}

export interface XksCallOptions {
  readonly credential?: XksCredential
  readonly region?: string
  readonly service?: string
  readonly method?: string
  readonly nowMs?: number
  /** What is sent instead of what was signed. */
  readonly sent?: { readonly path?: string; readonly body?: Buffer; readonly headers?: Record<string, string> }
  readonly headers?: Readonly<Record<string, string>>
  readonly signed?: boolean
}

export interface XksClient extends Disposable {
  /** `api`: `health`, `keys/<id>/encrypt`, .. below the store's URI path. */
  call(api: string, body?: unknown, options?: XksCallOptions): Promise<XksAnswer>
}

const agentOptions = { keepAlive: true, maxSockets: 8 }

export function createXksClient(
  { endpoint, ca }: Pick<XksGateway, 'endpoint' | 'ca'>,
  store: XksStore,
  tls: { readonly cert?: string; readonly key?: string } = {},
): XksClient {
  // the certificate is for the name, whatever Host header a test sends
  const agent = new Agent({ ...agentOptions, ca, servername: 'localhost', ...tls })
  const { hostname, port, host } = new URL(endpoint)
  return {
    async call(api, body = {}, options = {}) {
      const { method, path: target, headers, bytes } = prepare(store, host, api, body, options)
      const response = await new Promise<import('node:http').IncomingMessage>((resolve, reject) => {
        const length = { 'content-length': String(bytes.length) }
        const asking = request({
          host: hostname,
          port,
          method,
          path: target,
          agent,
          headers: { ...length, ...headers },
        })
        asking.on('response', resolve)
        asking.on('error', reject)
        asking.end(bytes)
      })
      const text = (await buffer(response)).toString()
      return toAnswer(response.statusCode ?? 0, response.headers['content-type'] ?? '', text)
    },
    [Symbol.dispose]() {
      agent.destroy()
    },
  }
}

/** The same over HTTP/2, whose requests have an authority instead of a Host header. */
export function createHttp2Client({ endpoint, ca }: Pick<XksGateway, 'endpoint' | 'ca'>, store: XksStore): XksClient {
  const session: ClientHttp2Session = connect(endpoint, { ca })
  const { host } = new URL(endpoint)
  return {
    async call(api, body = {}, options = {}) {
      const { method, path: target, headers, bytes } = prepare(store, host, api, body, options)
      const { host: authority, ...rest } = headers
      const stream = session.request({
        ':method': method,
        ':path': target,
        ':authority': authority ?? host,
        ...rest,
      })
      const headersOf = new Promise<Record<string, unknown>>((resolve, reject) => {
        stream.on('response', resolve)
        stream.on('error', reject)
      })
      stream.end(bytes)
      const got = await headersOf
      const text = (await buffer(stream)).toString()
      return toAnswer(Number(got[':status']), String(got['content-type'] ?? ''), text)
    },
    [Symbol.dispose]() {
      session.destroy()
    },
  }
}

function prepare(store: XksStore, host: string, api: string, body: unknown, options: XksCallOptions) {
  const { credential = store.credential, method = 'POST', sent = {} } = options
  const signedBody = Buffer.isBuffer(body) ? body : Buffer.from(typeof body === 'string' ? body : JSON.stringify(body))
  const target = api.startsWith('/') ? api : `${store.uriPath}/${api}`
  const plain = { host, 'content-type': 'application/json', ...options.headers }
  const headers =
    options.signed === false
      ? plain
      : signRequest(
          { method, target, headers: plain, body: signedBody },
          {
            accessKeyId: credential.accessKeyId,
            secret: Buffer.from(credential.secretAccessKey),
            region: options.region ?? testRegion,
            service: options.service ?? 'kms-xks-proxy',
          },
          options.nowMs ?? Date.now(),
        )
  return {
    method,
    path: sent.path ?? target,
    headers: { ...headers, ...sent.headers } as Record<string, string>,
    bytes: sent.body ?? signedBody,
  }
}

function toAnswer(status: number, contentType: string, text: string): XksAnswer {
  return { status, contentType, text, body: parse(text) }
}

function parse(text: string): Record<string, unknown> {
  try {
    return JSON.parse(text) as Record<string, unknown>
  } catch {
    return { unreadable: text }
  }
}

/** requestMetadata of a call that AWS KMS makes for a user. */
export function metadataOf(kmsOperation: string, more: Readonly<Record<string, unknown>> = {}) {
  return {
    requestMetadata: {
      awsPrincipalArn: 'arn:aws:iam::123456789012:user/Alice',
      kmsKeyArn: 'arn:aws:kms:us-east-2:123456789012:/key/1234abcd-12ab-34cd-56ef-1234567890ab',
      kmsOperation,
      kmsRequestId: '4112f4d6-db54-4af4-ae30-c55a22a8dfae',
      ...more,
    },
  }
}

export function encryptBody(plaintext: Uint8Array, more: Readonly<Record<string, unknown>> = {}) {
  return {
    ...metadataOf('Encrypt'),
    plaintext: Buffer.from(plaintext).toString('base64'),
    encryptionAlgorithm: 'AES_GCM',
    ...more,
  }
}

/** What Decrypt takes of the answer to Encrypt. */
export function decryptBody(
  encrypted: Readonly<Record<string, unknown>>,
  more: Readonly<Record<string, unknown>> = {},
) {
  const { ciphertext, initializationVector, authenticationTag, ciphertextMetadata } = encrypted
  return {
    ...metadataOf('Decrypt'),
    encryptionAlgorithm: 'AES_GCM',
    ciphertext,
    initializationVector,
    authenticationTag,
    ...(ciphertextMetadata === undefined ? {} : { ciphertextMetadata }),
    ...more,
  }
}

export { testRegion }
