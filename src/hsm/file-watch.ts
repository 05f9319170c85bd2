/**
 * Watches files by their metadata, once a second, as events of the kernel don't reach into every mount. A file that is gone for a moment
 * (rename, unmounted secret) is no change; one that comes back different is.
 */
import { statSync } from 'node:fs'

const everyMs = 1000

/** Starts with the state at the time of the call. @returns what ends it. */
export function watchFiles(paths: readonly string[], onChange: () => void): () => void {
  let seen = paths.map(markOf)
  let timer = setTimeout(look, everyMs).unref()

  function look(): void {
    const now = paths.map(markOf)
    const isChanged = now.some((mark, i) => mark !== '' && mark !== seen[i])
    timer = setTimeout(look, everyMs).unref()
    if (!isChanged) return
    seen = now
    onChange()
  }
  return () => clearTimeout(timer)
}

function markOf(path: string): string {
  try {
    const { ino, ctimeNs, size } = statSync(path, { bigint: true })
    return `${ino} ${ctimeNs} ${size}`
  } catch {
    return ''
  }
}
