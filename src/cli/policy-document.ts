/** Policy documents that a command is given: by the name of a file, or on standard input. What they say is the gateway's to judge. */
import { open } from 'node:fs/promises'
import { ProblemsError } from '../problem.ts'
import type { Terminal } from './terminal.ts'

/** Well above what a policy may have. */
const maxDocumentBytes = 64 * 1024

/** @throws ProblemsError when the file cannot be read or is too large. */
export async function readPolicyDocument(file: string, terminal: Terminal): Promise<string> {
  try {
    if (file === '-') return await terminal.readInput(maxDocumentBytes)
    await using handle = await open(file)
    const { size } = await handle.stat()
    if (size > maxDocumentBytes) throw new RangeError(`holds more than ${maxDocumentBytes} bytes`)
    return await handle.readFile('utf8')
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException
    const text = code === 'ENOENT' ? 'does not exist' : code === undefined ? message : `cannot be read (${code})`
    throw new ProblemsError([{ at: file, cause: text, remedy: 'name a file with a policy document in JSON' }], {
      cause,
    })
  }
}
