/**
 * The log: JSON lines through pino. Only this folder writes it, always with named scalar fields, so that no object of a request can
 * slip in whole; declared paths are redacted besides, and errors are reduced to name, message, code and stack.
 */
import { type DestinationStream, destination, type Logger, pino } from 'pino'

export type LogLevel = 'trace' | 'debug' | 'info' | 'warn' | 'error' | 'fatal'

/** The second line of defence: members that must never appear, at the top and one level down. */
const secretMembers = [
  'authorization',
  'ciphertext',
  'cookie',
  'password',
  'pin',
  'plaintext',
  'privateKey',
  'secret',
  'secretAccessKey',
  'sessionToken',
  'signature',
]

export interface Log {
  readonly logger: Logger
  /** Writes out what is buffered; before the process ends. */
  flush(): void
}

/** Standard error unless a stream is given; never standard output, which belongs to commands. */
export function openLog(level: LogLevel, stream?: DestinationStream): Log {
  const out = stream ?? destination({ dest: 2, sync: false })
  const logger = pino(
    {
      level,
      base: { pid: process.pid },
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
      redact: { paths: secretMembers.flatMap((name) => [name, `*.${name}`]), censor: '[redacted]' },
      serializers: { cause: describeError },
    },
    out,
  )
  return {
    logger,
    flush() {
      try {
        if (!stream) (out as ReturnType<typeof destination>).flushSync()
      } catch {
        // Standard error is closed or not open yet: there is nowhere left to write to.
      }
    },
  }
}

const maxCauses = 4

/** An error without the properties that libraries hang on it (request options, buffers, addresses). */
export function describeError(error: unknown, depth = 0): unknown {
  if (!(error instanceof Error)) return typeof error === 'string' ? error : typeof error
  const { name, message, stack, cause } = error
  const { code, rv, call } = error as { code?: unknown; rv?: unknown; call?: unknown }
  return {
    name,
    message,
    ...scalar('code', code),
    ...scalar('rv', rv),
    ...scalar('call', call),
    stack,
    ...(cause !== undefined && depth < maxCauses ? { cause: describeError(cause, depth + 1) } : {}),
  }
}

function scalar(name: string, value: unknown): Record<string, string | number> {
  return typeof value === 'string' || typeof value === 'number' ? { [name]: value } : {}
}
