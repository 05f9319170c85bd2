/**
 * Whether bytes are what a CMS SignerInfo with signed attributes is signed over: the DER of SET OF Attribute (RFC 5652, section 5.4), with
 * content-type and message-digest in it (section 5.3), each with one value of its type.
 */
import { DerCursor, DerError, derTags } from './der.ts'

/** 1.2.840.113549.1.9.3 and .4 (RFC 5652, sections 11.1 and 11.2). */
const contentType = Buffer.from('2a864886f70d010903', 'hex')
const messageDigest = Buffer.from('2a864886f70d010904', 'hex')
/** SHA-1 to SHA-512. */
const digestBytes = { min: 20, max: 64 }

export function isSignedAttributes(bytes: Uint8Array): boolean {
  try {
    const whole = new DerCursor(bytes)
    const attributes = whole.enter(derTags.set)
    whole.end()
    let types = 0
    let digests = 0
    while (!attributes.isAtEnd) {
      const attribute = attributes.enter(derTags.sequence)
      const { from, to } = attribute.take(derTags.oid)
      const values = attribute.enter(derTags.set)
      attribute.end()
      const oid = bytes.subarray(from, to)
      if (contentType.equals(oid)) {
        types++
        values.take(derTags.oid)
        values.end()
      } else if (messageDigest.equals(oid)) {
        digests++
        const digest = values.take(derTags.octetString)
        const length = digest.to - digest.from
        if (length < digestBytes.min || length > digestBytes.max) return false
        values.end()
      } else {
        do values.skip()
        while (!values.isAtEnd)
      }
    }
    return types === 1 && digests === 1
  } catch (error) {
    if (error instanceof DerError) return false
    throw error
  }
}
