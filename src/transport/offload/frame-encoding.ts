/** Fields of HKS/1 frames into bytes, for both ends. Values that don't fit are a TypeError. */
import {
  type ErrorBody,
  type FrameType,
  frameLimits,
  frameTypes,
  frameVersion,
  type Hello,
  headBytes,
  helloTags,
  instanceIdBytes,
  itemHeadBytes,
  keyIdBytes,
  type Request,
  requestTags,
  tokenBytes,
  traceIdBytes,
  type Welcome,
  welcomeTags,
} from './frames.ts'

function frame(type: FrameType, requestId: number, aux: number, bodyBytes: number): Buffer {
  if (bodyBytes > frameLimits.bodyBytes) throw new TypeError(`${type} of ${bodyBytes} bytes`)
  const buffer = Buffer.allocUnsafe(headBytes + bodyBytes)
  buffer.writeUInt32BE(bodyBytes, 0)
  buffer[4] = frameVersion
  buffer[5] = frameTypes[type]
  buffer[6] = 0
  buffer[7] = 0
  buffer.writeUInt32BE(requestId, 8)
  buffer.writeUInt32BE(aux, 12)
  return buffer
}

type Item = readonly [tag: number, value: Uint8Array]

function unsigned(value: number, width: 1 | 2 | 4): Buffer {
  const buffer = Buffer.alloc(width)
  buffer.writeUIntBE(value, 0, width)
  return buffer
}

function fixed(value: Uint8Array, length: number, name: string): Uint8Array {
  if (value.length !== length) throw new TypeError(`${name} of ${value.length} bytes`)
  return value
}

function text(value: string, max: number, name: string): Buffer {
  const bytes = Buffer.from(value, 'utf8')
  if (bytes.length === 0 || bytes.length > max) throw new TypeError(`${name} of ${bytes.length} bytes`)
  return bytes
}

function frameOfItems(type: FrameType, requestId: number, aux: number, items: readonly Item[]): Buffer {
  let bytes = 0
  for (const [, value] of items) bytes += itemHeadBytes + value.length
  const buffer = frame(type, requestId, aux, bytes)
  let at = headBytes
  for (const [tag, value] of items) {
    buffer[at] = tag
    buffer.writeUInt16BE(value.length, at + 1)
    buffer.set(value, at + itemHeadBytes)
    at += itemHeadBytes + value.length
  }
  return buffer
}

/** The frame holds tokens: wipe it once it is sent. */
export function encodeHello(hello: Hello): Buffer {
  if (hello.tokens.length > frameLimits.tokens) throw new TypeError(`${hello.tokens.length} tokens`)
  return frameOfItems('HELLO', 0, 0, [
    [helloTags.versions, Uint8Array.of(hello.minVersion, hello.maxVersion)],
    [helloTags.app, text(hello.app, frameLimits.appBytes, 'app')],
    [helloTags.pid, unsigned(hello.pid, 4)],
    [helloTags.providerVersion, text(hello.providerVersion, frameLimits.versionBytes, 'providerVersion')],
    ...hello.tokens.map((token): Item => [helloTags.token, fixed(token, tokenBytes, 'token')]),
  ])
}

export function encodeWelcome(welcome: Welcome): Buffer {
  return frameOfItems('WELCOME', 0, 0, [
    [welcomeTags.version, unsigned(welcome.version, 1)],
    [welcomeTags.maxBodyBytes, unsigned(welcome.maxBodyBytes, 4)],
    [welcomeTags.maxInputBytes, unsigned(welcome.maxInputBytes, 4)],
    [welcomeTags.maxInFlight, unsigned(welcome.maxInFlight, 2)],
    [welcomeTags.maxTokens, unsigned(welcome.maxTokens, 2)],
    [welcomeTags.instanceId, fixed(welcome.instanceId, instanceIdBytes, 'instanceId')],
    [welcomeTags.features, unsigned(welcome.features, 4)],
    [welcomeTags.maxBudgetMs, unsigned(welcome.maxBudgetMs, 4)],
    [welcomeTags.idleMs, unsigned(welcome.idleMs, 4)],
  ])
}

/** `budgetMs` = what remains of the caller's time. */
export function encodeRequest(requestId: number, budgetMs: number, request: Request): Buffer {
  if (request.input.length > frameLimits.inputBytes) throw new TypeError(`input of ${request.input.length} bytes`)
  const { reported } = request
  const items: (Item | undefined)[] = [
    [requestTags.keyId, fixed(request.keyId, keyIdBytes, 'keyId')],
    [requestTags.tokenIndex, unsigned(request.tokenIndex, 2)],
    [requestTags.algorithm, unsigned(request.algorithm, 1)],
    [requestTags.hash, unsigned(request.hash, 1)],
    request.mgfHash === undefined ? undefined : [requestTags.mgfHash, unsigned(request.mgfHash, 1)],
    request.saltBytes === undefined ? undefined : [requestTags.saltBytes, unsigned(request.saltBytes, 2)],
    [requestTags.inputKind, unsigned(request.inputKind, 1)],
    [requestTags.input, request.input],
    request.traceId && [requestTags.traceId, fixed(request.traceId, traceIdBytes, 'traceId')],
    request.newToken && [requestTags.newToken, fixed(request.newToken, tokenBytes, 'newToken')],
    reported?.uid === undefined ? undefined : [requestTags.reportedUid, unsigned(reported.uid, 4)],
    reported?.pid === undefined ? undefined : [requestTags.reportedPid, unsigned(reported.pid, 4)],
    reported?.app === undefined
      ? undefined
      : [requestTags.reportedApp, text(reported.app, frameLimits.appBytes, 'reportedApp')],
  ]
  return frameOfItems(
    'REQUEST',
    requestId,
    budgetMs,
    items.filter((item) => item !== undefined),
  )
}

export function encodeResult(requestId: number, micros: number, signature: Uint8Array): Buffer {
  if (signature.length === 0 || signature.length > frameLimits.resultBytes)
    throw new TypeError(`signature of ${signature.length} bytes`)
  const buffer = frame('RESULT', requestId, micros, signature.length)
  buffer.set(signature, headBytes)
  return buffer
}

/** A text that is too long is cut at a character. */
export function encodeError(requestId: number, micros: number, error: ErrorBody): Buffer {
  let bytes = Buffer.from(error.text, 'utf8')
  if (bytes.length > frameLimits.errorTextBytes) {
    let cut = frameLimits.errorTextBytes
    while ((bytes[cut]! & 0xc0) === 0x80) cut--
    bytes = bytes.subarray(0, cut)
  }
  const buffer = frame('ERROR', requestId, micros, 3 + bytes.length)
  buffer.writeUInt16BE(error.code, headBytes)
  buffer[headBytes + 2] = error.retryable ? 1 : 0
  buffer.set(bytes, headBytes + 3)
  return buffer
}

export function encodePing(requestId: number): Buffer {
  return frame('PING', requestId, 0, 0)
}

export function encodePong(requestId: number): Buffer {
  return frame('PONG', requestId, 0, 0)
}

export function encodeGoaway(): Buffer {
  return frame('GOAWAY', 0, 0, 0)
}
