/**
 * Checkpoints: signed statements about the chain, and how they are checked. Pure.
 *
 * The statement that is signed is UTF-8 text of six lines, each ended by 0x0a:
 *   hsmgate audit checkpoint v1 | instance | sequence | hash | catalog revision | time of signing
 * It stands in the journal as a record of its own after the record that it is about.
 */
import { constants, createPublicKey, type KeyObject, verify } from 'node:crypto'
import type { Checkpoint, CheckpointAlgorithm } from './audit.ts'
import { type EncodedRecord, encodeEvent } from './record.ts'

export const journalSource = 'hsmgate.audit'

/** Records between a checkpoint and the record that it is about; a verifier remembers the hashes of so many. */
export const maxCheckpointLag = 100_000

export function encodeStatement(
  checkpoint: Pick<Checkpoint, 'instance' | 'sequence' | 'hash' | 'catalogRevision' | 'signedAt'>,
): Buffer {
  const { instance, sequence, hash, catalogRevision, signedAt } = checkpoint
  return Buffer.from(
    ['hsmgate audit checkpoint v1', instance, sequence, hash, catalogRevision, signedAt, ''].join('\n'),
  )
}

export function encodeCheckpoint(checkpoint: Checkpoint, at: number): EncodedRecord {
  return encodeOwnEvent('Checkpoint', { ...checkpoint }, at)
}

/** A record of the journal about itself. */
export function encodeOwnEvent(name: string, details: Readonly<Record<string, unknown>>, at: number): EncodedRecord {
  return encodeEvent({ name, account: 'system', region: 'system', details }, at, journalSource)
}

const mark = Buffer.from(`"eventSource":"${journalSource}"`)

/** The journal's record about itself that `event` is, if it is one. Looking for the mark first spares parsing every record. */
export function parseOwnEvent(
  event: Buffer,
): { readonly name: string; readonly details: Readonly<Record<string, unknown>> } | undefined {
  if (!event.includes(mark)) return undefined
  const record = parseJson(event.toString()) as Record<string, unknown> | undefined
  if (record?.eventSource !== journalSource || typeof record.serviceEventDetails !== 'object') return undefined
  return { name: String(record.eventName), details: record.serviceEventDetails as Record<string, unknown> }
}

/** Undefined when it has not all members of a checkpoint. */
export function parseCheckpoint(value: unknown): Checkpoint | undefined {
  if (typeof value !== 'object' || value === null) return undefined
  const checkpoint = value as Checkpoint
  const { sequence, hash, catalogRevision } = checkpoint
  const texts = [checkpoint.instance, checkpoint.signedAt, checkpoint.keyId, checkpoint.signature, checkpoint.publicKey]
  const isComplete =
    Number.isSafeInteger(sequence) &&
    Number.isSafeInteger(catalogRevision) &&
    /^[0-9a-f]{64}$/.test(hash) &&
    texts.every((text) => typeof text === 'string' && !text.includes('\n')) &&
    Object.hasOwn(algorithms, checkpoint.algorithm)
  return isComplete ? checkpoint : undefined
}

const algorithms: Readonly<Record<CheckpointAlgorithm, { readonly hash: string | null; readonly padding?: number }>> = {
  ECDSA_SHA_256: { hash: 'sha256' },
  ECDSA_SHA_384: { hash: 'sha384' },
  ECDSA_SHA_512: { hash: 'sha512' },
  RSASSA_PKCS1_V1_5_SHA_256: { hash: 'sha256', padding: constants.RSA_PKCS1_PADDING },
  RSASSA_PSS_SHA_256: { hash: 'sha256', padding: constants.RSA_PKCS1_PSS_PADDING },
  ED25519: { hash: null },
}

/** Whether the signature is right under the public key that the checkpoint itself names. */
export function isSignatureRight(checkpoint: Checkpoint): boolean {
  const { hash, padding } = algorithms[checkpoint.algorithm]
  try {
    const key: KeyObject = createPublicKey({
      key: Buffer.from(checkpoint.publicKey, 'base64'),
      format: 'der',
      type: 'spki',
    })
    const input = padding === undefined ? key : { key, padding, saltLength: constants.RSA_PSS_SALTLEN_AUTO }
    return verify(hash, encodeStatement(checkpoint), input, Buffer.from(checkpoint.signature, 'base64'))
  } catch {
    return false
  }
}

export function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
