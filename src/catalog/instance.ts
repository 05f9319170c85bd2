/**
 * This gateway among those that share the catalog: its row, its heartbeat, and, with `pollMs`, what the others changed.
 *
 * A gateway that shares its catalog may use what it has cached for `leaseMs` from the start of the last poll whose heartbeat was
 * written. So a writer knows when nobody uses an older version any more: when all others have written that they saw its revision, or
 * `leaseMs` after its commit, whichever is first. No clocks are compared, only durations.
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

export interface Instance extends AsyncDisposable {
  readonly id: string
  isCurrent(): boolean
  whenCurrent(): Promise<void>
  isNewest(revision: number): boolean
  acknowledged(revision: number): Promise<void>
}

export interface InstanceOptions {
  readonly database: Database
  readonly now: () => number
  /** Undefined: no other gateway shares the catalog. */
  readonly pollMs: number | undefined
  readonly othersChanged: (changes: readonly (Change & { readonly revision: number })[]) => void
  /** Called when it fell too far behind to tell what changed. */
  readonly anythingChanged: () => void
  readonly report: (error: GatewayError) => void
}

export async function openInstance(options: InstanceOptions): Promise<Instance> {
  const { database, now, pollMs } = options
  const db = database.sql
  const id = randomUUID()
  /** Gateways whose lease ran out, with the heartbeat they had then. */
  const lapsed = new Map<string, number>()
  const selectRevision = db.selectFrom('counter').select('value').where('name', '=', 'revision').compile()

  let seen = 0
  let writtenSeen = -1
  let renewedAt = Number.NEGATIVE_INFINITY
  let polling: Promise<void> | undefined

  const register = async () => {
    const at = now()
    const started = performance.now()
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
    await database.write([
      {
        query: db
          .deleteFrom('instance')
          .where('seen_at', '<', at - forgottenAfterMs)
          .compile(),
      },
      { query: db.insertInto('instance').values(row).compile() },
    ])
    renewedAt = started
    writtenSeen = seen
  }

  const beat = async (started: number) => {
    const query = db
      .updateTable('instance')
      .set(({ eb }) => ({ seen_at: now(), seen_revision: seen, beat: eb('beat', '+', 1) }))
      .where('id', '=', id)
    const written = seen
    const outcome = await database.write([{ query: query.compile(), expectRows: 1 }])
    if (!outcome.committed) return await register()
    renewedAt = started
    writtenSeen = written
  }

  const poll = async () => {
    const started = performance.now()
    const [[counter], [trimmed], changes] = await database.read([
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
    if (trimmed!.value > seen || changes.length === maxChangesPerPoll) options.anythingChanged()
    else if (changes.length > 0) options.othersChanged(changes)
    seen = counter!.value
    if (seen !== writtenSeen || started - renewedAt > leaseMs / 4) await beat(started)
  }

  const pollOnce = () => {
    polling ??= poll().finally(() => {
      polling = undefined
    })
    return polling
  }

  const reportFailure = (error: unknown) => {
    options.report(error instanceof GatewayError ? error : catalogUnavailable('the heartbeat failed', error))
  }

  const isCurrent = () => pollMs === undefined || performance.now() - renewedAt < leaseMs

  const [[counter]] = await database.read([selectRevision])
  seen = counter!.value
  await register()
  const timer = setInterval(
    () => (pollMs === undefined ? beat(performance.now()) : pollOnce()).catch(reportFailure),
    pollMs ?? heartbeatMs,
  ).unref()

  return {
    id,
    isCurrent,

    async whenCurrent() {
      if (isCurrent()) return
      await pollOnce()
      if (!isCurrent()) throw catalogUnavailable('the changes of other gateways cannot be read in time')
    },

    isNewest: (revision) => pollMs === undefined || seen <= revision,

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
      await database.write([{ query: db.deleteFrom('instance').where('id', '=', id).compile() }]).catch(reportFailure)
    },
  }
}
