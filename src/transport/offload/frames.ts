/**
 * HKS/1, the protocol between a TLS server's key provider (or a relay) and the signing door: its numbers, its limits, the head of a frame.
 * The table is in native/README.md, section "HKS/1 frames"; test/vectors/hks-frames.json binds both this and the C side to it.
 * Bodies are in frame-decoding.ts and frame-encoding.ts. Integers are big-endian.
 */
export const frameVersion = 1
export const headBytes = 16
/** Bounds of the protocol itself; a gateway announces narrower ones in WELCOME. */
export const frameLimits = {
  bodyBytes: 65_536,
  inputBytes: 16_384,
  tokens: 1024,
  appBytes: 64,
  versionBytes: 32,
  errorTextBytes: 200,
  resultBytes: 2048,
} as const
export const tokenBytes = 32
export const keyIdBytes = 32
export const traceIdBytes = 16
export const instanceIdBytes = 16

export const frameTypes = {
  HELLO: 1,
  WELCOME: 2,
  REQUEST: 3,
  RESULT: 4,
  ERROR: 5,
  PING: 6,
  PONG: 7,
  GOAWAY: 8,
} as const
export type FrameType = keyof typeof frameTypes

/** Who may send what, and the longest body of it. */
export const clientFrames: ReadonlyMap<number, FrameType> = new Map([
  [frameTypes.HELLO, 'HELLO'],
  [frameTypes.REQUEST, 'REQUEST'],
  [frameTypes.PING, 'PING'],
])
export const gatewayFrames: ReadonlyMap<number, FrameType> = new Map([
  [frameTypes.WELCOME, 'WELCOME'],
  [frameTypes.RESULT, 'RESULT'],
  [frameTypes.ERROR, 'ERROR'],
  [frameTypes.PONG, 'PONG'],
  [frameTypes.GOAWAY, 'GOAWAY'],
])

export const signatureAlgorithms = { rsaPkcs1: 1, rsaPss: 2, ecdsa: 3, eddsa: 4 } as const
export const hashAlgorithms = { none: 0, sha256: 1, sha384: 2, sha512: 3 } as const
export const inputKinds = { message: 1, digest: 2, rawPkcs1: 3 } as const
export const featureBits = { relayEvidence: 1 } as const
export const errorNumbers = {
  badRequest: 1,
  unauthenticated: 2,
  policyDenied: 3,
  keyNotFound: 4,
  unsupported: 5,
  busy: 6,
  hsm: 7,
  deadline: 8,
  shuttingDown: 9,
  internal: 10,
} as const

/** Bytes that are no HKS/1. */
export class FrameError extends Error {
  override readonly name = 'FrameError'
}

export interface Head {
  readonly type: FrameType
  readonly bodyBytes: number
  readonly requestId: number
  /** REQUEST: remaining budget in ms, 0 = the gateway's default. RESULT and ERROR: time in the gateway in microseconds. Else 0. */
  readonly aux: number
}

export interface Hello {
  readonly minVersion: number
  readonly maxVersion: number
  readonly app: string
  readonly pid: number
  readonly providerVersion: string
  readonly tokens: readonly Buffer[]
}

export interface Welcome {
  readonly version: number
  readonly maxBodyBytes: number
  readonly maxInputBytes: number
  readonly maxInFlight: number
  readonly maxTokens: number
  readonly instanceId: Buffer
  readonly features: number
  readonly maxBudgetMs: number
  /** A connection without traffic is closed after so long; 0 = never. */
  readonly idleMs: number
}

/** What a relay says about the process at its own socket: evidence for the audit record, never for a decision. */
export interface Reported {
  readonly uid?: number
  readonly pid?: number
  readonly app?: string
}

export interface Request {
  readonly keyId: Buffer
  readonly tokenIndex: number
  readonly algorithm: number
  readonly hash: number
  /** PSS alone. */
  readonly mgfHash: number | undefined
  /** PSS alone: bytes. */
  readonly saltBytes: number | undefined
  readonly inputKind: number
  readonly input: Buffer
  readonly traceId: Buffer | undefined
  /** A token to be put at the end of the connection's table first; `tokenIndex` is then its index. */
  readonly newToken: Buffer | undefined
  readonly reported: Reported | undefined
}

export interface ErrorBody {
  readonly code: number
  readonly retryable: boolean
  readonly text: string
}

export const helloTags = { versions: 1, app: 2, pid: 3, providerVersion: 4, token: 5 } as const
export const welcomeTags = {
  version: 1,
  maxBodyBytes: 2,
  maxInputBytes: 3,
  maxInFlight: 4,
  maxTokens: 5,
  instanceId: 6,
  features: 7,
  maxBudgetMs: 8,
  idleMs: 9,
} as const
export const requestTags = {
  keyId: 1,
  tokenIndex: 2,
  algorithm: 3,
  hash: 4,
  mgfHash: 5,
  saltBytes: 6,
  inputKind: 7,
  input: 8,
  traceId: 9,
  newToken: 10,
  reportedUid: 16,
  reportedPid: 17,
  reportedApp: 18,
} as const
/** A receiver skips tags from here on that it doesn't know; all others it refuses. */
export const firstOptionalTag = 0x80
export const itemHeadBytes = 3

/** @throws FrameError for a head that this direction and these limits don't allow. */
export function decodeHead(
  buffer: Buffer,
  at: number,
  allowed: ReadonlyMap<number, FrameType>,
  maxRequestBytes: number,
): Head {
  const bodyBytes = buffer.readUInt32BE(at)
  if (buffer[at + 4] !== frameVersion) throw new FrameError('unknown version')
  const type = allowed.get(buffer[at + 5]!)
  if (type === undefined) throw new FrameError('unknown frame type')
  if (buffer[at + 6] !== 0 || buffer[at + 7] !== 0) throw new FrameError('unknown flags')
  if (bodyBytes > longestBody(type, maxRequestBytes)) throw new FrameError(`${type} too long`)
  return { type, bodyBytes, requestId: buffer.readUInt32BE(at + 8), aux: buffer.readUInt32BE(at + 12) }
}

function longestBody(type: FrameType, maxRequestBytes: number): number {
  if (type === 'REQUEST') return maxRequestBytes
  if (type === 'HELLO' || type === 'WELCOME') return frameLimits.bodyBytes
  if (type === 'RESULT') return frameLimits.resultBytes
  if (type === 'ERROR') return 3 + frameLimits.errorTextBytes
  return 0
}
