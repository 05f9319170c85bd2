/**
 * Files that appear whole or not at all: written beside their place, synced, then linked or renamed into it. Mode 0600 unless told.
 * Two processes may create the same file; one of them wins and the other learns it.
 */
import { randomBytes } from 'node:crypto'
import { link, open, readFile, rename, rm } from 'node:fs/promises'
import path from 'node:path'

/** Nothing in certificates and requests is secret, and whoever reads or carries them on may be another user. */
export const publicFileMode = 0o644

/** Creates `file`; false, and nothing is touched, when it exists. */
export async function createFile(file: string, content: string, mode = 0o600): Promise<boolean> {
  return place(file, content, mode, async (draft) => {
    try {
      await link(draft, file)
      return true
    } catch (cause) {
      if ((cause as NodeJS.ErrnoException).code === 'EEXIST') return false
      throw cause
    }
  })
}

/** Creates `file` or puts the new content in place of the old. */
export async function replaceFile(file: string, content: string, mode = 0o600): Promise<void> {
  await place(file, content, mode, (draft) => rename(draft, file))
}

/** Undefined when there is no such file. */
export async function findText(file: string): Promise<string | undefined> {
  try {
    return await readFile(file, 'utf8')
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw cause
  }
}

async function place<T>(file: string, content: string, mode: number, put: (draft: string) => Promise<T>): Promise<T> {
  const folder = path.dirname(file)
  const draft = path.join(folder, `.${path.basename(file)}.new-${randomBytes(6).toString('hex')}`)
  try {
    await writeSynced(draft, content, mode)
    const result = await put(draft)
    await syncFolder(folder)
    return result
  } finally {
    await rm(draft, { force: true })
  }
}

async function writeSynced(file: string, content: string, mode: number): Promise<void> {
  await using handle = await open(file, 'wx', 0o600)
  // the command's umask lets nothing else be wide
  if (mode !== 0o600) await handle.chmod(mode)
  await handle.writeFile(content)
  await handle.sync()
}

async function syncFolder(folder: string): Promise<void> {
  await using handle = await open(folder, 'r')
  await handle.sync()
}
