/**
 * The key reference: the file that a web server holds instead of a private key. It names the key by its public half and carries the
 * capability token; nothing in it signs anything without the gateway. Pure.
 *
 *     KeyReference ::= SEQUENCE {                       -- DER, IMPLICIT TAGS, at most 16 KiB
 *       version   INTEGER (1),
 *       keyId     OCTET STRING (SIZE (32)),             -- SHA-256 of the DER of publicKey
 *       publicKey SubjectPublicKeyInfo,
 *       endpoint  [0] UTF8String (SIZE (1..64)) OPTIONAL,
 *       token     [1] OCTET STRING (SIZE (32)) OPTIONAL,
 *       comment   [2] UTF8String (SIZE (0..256)) OPTIONAL }
 *
 * In PEM its label is `HSMGATE KEY REFERENCE`: without the words PRIVATE KEY no program takes it for a key that it could read.
 * native/provider reads the same; test/vectors/key-reference.json holds both to it. Sizes of text are bytes of UTF-8.
 */
import { createHash, timingSafeEqual } from 'node:crypto'

export interface KeyReference {
  /** DER SubjectPublicKeyInfo. */
  readonly publicKey: Buffer
  /** Alias of the endpoint that the provider's configuration gives an address to; without it the default one. */
  readonly endpoint?: string
  /** 32 bytes; a secret. */
  readonly token?: Buffer
  readonly comment?: string
}

/** Why bytes are no key reference, in words for an operator. */
export class KeyReferenceError extends Error {
  override readonly name = 'KeyReferenceError'
}

export const referenceLabel = 'HSMGATE KEY REFERENCE'
export const tokenBytes = 32

const version = 1
const keyIdBytes = 32
const maxDerBytes = 16 * 1024
/** A chain of certificates may stand in the same file. */
const maxFileBytes = 1024 * 1024
const maxEndpointBytes = 64
const maxCommentBytes = 256

const tags = { integer: 0x02, octets: 0x04, sequence: 0x30, endpoint: 0x80, token: 0x81, comment: 0x82 } as const

/** SHA-256 of the SubjectPublicKeyInfo: what the reference and the signing protocol call the key by. */
export function keyIdOf(publicKey: Uint8Array): Buffer {
  return createHash('sha256').update(publicKey).digest()
}

/** @throws KeyReferenceError when a member is longer than the format allows. */
export function encodeReference({ publicKey, endpoint, token, comment }: KeyReference): Buffer {
  if (publicKey[0] !== tags.sequence) throw new KeyReferenceError('the public key is no SubjectPublicKeyInfo')
  if (token !== undefined && token.length !== tokenBytes) throw new KeyReferenceError(`a token has ${tokenBytes} bytes`)
  const der = tlv(
    tags.sequence,
    tlv(tags.integer, Buffer.of(version)),
    tlv(tags.octets, keyIdOf(publicKey)),
    publicKey,
    ...(endpoint === undefined ? [] : [tlv(tags.endpoint, sized('endpoint', endpoint, 1, maxEndpointBytes))]),
    ...(token === undefined ? [] : [tlv(tags.token, token)]),
    ...(comment === undefined ? [] : [tlv(tags.comment, sized('comment', comment, 0, maxCommentBytes))]),
  )
  if (der.length > maxDerBytes) throw new KeyReferenceError(`it would be longer than ${maxDerBytes} bytes`)
  return der
}

/** @throws KeyReferenceError */
export function decodeReference(der: Uint8Array): KeyReference {
  if (der.length > maxDerBytes) throw new KeyReferenceError(`it is longer than ${maxDerBytes} bytes`)
  const outer = createReader(Buffer.from(der.buffer, der.byteOffset, der.byteLength))
  const reader = createReader(outer.take(tags.sequence, 'the sequence'))
  outer.end()
  const number = reader.take(tags.integer, 'the version')
  if (!number.equals(Buffer.of(version))) throw new KeyReferenceError(`its version is not ${version}`)
  const keyId = reader.take(tags.octets, 'the key id')
  if (keyId.length !== keyIdBytes) throw new KeyReferenceError(`its key id has not ${keyIdBytes} bytes`)
  const publicKey = reader.takeWhole(tags.sequence, 'the public key')
  const endpoint = text('endpoint', reader.find(tags.endpoint), 1, maxEndpointBytes)
  const token = reader.find(tags.token)
  if (token !== undefined && token.length !== tokenBytes) {
    throw new KeyReferenceError(`its token has not ${tokenBytes} bytes`)
  }
  const comment = text('comment', reader.find(tags.comment), 0, maxCommentBytes)
  reader.end()
  if (!timingSafeEqual(keyId, keyIdOf(publicKey))) {
    throw new KeyReferenceError('its key id is not the SHA-256 of its public key')
  }
  return {
    publicKey,
    ...(endpoint === undefined ? {} : { endpoint }),
    ...(token === undefined ? {} : { token }),
    ...(comment === undefined ? {} : { comment }),
  }
}

/** RFC 7468, lines of 64 characters. */
export function encodeReferencePem(reference: KeyReference): string {
  const der = encodeReference(reference)
  const lines = der.toString('base64').match(/.{1,64}/g) ?? []
  der.fill(0)
  return `-----BEGIN ${referenceLabel}-----\n${lines.join('\n')}\n-----END ${referenceLabel}-----\n`
}

/**
 * The one reference in a file, which may hold certificates and other text around it.
 * @throws KeyReferenceError when there is none, or more than one.
 */
export function decodeReferencePem(file: string): KeyReference {
  if (Buffer.byteLength(file) > maxFileBytes)
    throw new KeyReferenceError(`the file is longer than ${maxFileBytes} bytes`)
  const lines = file.split(/\r?\n/)
  const starts = lines.flatMap((line, at) => (line.trimEnd() === `-----BEGIN ${referenceLabel}-----` ? [at] : []))
  const [start] = starts
  if (start === undefined) throw new KeyReferenceError(`there is no ${referenceLabel} in it`)
  if (starts.length > 1) throw new KeyReferenceError('there is more than one reference in it')
  const end = lines.findIndex((line, at) => at > start && line.trimEnd() === `-----END ${referenceLabel}-----`)
  if (end < 0) throw new KeyReferenceError('it is cut off: its last line is missing')
  const base64 = lines
    .slice(start + 1, end)
    .map((line) => line.trim())
    .join('')
  const der = Buffer.from(base64, 'base64')
  // Node skips what is no base64; whatever comes back the same was base64
  if (der.toString('base64') !== base64) throw new KeyReferenceError('it is not base64')
  const { token, ...rest } = decodeReference(der)
  const reference = { ...rest, publicKey: Buffer.from(rest.publicKey), ...(token && { token: Buffer.from(token) }) }
  der.fill(0)
  return reference
}

function sized(name: string, value: string, min: number, max: number): Buffer {
  const bytes = Buffer.from(value, 'utf8')
  if (bytes.length < min || bytes.length > max || !value.isWellFormed()) {
    throw new KeyReferenceError(`${name} has ${min} to ${max} bytes of UTF-8`)
  }
  return bytes
}

function text(name: string, bytes: Buffer | undefined, min: number, max: number): string | undefined {
  if (bytes === undefined) return undefined
  if (bytes.length < min || bytes.length > max)
    throw new KeyReferenceError(`its ${name} has not ${min} to ${max} bytes`)
  const value = bytes.toString('utf8')
  if (!Buffer.from(value, 'utf8').equals(bytes)) throw new KeyReferenceError(`its ${name} is not UTF-8`)
  return value
}

function tlv(tag: number, ...parts: readonly Uint8Array[]): Buffer {
  const length = parts.reduce((sum, part) => sum + part.length, 0)
  return Buffer.concat([Buffer.of(tag, ...lengthBytes(length)), ...parts])
}

function lengthBytes(length: number): readonly number[] {
  if (length < 0x80) return [length]
  return length < 0x100 ? [0x81, length] : [0x82, length >> 8, length & 0xff]
}

/** Reads DER values one after another; every length is checked against what is there before anything is made of it. */
function createReader(bytes: Buffer) {
  let at = 0

  function readHeader(name: string): { readonly start: number; readonly end: number } {
    const cutOff = () => new KeyReferenceError(`it is cut off in ${name}`)
    const first = bytes[at + 1]
    if (first === undefined) throw cutOff()
    const count = first < 0x80 ? 0 : first & 0x7f
    if (count > 2 || first === 0x80) throw new KeyReferenceError(`the length of ${name} is not DER`)
    if (at + 2 + count > bytes.length) throw cutOff()
    const length = count === 0 ? first : bytes.readUIntBE(at + 2, count)
    if (count > 0 && lengthBytes(length).length !== count + 1) {
      throw new KeyReferenceError(`the length of ${name} is not DER`)
    }
    const start = at + 2 + count
    if (start + length > bytes.length) throw cutOff()
    return { start, end: start + length }
  }

  function next(tag: number, name: string) {
    if (at >= bytes.length) throw new KeyReferenceError(`it lacks ${name}`)
    if (bytes[at] !== tag) throw new KeyReferenceError(`${name} is not where it should be`)
    const from = at
    const { start, end } = readHeader(name)
    at = end
    return { whole: bytes.subarray(from, end), value: bytes.subarray(start, end) }
  }

  return {
    take: (tag: number, name: string) => next(tag, name).value,
    /** With its header. */
    takeWhole: (tag: number, name: string) => next(tag, name).whole,
    find: (tag: number) => (bytes[at] === tag ? next(tag, 'an optional member').value : undefined),
    end() {
      if (at < bytes.length) throw new KeyReferenceError('bytes are left over')
    },
  }
}
