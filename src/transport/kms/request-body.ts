/** A request body against the schema of its operation: bytes to typed input, and input to what an audit record may show. */
import { invalid } from './kms-error.ts'
import { type Reading, type Schema, serialization } from './schema.ts'

/** The body of a request on its way through the pipeline, and the secrets found in it: their owner wipes them when the call ends. */
export interface WireBody {
  readonly bytes: Buffer
  readonly secrets: Uint8Array[]
}

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

function parseJson(bytes: Buffer): unknown {
  if (bytes.length === 0) return {}
  try {
    return JSON.parse(utf8.decode(bytes))
  } catch (cause) {
    // The parser quotes the text around its failure, which may be a secret: neither text nor cause goes on.
    throw serialization(cause instanceof SyntaxError ? 'Request is not valid JSON' : 'Request is not valid UTF-8')
  }
}

/**
 * Reads a request body against its schema.
 * @throws KmsError `SerializationFailed`; GatewayError `ValidationFailed` that lists every broken constraint.
 */
export function readInput<T>(input: Schema<T>, raw: unknown): T {
  const { bytes, secrets } = raw as WireBody
  const reading: Reading = { problems: [], secrets }
  const value = input.traits.read(parseJson(bytes), '', reading)
  const count = reading.problems.length
  if (count > 0) {
    throw invalid(`${count} validation error${count === 1 ? '' : 's'} detected: ${reading.problems.join('; ')}`)
  }
  return value
}

/** Request parameters as an audit record shows them: lowerCamel, without blobs, sensitive and unrecorded members. */
export function recordInput<T>(input: Schema<T>, value: T): Readonly<Record<string, unknown>> {
  return input.traits.record(value) as Readonly<Record<string, unknown>>
}
