/**
 * The face of the KMS door: the AWS KMS API (2014-11-01) over HTTP, in front of the pipeline. Other services that SDKs expect at the
 * same endpoint hang into the same listener, chosen by the service of the credential scope.
 */
import type { SigV4Verifier } from '../../authenticate/authenticate.ts'
import type { GatewayError } from '../../error.ts'
import type { Pipeline } from '../../pipeline.ts'
import type { ListenAddress } from '../descriptor.ts'
import { describeError } from './dialect.ts'
import { createJsonProtocol } from './json-protocol.ts'
import { createListener, type Listener, type ListenerLimits } from './listener.ts'
import type { KmsParts } from './operations/key-operation.ts'
import { createOperations } from './operations/registry.ts'
import {
  createRequestQuotas as openRequestQuotas,
  type RequestQuotaOptions,
  type RequestQuotas,
} from './request-quotas.ts'
import { claimedService, type WireProtocol, type WireRequest, type WireResponse } from './wire.ts'

export interface KmsDoorOptions extends KmsParts {
  readonly pipeline: Pipeline
  readonly verifier: SigV4Verifier
  readonly partition: string
  /** Protocols of further services, by their SigV4 name. */
  readonly services?: ReadonlyMap<string, WireProtocol>
  readonly limits?: Partial<ListenerLimits>
  /** `ca`: those whose client certificates are required; without it none is asked for. */
  readonly tls?: { readonly cert: string | Buffer; readonly key: string | Buffer; readonly ca?: string | Buffer }
  readonly trustedProxies?: readonly string[]
  /** A request that never became a call; `name` is a label of few values. */
  readonly onRefused?: (name: string, cause: unknown) => void
}

/** A protocol of another service at the same listener, its requests and answers. */
export type ServiceProtocol = WireProtocol
export type ServiceRequest = WireRequest
export type ServiceResponse = WireResponse

/** Request rates, for the other services at the same listener too. */
export type ServiceQuotas = RequestQuotas
export type KmsListenAddress = ListenAddress
export type KmsDoor = Listener

/** A door that does not listen yet. Closing it answers what is under way. */
export function createKmsDoor(options: KmsDoorOptions): KmsDoor {
  const { pipeline, verifier, partition, services = new Map(), limits, tls, trustedProxies, onRefused } = options
  const kms = createJsonProtocol({ pipeline, verifier, partition, operations: createOperations(options) })
  const answer: WireProtocol =
    services.size === 0
      ? kms
      : (request) => (services.get(claimedService(request.headers.authorization) ?? '') ?? kms)(request)
  return createListener({
    answer,
    ...(limits === undefined ? {} : { limits }),
    ...(tls === undefined ? {} : { tls }),
    ...(trustedProxies === undefined ? {} : { trustedProxies }),
    ...(onRefused === undefined ? {} : { onRefused }),
  })
}

/** Request rates as configured; hand them to the door. */
export function createRequestQuotas(options: RequestQuotaOptions): RequestQuotas {
  return openRequestQuotas(options)
}

/** Name and text of an error as this door words it, for the audit record. */
export function describeKmsError(error: GatewayError): { readonly code: string; readonly text: string } {
  return describeError(error)
}
