/**
 * The face of the XKS door: the AWS KMS external key store proxy API, version 1 (github.com/aws/aws-kms-xksproxy-api-spec), in front of the
 * pipeline. AWS KMS, or another hsmgate, uses keys of purpose `xks` through it.
 */
import { randomUUID } from 'node:crypto'
import type { Socket } from 'node:net'
import { TLSSocket } from 'node:tls'
import { createSigV4Verifier } from '../../authenticate/authenticate.ts'
import { deadlineIn, type Source } from '../../call.ts'
import type { Catalog } from '../../catalog/catalog.ts'
import { GatewayError } from '../../error.ts'
import type { DirectKeys, KeyService } from '../../keys/keys.ts'
import type { Pipeline } from '../../pipeline.ts'
import { isCertificateOf } from './client-certificate.ts'
import { describeError, renderError } from './dialect.ts'
import { examineStore, type Diagnosis as StoreDiagnosis } from './doctor.ts'
import { createFaults, type Faults } from './faults.ts'
import { createHealth, type HealthParts } from './health.ts'
import {
  createListener,
  type Listener,
  type ListenerLimits,
  type ListenerTls,
  type WireRequest,
  type WireResponse,
} from './listener.ts'
import { createOperations, type RawRequest, type XksOutput } from './operations.ts'
import { createStoreAdministration, type StoreAdministration as StoreCommands } from './store-administration.ts'
import { openStores as open, type Store, type Stores } from './stores.ts'
import { parseXksPath } from './uri-path.ts'
import { XksError } from './xks-error.ts'

export type XksDoor = Listener
export type XksTls = ListenerTls
export type XksStores = Stores
export type XksFaults = Faults
export type StoreAdministration = StoreCommands
export type Diagnosis = StoreDiagnosis

const service = 'kms-xks-proxy'
/** For load balancers, which sign nothing. */
const pingPath = '/ping'

export interface XksStoreParts {
  readonly catalog: Catalog
  readonly sealer: {
    seal(secret: Uint8Array, context: string): Promise<Buffer>
    unseal(sealed: Uint8Array, context: string): Promise<Buffer>
  }
  readonly partition: string
  readonly account: string
  readonly keys: Pick<KeyService, 'resolve' | 'keyArn'>
  readonly direct: DirectKeys
  /** Epoch milliseconds. */
  readonly now: () => number
  readonly failed: (cause: unknown, store: string, accessKeyId?: string) => void
}

/** The stores in memory and what an operator does to them; also without a listener. */
export async function openXksStores(
  parts: XksStoreParts,
): Promise<{ readonly stores: Stores; readonly administration: StoreAdministration }> {
  const { catalog, sealer, partition, account, keys, direct, now, failed } = parts
  const stores = await open({
    catalog,
    unseal: (sealed, context) => sealer.unseal(sealed, context),
    partition,
    createVerifier: (region, find) =>
      createSigV4Verifier({ service, regions: new Set([region]), now, credentials: { find }, maxSigningKeys: 16 }),
    failed,
  })
  const seal = (secret: Uint8Array, context: string) => sealer.seal(secret, context)
  return { stores, administration: createStoreAdministration({ catalog, stores, seal, keys, direct, account, now }) }
}

/** Asks the endpoint of a store what AWS KMS would ask. @throws GatewayError `NotFound`, `ValidationFailed` */
export async function diagnoseStore(stores: Stores, name: string, endpoint: string, ca?: string): Promise<Diagnosis> {
  const store = stores.get(name)
  const credential = stores.newestCredential(name)
  if (store === undefined || credential === undefined) {
    throw new GatewayError('NotFound', { text: `There is no external key store ${name} with a credential.` })
  }
  const url = URL.parse(endpoint)
  if (url?.protocol !== 'https:' || url.pathname !== '/') {
    throw new GatewayError('ValidationFailed', {
      text: 'An endpoint is https:// and a host, such as https://xks.example.com.',
    })
  }
  const { accessKeyId, secret } = credential
  return examineStore({ store, endpoint: url, accessKeyId, secret, ...(ca === undefined ? {} : { ca }) })
}

export function createXksFaults(): Faults {
  return createFaults()
}

export interface XksDoorOptions {
  readonly pipeline: Pipeline
  readonly stores: Stores
  readonly keys: Pick<KeyService, 'keyArn'>
  readonly direct: DirectKeys
  readonly health: HealthParts
  readonly faults: Faults
  readonly partition: string
  /** Whole budget of one call. */
  readonly deadlineMs: number
  /** The host that clients sign, where a proxy in front rewrites the Host header. */
  readonly expectedHost?: string
  readonly tls?: ListenerTls
  readonly limits?: Partial<ListenerLimits>
  /** A request that never became a call; `name` is a label of few values. */
  readonly onRefused?: (name: string, cause: unknown) => void
}

/** A door that does not listen yet. Closing it answers what is under way. */
export function createXksDoor(options: XksDoorOptions): XksDoor {
  const { pipeline, stores, faults, partition, deadlineMs, tls, limits, onRefused = () => {} } = options
  const operations = createOperations({
    direct: options.direct,
    keys: options.keys,
    health: createHealth(options.health),
    faults,
    current: (name) => stores.get(name),
    timeoutMs: deadlineMs,
  })

  async function answer(request: WireRequest): Promise<WireResponse> {
    const path = parseXksPath(request.rawUrl)
    if (path === undefined && request.rawUrl === pingPath && request.method === 'GET') {
      return { status: 200, body: '{"status":"ok"}' }
    }
    const deadline = deadlineIn(deadlineMs)
    if (stores.isUnread) await atMost(deadlineMs, stores.whenRead())
    const store = path && stores.find(path.prefix)
    if (store === undefined || path?.api === undefined) {
      return refuse(new XksError('UriPathInvalid', 'The path is not one of the XKS proxy API.'))
    }
    if (request.method !== 'POST') return refuse(new XksError('MethodNotAllowed'))
    const trace: Record<string, string> = {}
    const raw: RawRequest = { store, externalKeyId: path.externalKeyId ?? '', body: request.body, trace }
    try {
      const outcome = await pipeline({
        door: 'xks',
        operation: operations[path.api] as never,
        raw,
        requestId: randomUUID(),
        receivedAt: request.receivedAt,
        deadline,
        source: sourceOf(request),
        partition,
        trace,
        authenticate() {
          if (stores.isUnread) throw new GatewayError('CatalogUnavailable')
          return authenticate(store, request)
        },
      })
      return await rehearse(
        store,
        outcome.ok ? { status: 200, body: JSON.stringify(outcome.output as XksOutput) } : renderError(outcome.error),
      )
    } finally {
      request.body.fill(0)
    }
  }

  function refuse(error: XksError): WireResponse {
    onRefused(error.xksCode, error)
    return renderError(error)
  }

  function authenticate(store: Store, request: WireRequest) {
    if (!isCertificateOf(store.clientNames, request.socket)) throw new GatewayError('CredentialsUnknown')
    const { expectedHost } = options
    const signed = expectedHost === undefined ? request : { ...request, rawHeaders: withHost(request, expectedHost) }
    return store.verifier.verify(signed)
  }

  async function rehearse(store: Store, response: WireResponse): Promise<WireResponse> {
    const fault = faults.find(store.name)
    if (fault === undefined) return response
    if (fault.latencyMs > 0) await new Promise((resolve) => setTimeout(resolve, fault.latencyMs))
    if (fault.kind === 'reset') return { ...response, resets: true }
    if (fault.kind === 'garbage') return { status: 200, body: '<html>garbage</html>\n', contentType: 'text/html' }
    return response
  }

  return createListener({
    answer,
    onRefused,
    ...(tls === undefined ? {} : { tls }),
    ...(limits === undefined ? {} : { limits }),
  })
}

const tlsBySocket = new WeakMap<Socket, { readonly version: string; readonly cipherSuite: string }>()

function sourceOf({ ip, userAgent, socket, rawHeaders }: WireRequest): Source {
  if (!(socket instanceof TLSSocket)) return { ip, userAgent }
  let tls = tlsBySocket.get(socket)
  if (tls === undefined) {
    tls = { version: socket.getProtocol() ?? '', cipherSuite: socket.getCipher().standardName }
    tlsBySocket.set(socket, tls)
  }
  const at = rawHeaders.findIndex((name, index) => index % 2 === 0 && name.toLowerCase() === 'host')
  return { ip, userAgent, tls: { ...tls, host: at < 0 ? '' : (rawHeaders[at + 1] as string) } }
}

/** Whatever becomes of the work. */
async function atMost(ms: number, work: Promise<unknown>): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>()
  const timer = setTimeout(resolve, ms)
  work.then(
    () => resolve(),
    () => resolve(),
  )
  await promise
  clearTimeout(timer)
}

function withHost({ rawHeaders }: WireRequest, host: string): readonly string[] {
  return rawHeaders.map((text, at) => (at % 2 === 1 && rawHeaders[at - 1]?.toLowerCase() === 'host' ? host : text))
}

/** Name and text of an error as this door words it, for the audit record. */
export function describeXksError(error: GatewayError): { readonly code: string; readonly text: string } {
  return describeError(error)
}
