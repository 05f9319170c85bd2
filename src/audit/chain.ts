/**
 * The hash chain: how a record becomes a line, and how a line is read back. Pure.
 *
 * A line is exactly
 *   {"seq":<n>,"prev":"<64 hex>","hash":"<64 hex>","event":<JSON>}\n
 * without any other white space, in UTF-8. `n` counts from 1 without gaps, over all segments; `prev` is the `hash` of the line
 * before, for the first one 64 zeros; and
 *   hash = SHA-256( decimal n | 0x0a | prev as 64 lower-case hex | 0x0a | the bytes of <JSON> as they stand on the line )
 * so the canonical form of an event is the bytes that were written, and a verifier parses no JSON to check the chain.
 */
import { hash as digest } from 'node:crypto'

export interface Link {
  /** Sequence number of the last record; 0 before the first. */
  readonly sequence: number
  readonly hash: string
}

export const genesis: Link = Object.freeze({ sequence: 0, hash: '0'.repeat(64) })

/** `{"seq":` to `"event":` without the digits of the sequence number. */
const headBytes = 164

/**
 * Encodes events as lines that continue `previous`. The bytes stay valid until the next call with the same `scratch`, which keeps
 * its buffer: each event is encoded once, hashed where it lies, and its head written before it.
 */
export function encodeLines(
  previous: Link,
  events: readonly string[],
  scratch: { buffer: Buffer },
): { readonly bytes: Buffer; readonly link: Link } {
  let { sequence, hash } = previous
  let capacity = 0
  for (const event of events) capacity += 3 * event.length + headBytes + 18
  if (scratch.buffer.length < capacity) scratch.buffer = Buffer.allocUnsafeSlow(2 * capacity)
  const { buffer } = scratch

  let start = 0
  for (const event of events) {
    sequence += 1
    const eventStart = start + headBytes + String(sequence).length
    const eventEnd = eventStart + buffer.write(event, eventStart, 'utf8')
    const covered = `${sequence}\n${hash}\n`
    buffer.write(covered, eventStart - covered.length, 'latin1')
    const next = digest('sha256', buffer.subarray(eventStart - covered.length, eventEnd))
    buffer.write(`{"seq":${sequence},"prev":"${hash}","hash":"${next}","event":`, start, 'latin1')
    buffer.write('}\n', eventEnd, 'latin1')
    hash = next
    start = eventEnd + 2
  }
  return { bytes: buffer.subarray(0, start), link: { sequence, hash } }
}

export interface ParsedLine {
  readonly sequence: number
  readonly previousHash: string
  readonly hash: string
  readonly event: Buffer
  /** Whether `hash` is the hash of the rest of the line. */
  readonly isIntact: boolean
}

const head = /^\{"seq":([1-9]\d{0,14}),"prev":"([0-9a-f]{64})","hash":"([0-9a-f]{64})","event":$/
const maxHeadBytes = headBytes + 15

/** Reads one line without its line feed; undefined when it has not the form of a line. */
export function parseLine(bytes: Buffer): ParsedLine | undefined {
  const text = bytes.toString('latin1', 0, Math.min(bytes.length, maxHeadBytes))
  const end = text.indexOf('"event":') + '"event":'.length
  const match = head.exec(text.slice(0, end))
  if (!match || bytes.at(-1) !== 0x7d) return undefined
  const [, sequence = '', previousHash = '', hash = ''] = match
  const event = bytes.subarray(end, -1)
  const covered = Buffer.concat([Buffer.from(`${sequence}\n${previousHash}\n`, 'latin1'), event])
  return {
    sequence: Number(sequence),
    previousHash,
    hash,
    event,
    isIntact: digest('sha256', covered) === hash,
  }
}
