/**
 * Whether what is kept in memory of the catalog is being read anew, or could not be: what is not found then may be there all the same, so no
 * refusal is final.
 */
import { GatewayError } from './error.ts'

export interface Unread {
  readonly isUnread: boolean
  /** Resolves when nothing is being read any more. @throws GatewayError `CatalogUnavailable` when something could not be read */
  whenRead(): Promise<void>
}

export interface Readings extends Unread {
  /** `work` reads; when it fails things are unread until `allRead`. */
  begin(work: Promise<unknown>): void
  allRead(): void
}

export function createReadings(): Readings {
  const readings = new Set<Promise<unknown>>()
  let hasFailed = false
  return {
    get isUnread() {
      return hasFailed || readings.size > 0
    },
    async whenRead() {
      // while the catalog is away callers are refused at once
      if (!hasFailed) await Promise.allSettled(readings)
      if (hasFailed) throw new GatewayError('CatalogUnavailable')
    },
    begin(work) {
      readings.add(work)
      work
        .catch(() => {
          hasFailed = true
        })
        .finally(() => readings.delete(work))
    },
    allRead() {
      hasFailed = false
    },
  }
}
