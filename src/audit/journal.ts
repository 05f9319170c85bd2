/**
 * Opens the audit journal: the one writer of a folder of segments.
 *
 * Records of one tick, and those that arrive while a write is under way, go out in one write (group commit). One write is in
 * flight at a time; a sync may run beside it. The chain advances only when a write succeeded, so a record that was refused is
 * never part of it. Safe for any number of concurrent callers.
 */
import { randomUUID } from 'node:crypto'
import { closeSync } from 'node:fs'
import { mkdir, open, readFile } from 'node:fs/promises'
import path from 'node:path'
import { ProblemsError } from '../problem.ts'
import type { AuditedCall, AuditedEvent, Checkpoint, CheckpointSigner, Journal, JournalEvents } from './audit.ts'
import { encodeLines, type Link } from './chain.ts'
import { encodeCheckpoint, encodeOwnEvent } from './checkpoint.ts'
import { type CheckpointCycle, createCheckpointCycle } from './checkpoint-cycle.ts'
import { type CommitQueue, createCommitQueue, unavailable } from './commit-queue.ts'
import { type EncodedRecord, encodeCall, encodeEvent } from './record.ts'
import { findJournalEnd } from './recover.ts'
import { Reserve } from './reserve.ts'
import { Segment } from './segment.ts'
import { createSyncSchedule, type SyncSchedule } from './sync-schedule.ts'

/** A sync starts this long after the first record that needs it, which leaves the disk 30 ms to meet the promised 50. */
const syncDelayMs = 20
const syncRetryMs = 1000
const diskCheckMs = 10_000

export interface JournalOptions {
  readonly directory: string
  readonly durability: 'kernel' | 'fsync'
  readonly segmentBytes: number
  readonly reserveBytes: number
  readonly alarmFreeBytes: number
  readonly checkpointRecords: number
  readonly checkpointMinutes: number
  /** Takes an exclusive lock on a file: its descriptor, or -1 when somebody else holds it. Closing the descriptor frees it. */
  readonly lockFile: (file: string) => number
  readonly events?: Partial<JournalEvents>
  /** Epoch milliseconds. */
  readonly now?: () => number
  /** How long a caller waits for his record while the disk does not answer; default 5 s. */
  readonly patienceMs?: number
  /** Records that may wait at once; default 20,000. */
  readonly maxWaitingRecords?: number
}

export interface OpenedJournal extends Journal {
  /** The last checkpoint that was in the journal when it was opened. */
  readonly lastCheckpoint: Checkpoint | undefined
  /** Installs the signer, as soon as the HSM has its key; before that no checkpoints are made. */
  useSigner(signer: CheckpointSigner): void
  /** Signs a checkpoint now and appends it; undefined without a signer or without records. @throws GatewayError */
  checkpoint(): Promise<Checkpoint | undefined>
}

/** @throws ProblemsError when another process writes this journal or the folder cannot be used. */
export async function openJournal(options: JournalOptions): Promise<OpenedJournal> {
  const { directory } = options
  let lock = -1
  try {
    await mkdir(directory, { recursive: true, mode: 0o700 })
    lock = options.lockFile(path.join(directory, 'writer.lock'))
    if (lock < 0) {
      const remedy = 'stop the other gateway, or give this one an audit.directory of its own'
      throw new ProblemsError([{ at: directory, cause: 'another process writes this journal', remedy }])
    }
    const instance = await loadInstance(path.join(directory, 'instance'))
    const { link, segment: last, checkpoint, moved } = await findJournalEnd(directory)
    const segment = last
      ? await Segment.continue(last.file, last.number, last.bytes)
      : await Segment.create(directory, 1)
    const journal = new FileJournal(options, { instance, segment, link, lock, checkpoint })
    await journal.start(moved)
    return journal
  } catch (cause) {
    if (lock >= 0) closeSync(lock)
    if (cause instanceof ProblemsError) throw cause
    const { code } = cause as NodeJS.ErrnoException
    const remedy = 'make it a folder that the gateway may write to, on a disk with room'
    throw new ProblemsError(
      [{ at: directory, cause: `the journal cannot be opened (${code ?? String(cause)})`, remedy }],
      {
        cause,
      },
    )
  }
}

/** Every journal has an id of its own, so that a checkpoint of one says nothing about another. */
async function loadInstance(file: string): Promise<string> {
  const found = await readFile(file, 'utf8').catch(() => '')
  if (/^[0-9a-f-]{36}\n$/.test(found)) return found.trim()
  const instance = randomUUID()
  await using handle = await open(file, 'w', 0o600)
  await handle.writeFile(`${instance}\n`)
  await handle.datasync()
  return instance
}

interface Opened {
  readonly instance: string
  readonly segment: Segment
  readonly link: Link
  readonly lock: number
  readonly checkpoint: Checkpoint | undefined
}

class FileJournal implements OpenedJournal {
  readonly lastCheckpoint: Checkpoint | undefined
  readonly #options: JournalOptions
  readonly #events: Partial<JournalEvents>
  readonly #now: () => number
  readonly #instance: string
  readonly #reserve: Reserve
  readonly #lock: number
  #segment: Segment
  #link: Link
  readonly #scratch = { buffer: Buffer.alloc(0) }
  readonly #queue: CommitQueue<EncodedRecord>
  readonly #checkpoints: CheckpointCycle
  readonly #syncs: SyncSchedule
  #retiring: Promise<unknown> = Promise.resolve()
  #writeFailed = false
  #freeBytes = 0
  #closing = false
  #diskTimer: NodeJS.Timeout | undefined

  constructor(options: JournalOptions, { instance, segment, link, lock, checkpoint }: Opened) {
    this.#options = options
    this.#events = options.events ?? {}
    this.#now = options.now ?? Date.now
    this.#instance = instance
    this.#segment = segment
    this.#link = link
    this.#reserve = new Reserve(options.directory, options.reserveBytes)
    this.#lock = lock
    this.lastCheckpoint = checkpoint
    this.#queue = createCommitQueue({
      commit: (records) => this.#commit(records),
      maxItems: options.maxWaitingRecords ?? 20_000,
      patienceMs: options.patienceMs ?? 5000,
    })
    this.#syncs = createSyncSchedule({
      sync: () => this.#segment.sync(),
      events: this.#events,
      healed: (count, cause) => this.#noteLostSync(count, cause),
      delayMs: syncDelayMs,
      retryMs: syncRetryMs,
    })
    this.#checkpoints = createCheckpointCycle({
      instance,
      everyRecords: options.checkpointRecords,
      everyMinutes: options.checkpointMinutes,
      now: this.#now,
      events: this.#events,
      end: () => this.#link,
      append: (checkpoint, at) => this.#queue.add([encodeCheckpoint(checkpoint, at)]),
    })
  }

  async start(moved: Awaited<ReturnType<typeof findJournalEnd>>['moved']): Promise<void> {
    await this.#reserve.fill()
    await this.#checkDisk()
    this.#diskTimer = setInterval(() => void this.#checkDisk().catch(() => {}), diskCheckMs).unref()
    const recovered = moved && { movedTo: path.basename(moved.file), bytes: moved.bytes, wholeLines: moved.wholeLines }
    if (moved) this.#events.recovered?.(moved.file, moved.bytes, moved.wholeLines)
    await this.#appendOwn('JournalOpened', { instance: this.#instance, ...(recovered && { recovered }) })
  }

  async appendCall(call: AuditedCall): Promise<string> {
    const records = encodeCall(call)
    await this.#append(records)
    return records[0].eventId
  }

  async appendEvent(event: AuditedEvent): Promise<string> {
    const record = encodeEvent(event, this.#now())
    await this.#append([record])
    return record.eventId
  }

  async #appendOwn(name: string, details: Readonly<Record<string, unknown>>): Promise<void> {
    await this.#append([encodeOwnEvent(name, details, this.#now())])
  }

  #append(records: readonly EncodedRecord[]): Promise<void> {
    return this.#closing ? Promise.reject(unavailable('the journal is closed')) : this.#queue.add(records)
  }

  async #commit(records: readonly EncodedRecord[]): Promise<void> {
    const startedMs = performance.now()
    const count = records.length
    const events = records.map(({ event }) => event)
    const { bytes, link } = encodeLines(this.#link, events, this.#scratch)
    try {
      if (this.#segment.bytes >= this.#options.segmentBytes) await this.#startSegment()
      if (this.#syncs.hasFailed) throw new Error('earlier records could not be put on disk')
      await this.#write(bytes)
      this.#writeFailed = false
    } catch (cause) {
      this.#writeFailed = true
      this.#events.appendFailed?.(count, cause)
      throw cause
    }
    this.#link = link
    this.#events.written?.(count, bytes.length, performance.now() - startedMs)
    // When a sync fails the records stay in the chain; only their results are withheld.
    if (this.#options.durability === 'kernel') this.#syncs.plan(count)
    else await this.#syncs.now(count)
    this.#checkpoints.noticeGrowth()
  }

  /** On a full disk the reserve makes room, once for each write. */
  async #write(bytes: Buffer): Promise<void> {
    try {
      await this.#segment.append(bytes)
    } catch (cause) {
      const { code } = cause as NodeJS.ErrnoException
      if ((code !== 'ENOSPC' && code !== 'EDQUOT') || !(await this.#reserve.release(bytes.length))) throw cause
      this.#events.reserveUsed?.(this.#reserve.heldBytes)
      await this.#segment.append(bytes)
    }
  }

  #noteLostSync(records: number, cause: unknown): void {
    const details = { through: this.#link.sequence, records, cause: String(cause) }
    this.#appendOwn('JournalSyncFailed', details).catch(() => {})
  }

  /** When no new segment can be made the old one grows; the next record tries again. */
  async #startSegment(): Promise<void> {
    const old = this.#segment
    try {
      this.#segment = await Segment.create(this.#options.directory, old.number + 1)
    } catch (cause) {
      this.#events.appendFailed?.(0, cause)
      return
    }
    this.#events.segmentStarted?.(this.#segment.file)
    const retire = async () => {
      try {
        await Promise.all([old.sync(), syncDirectory(this.#options.directory)])
      } finally {
        await old.close()
      }
    }
    const retired = retire().catch((cause: unknown) => this.#events.syncFailed?.(cause))
    this.#retiring = Promise.all([this.#retiring, retired])
    if (this.#options.durability === 'fsync') await retired
  }

  async #checkDisk(): Promise<void> {
    const { alarmFreeBytes, reserveBytes } = this.#options
    this.#freeBytes = await this.#reserve.freeBytes()
    if (this.#freeBytes < alarmFreeBytes) this.#events.diskLow?.(this.#freeBytes)
    else if (!this.#reserve.isWhole && this.#freeBytes > reserveBytes) await this.#reserve.fill()
  }

  useSigner(signer: CheckpointSigner): void {
    this.#checkpoints.useSigner(signer)
  }

  checkpoint(): Promise<Checkpoint | undefined> {
    return this.#checkpoints.make()
  }

  state(): ReturnType<Journal['state']> {
    return {
      healthy: !this.#writeFailed && !this.#syncs.hasFailed && !this.#queue.isStuck && !this.#closing,
      sequence: this.#link.sequence,
      unsyncedRecords: this.#syncs.unsyncedRecords,
      freeBytes: this.#freeBytes,
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#closing) return
    this.#closing = true
    clearInterval(this.#diskTimer)
    this.#checkpoints[Symbol.dispose]()
    await this.#queue.idle()
    await this.checkpoint().catch(() => {})
    await this.#queue.idle()
    this.#queue[Symbol.dispose]()
    await this.#syncs[Symbol.asyncDispose]()
    await this.#retiring
    await this.#segment.close()
    closeSync(this.#lock)
  }
}

async function syncDirectory(directory: string): Promise<void> {
  await using handle = await open(directory, 'r')
  await handle.sync()
}
