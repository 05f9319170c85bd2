/**
 * The additional data that the HSM authenticates, and the metadata that travels with a ciphertext.
 *
 * `spec` is what the XKS proxy API recommends ("Encrypt", Appendix): u16 length, AAD, u8 length, metadata. `sha256` is what AWS's sample proxy does
 * instead: the AAD is replaced by its SHA-256, left out where the request has none; so ciphertexts of the two don't open with each other.
 *
 * Our own metadata is `hg`, u8 version 1, u8 mode, u16 number of the backing key (big-endian): later changes of a store's mode or of a
 * key's backing key leave old ciphertexts alone. Any other metadata is someone else's: the store's mode, the key's first backing key.
 */
import { createHash } from 'node:crypto'

export type AadMode = 'spec' | 'sha256'

/** By code in the metadata. */
const modes: readonly AadMode[] = ['spec', 'sha256']
const mark = Buffer.from('hg\u0001', 'latin1')
const metadataBytes = 6
export const metadataBytesMax = 20
const nothing = Buffer.alloc(0)

export interface OwnMetadata {
  readonly mode: AadMode
  readonly material: number
}

export function encodeMetadata({ mode, material }: OwnMetadata): Buffer {
  const metadata = Buffer.alloc(metadataBytes)
  metadata.set(mark)
  metadata[3] = modes.indexOf(mode)
  metadata.writeUInt16BE(material, 4)
  return metadata
}

/** Undefined for metadata that is not ours. */
export function decodeMetadata(metadata: Buffer): OwnMetadata | undefined {
  if (metadata.length !== metadataBytes || !metadata.subarray(0, mark.length).equals(mark)) return undefined
  const mode = modes[metadata[3] as number]
  return mode && { mode, material: metadata.readUInt16BE(4) }
}

/** `aad` undefined: the request has none, which `sha256` tells from an empty one. */
export function composeContext(mode: AadMode, aad: Buffer | undefined, metadata: Buffer): Buffer {
  const raw = aad ?? nothing
  const authenticated = mode === 'spec' || aad === undefined ? raw : createHash('sha256').update(raw).digest()
  const context = Buffer.allocUnsafe(3 + authenticated.length + metadata.length)
  context.writeUInt16BE(raw.length, 0)
  context.set(authenticated, 2)
  context[2 + authenticated.length] = metadata.length
  context.set(metadata, 3 + authenticated.length)
  return context
}

/** What the ciphertextDataIntegrityValue covers before IV, ciphertext and tag: raw values without lengths, whatever the mode. */
export function digestPrefixOf(aad: Buffer | undefined, metadata: Buffer): Buffer {
  return Buffer.concat([aad ?? nothing, metadata])
}
