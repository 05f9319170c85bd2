/**
 * Of the gateways that share a catalog one at a time starts: the first makes the system keys and settles what a crash left, and the next finds them
 * made. A gateway that dies while it starts is noticed by its heartbeat.
 */
import { setTimeout as delay } from 'node:timers/promises'
import type { Catalog } from './catalog/catalog.ts'
import { ProblemsError } from './problem.ts'

const name = 'start'
const leaseMs = 60_000
const renewMs = 15_000
const askAgainMs = 250
/** Longer than any start: generating keys can take minutes. */
const patienceMs = 300_000

type Leases = Pick<Catalog, 'isShared' | 'takeLease' | 'releaseLease'>

/** Disposing of it lets the next gateway start. @throws ProblemsError when the others never end. */
export async function takeStartTurn(catalog: Leases, limitMs = patienceMs): Promise<AsyncDisposable> {
  if (!catalog.isShared) return { async [Symbol.asyncDispose]() {} }
  const end = performance.now() + limitMs
  let fence = await catalog.takeLease(name, leaseMs)
  while (fence === undefined) {
    if (performance.now() > end) {
      const cause = 'another gateway on this catalog has been starting for minutes'
      throw new ProblemsError([{ at: 'catalog', cause, remedy: 'see its log, or stop it; then start again' }])
    }
    await delay(askAgainMs)
    fence = await catalog.takeLease(name, leaseMs)
  }
  const held = { name, fence }
  const timer = setInterval(() => catalog.takeLease(name, leaseMs).catch(() => {}), renewMs).unref()
  return {
    async [Symbol.asyncDispose]() {
      clearInterval(timer)
      await catalog.releaseLease(held).catch(() => {
        // it ends by itself
      })
    },
  }
}
