/**
 * What one token can do: from the cache, else by the probe of one serve worker. A probe may kill its worker; after three failures it is the
 * operator's turn, until something about the token changes.
 */

import type { CapabilityCache } from './capability-cache.ts'
import type { HsmEvents } from './events.ts'
import type { WorkerReady } from './frames.ts'
import type { Capabilities } from './port.ts'
import type { TokenConfig } from './token-config.ts'
import { AskFailure, type WorkerProcess } from './worker-process.ts'

export interface Prober {
  capabilities(): Capabilities | undefined
  trouble(): string | undefined
  /** A serve worker became ready: learns from it unless everything is known. */
  learn(worker: WorkerProcess, ready: WorkerReady): Promise<void>
  /** Lets a failing probe be tried again. */
  forgive(): void
}

const limitMs = 180_000
const maxFailures = 3

export function createProber(options: {
  readonly token: () => TokenConfig
  readonly cache: CapabilityCache
  readonly observe: HsmEvents
  /** Another serve worker to try on. */
  findWorker(): WorkerProcess | undefined
  onChange(): void
}): Prober {
  const { token, cache, observe } = options
  let capabilities: Capabilities | undefined
  let isProbing = false
  let failures = 0
  let trouble: string | undefined

  function know(proven: Capabilities, isCached: boolean, elapsedMs: number): void {
    capabilities = proven
    failures = 0
    trouble = undefined
    observe.capabilitiesKnown(token().name, isCached, elapsedMs)
    options.onChange()
  }

  async function learn(worker: WorkerProcess, ready: WorkerReady): Promise<void> {
    const startedAtMs = performance.now()
    const cached = cache.find(token().name, token().module, ready)
    if (cached !== undefined) {
      know(cached, true, performance.now() - startedAtMs)
      return
    }
    if (isProbing || failures >= maxFailures) return
    isProbing = true
    try {
      const answer = await worker.ask('probe', {}, limitMs)
      const proven = answer.capabilities as Capabilities
      cache.put(token().name, token().module, ready, proven)
      know(proven, false, performance.now() - startedAtMs)
    } catch (error) {
      failures++
      const cause = error instanceof AskFailure ? error.failure.detail : (error as Error).message
      trouble = `the capability probe failed (${cause}): hsmgate doctor tells more`
      options.onChange()
    }
    isProbing = false
    const another = options.findWorker()
    if (capabilities === undefined && another !== undefined) await learn(another, ready)
  }

  return {
    capabilities: () => capabilities,
    trouble: () => trouble,
    learn,
    forgive() {
      failures = 0
    },
  }
}
