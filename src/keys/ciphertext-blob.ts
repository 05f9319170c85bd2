/**
 * Ciphertext blob, version 1: u8 version = 1, u8 flags (bit 0 multi-Region key, bit 1 external store, bit 2 derived working key),
 * 16 bytes key id, 32 bytes key material id, then what the HSM layer sealed (u8 saltLen, salt, u8 ivLen, iv, ciphertext, tag), or the tail of
 * external-blob.ts. Everything before the sealed part is additional data of the seal.
 */
import { GatewayError } from '../error.ts'
import { isMultiRegionId } from './identifiers.ts'

const version = 1
const multiRegionFlag = 1
const externalFlag = 2
const derivedFlag = 4
export const headerBytes = 2 + 16 + 32
/** Salt of 0 bytes, IV of 12, empty plaintext, tag of 16: nothing shorter can be ours. */
const minSealedBytes = 1 + 1 + 12 + 16
const knownFlags = multiRegionFlag | externalFlag | derivedFlag

export interface BlobHeader {
  readonly keyId: string
  readonly materialId: Buffer
  readonly derived: boolean
  /** Of a key in an external key store. */
  readonly external?: boolean
}

export function encodeBlobHeader(header: BlobHeader): Buffer {
  const out = Buffer.allocUnsafe(headerBytes)
  out[0] = version
  out[1] =
    (isMultiRegionId(header.keyId) ? multiRegionFlag : 0) |
    (header.derived ? derivedFlag : 0) |
    (header.external === true ? externalFlag : 0)
  out.write(header.keyId.replace(/^mrk-|-/g, ''), 2, 16, 'hex')
  header.materialId.copy(out, 18)
  return out
}

export interface Blob extends BlobHeader {
  readonly external: boolean
  /** The bytes of the header as received: additional data. */
  readonly header: Buffer
  readonly sealed: Buffer
}

/** @throws GatewayError `CiphertextInvalid` for anything that is not one of our blobs. */
export function decodeBlob(bytes: Uint8Array): Blob {
  const blob = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const flags = blob[1] ?? 0
  if (blob.length < headerBytes + minSealedBytes || blob[0] !== version || (flags & ~knownFlags) !== 0) {
    throw new GatewayError('CiphertextInvalid')
  }
  const hex = blob.toString('hex', 2, 18)
  return {
    keyId: flags & multiRegionFlag ? `mrk-${hex}` : hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5'),
    materialId: blob.subarray(18, headerBytes),
    derived: (flags & derivedFlag) !== 0,
    external: (flags & externalFlag) !== 0,
    header: blob.subarray(0, headerBytes),
    sealed: blob.subarray(headerBytes),
  }
}
