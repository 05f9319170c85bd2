/**
 * The tail of ciphertext blobs of external key stores, after the header of ciphertext-blob.ts: u8 length and metadata, u8 length and IV, 16 bytes tag,
 * u16 length (big-endian) and ciphertext. What the proxy encrypted is, with double encryption, what our own module sealed before. Pure.
 */
import { GatewayError } from '../error.ts'
import type { ExternalCiphertext } from './keys.ts'

const tagBytes = 16

export function encodeExternalTail({ metadata, iv, tag, ciphertext }: ExternalCiphertext): Buffer {
  const length = Buffer.alloc(2)
  length.writeUInt16BE(ciphertext.length)
  return Buffer.concat([Buffer.of(metadata.length), metadata, Buffer.of(iv.length), iv, tag, length, ciphertext])
}

/** @throws GatewayError `CiphertextInvalid` unless the bytes are exactly one tail. */
export function decodeExternalTail(tail: Buffer): ExternalCiphertext {
  let at = 0
  const take = (length: number): Buffer => {
    if (at + length > tail.length) throw new GatewayError('CiphertextInvalid')
    at += length
    return tail.subarray(at - length, at)
  }
  const metadata = take(take(1)[0] as number)
  const iv = take(take(1)[0] as number)
  const tag = take(tagBytes)
  const ciphertext = take(take(2).readUInt16BE())
  if (at !== tail.length || ciphertext.length === 0) throw new GatewayError('CiphertextInvalid')
  return { metadata, iv, tag, ciphertext }
}
