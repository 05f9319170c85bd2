/**
 * Bytes of HKS/1 bodies into fields, for both ends. Every length is checked against its limit and its frame before anything is
 * allocated; decoded bytes are views into what arrived. Whatever does not parse is a FrameError.
 */
import { isUtf8 } from 'node:buffer'
import {
  type ErrorBody,
  FrameError,
  firstOptionalTag,
  frameLimits,
  type Hello,
  helloTags,
  instanceIdBytes,
  itemHeadBytes,
  keyIdBytes,
  type Request,
  requestTags,
  signatureAlgorithms,
  tokenBytes,
  traceIdBytes,
  type Welcome,
  welcomeTags,
} from './frames.ts'

type OnItem = (tag: number, at: number, end: number) => boolean

/**
 * Walks items in ascending order of tags; `repeatable` alone may come more than once. `onItem` says whether it knows the tag.
 * @throws FrameError
 */
function walkItems(buffer: Buffer, at: number, end: number, repeatable: number, onItem: OnItem): void {
  let last = -1
  while (at < end) {
    if (end - at < itemHeadBytes) throw new FrameError('item reaches beyond its frame')
    const tag = buffer[at]!
    const length = (buffer[at + 1]! << 8) | buffer[at + 2]!
    at += itemHeadBytes
    if (length > end - at) throw new FrameError('item reaches beyond its frame')
    if (tag < last || (tag === last && tag !== repeatable)) throw new FrameError('items not in ascending order')
    last = tag
    if (!onItem(tag, at, at + length) && tag < firstOptionalTag) throw new FrameError(`unknown item ${tag}`)
    at += length
  }
}

function takeBytes(buffer: Buffer, at: number, end: number, length: number, name: string): Buffer {
  if (end - at !== length) throw new FrameError(`${name} of wrong length`)
  return buffer.subarray(at, end)
}

function takeUnsigned(buffer: Buffer, at: number, end: number, length: 1 | 2 | 4, name: string): number {
  if (end - at !== length) throw new FrameError(`${name} of wrong length`)
  return length === 1 ? buffer[at]! : length === 2 ? buffer.readUInt16BE(at) : buffer.readUInt32BE(at)
}

function takeText(buffer: Buffer, at: number, end: number, max: number, name: string): string {
  if (end === at || end - at > max) throw new FrameError(`${name} of wrong length`)
  return decodeText(buffer, at, end, name)
}

function decodeText(buffer: Buffer, at: number, end: number, name: string): string {
  for (let i = at; i < end; i++)
    if (buffer[i]! < 0x20 || buffer[i] === 0x7f) throw new FrameError(`${name} has control characters`)
  if (!isUtf8(buffer.subarray(at, end))) throw new FrameError(`${name} is not UTF-8`)
  return buffer.toString('utf8', at, end)
}

function required<Value>(value: Value | undefined, name: string): Value {
  if (value === undefined) throw new FrameError(`${name} missing`)
  return value
}

/** @throws FrameError */
export function decodeHello(buffer: Buffer, at: number, end: number): Hello {
  let versions: Buffer | undefined
  let app: string | undefined
  let pid: number | undefined
  let providerVersion: string | undefined
  const tokens: Buffer[] = []
  walkItems(buffer, at, end, helloTags.token, (tag, from, to) => {
    if (tag === helloTags.versions) versions = takeBytes(buffer, from, to, 2, 'versions')
    else if (tag === helloTags.app) app = takeText(buffer, from, to, frameLimits.appBytes, 'app')
    else if (tag === helloTags.pid) pid = takeUnsigned(buffer, from, to, 4, 'pid')
    else if (tag === helloTags.providerVersion)
      providerVersion = takeText(buffer, from, to, frameLimits.versionBytes, 'providerVersion')
    else if (tag === helloTags.token) {
      if (tokens.length === frameLimits.tokens) throw new FrameError('too many tokens')
      tokens.push(takeBytes(buffer, from, to, tokenBytes, 'token'))
    } else return false
    return true
  })
  const [minVersion = 0, maxVersion = 0] = required(versions as Buffer | undefined, 'versions')
  if (minVersion > maxVersion) throw new FrameError('versions in wrong order')
  return {
    minVersion,
    maxVersion,
    app: required(app, 'app'),
    pid: required(pid, 'pid'),
    providerVersion: required(providerVersion, 'providerVersion'),
    tokens,
  }
}

/** @throws FrameError */
export function decodeWelcome(buffer: Buffer, at: number, end: number): Welcome {
  const numbers = new Map<number, number>()
  let instanceId: Buffer | undefined
  walkItems(buffer, at, end, -1, (tag, from, to) => {
    if (tag === welcomeTags.instanceId) instanceId = takeBytes(buffer, from, to, instanceIdBytes, 'instanceId')
    else {
      const width = welcomeWidths.get(tag)
      if (width === undefined) return false
      numbers.set(tag, takeUnsigned(buffer, from, to, width, 'limit'))
    }
    return true
  })
  const number = (name: Exclude<keyof typeof welcomeTags, 'instanceId'>) =>
    required(numbers.get(welcomeTags[name]), name)
  return {
    version: number('version'),
    maxBodyBytes: number('maxBodyBytes'),
    maxInputBytes: number('maxInputBytes'),
    maxInFlight: number('maxInFlight'),
    maxTokens: number('maxTokens'),
    instanceId: required(instanceId, 'instanceId'),
    features: number('features'),
    maxBudgetMs: number('maxBudgetMs'),
    idleMs: number('idleMs'),
  }
}

const welcomeWidths: ReadonlyMap<number, 1 | 2 | 4> = new Map([
  [welcomeTags.version, 1],
  [welcomeTags.maxBodyBytes, 4],
  [welcomeTags.maxInputBytes, 4],
  [welcomeTags.maxInFlight, 2],
  [welcomeTags.maxTokens, 2],
  [welcomeTags.features, 4],
  [welcomeTags.maxBudgetMs, 4],
  [welcomeTags.idleMs, 4],
])

/** @throws FrameError. Numbers of algorithms are the caller's to judge. */
export function decodeRequest(buffer: Buffer, at: number, end: number): Request {
  let keyId: Buffer | undefined
  let tokenIndex: number | undefined
  let algorithm: number | undefined
  let hash: number | undefined
  let mgfHash: number | undefined
  let saltBytes: number | undefined
  let inputKind: number | undefined
  let input: Buffer | undefined
  let traceId: Buffer | undefined
  let newToken: Buffer | undefined
  let reported: { uid?: number; pid?: number; app?: string } | undefined
  walkItems(buffer, at, end, -1, (tag, from, to) => {
    switch (tag) {
      case requestTags.keyId:
        keyId = takeBytes(buffer, from, to, keyIdBytes, 'keyId')
        return true
      case requestTags.tokenIndex:
        tokenIndex = takeUnsigned(buffer, from, to, 2, 'tokenIndex')
        return true
      case requestTags.algorithm:
        algorithm = takeUnsigned(buffer, from, to, 1, 'algorithm')
        return true
      case requestTags.hash:
        hash = takeUnsigned(buffer, from, to, 1, 'hash')
        return true
      case requestTags.mgfHash:
        mgfHash = takeUnsigned(buffer, from, to, 1, 'mgfHash')
        return true
      case requestTags.saltBytes:
        saltBytes = takeUnsigned(buffer, from, to, 2, 'saltBytes')
        return true
      case requestTags.inputKind:
        inputKind = takeUnsigned(buffer, from, to, 1, 'inputKind')
        return true
      case requestTags.input:
        if (to - from > frameLimits.inputBytes) throw new FrameError('input too long')
        input = buffer.subarray(from, to)
        return true
      case requestTags.traceId:
        traceId = takeBytes(buffer, from, to, traceIdBytes, 'traceId')
        return true
      case requestTags.newToken:
        newToken = takeBytes(buffer, from, to, tokenBytes, 'newToken')
        return true
      case requestTags.reportedUid:
        reported = { ...reported, uid: takeUnsigned(buffer, from, to, 4, 'reportedUid') }
        return true
      case requestTags.reportedPid:
        reported = { ...reported, pid: takeUnsigned(buffer, from, to, 4, 'reportedPid') }
        return true
      case requestTags.reportedApp:
        reported = { ...reported, app: takeText(buffer, from, to, frameLimits.appBytes, 'reportedApp') }
        return true
      default:
        return false
    }
  })
  const isPss = algorithm === signatureAlgorithms.rsaPss
  if ((mgfHash !== undefined) !== isPss || (saltBytes !== undefined) !== isPss)
    throw new FrameError('mgfHash and saltBytes belong to PSS')
  return {
    keyId: required(keyId, 'keyId'),
    tokenIndex: required(tokenIndex, 'tokenIndex'),
    algorithm: required(algorithm, 'algorithm'),
    hash: required(hash, 'hash'),
    mgfHash,
    saltBytes,
    inputKind: required(inputKind, 'inputKind'),
    input: required(input, 'input'),
    traceId,
    newToken,
    reported,
  }
}

/** @throws FrameError */
export function decodeResult(buffer: Buffer, at: number, end: number): Buffer {
  if (end === at) throw new FrameError('empty RESULT')
  return buffer.subarray(at, end)
}

/** @throws FrameError */
export function decodeError(buffer: Buffer, at: number, end: number): ErrorBody {
  if (end - at < 3) throw new FrameError('ERROR too short')
  if (buffer[at + 2]! > 1) throw new FrameError('retryable is neither 0 nor 1')
  const text = end - at === 3 ? '' : decodeText(buffer, at + 3, end, 'text')
  return { code: buffer.readUInt16BE(at), retryable: buffer[at + 2] === 1, text }
}
