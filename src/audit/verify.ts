/**
 * Checks a copy of a journal offline, on its raw bytes: every hash, every link, every checkpoint's signature, and that the
 * records which anchors speak of are there. Reads one segment at a time; memory is bounded.
 *
 * Without an anchor, records cut off after the last checkpoint (or the whole end of the journal) cannot be missed: an anchor is a
 * checkpoint that was kept elsewhere.
 */
import path from 'node:path'
import type { Checkpoint } from './audit.ts'
import { genesis, type ParsedLine, parseLine } from './chain.ts'
import { isSignatureRight, maxCheckpointLag, parseCheckpoint, parseJson, parseOwnEvent } from './checkpoint.ts'
import { listSegments, readLines } from './segment.ts'

/** A record that must be in the journal. */
export interface Anchor {
  readonly sequence: number
  readonly hash: string
  readonly checkpoint?: Checkpoint
}

export interface Finding {
  /** `<segment>:<line>`, or `journal`. */
  readonly at: string
  readonly text: string
}

export interface Verification {
  readonly ok: boolean
  readonly segments: number
  readonly records: number
  readonly firstSequence: number
  readonly lastSequence: number
  readonly lastHash: string
  readonly checkpoints: number
  /** Records up to this one are covered by a signature; 0 when none is. */
  readonly signedThrough: number
  /** Base64 SubjectPublicKeyInfo of the keys that signed. */
  readonly publicKeys: readonly string[]
  /** What is wrong; at most 100 are listed. */
  readonly problems: readonly Finding[]
  /** What an auditor should know although the chain is whole: damage that a start found, lost syncs. */
  readonly notes: readonly Finding[]
}

export interface VerifyOptions {
  readonly anchors?: readonly Anchor[]
  /** Base64 SubjectPublicKeyInfo of the keys that may sign; without it any key is accepted and listed. */
  readonly publicKeys?: readonly string[]
}

const maxProblems = 100

/** An anchor from an exported checkpoint or from a line of the journal. Undefined when the text is neither. */
export function parseAnchor(text: string): Anchor | undefined {
  const checkpoint = parseCheckpoint(parseJson(text))
  if (checkpoint) return { sequence: checkpoint.sequence, hash: checkpoint.hash, checkpoint }
  const line = parseLine(Buffer.from(text.trimEnd()))
  return line?.isIntact ? { sequence: line.sequence, hash: line.hash } : undefined
}

/** `source`: the folder of a journal, or its segments in order. */
export async function verifyJournal(
  source: string | readonly string[],
  options: VerifyOptions = {},
): Promise<Verification> {
  const files = typeof source === 'string' ? (await listSegments(source)).map(({ file }) => file) : source
  const verifier = new Verifier(options)
  for (const file of files) {
    const name = path.basename(file)
    let number = 0
    for await (const line of readLines(file)) {
      number += 1
      const at = `${name}:${number}`
      if (!line.isWhole) verifier.addProblem(at, `${line.bytes.length} bytes at the end are not a whole line`)
      else verifier.addLine(parseLine(line.bytes), at)
    }
  }
  return verifier.finish(files.length)
}

class Verifier {
  readonly #anchors: ReadonlyMap<number, Anchor>
  readonly #allowedKeys: ReadonlySet<string> | undefined
  readonly #problems: Finding[] = []
  readonly #notes: Finding[] = []
  readonly #publicKeys = new Set<string>()
  /** Exported checkpoints that must still come, by signature: each was recorded before it was given out. */
  readonly #awaited = new Map<string, Checkpoint>()
  /** Hashes of the last records, 32 bytes each, by sequence number modulo the size. */
  readonly #recent = Buffer.alloc(32 * maxCheckpointLag)
  #instance: string | undefined
  #records = 0
  #first = 0
  #link = genesis
  #checkpoints = 0
  #signedThrough = 0

  constructor(options: VerifyOptions) {
    this.#anchors = new Map((options.anchors ?? []).map((anchor) => [anchor.sequence, anchor]))
    this.#allowedKeys = options.publicKeys && new Set(options.publicKeys)
    for (const { checkpoint } of this.#anchors.values()) {
      if (!checkpoint) continue
      this.#instance = checkpoint.instance
      this.#awaited.set(checkpoint.signature, checkpoint)
      this.#checkSignature(checkpoint, 'anchor')
    }
  }

  addProblem(at: string, text: string): void {
    if (this.#problems.length < maxProblems) this.#problems.push({ at, text })
  }

  addLine(line: ParsedLine | undefined, at: string): void {
    if (!line) {
      this.addProblem(at, 'is not a record')
      return
    }
    const { sequence, previousHash, hash, event } = line
    this.#records += 1
    if (!line.isIntact) this.addProblem(at, `record ${sequence} was changed: its hash does not match`)
    if (this.#records === 1) this.#checkFirst(line, at)
    else if (sequence !== this.#link.sequence + 1) {
      this.addProblem(
        at,
        `record ${sequence} follows record ${this.#link.sequence}: records are missing or out of order`,
      )
    } else if (previousHash !== this.#link.hash) {
      this.addProblem(at, `record ${sequence} does not continue the record before it`)
    }
    const anchor = this.#anchors.get(sequence)
    if (anchor && anchor.hash !== hash) this.addProblem(at, `record ${sequence} is not the one that the anchor names`)
    this.#link = { sequence, hash }
    this.#recent.write(hash, 32 * (sequence % maxCheckpointLag), 'hex')
    const own = parseOwnEvent(event)
    if (own) this.#addOwnEvent(own.name, own.details, at)
  }

  /** The journal begins at record 1, or right after an anchor when what came before is archived elsewhere. */
  #checkFirst({ sequence, previousHash }: ParsedLine, at: string): void {
    this.#first = sequence
    const anchor = this.#anchors.get(sequence - 1)
    const before = sequence === 1 ? genesis.hash : anchor?.hash
    const text = `the journal starts at record ${sequence}: earlier segments are not here`
    if (before === undefined) this.addProblem(at, `${text}, and no anchor names record ${sequence - 1}`)
    else if (previousHash !== before) this.addProblem(at, `record ${sequence} does not continue what came before it`)
    else if (sequence > 1) this.#notes.push({ at, text })
  }

  #addOwnEvent(name: string, details: Readonly<Record<string, unknown>>, at: string): void {
    if (name === 'Checkpoint') this.#addCheckpoint(parseCheckpoint(details), at)
    if (name === 'JournalSyncFailed') {
      this.#notes.push({ at, text: 'a sync failed; records before this one may be missing after a power cut' })
    }
    if (name !== 'JournalOpened') return
    const { instance, recovered } = details as { instance?: string; recovered?: { movedTo?: string; bytes?: number } }
    if (this.#instance !== undefined && instance !== this.#instance) {
      this.addProblem(at, 'the journal changes its instance: parts of two journals')
    }
    this.#instance = instance
    if (!recovered) return
    const text = `at this start ${recovered.bytes} bytes that were no whole records were moved to ${recovered.movedTo}`
    this.#notes.push({ at, text })
  }

  #addCheckpoint(checkpoint: Checkpoint | undefined, at: string): void {
    if (!checkpoint) {
      this.addProblem(at, 'is not a complete checkpoint')
      return
    }
    const { sequence, hash, instance } = checkpoint
    this.#checkpoints += 1
    this.#awaited.delete(checkpoint.signature)
    const isKnown = sequence >= this.#first && sequence > this.#link.sequence - maxCheckpointLag
    const slot = 32 * (sequence % maxCheckpointLag)
    if (sequence >= this.#link.sequence || (isKnown && this.#recent.toString('hex', slot, slot + 32) !== hash)) {
      this.addProblem(at, `the checkpoint is about another record ${sequence}`)
    } else if (this.#instance !== undefined && instance !== this.#instance) {
      this.addProblem(at, 'the checkpoint is another journal’s')
    } else if (this.#checkSignature(checkpoint, at)) this.#signedThrough = Math.max(this.#signedThrough, sequence)
  }

  #checkSignature(checkpoint: Checkpoint, at: string): boolean {
    this.#publicKeys.add(checkpoint.publicKey)
    if (this.#allowedKeys && !this.#allowedKeys.has(checkpoint.publicKey)) {
      this.addProblem(at, 'the checkpoint was signed by a key that is not trusted')
      return false
    }
    if (isSignatureRight(checkpoint)) return true
    this.addProblem(at, 'the signature of the checkpoint is wrong')
    return false
  }

  finish(segments: number): Verification {
    const { sequence: last, hash } = this.#link
    for (const { sequence } of this.#anchors.values()) {
      if (sequence > last) {
        this.addProblem('journal', `ends at record ${last}, but the anchor names record ${sequence}: it was cut off`)
      }
    }
    for (const { sequence } of this.#awaited.values()) {
      if (sequence < this.#first || sequence > last) continue
      this.addProblem('journal', `does not hold the exported checkpoint about record ${sequence}: its end was cut off`)
    }
    if (this.#records === 0) this.addProblem('journal', 'holds no records')
    return {
      ok: this.#problems.length === 0,
      segments,
      records: this.#records,
      firstSequence: this.#first,
      lastSequence: last,
      lastHash: hash,
      checkpoints: this.#checkpoints,
      signedThrough: this.#signedThrough,
      publicKeys: [...this.#publicKeys],
      problems: this.#problems,
      notes: this.#notes,
    }
  }
}
