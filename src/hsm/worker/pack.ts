/**
 * Encoders for what crosses into the native addon as bytes: mechanism parameters, attribute templates, lists of attribute types;
 * and decoders for what comes back. The layouts are tables in native/README.md; all integers are little-endian, nothing is padded.
 * Pure functions. The caller wipes an encoded template that carries key material.
 */
import { paramKind } from './addon.ts'

/** Parameters of one mechanism, by the name of its kind in `paramKind`. Byte fields are copied. */
export type MechanismParams =
  | {
      readonly kind: 'gcm'
      /** With `ivMode: 'module'` only its length counts: the module chooses the IV and the output begins with it. */
      readonly iv: Uint8Array
      readonly aad?: Uint8Array
      /** Default 128. */
      readonly tagBits?: number
      /** Default `given`. */
      readonly ivMode?: 'given' | 'module'
    }
  | { readonly kind: 'oaep'; readonly hashAlg: number; readonly mgf: number }
  | { readonly kind: 'pss'; readonly hashAlg: number; readonly mgf: number; readonly saltLen: number }
  | { readonly kind: 'ecdh'; readonly kdf: number; readonly publicData: Uint8Array }
  | { readonly kind: 'stringData'; readonly data: Uint8Array }
  | { readonly kind: 'cbcData'; readonly iv: Uint8Array; readonly data: Uint8Array }
  | { readonly kind: 'eddsa'; readonly prehash: boolean; readonly context?: Uint8Array }
  | { readonly kind: 'raw'; readonly bytes: Uint8Array }
  | { readonly kind: 'sp800108'; readonly prf: number; readonly counterBits: number; readonly fixedInput: Uint8Array }

/** boolean = CK_BBOOL, number and bigint = CK_ULONG, bytes as they are, a template = an array attribute such as CKA_UNWRAP_TEMPLATE. */
export type AttributeValue = boolean | number | bigint | Uint8Array | Template

/** Attribute types and values, in the order in which the module sees them. */
export type Template = readonly (readonly [type: number, value: AttributeValue])[]

/** Length that marks an attribute which the module did not give (CK_UNAVAILABLE_INFORMATION). */
const unavailable = 0xffffffff
const attributeHeaderBytes = 12
const gcmIvBytesMax = 255
const cbcIvBytes = 16
const noBytes = new Uint8Array(0)

/** @throws TypeError on a value that the layout cannot hold */
export function encodeParams(params: MechanismParams): Buffer {
  switch (params.kind) {
    case 'gcm': {
      const { iv, aad = noBytes, tagBits = 128, ivMode = 'given' } = params
      if (iv.length === 0 || iv.length > gcmIvBytesMax) throw new TypeError('GCM IV must have 1 to 255 bytes')
      const mode = ivMode === 'module' ? 1 : 0
      return Buffer.concat([u8(paramKind.gcm), u8(iv.length), u8(tagBits), u8(mode), u32(aad.length), iv, aad])
    }
    case 'oaep':
      return Buffer.concat([u8(paramKind.oaep), u64(params.hashAlg), u64(params.mgf)])
    case 'pss':
      return Buffer.concat([u8(paramKind.pss), u64(params.hashAlg), u64(params.mgf), u64(params.saltLen)])
    case 'ecdh':
      return Buffer.concat([u8(paramKind.ecdh), u64(params.kdf), counted(params.publicData)])
    case 'stringData':
      return Buffer.concat([u8(paramKind.stringData), counted(params.data)])
    case 'cbcData':
      if (params.iv.length !== cbcIvBytes) throw new TypeError('AES-CBC IV must have 16 bytes')
      return Buffer.concat([u8(paramKind.cbcData), params.iv, counted(params.data)])
    case 'eddsa':
      return Buffer.concat([u8(paramKind.eddsa), u8(params.prehash ? 1 : 0), counted(params.context ?? noBytes)])
    case 'raw':
      return Buffer.concat([u8(paramKind.raw), counted(params.bytes)])
    case 'sp800108':
      return Buffer.concat([
        u8(paramKind.sp800108),
        u64(params.prf),
        u8(params.counterBits),
        counted(params.fixedInput),
      ])
  }
}

/** Repeated u64 type, u32 length, value; a nested template is packed the same way inside its value. */
export function encodeTemplate(template: Template): Buffer {
  const parts: Uint8Array[] = []
  for (const [type, value] of template) {
    const bytes = encodeValue(value)
    parts.push(u64(type), u32(bytes.length), bytes)
  }
  return Buffer.concat(parts)
}

/** The `aux` of a `getAttributes` job. */
export function encodeAttributeTypes(types: readonly number[]): Buffer {
  return Buffer.concat(types.map(u64))
}

/**
 * Output of a `getAttributes` job: value by attribute type, `null` where the module has none or does not show it.
 * The values are views into `bytes`.
 * @throws TypeError when `bytes` is not a whole number of attributes
 */
export function decodeAttributes(bytes: Uint8Array): Map<number, Buffer | null> {
  const view = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const attributes = new Map<number, Buffer | null>()
  let at = 0
  while (at < view.length) {
    if (view.length - at < attributeHeaderBytes) throw new TypeError('packed attributes end inside a header')
    const type = Number(view.readBigUInt64LE(at))
    const length = view.readUInt32LE(at + 8)
    at += attributeHeaderBytes
    if (length === unavailable) {
      attributes.set(type, null)
      continue
    }
    if (length > view.length - at) throw new TypeError('packed attributes end inside a value')
    attributes.set(type, view.subarray(at, at + length))
    at += length
  }
  return attributes
}

/** Output of a `find` job. */
export function decodeHandles(bytes: Uint8Array): bigint[] {
  if (bytes.length % 8 !== 0) throw new TypeError('packed handles must be a multiple of 8 bytes')
  const view = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  return Array.from({ length: view.length / 8 }, (_, index) => view.readBigUInt64LE(index * 8))
}

/** Value of a CK_ULONG attribute (CKA_KEY_TYPE, CKA_MODULUS_BITS, ...); CK_UNAVAILABLE_INFORMATION stays 2^64 - 1. */
export function decodeUlong(value: Uint8Array): bigint {
  if (value.length !== 8) throw new TypeError('CK_ULONG must have 8 bytes')
  return Buffer.from(value.buffer, value.byteOffset, 8).readBigUInt64LE()
}

function encodeValue(value: AttributeValue): Uint8Array {
  if (typeof value === 'boolean') return u8(value ? 1 : 0)
  if (typeof value === 'number' || typeof value === 'bigint') return u64(value)
  if (value instanceof Uint8Array) return value
  return encodeTemplate(value)
}

function counted(bytes: Uint8Array): Buffer {
  return Buffer.concat([u32(bytes.length), bytes])
}

function u8(value: number): Buffer {
  if (!Number.isInteger(value) || value < 0 || value > 0xff) throw new TypeError('value must fit in one byte')
  return Buffer.from([value])
}

function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4)
  if (value === unavailable) throw new TypeError('value is too long')
  bytes.writeUInt32LE(value)
  return bytes
}

function u64(value: number | bigint): Buffer {
  if (typeof value === 'number' && !Number.isSafeInteger(value)) throw new TypeError('number must be a safe integer')
  if (value < 0 || BigInt(value) > 0xffffffffffffffffn) throw new TypeError('value must fit in a CK_ULONG')
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64LE(BigInt(value))
  return bytes
}
