/**
 * Bodies of the XKS proxy API, version 1: what KMS sends, and what it accepts as an answer. Whatever an answer lacks, or has in another length than the
 * specification says, makes it malformed; nothing of a malformed answer is used.
 */
import { createHash, timingSafeEqual } from 'node:crypto'
import type { ExternalCiphertext } from '../keys/keys.ts'
import { kindOfErrorName, ProxyFailure } from './proxy-failures.ts'

export const ivLengths: readonly number[] = [12, 16]
export const tagBytes = 16
/** Longest `ciphertextMetadata` before base64. */
export const maxMetadataBytes = 20

type Json = Readonly<Record<string, unknown>>

export interface RequestMetadata {
  readonly kmsRequestId: string
  readonly kmsOperation: string
  readonly awsPrincipalArn?: string
  readonly kmsKeyArn?: string
}

const base64 = (bytes: Uint8Array): string =>
  Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('base64')

export function encodeMetadataRequest(requestMetadata: RequestMetadata): Buffer {
  return Buffer.from(JSON.stringify({ requestMetadata }))
}

export function encodeEncryptRequest(requestMetadata: RequestMetadata, plaintext: Uint8Array, aad: Uint8Array): Buffer {
  return Buffer.from(
    JSON.stringify({
      requestMetadata,
      additionalAuthenticatedData: base64(aad),
      plaintext: base64(plaintext),
      encryptionAlgorithm: 'AES_GCM',
      ciphertextDataIntegrityValueAlgorithm: 'SHA_256',
    }),
  )
}

export function encodeDecryptRequest(
  requestMetadata: RequestMetadata,
  { metadata, iv, tag, ciphertext }: ExternalCiphertext,
  aad: Uint8Array,
): Buffer {
  return Buffer.from(
    JSON.stringify({
      requestMetadata,
      additionalAuthenticatedData: base64(aad),
      encryptionAlgorithm: 'AES_GCM',
      initializationVector: base64(iv),
      authenticationTag: base64(tag),
      ciphertext: base64(ciphertext),
      ...(metadata.length === 0 ? {} : { ciphertextMetadata: base64(metadata) }),
    }),
  )
}

/** The answer to an Encrypt of `plaintext` with `aad`, its data integrity value verified. @throws ProxyFailure `Malformed` */
export function parseEncryptAnswer(answer: Json, plaintext: Uint8Array, aad: Uint8Array): ExternalCiphertext {
  const sealed: ExternalCiphertext = {
    ciphertext: bytesOf(answer, 'ciphertext', (length) => length === plaintext.length),
    iv: bytesOf(answer, 'initializationVector', (length) => ivLengths.includes(length)),
    tag: bytesOf(answer, 'authenticationTag', (length) => length === tagBytes),
    metadata:
      answer.ciphertextMetadata == null
        ? Buffer.alloc(0)
        : bytesOf(answer, 'ciphertextMetadata', (length) => length <= maxMetadataBytes),
  }
  const claimed = bytesOf(answer, 'ciphertextDataIntegrityValue', (length) => length === 32)
  if (!timingSafeEqual(claimed, integrityValueOf(sealed, aad))) {
    throw new ProxyFailure('Malformed', 'the data integrity value of the ciphertext is wrong')
  }
  return sealed
}

/** SHA-256 over AAD, metadata, IV, ciphertext and tag, as they are. */
export function integrityValueOf({ metadata, iv, ciphertext, tag }: ExternalCiphertext, aad: Uint8Array): Buffer {
  const hash = createHash('sha256')
  for (const part of [aad, metadata, iv, ciphertext, tag]) hash.update(part)
  return hash.digest()
}

/** @throws ProxyFailure `Malformed` */
export function parseDecryptAnswer(answer: Json, { ciphertext }: ExternalCiphertext): Buffer {
  return bytesOf(answer, 'plaintext', (length) => length === ciphertext.length)
}

const healthStatuses: readonly unknown[] = ['ACTIVE', 'DEGRADED', 'UNAVAILABLE']

/** @throws ProxyFailure `Malformed`, `Unhealthy` */
export function checkHealthAnswer(answer: Json): void {
  const { xksProxyFleetSize: size, ekmFleetDetails: fleet } = answer
  for (const name of ['xksProxyVendor', 'xksProxyModel', 'ekmVendor']) {
    if (typeof answer[name] !== 'string') throw malformed(name)
  }
  if (!Number.isSafeInteger(size) || (size as number) < 1) throw malformed('xksProxyFleetSize')
  if (!Array.isArray(fleet) || fleet.length < 1 || fleet.length > 10) throw malformed('ekmFleetDetails')
  for (const each of fleet) {
    const { id, model, healthStatus } = (each ?? {}) as Json
    if (typeof id !== 'string' || typeof model !== 'string' || !healthStatuses.includes(healthStatus)) {
      throw malformed('ekmFleetDetails')
    }
  }
  if (fleet.every(({ healthStatus }) => healthStatus === 'UNAVAILABLE')) {
    throw new ProxyFailure('Unhealthy', 'all key managers are unavailable')
  }
}

export interface ExternalKeyMetadata {
  readonly keySpec: string
  readonly keyUsage: readonly string[]
  readonly keyStatus: string
}

/** @throws ProxyFailure `Malformed` */
export function parseKeyMetadataAnswer({ keySpec, keyUsage, keyStatus }: Json): ExternalKeyMetadata {
  if (typeof keySpec !== 'string') throw malformed('keySpec')
  if (typeof keyStatus !== 'string') throw malformed('keyStatus')
  if (!Array.isArray(keyUsage) || keyUsage.length > 10 || keyUsage.some((usage) => typeof usage !== 'string')) {
    throw malformed('keyUsage')
  }
  return { keySpec, keyUsage, keyStatus }
}

/** @throws ProxyFailure of the kind that the proxy named, or `Malformed`. */
export function parseAnswer(status: number, text: string): Json {
  let answer: unknown
  try {
    answer = JSON.parse(text)
  } catch {
    // A proxy may quote what it was sent: the text goes nowhere.
    throw new ProxyFailure('Malformed', `status ${status}, not JSON`)
  }
  if (typeof answer !== 'object' || answer === null || Array.isArray(answer)) throw malformed('the body')
  if (status === 200) return answer as Json
  const kind = kindOfErrorName((answer as Json).errorName)
  if (kind === undefined || status < 400) throw new ProxyFailure('Malformed', `status ${status} without a known error`)
  throw new ProxyFailure(kind, `status ${status}`)
}

function malformed(name: string): ProxyFailure {
  return new ProxyFailure('Malformed', `${name} is missing or not as specified`)
}

/** Standard alphabet, padded, canonical (RFC 4648 section 4). */
function bytesOf(answer: Json, name: string, isLength: (length: number) => boolean): Buffer {
  const text = answer[name]
  if (typeof text !== 'string') throw malformed(name)
  const bytes = Buffer.from(text, 'base64')
  if (!isLength(bytes.length) || bytes.toString('base64') !== text) throw malformed(name)
  return bytes
}
