/**
 * The face of the STS door: AWS Security Token Service (2011-06-15), Query protocol with XML answers, two operations. It hangs into the
 * listener of the KMS door, which hands over what is signed for `sts`.
 */
import type { SessionIssuer, SigV4Verifier } from '../../authenticate/authenticate.ts'
import { deadlineIn } from '../../call.ts'
import type { PrincipalRecord } from '../../catalog/catalog.ts'
import type { GatewayError } from '../../error.ts'
import type { Operation, Pipeline } from '../../pipeline.ts'
import type { ServiceProtocol, ServiceQuotas, ServiceResponse } from '../kms/kms.ts'
import { assumeRole } from './assume-role.ts'
import { describeError, renderError } from './dialect.ts'
import { getCallerIdentity } from './get-caller-identity.ts'
import { parseQuery } from './query.ts'
import { StsError } from './sts-error.ts'
import { element, type XmlContent } from './xml.ts'

export const apiVersion = '2011-06-15'
const namespace = `https://sts.amazonaws.com/doc/${apiVersion}/`
const contentType = 'text/xml'

export interface StsParts {
  readonly pipeline: Pipeline
  /** For the service `sts`. */
  readonly verifier: SigV4Verifier
  readonly partition: string
  readonly sessions: SessionIssuer
  /** Request rates; without it they are not limited. */
  readonly quotas?: Pick<ServiceQuotas, 'take'>
  readonly findRole: (account: string, name: string) => Promise<PrincipalRecord | undefined>
}

export function createStsProtocol(parts: StsParts): ServiceProtocol {
  const { pipeline, verifier, partition } = parts
  const operations = new Map<string, Operation<unknown, unknown, XmlContent>>(
    [getCallerIdentity(), assumeRole(parts)].map((operation) => [
      operation.name,
      withRate(operation as Operation<unknown, unknown, XmlContent>, parts.quotas),
    ]),
  )

  return async (request) => {
    const { requestId } = request
    let query: ReadonlyMap<string, string>
    let operation: Operation<unknown, unknown, XmlContent>
    try {
      query = parseQuery(request.body)
      operation = findOperation(query)
    } catch (cause) {
      return renderFailure(cause, requestId)
    }
    const outcome = await pipeline({
      door: 'sts',
      operation,
      raw: query,
      requestId,
      receivedAt: request.receivedAt,
      deadline: deadlineIn(operation.timeoutMs),
      source: request.source,
      partition,
      authenticate: () => verifier.verify(request),
    })
    return outcome.ok
      ? renderResult(operation.name, outcome.output as XmlContent, requestId)
      : renderFailure(outcome.error, requestId)
  }

  function findOperation(query: ReadonlyMap<string, string>): Operation<unknown, unknown, XmlContent> {
    const action = query.get('Action')
    if (action === undefined) throw new StsError('ActionMissing')
    const version = query.get('Version')
    const operation = version === apiVersion ? operations.get(action) : undefined
    if (operation !== undefined) return operation
    const text = `Could not find operation ${action.slice(0, 128)} for version ${version?.slice(0, 128) ?? 'NO_VERSION_SPECIFIED'}`
    throw new StsError('ActionUnknown', text)
  }
}

/** All operations share one rate of the caller's account. */
function withRate(
  operation: Operation<unknown, unknown, XmlContent>,
  quotas: StsParts['quotas'],
): Operation<unknown, unknown, XmlContent> {
  if (quotas === undefined) return operation
  return {
    ...operation,
    prepare(input, scope) {
      quotas.take(scope.account, scope.region, 'sts')
      return operation.prepare(input, scope)
    },
  }
}

/** Name and text of an error as this door words it, for the audit record. */
export function describeStsError(error: GatewayError): { readonly code: string; readonly text: string } {
  return describeError(error)
}

function renderResult(name: string, result: XmlContent, requestId: string): ServiceResponse {
  const content = { [`${name}Result`]: result, ResponseMetadata: { RequestId: requestId } }
  return { status: 200, contentType, body: element(`${name}Response`, content, namespace) }
}

function renderFailure(cause: unknown, requestId: string): ServiceResponse {
  const { status, type, code, text } = renderError(cause)
  const content = { Error: { Type: type, Code: code, Message: text }, RequestId: requestId }
  return { status, contentType, body: element('ErrorResponse', content, namespace) }
}
