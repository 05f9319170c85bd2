/**
 * Segments: the numbered files of a journal, read line by line and appended to at a known offset.
 *
 * A segment has one writer. `append` must not be called again before it settled; `sync` may run beside it.
 */
import { close, fdatasync, ftruncate, open, read, write, writeSync } from 'node:fs'
import { readdir } from 'node:fs/promises'
import path from 'node:path'
import { promisify } from 'node:util'

const calls = {
  open: promisify(open),
  close: promisify(close),
  fdatasync: promisify(fdatasync),
  ftruncate: promisify(ftruncate),
}

/** No record comes near this; a longer line is damage. */
export const maxLineBytes = 8 * 1024 * 1024

export function segmentName(number: number): string {
  return `${String(number).padStart(8, '0')}.jsonl`
}

/** Segments of a folder in order. */
export async function listSegments(directory: string): Promise<readonly { number: number; file: string }[]> {
  const names = (await readdir(directory)).filter((name) => /^\d{8}\.jsonl$/.test(name)).sort()
  return names.map((name) => ({ number: Number.parseInt(name, 10), file: path.join(directory, name) }))
}

export interface Line {
  /** Without the line feed; valid until the next one is asked for. */
  readonly bytes: Buffer
  readonly offset: number
  /** False for what follows the last line feed. */
  readonly isWhole: boolean
}

/** Lines of a file in order; stops after a line that is too long, which it yields as not whole. */
export async function* readLines(file: string): AsyncGenerator<Line> {
  const fd = await calls.open(file, 'r')
  try {
    const chunk = Buffer.allocUnsafe(1024 * 1024)
    let rest: Buffer = Buffer.alloc(0)
    let offset = 0
    for (;;) {
      const count = await readChunk(fd, chunk, offset + rest.length)
      if (count === 0) break
      const bytes = rest.length === 0 ? chunk.subarray(0, count) : Buffer.concat([rest, chunk.subarray(0, count)])
      let start = 0
      for (let end = bytes.indexOf(0x0a); end >= 0; end = bytes.indexOf(0x0a, start)) {
        yield { bytes: bytes.subarray(start, end), offset: offset + start, isWhole: true }
        start = end + 1
      }
      rest = Buffer.from(bytes.subarray(start))
      offset += start
      if (rest.length > maxLineBytes) break
    }
    if (rest.length > 0) yield { bytes: rest, offset, isWhole: false }
  } finally {
    await calls.close(fd)
  }
}

function readChunk(fd: number, chunk: Buffer, position: number): Promise<number> {
  return new Promise((resolve, reject) => {
    read(fd, chunk, 0, chunk.length, position, (error, count) => (error ? reject(error) : resolve(count)))
  })
}

/** The segment that is written to. Owns its descriptor. */
export class Segment {
  readonly file: string
  readonly number: number
  readonly #fd: number
  #offset: number
  #syncing: Promise<void> | undefined
  #mayHoldGarbage = false

  private constructor(file: string, number: number, fd: number, offset: number) {
    this.file = file
    this.number = number
    this.#fd = fd
    this.#offset = offset
  }

  static async create(directory: string, number: number): Promise<Segment> {
    const file = path.join(directory, segmentName(number))
    return new Segment(file, number, await calls.open(file, 'wx', 0o600), 0)
  }

  /** Continues a segment at `offset`; whatever follows is cut off. */
  static async continue(file: string, number: number, offset: number): Promise<Segment> {
    const fd = await calls.open(file, 'r+')
    await calls.ftruncate(fd, offset)
    await calls.fdatasync(fd)
    return new Segment(file, number, fd, offset)
  }

  get bytes(): number {
    return this.#offset
  }

  /**
   * While no sync is under way the page cache takes the bytes at once: a few microseconds, where a thread of the pool and its two wake-ups
   * cost a call more than everything else here. During a sync, which is as long as the disk wants, a write may have to wait: then it is a
   * thread that does.
   *
   * All of `bytes` or nothing: after a failure the file ends where it ended before, at the latest when the next append succeeds. */
  async append(bytes: Uint8Array): Promise<void> {
    if (this.#mayHoldGarbage) await this.#cut()
    let written = 0
    try {
      while (written < bytes.length) {
        const rest = bytes.subarray(written)
        const position = this.#offset + written
        written +=
          this.#syncing === undefined
            ? writeSync(this.#fd, rest, 0, rest.length, position)
            : await this.#writeAt(rest, position)
      }
    } catch (cause) {
      this.#mayHoldGarbage = true
      await this.#cut().catch(() => {})
      throw cause
    }
    this.#offset += bytes.length
  }

  async #cut(): Promise<void> {
    await calls.ftruncate(this.#fd, this.#offset)
    this.#mayHoldGarbage = false
  }

  #writeAt(bytes: Uint8Array, position: number): Promise<number> {
    return new Promise((resolve, reject) => {
      write(this.#fd, bytes, 0, bytes.length, position, (error, count) => (error ? reject(error) : resolve(count)))
    })
  }

  /** Puts on disk what was appended before the call. */
  async sync(): Promise<void> {
    while (this.#syncing) await this.#syncing.catch(() => {})
    this.#syncing = calls.fdatasync(this.#fd)
    try {
      await this.#syncing
    } finally {
      this.#syncing = undefined
    }
  }

  async close(): Promise<void> {
    await this.#syncing?.catch(() => {})
    await calls.close(this.#fd)
  }
}
