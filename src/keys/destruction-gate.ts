/**
 * Whether keys may be destroyed now. Two things must hold: wall time can be trusted (trusted-clock.ts), and the catalog is not older than
 * what the journal's last signed checkpoint vouches for. A catalog restored from a copy has forgotten deletions that were cancelled
 * since; its own reading of the clock is as old as itself and would not notice.
 *
 * A pause lasts until an operator confirms it, across restarts: later checkpoints are about the restored catalog and no longer tell.
 */
import type { DestructionGate, Pause } from './keys.ts'
import { type ClockSource, type ClockStore, machineClock, openTrustedClock } from './trusted-clock.ts'

export interface Revisions {
  /** The catalog's, before this gateway wrote to it. */
  readonly catalog: number
  /** That of the journal's last checkpoint; undefined without one. */
  readonly signed: number | undefined
}

const setting = 'restored-catalog'

export async function openDestructionGate(
  store: ClockStore,
  revisions: Revisions,
  source: ClockSource = machineClock,
): Promise<DestructionGate> {
  const clock = openTrustedClock(store, source)
  let restored = parseRestored(await store.getSetting(setting))
  if (revisions.signed !== undefined && revisions.catalog < revisions.signed) {
    restored = { catalogRevision: revisions.catalog, signedRevision: revisions.signed }
    await store.putSetting(setting, JSON.stringify(restored))
  }
  let found: readonly Pause[] = []

  return {
    async check() {
      const now = await clock.check()
      const jumpMs = clock.jumpMs()
      found = [
        ...(jumpMs === undefined ? [] : [{ reason: 'clock', jumpMs } as const]),
        ...(restored === undefined ? [] : [{ reason: 'restored-catalog', ...restored } as const]),
      ]
      return { now: now ?? source.wallMs(), pauses: found }
    },
    pauses: () => found,
    latest: () => clock.latest(),
    async confirm() {
      await clock.confirm()
      if (restored === undefined) return
      await store.putSetting(setting, 'null')
      restored = undefined
    },
  }
}

function parseRestored(text: string | undefined): Omit<Pause & { reason: 'restored-catalog' }, 'reason'> | undefined {
  return text === undefined ? undefined : (JSON.parse(text) ?? undefined)
}
