/**
 * Takes each signature to one of the gateways, and to another when that one fails it: an error that says so, a connection that ended, or no
 * answer within its share of the time. A gateway that is late may still answer; whichever answers first counts (a signature may be made
 * twice). What finds no connection waits for one, within its time. One event loop; the number of requests is bounded.
 */
import { randomBytes } from 'node:crypto'
import { nameToken } from '../authenticate/tls-bindings.ts'
import type { Answer, Asked } from '../transport/offload/connection.ts'
import type { OffloadFailure } from '../transport/offload/dialect.ts'
import { type ErrorBody, errorNumbers, traceIdBytes } from '../transport/offload/frames.ts'
import type { AttemptEnd, RelayEvents } from './events.ts'
import type { Forwarded, Link, LinkAnswer } from './link.ts'
import type { Upstream } from './upstream.ts'

export interface DispatchLimits {
  readonly maxPending: number
  /** Share of what remains of a request's time after which another gateway is asked too. */
  readonly attemptPercent: number
}

export interface DispatchCounters {
  requests: number
  signatures: number
  /** Went to a second gateway, or a second time to one. */
  again: number
}

export interface Dispatch {
  readonly counters: DispatchCounters
  readonly pending: number
  readonly waiting: number
  forward(asked: Asked): Promise<Answer>
  /** Those who wait look for room. */
  pump(): void
}

interface Attempt {
  readonly upstream: Upstream
  readonly link: Link
  readonly requestId: number
}

interface Work {
  readonly forwarded: Forwarded
  readonly deadlineMs: number
  readonly attempts: Set<Attempt>
  /** Gateways that failed it and are not asked again. */
  readonly failedAt: Set<Upstream>
  sends: number
  failure: OffloadFailure | undefined
  timer: NodeJS.Timeout | undefined
  resolve: (answer: Answer) => void
}

/** One gateway, and another; a third time only when connections ended. */
const maxSends = 2
const maxSendsAfterLoss = 3
/** The answer reaches the caller before it gives up. */
const answerMarginMs = 10
/** Without any gateway requests wait for so long after the last one was lost; then they are refused at once. */
const hopeMs = 1000

const errorNames = new Map<number, string>(Object.entries(errorNumbers).map(([name, number]) => [number, name]))

const busy = failureOf('busy', true, 'the relay has too much to do')
const late = failureOf('deadline', false, 'there was no result in time')
/** Not `shuttingDown`: callers would wait for another connection, and here there is none to be had. */
const unreachable = failureOf('hsm', true, 'no gateway can be reached')

export function createDispatch(
  limits: DispatchLimits,
  upstreams: () => readonly Upstream[],
  events: RelayEvents,
): Dispatch {
  const waiting = new Set<Work>()
  const counters: DispatchCounters = { requests: 0, signatures: 0, again: 0 }
  let pending = 0
  let turn = 0

  function settle(work: Work, answer: Answer): void {
    clearTimeout(work.timer)
    waiting.delete(work)
    for (const { link, requestId } of work.attempts) link.forget(requestId)
    work.attempts.clear()
    // the connection that brought it may be gone, and its copy wiped: this one is ours
    work.forwarded.token.fill(0)
    pending--
    if (answer.ok) counters.signatures++
    work.resolve(answer)
  }

  const fail = (work: Work, failure: OffloadFailure) => settle(work, { ok: false, failure })

  /** Its time is over, while a gateway had it, or while it waited for one. */
  function expire(work: Work): void {
    const isLost = work.attempts.size === 0 && upstreams().every(({ isUp }) => !isUp)
    fail(work, isLost ? unreachable : late)
  }

  /** The gateway to ask next: not one that failed it, resting ones last, the least busy first, in turn when they are alike. */
  function choose(work: Work): { readonly upstream: Upstream; readonly link: Link } | undefined {
    const all = upstreams()
    const nowMs = performance.now()
    turn = (turn + 1) % Math.max(1, all.length)
    let best: { readonly upstream: Upstream; readonly link: Link } | undefined
    let bestBurden = Number.POSITIVE_INFINITY
    for (let i = 0; i < all.length; i++) {
      const upstream = all[(turn + i) % all.length] as Upstream
      if (work.failedAt.has(upstream)) continue
      const link = upstream.pick()
      if (link === undefined || (link.isSuspect && work.sends > 0)) continue
      const isPoor = link.isSuspect || upstream.isResting(nowMs)
      const burden = upstream.inFlight + (isPoor ? 1_000_000 : 0)
      if (burden < bestBurden) {
        best = { upstream, link }
        bestBurden = burden
      }
    }
    return best
  }

  /** Sends it, or lets it wait while that makes sense; whether it waits. */
  function advance(work: Work): boolean {
    const chosen = choose(work)
    if (chosen !== undefined) {
      waiting.delete(work)
      send(work, chosen.upstream, chosen.link)
    } else if (work.attempts.size > 0 || isHopeful(work)) {
      waiting.add(work)
      return true
    } else fail(work, work.failure ?? unreachable)
    return false
  }

  /** Another gateway is up and full, or one was lost a moment ago. */
  function isHopeful(work: Work): boolean {
    const nowMs = performance.now()
    return upstreams().some(
      (upstream) =>
        !work.failedAt.has(upstream) && (upstream.downSinceMs === undefined || nowMs - upstream.downSinceMs < hopeMs),
    )
  }

  function send(work: Work, upstream: Upstream, link: Link): void {
    const refusal = link.refusalOf(work.forwarded)
    if (refusal !== undefined) {
      fail(work, failureOf('badRequest', false, refusal))
      return
    }
    const remainingMs = work.deadlineMs - performance.now()
    if (remainingMs < 1) {
      fail(work, late)
      return
    }
    if (work.sends > 0) counters.again++
    work.sends++
    upstream.counters.requests++
    const requestId = link.send(work.forwarded, remainingMs, (answer) => onAnswer(work, attempt, answer))
    const attempt: Attempt = { upstream, link, requestId }
    work.attempts.add(attempt)
    clearTimeout(work.timer)
    work.timer =
      work.sends < maxSends
        ? setTimeout(onLate, (remainingMs * limits.attemptPercent) / 100, work, attempt)
        : setTimeout(expire, remainingMs, work)
  }

  /** The gateway is left to answer, and another one is asked meanwhile. */
  function onLate(work: Work, attempt: Attempt): void {
    const { upstream, link } = attempt
    work.timer = setTimeout(expire, Math.max(0, work.deadlineMs - performance.now()), work)
    link.suspect()
    noteEnd(upstream, 'late', 'no answer within its share of the time')
    upstream.failed(performance.now())
    work.failedAt.add(upstream)
    advance(work)
  }

  function onAnswer(work: Work, attempt: Attempt, answer: LinkAnswer): void {
    const { upstream, link } = attempt
    if (!work.attempts.delete(attempt)) return
    if (answer.kind === 'signature') {
      upstream.succeeded()
      upstream.counters.signatures++
      settle(work, { ok: true, signature: answer.signature })
    } else if (answer.kind === 'lost' && answer.isUnseen) {
      work.sends--
      again(work, maxSends, unreachable)
    } else if (answer.kind === 'lost') {
      noteEnd(upstream, 'lost', answer.detail)
      again(work, maxSendsAfterLoss, unreachable)
    } else onError(work, upstream, link, answer.error)
  }

  function onError(work: Work, upstream: Upstream, link: Link, error: ErrorBody): void {
    const failure = describe(error)
    const isOver = error.code === errorNumbers.deadline
    if (!error.retryable && !(isOver && work.attempts.size > 0)) {
      if (!isOver) upstream.succeeded()
      fail(work, failure)
      return
    }
    if (error.code === errorNumbers.shuttingDown && !link.isOpen) {
      // it never looked at the request
      work.sends--
      again(work, maxSends, failure)
      return
    }
    noteEnd(upstream, 'refused', `${failure.code}: ${failure.text}`)
    // a full queue or a token's rate says nothing about the gateway
    if (error.code !== errorNumbers.busy) upstream.failed(performance.now())
    work.failedAt.add(upstream)
    again(work, maxSends, failure)
  }

  function again(work: Work, sends: number, failure: OffloadFailure): void {
    work.failure = failure
    if (work.attempts.size > 0) return
    if (work.sends >= sends) fail(work, failure)
    else {
      clearTimeout(work.timer)
      work.timer = setTimeout(expire, Math.max(0, work.deadlineMs - performance.now()), work)
      advance(work)
    }
  }

  function noteEnd(upstream: Upstream, end: AttemptEnd, detail: string): void {
    upstream.counters[end]++
    events.attemptFailed(upstream.name, end, detail)
  }

  return {
    counters,
    get pending() {
      return pending
    },
    get waiting() {
      return waiting.size
    },
    forward({ request, token, peer, app, receivedMs, budgetMs }) {
      counters.requests++
      if (pending >= limits.maxPending) return Promise.resolve({ ok: false, failure: busy })
      pending++
      const { promise, resolve } = Promise.withResolvers<Answer>()
      const { keyId, algorithm, hash, mgfHash, saltBytes, inputKind, input, traceId } = request
      const deadlineMs = receivedMs + budgetMs - Math.min(answerMarginMs, budgetMs / 10)
      const work: Work = {
        forwarded: {
          request: {
            keyId,
            algorithm,
            hash,
            mgfHash,
            saltBytes,
            inputKind,
            input,
            // the audit records of one signature that was asked for twice show the same
            traceId: traceId ?? randomBytes(traceIdBytes),
          },
          token: Buffer.from(token),
          tokenDigest: nameToken(token),
          reported: peer.kind === 'local' ? { uid: peer.uid, pid: peer.pid, app } : {},
        },
        deadlineMs,
        attempts: new Set(),
        failedAt: new Set(),
        sends: 0,
        failure: undefined,
        timer: undefined,
        resolve,
      }
      work.timer = setTimeout(expire, Math.max(0, deadlineMs - performance.now()), work)
      advance(work)
      return promise
    },
    pump() {
      for (const work of waiting) {
        // what may go to any gateway and finds no room is not followed by others that do
        if (advance(work) && work.failedAt.size === 0 && work.sends === 0) return
      }
    },
  }
}

function describe({ code, retryable, text }: ErrorBody): OffloadFailure {
  return { number: code, code: errorNames.get(code) ?? 'other', retryable, text }
}

function failureOf(code: keyof typeof errorNumbers, retryable: boolean, text: string): OffloadFailure {
  return Object.freeze({ number: errorNumbers[code], code, retryable, text })
}
