/** Reads files that operators name: never more than a chain of certificates is long. */
import { open } from 'node:fs/promises'
import { ProblemsError } from '../problem.ts'

const maxFileBytes = 1024 * 1024

/** @throws ProblemsError */
export async function readSmallFile(file: string): Promise<string> {
  const problem = (text: string, remedy: string, cause?: unknown) =>
    new ProblemsError([{ at: file, cause: text, remedy }], { cause })
  try {
    await using handle = await open(file, 'r')
    const buffer = Buffer.alloc(maxFileBytes + 1)
    let length = 0
    for (;;) {
      const { bytesRead } = await handle.read(buffer, length, buffer.length - length)
      length += bytesRead
      if (length > maxFileBytes) throw problem('is longer than a megabyte', 'name another file')
      if (bytesRead === 0) break
    }
    const text = buffer.toString('utf8', 0, length)
    buffer.fill(0, 0, length)
    return text
  } catch (cause) {
    if (cause instanceof ProblemsError) throw cause
    const { code } = cause as NodeJS.ErrnoException
    throw problem(`cannot be read (${code})`, 'name a file that you may read', cause)
  }
}
