/**
 * When each key was last used (GetKeyLastUsage). Uses are kept in memory, the newest of each key, and written in batches: no call waits for a
 * write, and a crash loses the last seconds.
 */
import type { Catalog, KeyName, KeyUsageRecord } from '../catalog/catalog.ts'

const flushMs = 5_000
/** Keys in memory before a write comes early. */
const maxWaiting = 10_000
const rowsPerWrite = 1_000

export interface LastUsage extends AsyncDisposable {
  note(usage: KeyUsageRecord): void
  find(name: KeyName): Promise<KeyUsageRecord | undefined>
  /** Resolves when everything noted so far is written, or could not be. */
  flush(): Promise<void>
}

export interface LastUsageParts {
  readonly catalog: Pick<Catalog, 'putUsages' | 'findUsage'>
  /** A write that failed; its uses wait for the next one. */
  readonly failed: (cause: unknown) => void
}

export function openLastUsage({ catalog, failed }: LastUsageParts): LastUsage {
  let waiting = new Map<string, KeyUsageRecord>()
  let writing: ReadonlyMap<string, KeyUsageRecord> = new Map()
  let running = Promise.resolve()

  const nameOf = ({ account, region, keyId }: KeyName) => `${account}/${region}/${keyId}`

  async function write(): Promise<void> {
    writing = waiting
    waiting = new Map()
    const usages = [...writing.values()]
    try {
      for (let at = 0; at < usages.length; at += rowsPerWrite) {
        await catalog.putUsages(usages.slice(at, at + rowsPerWrite))
      }
    } catch (cause) {
      failed(cause)
      for (const [name, usage] of writing) {
        if (!waiting.has(name) && waiting.size < maxWaiting) waiting.set(name, usage)
      }
    }
    writing = new Map()
  }

  function flush(): Promise<void> {
    running = running.then(() => (waiting.size === 0 ? undefined : write()))
    return running
  }

  const timer = setInterval(flush, flushMs)
  timer.unref()
  return {
    note(usage) {
      waiting.set(nameOf(usage), usage)
      if (waiting.size === maxWaiting) flush()
    },
    async find(name) {
      const key = nameOf(name)
      return waiting.get(key) ?? writing.get(key) ?? (await catalog.findUsage(name))
    },
    flush,
    async [Symbol.asyncDispose]() {
      clearInterval(timer)
      await flush()
    },
  }
}
