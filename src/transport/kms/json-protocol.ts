/**
 * AWS JSON 1.1 over the pipeline: X-Amz-Target picks the operation, the outcome becomes a body. Secrets of the request and of the
 * result are wiped once the answer is rendered; the rendered text itself can't be.
 */
import type { SigV4Verifier } from '../../authenticate/authenticate.ts'
import { deadlineIn } from '../../call.ts'
import type { Pipeline } from '../../pipeline.ts'
import { renderError } from './dialect.ts'
import { KmsError } from './kms-error.ts'
import type { KmsOperation, KmsOutput } from './operations/key-operation.ts'
import { secretMembers } from './operations/secret-members.ts'
import type { WireBody } from './request-body.ts'
import type { WireProtocol, WireResponse } from './wire.ts'

export const jsonContentType = 'application/x-amz-json-1.1'
const targetPrefix = 'TrentService.'

export interface JsonProtocolParts {
  readonly pipeline: Pipeline
  readonly operations: ReadonlyMap<string, KmsOperation>
  readonly verifier: SigV4Verifier
  readonly partition: string
}

export function createJsonProtocol(parts: JsonProtocolParts): WireProtocol {
  const { pipeline, operations, verifier, partition } = parts
  return async (request) => {
    const target = request.headers['x-amz-target']
    const operation =
      typeof target === 'string' && target.startsWith(targetPrefix)
        ? operations.get(target.slice(targetPrefix.length))
        : undefined
    if (operation === undefined) return renderFailure(new KmsError('UnknownOperation'))

    const raw: WireBody = { bytes: request.body, secrets: [] }
    try {
      const outcome = await pipeline({
        door: 'kms',
        operation,
        raw,
        requestId: request.requestId,
        receivedAt: request.receivedAt,
        deadline: deadlineIn(operation.timeoutMs),
        source: request.source,
        partition,
        authenticate: () => verifier.verify(request),
      })
      return outcome.ok ? renderOutput((outcome.output as KmsOutput).members) : renderFailure(outcome.error)
    } finally {
      raw.bytes.fill(0)
      for (const secret of raw.secrets) secret.fill(0)
    }
  }
}

export function renderFailure(cause: unknown): WireResponse {
  const { status, body } = renderError(cause)
  return { status, contentType: jsonContentType, body }
}

function renderOutput(members: KmsOutput['members']): WireResponse {
  if (members === null) return { status: 200, contentType: jsonContentType, body: '' }
  const wire: Record<string, unknown> = {}
  for (const name in members) {
    const value = members[name]
    if (!(value instanceof Uint8Array)) {
      wire[name] = value
      continue
    }
    wire[name] = Buffer.from(value.buffer, value.byteOffset, value.byteLength).toString('base64')
    if (secretMembers.has(name)) value.fill(0)
  }
  return { status: 200, contentType: jsonContentType, body: JSON.stringify(wire) }
}
