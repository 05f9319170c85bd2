/**
 * Finds where a journal ends when it is opened: the last record of its last segment that is whole and continues the chain.
 *
 * What follows (a torn line after a crash, blocks that a power cut left unwritten) is not deleted but moved to a file beside the
 * segment, because it may be evidence; the caller notes it in the chain.
 */
import { readFile, truncate, writeFile } from 'node:fs/promises'
import type { Checkpoint } from './audit.ts'
import { genesis, type Link, parseLine } from './chain.ts'
import { isSignatureRight, parseCheckpoint, parseOwnEvent } from './checkpoint.ts'
import { listSegments, readLines } from './segment.ts'

export interface JournalEnd {
  readonly link: Link
  /** Undefined for a new journal. */
  readonly segment: { readonly number: number; readonly file: string; readonly bytes: number } | undefined
  /** The last one whose signature is right. */
  readonly checkpoint: Checkpoint | undefined
  readonly moved: { readonly file: string; readonly bytes: number; readonly wholeLines: number } | undefined
}

export async function findJournalEnd(directory: string): Promise<JournalEnd> {
  const [last, ...older] = (await listSegments(directory)).toReversed()
  const [previous] = older
  if (!last) return { link: genesis, segment: undefined, checkpoint: undefined, moved: undefined }
  const { link, bytes, rest, checkpoint } = await readChain(last.file)
  const moved = rest === undefined ? undefined : await moveAside(last.file, bytes, rest)
  const before = link ?? (previous && (await readChain(previous.file)).link) ?? genesis
  return {
    link: before,
    segment: { ...last, bytes },
    checkpoint: checkpoint ?? (await findCheckpoint(older)),
    moved,
  }
}

/** In segments from the newest to the oldest. */
async function findCheckpoint(segments: readonly { readonly file: string }[]): Promise<Checkpoint | undefined> {
  for (const { file } of segments) {
    const { checkpoint } = await readChain(file)
    if (checkpoint) return checkpoint
  }
  return undefined
}

interface Chain {
  readonly link: Link | undefined
  readonly bytes: number
  readonly rest: Buffer | undefined
  readonly checkpoint: Checkpoint | undefined
}

/** The last link and checkpoint of the intact chain at the start of a segment, where it ends, and the bytes after it if there are any. */
async function readChain(file: string): Promise<Chain> {
  let link: Link | undefined
  let checkpoint: Checkpoint | undefined
  let bytes = 0
  for await (const line of readLines(file)) {
    const parsed = line.isWhole ? parseLine(line.bytes) : undefined
    const follows =
      parsed?.isIntact &&
      (link === undefined || (parsed.sequence === link.sequence + 1 && parsed.previousHash === link.hash))
    if (!parsed || !follows) return { link, bytes, rest: (await readFile(file)).subarray(bytes), checkpoint }
    link = { sequence: parsed.sequence, hash: parsed.hash }
    bytes = line.offset + line.bytes.length + 1
    checkpoint = checkpointOf(parsed.event) ?? checkpoint
  }
  return { link, bytes, rest: undefined, checkpoint }
}

function checkpointOf(event: Buffer): Checkpoint | undefined {
  const own = parseOwnEvent(event)
  if (own?.name !== 'Checkpoint') return undefined
  const checkpoint = parseCheckpoint(own.details)
  return checkpoint && isSignatureRight(checkpoint) ? checkpoint : undefined
}

/** The copy is on disk before the segment is cut, so that a crash in between loses nothing. */
async function moveAside(file: string, bytes: number, rest: Buffer): Promise<JournalEnd['moved']> {
  const wholeLines = rest.reduce((count, byte) => count + (byte === 0x0a ? 1 : 0), 0)
  const copy = `${file}.${wholeLines === 0 ? 'torn' : 'damaged'}-${Date.now()}`
  await writeFile(copy, rest, { mode: 0o600, flush: true })
  await truncate(file, bytes)
  return { file: copy, bytes: rest.length, wholeLines }
}
