/**
 * The router of one group: decides which worker performs a call and what happens when the worker dies, hangs or fails.
 *
 * Rules: a call that cannot be met within its deadline is refused at once and never sent. A call in flight on a dead worker is sent once
 * more, elsewhere, inside its own deadline; the second death fails it and quarantines its shape. Suspects (calls sent again after a
 * death) travel one at a time per worker, so that a second death convicts the culprit and not its fellow travellers.
 * A silent worker is hedged at 40 % of what remains, and killed when it counts as hung.
 *
 * One event loop, no locks, no timer per call: one coarse tick runs while anything is open.
 */
import { GatewayError, toGatewayError } from '../error.ts'
import type { Breaker } from './breaker.ts'
import { createDeadlineQueue, type DeadlineQueue } from './deadline-queue.ts'
import { createEstimates } from './estimates.ts'
import type { HsmEvents, Lane, RetryReason } from './events.ts'
import { errorOf, stepOf } from './failure.ts'
import type { ResponseFrame } from './frame-codec.ts'
import { createQuarantine, quarantineMs } from './quarantine.ts'
import type { Attempt, RoutedCall } from './routed-call.ts'
import { createTicker } from './ticker.ts'
import { rvName } from './worker/rv.ts'
import { countReady, hasRoom, lanes, pickWorker, resumesAtMs, windowOf } from './worker-choice.ts'
import type { WorkerProcess } from './worker-process.ts'

export interface RouterOptions {
  readonly group: string
  readonly observe: HsmEvents
  breakerOf(worker: WorkerProcess): Breaker
  /** Orders a replacement; the worker serves on until the new one is warm. */
  replace(worker: WorkerProcess, reason: string): void
  /** Why no worker will come soon, if so. */
  trouble(): string | undefined
}

export interface Router {
  readonly workers: readonly WorkerProcess[]
  submit(call: RoutedCall): void
  /** A warm worker: it gets calls from now on. */
  add(worker: WorkerProcess): void
  /** No new calls for this worker (it drains); those on its session objects still go there. */
  retire(worker: WorkerProcess): void
  /** A dead worker: what was in flight is sent elsewhere or fails. */
  lost(worker: WorkerProcess, reason: string): void
  onAnswer(worker: WorkerProcess, attempt: Attempt, response: ResponseFrame): void
  onIdle(worker: WorkerProcess): void
  /** Fails what waits when no worker can come. */
  checkTrouble(): void
  /** Refuses new calls; resolves when nothing is open or the time is up, then fails the rest. */
  close(limitMs: number): Promise<void>
}

const attemptShare = 0.4
const longestServeMs = 2000
/** A worker gets at least this long: below it the machine's own scheduling would kill healthy workers. */
const shortestServeMs = 250
const maxQueued: Readonly<Record<Lane, number>> = { hot: 8192, admin: 256, manage: 256 }
/** Pauses double from 20 ms, so this many take about 0.6 s; of a module that refuses one call in five, one call in 16,000 is lost. */
const maxThrottles = 5
const maxStrikes = 3
const maxReplacements = 3

export function createRouter(options: RouterOptions): Router {
  const { group, observe } = options
  const workers: WorkerProcess[] = []
  const retired = new Set<WorkerProcess>()
  const queues = {
    hot: createDeadlineQueue<RoutedCall>(),
    admin: createDeadlineQueue<RoutedCall>(),
    manage: createDeadlineQueue<RoutedCall>(),
  }
  /** Calls that are sent once more: before the queues, oldest first. */
  let again: RoutedCall[] = []
  const quarantine = createQuarantine()
  const estimates = createEstimates()
  const ticker = createTicker(tick)
  let open = 0
  let closed: PromiseWithResolvers<void> | undefined

  // ---- in

  function submit(call: RoutedCall): void {
    open++
    const refusal = refusalOf(call)
    if (refusal !== undefined) {
      fail(call, refusal)
      return
    }
    ticker.start()
    if (call.pinnedTo !== undefined) submitPinned(call)
    else submitFree(call, queues[call.rule.lane])
  }

  function refusalOf(call: RoutedCall): GatewayError | undefined {
    if (closed !== undefined) return unavailable('the gateway is closing')
    if (call.submittedAtMs >= call.deadlineAtMs) return new GatewayError('DeadlineExceeded')
    if (quarantine.size > 0 && quarantine.holds(call.shape(), call.submittedAtMs))
      return new GatewayError('Quarantined')
    return undefined
  }

  function submitFree(call: RoutedCall, queue: DeadlineQueue<RoutedCall>): void {
    const { lane } = call.rule
    const worker = queue.size === 0 ? pickWorker(workers, lane, call.submittedAtMs, options.breakerOf) : undefined
    if (worker !== undefined) {
      send(call, worker, false)
      return
    }
    const refusal = queueRefusalOf(call)
    if (refusal !== undefined) {
      fail(call, refusal)
      return
    }
    queue.push(call)
    observe.callQueued(group, lane, queue.size)
  }

  /** Whether queueing is pointless: nobody will come, or too many wait before it. */
  function queueRefusalOf(call: RoutedCall): GatewayError | undefined {
    const { lane } = call.rule
    const { size } = queues[lane]
    const resumeMs = resumesAtMs(workers, lane, options.breakerOf)
    if (resumeMs === Number.POSITIVE_INFINITY) {
      const trouble = options.trouble()
      if (trouble !== undefined) return unavailable(trouble)
    } else if (resumeMs > call.deadlineAtMs) return unavailable('the token says that it is down')
    if (size >= maxQueued[lane]) return new GatewayError('HsmBusy', undefined, { detail: `${size} calls wait` })
    if (lane === 'hot' && size > 0) {
      const waitMs = estimates.waitMs(size, windowOf(workers))
      if (waitMs > call.deadlineAtMs - call.submittedAtMs)
        return new GatewayError('HsmBusy', undefined, { detail: `${size} calls wait, about ${Math.ceil(waitMs)} ms` })
    }
    return undefined
  }

  function submitPinned(call: RoutedCall): void {
    const worker = findPinned(call)
    if (worker === undefined) fail(call, unavailable('the session object died with its worker'))
    else if (worker.pinned.length === 0 && hasRoom(worker, call.rule.lane)) send(call, worker, false)
    else if (worker.pinned.length >= maxQueued.admin) fail(call, new GatewayError('HsmBusy'))
    else worker.pinned.push(call)
  }

  function findPinned(call: RoutedCall): WorkerProcess | undefined {
    for (const worker of workers) if (worker.id === call.pinnedTo && worker.state !== 'dead') return worker
    for (const worker of retired) if (worker.id === call.pinnedTo && worker.state === 'draining') return worker
    return undefined
  }

  // ---- out

  function send(call: RoutedCall, worker: WorkerProcess, suspect: boolean): void {
    const nowMs = performance.now()
    const remainingMs = call.deadlineAtMs - nowMs
    const { rule } = call
    const hangMs =
      rule.hangMs ?? Math.max(shortestServeMs, Math.min(longestServeMs, 2 * (call.deadlineAtMs - call.submittedAtMs)))
    const hedges = rule.replay === 'hedge' && !call.hedged && call.pinnedTo === undefined
    const attempt: Attempt = {
      call,
      operation: call.operation,
      sentAtMs: nowMs,
      hedgeAtMs: hedges ? nowMs + remainingMs * attemptShare : Number.POSITIVE_INFINITY,
      killAtMs: nowMs + hangMs,
      suspect,
    }
    try {
      call.admit?.()
      worker.send(attempt, Math.max(1, Math.ceil(remainingMs)))
    } catch (cause) {
      if (call.live === 0) fail(call, toGatewayError(cause))
      return
    }
    if (call.firstSentAtMs === 0) call.firstSentAtMs = nowMs
    call.live++
    if (rule.lane === 'hot') worker.hotInFlight++
    else worker.adminInFlight++
    if (suspect) worker.suspectsInFlight++
    options.breakerOf(worker).sent()
  }

  /** Sends whatever waits and has room. */
  function pump(nowMs: number): void {
    if (again.length > 0) pumpAgain(nowMs)
    for (const lane of lanes) if (queues[lane].size > 0) pumpLane(lane, queues[lane], nowMs)
  }

  function pumpLane(lane: Lane, queue: DeadlineQueue<RoutedCall>, nowMs: number): void {
    const { size } = queue
    while (queue.size > 0) {
      const worker = pickWorker(workers, lane, nowMs, options.breakerOf)
      if (worker === undefined) break
      const call = queue.pop()!
      if (call.deadlineAtMs - nowMs < estimates.serviceMs(call.estimate)) expire(call)
      else send(call, worker, false)
    }
    if (queue.size < size) observe.callQueued(group, lane, queue.size)
  }

  function pumpPinned(worker: WorkerProcess): void {
    while (worker.pinned.length > 0 && hasRoom(worker, worker.pinned[0]!.rule.lane)) {
      send(worker.pinned.shift()!, worker, false)
    }
  }

  function pumpAgain(nowMs: number): void {
    const waiting: RoutedCall[] = []
    for (const call of again) {
      if (call.state !== 'open') continue
      const worker =
        call.notBeforeMs <= nowMs
          ? pickWorker(workers, call.rule.lane, nowMs, options.breakerOf, (candidate) => mayTry(call, candidate))
          : undefined
      if (worker === undefined) waiting.push(call)
      else send(call, worker, call.deaths > 0 || call.hedged)
    }
    again = waiting
  }

  function mayTry(call: RoutedCall, worker: WorkerProcess): boolean {
    if (call.avoid === worker.id && (call.live > 0 || countReady(workers, call.rule.lane) > 1)) return false
    if (call.needsSound && worker.doubt !== undefined) return false
    if (call.deaths > 0) return worker.suspectsInFlight === 0
    return !call.hedged || worker.suspectsInFlight < Math.max(1, worker.maxWindow >> 2)
  }

  function sendAgain(call: RoutedCall, avoid: WorkerProcess, why: RetryReason, delayMs = 0): void {
    call.avoid = avoid.id
    call.notBeforeMs = delayMs === 0 ? 0 : performance.now() + delayMs
    again.push(call)
    observe.callRetried(group, call.operation, why)
  }

  // ---- answers

  function release(worker: WorkerProcess, attempt: Attempt): void {
    attempt.call.live--
    if (attempt.call.rule.lane === 'hot') worker.hotInFlight--
    else worker.adminInFlight--
    if (attempt.suspect) worker.suspectsInFlight--
  }

  function onAnswer(worker: WorkerProcess, attempt: Attempt, response: ResponseFrame): void {
    const { call } = attempt
    release(worker, attempt)
    if (response.failure !== undefined) {
      onFailure(worker, call, response.failure, response.hsmMicros)
      return
    }
    const nowMs = performance.now()
    const hsmMs = response.hsmMicros / 1000
    worker.strikes = 0
    if (worker.doubt === attempt.operation) worker.doubt = undefined
    if (worker.window < worker.maxWindow) worker.window = Math.min(worker.maxWindow, worker.window + 1 / worker.window)
    if (options.breakerOf(worker).succeeded()) observe.breaker(worker.token, 'closed', 0)
    estimates.answered(call.estimate, hsmMs)
    if (call.rule.lane === 'hot') estimates.roundTrip(nowMs - attempt.sentAtMs)
    countSessionObjects(worker, call, response.fields as Readonly<Record<string, unknown>>)
    if (call.state !== 'open') {
      discard(worker, call, response.fields as Readonly<Record<string, unknown>>)
      return
    }
    settle(call, 'succeeded')
    observe.callFinished(group, call.operation, 'ok', call.firstSentAtMs - call.submittedAtMs, hsmMs)
    call.resolve(call.pick(response.fields as never, worker.id) as never)
  }

  function countSessionObjects(
    worker: WorkerProcess,
    call: RoutedCall,
    fields: Readonly<Record<string, unknown>>,
  ): void {
    if (typeof fields.session === 'number' && fields.session > 0) worker.sessionObjects++
    else if (call.operation === 'destroy' && call.pinnedTo !== undefined && worker.sessionObjects > 0)
      worker.sessionObjects--
  }

  /** A late result nobody waits for: its bytes are wiped, its session object destroyed. */
  function discard(worker: WorkerProcess, call: RoutedCall, fields: Readonly<Record<string, unknown>>): void {
    for (const value of Object.values(fields)) if (value instanceof Uint8Array) value.fill(0)
    if (typeof fields.session !== 'number' || fields.session === 0) return
    const { intent } = call.fields as { intent?: { objectId: Uint8Array } }
    const key = { purpose: 0, spec: 0, construction: 0, session: fields.session, label: '' }
    worker
      .ask('destroy', { ...key, objectId: intent?.objectId ?? new Uint8Array() }, 30_000)
      .then(() => worker.sessionObjects--)
      .catch(() => {})
  }

  function onFailure(
    worker: WorkerProcess,
    call: RoutedCall,
    failure: NonNullable<ResponseFrame['failure']>,
    hsmMicros: number,
  ): void {
    const { rv } = failure
    if (rv !== 0) observe.ckr(worker.token, rvName(rv), failure.call, failure.action)
    const breaker = options.breakerOf(worker)
    const step = stepOf(failure)
    let retry = false
    if (step === 'breaker') {
      const pauseMs = breaker.failed(performance.now())
      if (pauseMs > 0) observe.breaker(worker.token, 'open', pauseMs)
      options.replace(worker, failure.detail)
      retry = call.retries < 2 && resumesAtMs(workers, call.rule.lane, options.breakerOf) < call.deadlineAtMs
    } else {
      if (breaker.succeeded()) observe.breaker(worker.token, 'closed', 0) // it answered: it is there
      if (step === 'replace') {
        worker.doubt ??= call.operation
        call.needsSound = true
        options.replace(worker, failure.detail)
        // All workers may have lost their login at once: the replacement of one is seldom late for a deadline.
        retry = call.retries < maxReplacements && options.trouble() === undefined
      }
      if (step === 'elsewhere' && ++worker.strikes === maxStrikes)
        options.replace(worker, `${maxStrikes} × ${failure.detail}`)
      if (step === 'back-off') worker.window = Math.max(1, worker.window / 2)
      if (step === 'elsewhere' || step === 'look-elsewhere') retry = call.retries === 0
    }
    if (call.state !== 'open' || call.live > 0) return // another attempt decides
    const movable = call.pinnedTo === undefined && call.rule.replay !== 'never'
    if (movable && retry) {
      call.retries++
      sendAgain(call, worker, 'failure')
      return
    }
    const pauseMs = (20 << call.throttles) * (0.5 + Math.random())
    const hasTime = performance.now() + pauseMs < call.deadlineAtMs
    if (movable && step === 'back-off' && call.throttles < maxThrottles && hasTime) {
      call.throttles++
      sendAgain(call, worker, 'throttled', pauseMs)
    } else fail(call, errorOf(failure, call.operation), hsmMicros / 1000)
  }

  function lost(worker: WorkerProcess, reason: string): void {
    const at = workers.indexOf(worker)
    if (at >= 0) workers.splice(at, 1)
    retired.delete(worker)
    const nowMs = performance.now()
    options.breakerOf(worker).lost()
    for (const attempt of worker.attempts.values()) {
      const { call } = attempt
      call.live--
      if (call.state === 'succeeded') continue
      call.deaths++
      if (call.deaths >= 2 && call.rule.replay !== 'never') {
        quarantine.add(call.shape(), nowMs)
        observe.quarantined(group, call.operation, quarantineMs)
        fail(call, new GatewayError('Quarantined', undefined, { detail: `two workers died: ${reason}` }))
      } else if (call.state !== 'open' || call.live > 0) continue
      else if (call.pinnedTo !== undefined) fail(call, unavailable('the session object died with its worker'))
      else if (call.rule.replay === 'never') fail(call, unknownOutcome(reason))
      else if (!again.includes(call)) sendAgain(call, worker, 'worker-died')
    }
    for (const call of worker.pinned.splice(0)) fail(call, unavailable('the session object died with its worker'))
    pump(nowMs)
  }

  function fail(call: RoutedCall, error: GatewayError, hsmMs = 0): void {
    if (call.state !== 'open') return
    settle(call, 'failed')
    const queueMs = (call.firstSentAtMs || performance.now()) - call.submittedAtMs
    observe.callFinished(group, call.operation, error.code, queueMs, hsmMs)
    call.reject(error)
  }

  function settle(call: RoutedCall, state: 'succeeded' | 'failed'): void {
    call.state = state
    open--
    if (open === 0) closed?.resolve()
  }

  const unavailable = (detail: string) => new GatewayError('KeyUnavailable', undefined, { detail })
  const unknownOutcome = (reason: string) =>
    new GatewayError('HsmFailure', undefined, { detail: `outcome unknown: ${reason}` })
  function tooLate(call: RoutedCall): GatewayError {
    if (call.firstSentAtMs > 0)
      return call.rule.replay === 'never' ? unknownOutcome('no answer in time') : new GatewayError('DeadlineExceeded')
    const ready = countReady(workers, call.rule.lane) > 0
    return ready ? new GatewayError('HsmBusy') : unavailable(options.trouble() ?? 'no worker became ready in time')
  }

  function expire(call: RoutedCall): void {
    fail(call, tooLate(call))
  }

  // ---- time

  function tick(nowMs: number, stalledMs: number): boolean {
    let inFlight = 0
    for (const worker of workers) inFlight += inspect(worker, nowMs, stalledMs)
    for (const worker of retired) inFlight += inspect(worker, nowMs, stalledMs)
    for (const call of again) if (call.deadlineAtMs <= nowMs) expire(call)
    for (const lane of lanes) {
      const queue = queues[lane]
      const { size } = queue
      while (queue.size > 0 && queue.peek()!.deadlineAtMs <= nowMs) expire(queue.pop()!)
      if (queue.size < size) observe.callQueued(group, lane, queue.size)
    }
    pump(nowMs)
    return open > 0 || inFlight > 0
  }

  /** Looks at everything in flight on one worker. */
  function inspect(worker: WorkerProcess, nowMs: number, stalledMs: number): number {
    for (const attempt of worker.attempts.values()) {
      const { call } = attempt
      if (stalledMs > 0) {
        attempt.killAtMs += stalledMs
        attempt.hedgeAtMs += stalledMs
      }
      if (call.state === 'open') {
        if (call.deadlineAtMs <= nowMs) expire(call)
        else if (attempt.hedgeAtMs <= nowMs && !call.hedged) {
          call.hedged = true
          sendAgain(call, worker, 'no-answer')
        }
      }
      if (attempt.killAtMs <= nowMs) {
        worker.kill(`no answer to ${attempt.operation} within ${Math.round(nowMs - attempt.sentAtMs)} ms`)
        break
      }
    }
    while (worker.pinned.length > 0 && worker.pinned[0]!.deadlineAtMs <= nowMs) expire(worker.pinned.shift()!)
    return worker.attempts.size
  }

  return {
    workers,
    submit,
    add(worker) {
      workers.push(worker)
      pump(performance.now())
    },
    retire(worker) {
      const at = workers.indexOf(worker)
      if (at >= 0) workers.splice(at, 1)
      retired.add(worker)
    },
    lost,
    onAnswer,
    onIdle(worker) {
      if (worker.pinned.length > 0) pumpPinned(worker)
      if (again.length > 0 || queues.hot.size > 0 || queues.admin.size > 0 || queues.manage.size > 0)
        pump(performance.now())
    },
    checkTrouble() {
      const trouble = options.trouble()
      if (trouble === undefined) return
      for (const lane of lanes) {
        if (countReady(workers, lane) === 0) for (const call of queues[lane].drain()) fail(call, unavailable(trouble))
      }
    },
    async close(limitMs) {
      closed ??= Promise.withResolvers<void>()
      if (open > 0) {
        const limit = setTimeout(closed.resolve, limitMs)
        await closed.promise
        clearTimeout(limit)
      }
      const waiting = [...again, ...queues.hot.drain(), ...queues.admin.drain(), ...queues.manage.drain()]
      for (const worker of [...workers, ...retired]) {
        waiting.push(...worker.pinned.splice(0))
        for (const { call } of worker.attempts.values()) waiting.push(call)
      }
      for (const call of waiting)
        fail(
          call,
          call.live > 0 && call.rule.replay === 'never'
            ? unknownOutcome('closing')
            : unavailable('the gateway is closing'),
        )
    },
  }
}
