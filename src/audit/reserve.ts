/**
 * Disk space held back in a file of its own, given up slice by slice when the disk is full, so that records can still be written
 * while operators make room. Random bytes fill it, because some file systems keep no blocks for zeros.
 */
import { randomFillSync } from 'node:crypto'
import { open, statfs } from 'node:fs/promises'
import path from 'node:path'

const sliceBytes = 1024 * 1024

export class Reserve {
  readonly #file: string
  readonly #wantedBytes: number
  #heldBytes = 0
  #filling: Promise<void> = Promise.resolve()

  constructor(directory: string, wantedBytes: number) {
    this.#file = path.join(directory, 'reserve')
    this.#wantedBytes = wantedBytes
  }

  get heldBytes(): number {
    return this.#heldBytes
  }

  get isWhole(): boolean {
    return this.#heldBytes >= this.#wantedBytes
  }

  /** Fills the reserve up as far as the disk allows. */
  fill(): Promise<void> {
    this.#filling = this.#filling.catch(() => {}).then(() => this.#fillUp())
    return this.#filling
  }

  async #fillUp(): Promise<void> {
    const handle = await open(this.#file, 'a+', 0o600)
    try {
      const { size } = await handle.stat()
      if (size > this.#wantedBytes) await handle.truncate(this.#wantedBytes)
      this.#heldBytes = Math.min(size, this.#wantedBytes)
      const slice = Buffer.allocUnsafe(sliceBytes)
      while (this.#heldBytes < this.#wantedBytes) {
        const bytes = slice.subarray(0, Math.min(sliceBytes, this.#wantedBytes - this.#heldBytes))
        const { bytesWritten } = await handle.write(randomFillSync(bytes))
        this.#heldBytes += bytesWritten
      }
    } catch (cause) {
      if ((cause as NodeJS.ErrnoException).code !== 'ENOSPC') throw cause
    } finally {
      await handle.close()
    }
  }

  /** Gives up at least `bytes` of the reserve; false when nothing is left. */
  async release(bytes: number): Promise<boolean> {
    await this.#filling.catch(() => {})
    if (this.#heldBytes === 0) return false
    const slices = Math.ceil((bytes + 1) / sliceBytes)
    const left = Math.max(0, this.#heldBytes - slices * sliceBytes)
    const handle = await open(this.#file, 'r+')
    try {
      await handle.truncate(left)
      this.#heldBytes = left
    } finally {
      await handle.close()
    }
    return true
  }

  /** Space that the file system has left for us, without the reserve. */
  async freeBytes(): Promise<number> {
    const { bavail, bsize } = await statfs(path.dirname(this.#file))
    return bavail * bsize
  }
}
