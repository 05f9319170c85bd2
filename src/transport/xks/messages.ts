/**
 * Request bodies of the XKS proxy API (version 1.0.3), from untrusted bytes to typed values. Unknown members and unknown values of kmsOperation are
 * accepted, as the API demands; what a member may hold is checked before it is decoded. Messages name members, never their values.
 */
import { GatewayError } from '../../error.ts'
import { metadataBytesMax } from './additional-data.ts'
import { invalid } from './xks-error.ts'

/** Who called AWS KMS and why; for log, audit and policy. Absent members are absent. */
export interface RequestMetadata {
  readonly kmsRequestId: string
  readonly kmsOperation: string
  readonly awsPrincipalArn?: string
  readonly kmsKeyArn?: string
  readonly awsSourceVpc?: string
  readonly awsSourceVpce?: string
  readonly kmsViaService?: string
}

export interface EncryptRequest {
  readonly requestMetadata: RequestMetadata
  readonly plaintext: Buffer
  /** Undefined where the request has none. */
  readonly aad: Buffer | undefined
  readonly wantsIntegrityValue: boolean
}

export interface DecryptRequest {
  readonly requestMetadata: RequestMetadata
  readonly ciphertext: Buffer
  readonly iv: Buffer
  readonly tag: Buffer
  readonly metadata: Buffer
  readonly aad: Buffer | undefined
}

/** In base64. The API demands 5736 (4300 bytes) and 10,924 (8192 bytes); these are the limits of AWS's sample proxy. */
const plaintextCharsMax = 8192
const aadCharsMax = 16_384
/** The longest ARN. */
const metadataCharsMax = 2048
const ivLengths: readonly number[] = [12, 16]
const tagBytes = 16
const nothing = Buffer.alloc(0)

type Members = Readonly<Record<string, unknown>>
type Api = 'health' | 'metadata' | 'crypto'

/** @throws GatewayError `ValidationFailed` */
export function parseBody(bytes: Buffer): Members {
  let value: unknown
  try {
    value = JSON.parse(decoder.decode(bytes))
  } catch {
    throw invalid('The body is not JSON in UTF-8.')
  }
  if (!isObject(value)) throw invalid('The body is not a JSON object.')
  return value
}

const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

const metadataMembers = [
  'kmsRequestId',
  'kmsOperation',
  'awsPrincipalArn',
  'kmsKeyArn',
  'awsSourceVpc',
  'awsSourceVpce',
  'kmsViaService',
] as const

const requiredMembers: Readonly<Record<Api, readonly string[]>> = {
  health: ['kmsRequestId', 'kmsOperation'],
  metadata: ['kmsRequestId', 'kmsOperation', 'awsPrincipalArn'],
  crypto: ['kmsRequestId', 'kmsOperation', 'awsPrincipalArn', 'kmsKeyArn'],
}

/** @throws GatewayError `ValidationFailed` */
export function parseRequestMetadata(body: Members, api: Api): RequestMetadata {
  const given = own(body, 'requestMetadata')
  if (!isObject(given)) throw invalid('requestMetadata is missing or not an object.')
  const parsed: Record<string, string> = {}
  for (const name of metadataMembers) {
    const value = own(given, name)
    if (value === undefined || value === null) {
      if (requiredMembers[api].includes(name)) throw invalid(`requestMetadata.${name} is missing.`)
    } else if (typeof value !== 'string') {
      throw invalid(`requestMetadata.${name} is not a string.`)
    } else if (value.length > metadataCharsMax) {
      throw invalid(`requestMetadata.${name} has more than ${metadataCharsMax} characters.`)
    } else {
      parsed[name] = value
    }
  }
  return parsed as unknown as RequestMetadata
}

/** @throws GatewayError `ValidationFailed`, `Unsupported` for what is longer than this proxy takes */
export function parseEncrypt(body: Members): EncryptRequest {
  const requestMetadata = parseRequestMetadata(body, 'crypto')
  requireAlgorithm(body)
  const integrity = optionalText(body, 'ciphertextDataIntegrityValueAlgorithm')
  if (integrity !== undefined && integrity !== 'SHA_256') {
    throw invalid('ciphertextDataIntegrityValueAlgorithm is not SHA_256.')
  }
  const aad = optionalBytes(body, 'additionalAuthenticatedData', aadCharsMax)
  const plaintext = requiredBytes(body, 'plaintext', plaintextCharsMax)
  return { requestMetadata, plaintext, aad, wantsIntegrityValue: integrity !== undefined }
}

/** @throws GatewayError `ValidationFailed`, `Unsupported` for what is longer than this proxy takes */
export function parseDecrypt(body: Members): DecryptRequest {
  const requestMetadata = parseRequestMetadata(body, 'crypto')
  requireAlgorithm(body)
  const aad = optionalBytes(body, 'additionalAuthenticatedData', aadCharsMax)
  const metadata = optionalBytes(body, 'ciphertextMetadata', aadCharsMax) ?? nothing
  if (metadata.length > metadataBytesMax) throw invalid(`ciphertextMetadata has more than ${metadataBytesMax} bytes.`)
  const iv = requiredBytes(body, 'initializationVector', aadCharsMax)
  if (!ivLengths.includes(iv.length)) throw invalid('initializationVector has neither 12 nor 16 bytes.')
  const tag = requiredBytes(body, 'authenticationTag', aadCharsMax)
  if (tag.length !== tagBytes) throw invalid(`authenticationTag does not have ${tagBytes} bytes.`)
  const ciphertext = requiredBytes(body, 'ciphertext', plaintextCharsMax)
  return { requestMetadata, ciphertext, iv, tag, metadata, aad }
}

function requireAlgorithm(body: Members): void {
  if (own(body, 'encryptionAlgorithm') !== 'AES_GCM') throw invalid('encryptionAlgorithm is not AES_GCM.')
}

function optionalText(body: Members, name: string): string | undefined {
  const value = own(body, name)
  if (value === undefined || value === null) return undefined
  if (typeof value !== 'string') throw invalid(`${name} is not a string.`)
  return value
}

function optionalBytes(body: Members, name: string, charsMax: number): Buffer | undefined {
  const text = optionalText(body, name)
  return text === undefined ? undefined : decodeBase64(text, name, charsMax)
}

function requiredBytes(body: Members, name: string, charsMax: number): Buffer {
  const bytes = optionalBytes(body, name, charsMax)
  if (bytes === undefined || bytes.length === 0) throw invalid(`${name} is missing or empty.`)
  return bytes
}

/** RFC 4648 section 4 with padding, and only the one encoding that each byte sequence has (section 3.5). */
function decodeBase64(text: string, name: string, charsMax: number): Buffer {
  if (text.length > charsMax) {
    throw new GatewayError('Unsupported', { text: `${name} has more than ${charsMax} characters of base64.` })
  }
  const bytes = Buffer.from(text, 'base64')
  if (bytes.toString('base64') !== text) {
    bytes.fill(0)
    throw invalid(`${name} is not base64 with padding.`)
  }
  return bytes
}

function own(members: Members, name: string): unknown {
  return Object.hasOwn(members, name) ? members[name] : undefined
}

function isObject(value: unknown): value is Members {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
