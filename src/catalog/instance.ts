/**
 * This gateway among those that share the catalog: its row, its heartbeat, and, with `pollMs`, what the others changed.
 *
 * A gateway that shares its catalog may use what it has cached for `leaseMs` from the start of the last poll whose heartbeat was
 * written. So a writer knows when nobody uses an older version any more: when all others have written that they saw its revision, or
 * `leaseMs` after its commit, whichever is first. Nobody waits for a heartbeat that is older: who wrote none in time reads once more after the next
 * before it uses anything. No clocks are compared, only durations.
 */
import { randomUUID } from 'node:crypto'
import { hostname } from 'node:os'
import { setTimeout as delay } from 'node:timers/promises'
import { GatewayError } from '../error.ts'
import { catalogUnavailable, type Database } from './database.ts'
import type { Change } from './write-queue.ts'

export const leaseMs = 1_000
const heartbeatMs = 10_000
const forgottenAfterMs = 24 * 60 * 60 * 1_000
const maxChangesPerPoll = 5_000
/** A heartbeat that stands still for so long is that of a gateway that stopped: it comes four times in a lease. */
const goneAfterMs = 5 * leaseMs
/** One that took too long to count is tried again. */
const maxPollsOfCaller = 4
/** An outage is reported when it begins and as often as this while it lasts. */
const reportEveryMs = 60_000

export interface Instance extends AsyncDisposable {
  readonly id: string
  isCurrent(): boolean
  whenCurrent(): Promise<void>
  isNewest(revision: number): boolean
  /** Whether no other gateway runs under this name (any more); takes its time to look. */
  isGone(instance: string): Promise<boolean>
  acknowledged(revision: number): Promise<void>
}

export interface InstanceOptions {
  readonly database: Database
  /** For heartbeat and changes alone, so that they wait for no other work; may be the same. */
  readonly pulse: Database
  readonly now: () => number
  /** Undefined: no other gateway shares the catalog. */
  readonly pollMs: number | undefined
  readonly othersChanged: (changes: readonly (Change & { readonly revision: number })[]) => void
  /** Called when it fell too far behind to tell what changed, and after an outage. */
  readonly anythingChanged: () => void
  readonly report: (error: GatewayError) => void
  /** Polling works again. */
  readonly restored: (awayMs: number) => void
}

export async function openInstance(options: InstanceOptions): Promise<Instance> {
  const { database, pulse, now, pollMs } = options
  const db = database.sql
  const id = randomUUID()
  /** Gateways whose lease ran out, with the heartbeat they had then. */
  const lapsed = new Map<string, number>()
  const selectRevision = db.selectFrom('counter').select('value').where('name', '=', 'revision').compile()

  let seen = 0
  let writtenSeen = -1
  let renewedAt = Number.NEGATIVE_INFINITY
  /** When the poll began whose heartbeat was written last: until a lease later all others wait for this gateway. */
  let awaitedFrom = Number.NEGATIVE_INFINITY
  let polling: Promise<void> | undefined
  let awaySince: number | undefined
  let reportedAt = Number.NEGATIVE_INFINITY

  const register = async (started: number) => {
    const at = now()
    const row = {
      id,
      host: hostname(),
      pid: process.pid,
      started_at: at,
      seen_at: at,
      beat: 0,
      seen_revision: seen,
      revision: seen,
    }
    await pulse.write([
      {
        query: db
          .deleteFrom('instance')
          .where('seen_at', '<', at - forgottenAfterMs)
          .compile(),
      },
      { query: db.insertInto('instance').values(row).compile() },
    ])
    awaitedFrom = started
    writtenSeen = seen
  }

  const beat = async (started: number) => {
    const query = db
      .updateTable('instance')
      .set(({ eb }) => ({ seen_at: now(), seen_revision: seen, beat: eb('beat', '+', 1) }))
      .where('id', '=', id)
    const written = seen
    const outcome = await pulse.write([{ query: query.compile(), expectRows: 1 }])
    if (!outcome.committed) return await register(started)
    // others may have given this gateway up, and made changes since the poll without a look at this heartbeat: the next poll reads them
    if (performance.now() - awaitedFrom < leaseMs) renewedAt = started
    awaitedFrom = started
    writtenSeen = written
  }

  const poll = async () => {
    const started = performance.now()
    const [[counter], [trimmed], changes] = await pulse.read([
      selectRevision,
      db.selectFrom('counter').select('value').where('name', '=', 'trimmed').compile(),
      db
        .selectFrom('change')
        .select(['table', 'name', 'revision'])
        .where('revision', '>', seen)
        .where('instance', '!=', id)
        .orderBy('revision')
        .limit(maxChangesPerPoll)
        .compile(),
    ])
    const hasGoneBack = counter!.value < seen
    if (hasGoneBack) {
      const remedy = 'a backup was restored under a running gateway, or a standby took over that had not everything'
      options.report(catalogUnavailable(`the catalog went back from revision ${seen} to ${counter!.value}: ${remedy}`))
    }
    if (hasGoneBack || trimmed!.value > seen || changes.length === maxChangesPerPoll) options.anythingChanged()
    else if (changes.length > 0) options.othersChanged(changes)
    seen = counter!.value
    if (seen !== writtenSeen || started - renewedAt > leaseMs / 4) await beat(started)
  }

  const reportFailure = (error: unknown) => {
    const at = performance.now()
    if (at - reportedAt < reportEveryMs) return
    reportedAt = at
    options.report(error instanceof GatewayError ? error : catalogUnavailable('the heartbeat failed', error))
  }

  const noteBack = () => {
    if (awaySince === undefined) return
    const awayMs = performance.now() - awaySince
    awaySince = undefined
    reportedAt = Number.NEGATIVE_INFINITY
    // whoever was told of a change just before may not have been able to read it
    options.anythingChanged()
    options.restored(awayMs)
  }

  const pollOnce = () => {
    polling ??= poll()
      .then(noteBack, (error: unknown) => {
        awaySince ??= performance.now()
        throw error
      })
      .finally(() => {
        polling = undefined
      })
    return polling
  }

  const isCurrent = () => pollMs === undefined || performance.now() - renewedAt < leaseMs

  const [[counter]] = await pulse.read([selectRevision])
  seen = counter!.value
  // nothing is in memory yet
  renewedAt = performance.now()
  await register(renewedAt)
  const timer = setInterval(
    () => (pollMs === undefined ? beat(performance.now()) : pollOnce()).catch(reportFailure),
    pollMs ?? heartbeatMs,
  ).unref()

  return {
    id,
    isCurrent,

    async whenCurrent() {
      if (isCurrent()) return
      // while the server is away callers are refused at once; the timer finds out when it is back
      for (let count = 0; count < maxPollsOfCaller && awaySince === undefined && !isCurrent(); count++) await pollOnce()
      if (!isCurrent()) throw catalogUnavailable('the changes of other gateways cannot be read in time')
    },

    isNewest: (revision) => pollMs === undefined || seen <= revision,

    async isGone(other) {
      // alone on the catalog: who was there before is gone, however far its clock had run ahead
      if (pollMs === undefined || other === id) return true
      const end = performance.now() + goneAfterMs
      let first: number | undefined
      for (;;) {
        const [[row]] = await database.read([
          db.selectFrom('instance').select('beat').where('id', '=', other).compile(),
        ])
        if (!row) return true
        first ??= row.beat
        if (row.beat !== first) return false
        if (performance.now() >= end) return true
        await delay(pollMs)
      }
    },

    async acknowledged(revision) {
      if (pollMs === undefined) return
      const end = performance.now() + leaseMs
      for (;;) {
        const [others] = await database.read([
          db
            .selectFrom('instance')
            .select(['id', 'beat'])
            .where('id', '!=', id)
            .where('seen_revision', '<', revision)
            .compile(),
        ])
        const awaited = others.filter((other) => lapsed.get(other.id) !== other.beat)
        if (awaited.length === 0) return
        if (performance.now() >= end) {
          for (const other of awaited) lapsed.set(other.id, other.beat)
          return
        }
        await delay(Math.min(pollMs, 20))
      }
    },

    async [Symbol.asyncDispose]() {
      clearInterval(timer)
      await polling?.catch(() => {})
      // without it, others wait for this one once
      await pulse.write([{ query: db.deleteFrom('instance').where('id', '=', id).compile() }]).catch(reportFailure)
    },
  }
}
