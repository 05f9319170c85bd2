/**
 * Whether bytes are what a certificate, a revocation list or a certificate request is signed over: TBSCertificate and TBSCertList (RFC 5280,
 * sections 4.1 and 5.1) or CertificationRequestInfo (RFC 2986, section 4.1), with every mandatory field in its place and nothing left over.
 */
import { contextTag, DerCursor, DerError, derTags } from './der.ts'

export function isCertificateInput(bytes: Uint8Array): boolean {
  return conforms(bytes, readCertificate) || conforms(bytes, readRequest) || conforms(bytes, readRevocationList)
}

function conforms(bytes: Uint8Array, read: (content: DerCursor) => void): boolean {
  try {
    const whole = new DerCursor(bytes)
    const content = whole.enter(derTags.sequence)
    whole.end()
    read(content)
    content.end()
    return true
  } catch (error) {
    if (error instanceof DerError) return false
    throw error
  }
}

function readCertificate(content: DerCursor): void {
  if (content.sees(contextTag(0))) {
    const version = content.enter(contextTag(0))
    readSmallInteger(version, 1, 2)
    version.end()
  }
  content.take(derTags.integer)
  readAlgorithm(content)
  readName(content)
  const validity = content.enter(derTags.sequence)
  readTime(validity)
  readTime(validity)
  validity.end()
  readName(content)
  readPublicKey(content)
  // issuerUniqueID and subjectUniqueID: implicitly tagged BIT STRING, primitive
  if (content.sees(0x81)) content.skip()
  if (content.sees(0x82)) content.skip()
  if (content.sees(contextTag(3))) readTaggedExtensions(content, 3)
}

function readRevocationList(content: DerCursor): void {
  if (content.sees(derTags.integer)) readSmallInteger(content, 1, 1)
  readAlgorithm(content)
  readName(content)
  readTime(content)
  if (content.sees(derTags.utcTime) || content.sees(derTags.generalizedTime)) readTime(content)
  if (content.sees(derTags.sequence)) {
    const revoked = content.enter(derTags.sequence)
    do {
      const entry = revoked.enter(derTags.sequence)
      entry.take(derTags.integer)
      readTime(entry)
      if (!entry.isAtEnd) readExtensions(entry)
      entry.end()
    } while (!revoked.isAtEnd)
  }
  if (content.sees(contextTag(0))) readTaggedExtensions(content, 0)
}

function readRequest(content: DerCursor): void {
  readSmallInteger(content, 0, 0)
  readName(content)
  readPublicKey(content)
  const attributes = content.enter(contextTag(0))
  while (!attributes.isAtEnd) {
    const attribute = attributes.enter(derTags.sequence)
    attribute.take(derTags.oid)
    attribute.enter(derTags.set).skip()
    attribute.end()
  }
}

function readSmallInteger(cursor: DerCursor, min: number, max: number): void {
  const { from, to } = cursor.take(derTags.integer)
  const value = cursor.bytes[from]!
  if (to - from !== 1 || value < min || value > max) throw new DerError('version')
}

function readAlgorithm(cursor: DerCursor): void {
  const algorithm = cursor.enter(derTags.sequence)
  algorithm.take(derTags.oid)
  if (!algorithm.isAtEnd) algorithm.skip()
  algorithm.end()
}

/** RDNSequence: SEQUENCE OF SET OF SEQUENCE { type, value }; may be empty. */
function readName(cursor: DerCursor): void {
  const name = cursor.enter(derTags.sequence)
  while (!name.isAtEnd) {
    const set = name.enter(derTags.set)
    do {
      const pair = set.enter(derTags.sequence)
      pair.take(derTags.oid)
      pair.skip()
      pair.end()
    } while (!set.isAtEnd)
  }
}

function readTime(cursor: DerCursor): void {
  cursor.take(cursor.sees(derTags.utcTime) ? derTags.utcTime : derTags.generalizedTime)
}

function readPublicKey(cursor: DerCursor): void {
  const key = cursor.enter(derTags.sequence)
  readAlgorithm(key)
  key.take(derTags.bitString)
  key.end()
}

function readTaggedExtensions(cursor: DerCursor, tag: number): void {
  const tagged = cursor.enter(contextTag(tag))
  readExtensions(tagged)
  tagged.end()
}

function readExtensions(cursor: DerCursor): void {
  const extensions = cursor.enter(derTags.sequence)
  do readExtension(extensions)
  while (!extensions.isAtEnd)
}

function readExtension(cursor: DerCursor): void {
  const extension = cursor.enter(derTags.sequence)
  extension.take(derTags.oid)
  if (extension.sees(derTags.boolean)) extension.skip()
  extension.take(derTags.octetString)
  extension.end()
}
