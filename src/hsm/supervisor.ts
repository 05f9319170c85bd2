/**
 * The workers of one token: one `manage` and n `serve` places, each with a current worker and, while it is being replaced, the next one.
 *
 * Replacing a worker is the one recovery action, whatever happened: start the next, configure it, move traffic, drain the old. Logins of the
 * token run one after another, `manage` first; a refused PIN is latched on disk before anything else and nothing is started until its
 * file changes. Failed starts back off (250 ms doubling to 30 s). All state is in memory of this event loop; processes are its only resource.
 */
import { statSync } from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'
import { GatewayError } from '../error.ts'
import { type Breaker, createBreaker } from './breaker.ts'
import type { CapabilityCache } from './capability-cache.ts'
import type { HsmEvents } from './events.ts'
import type { WorkerFailure, WorkerReady } from './frames.ts'
import { type PinLatch, pinFileIdentity } from './pin-latch.ts'
import type { Capabilities, WorkerState } from './port.ts'
import type { Router } from './router.ts'
import { findObstacle, pinOwnerOf, pinRefusedText, type TokenConfig, workerConfigurationOf } from './token-config.ts'
import { rvName } from './worker/rv.ts'
import { AskFailure, spawnWorker, type WorkerProcess } from './worker-process.ts'

export interface SupervisorOptions {
  readonly token: TokenConfig
  /** Program and arguments of a worker. */
  readonly command: readonly string[]
  readonly latch: PinLatch
  readonly cache: CapabilityCache
  readonly observe: HsmEvents
  readonly allowImportThroughMemory: boolean
  /** The router of the token's group. */
  router(): Router
}

export interface TokenSupervisor {
  readonly token: TokenConfig
  readonly breaker: Breaker
  /** Resolves when the token serves, or when it is known why not. */
  readonly settled: Promise<void>
  label(): string
  serial(): string
  trouble(): string | undefined
  pinRefused(): boolean
  capabilities(): Capabilities | undefined
  workers(): readonly WorkerState[]
  start(): void
  replace(worker: WorkerProcess, reason: string): void
  replaceAll(reason: string): void
  /** @throws GatewayError `KeyUnavailable` when the token still doesn't take the PIN. */
  retryLogin(): Promise<void>
  close(): Promise<void>
}

/** One worker's place. */
interface Place {
  readonly role: 'serve' | 'manage'
  readonly id: string
  current: WorkerProcess | undefined
  next: WorkerProcess | undefined
  starting: Promise<void> | undefined
  timer: NodeJS.Timeout | undefined
  /** Something changed while `next` was starting: start once more afterwards. */
  stale: boolean
  failedStarts: number
  /** Failed starts in a row that the worker could not explain: after two the operator must act, lest a wrong PIN hide behind them. */
  unexplained: number
  /** Replacements in a row of a worker that had just become ready. */
  earlyEnds: number
  readyAtMs: number
  trouble: string | undefined
}

/** Initialisation of a module, login and the enumeration of a full token may take this long. */
const configureLimitMs = 120_000
const probeLimitMs = 180_000
const drainLimitMs = 2000
/** Session objects of a drained worker are left this long to those who still use them. */
const sessionObjectGraceMs = 2000
const watchEveryMs = 1000
const stableMs = 10_000
const maxProbeFailures = 3

const backOffMs = (failures: number): number => (failures === 0 ? 0 : Math.min(30_000, 250 * 2 ** (failures - 1)))
const isPinRefusal = ({ rv }: WorkerFailure): boolean => rv >= 0xa0 && rv <= 0xa4 // CKR_PIN_INCORRECT .. CKR_PIN_LOCKED

export function createSupervisor(options: SupervisorOptions): TokenSupervisor {
  const { token, latch, cache, observe } = options
  const owner = pinOwnerOf(token)
  const settled = Promise.withResolvers<void>()
  const draining = new Set<WorkerProcess>()
  const places: readonly Place[] = [
    createPlace('manage', `${token.name}/manage`),
    ...Array.from({ length: token.workers }, (_, i) => createPlace('serve', `${token.name}/serve-${i + 1}`)),
  ]
  let generation = 0
  let lastReady: WorkerReady | undefined
  let capabilities: Capabilities | undefined
  let probing = false
  let probeFailures = 0
  let probeTrouble: string | undefined
  let loginProven = false
  let isPinRefused = false
  let closing = false
  let reportedTrouble: string | undefined
  let seen: readonly string[] = []
  let watching: NodeJS.Timeout | undefined
  let turn: Promise<unknown> = Promise.resolve()

  /** Logins one after another, in the order of asking. */
  function inTurn<T>(work: () => Promise<T>): Promise<T> {
    const mine = turn.then(work)
    turn = mine.catch(() => {})
    return mine
  }

  // ---- starting

  /** Starts a place's next worker now or after the back-off, unless one is on its way. */
  function order(place: Place): void {
    if (closing || place.next !== undefined || place.timer !== undefined) return
    const waitMs = backOffMs(place.failedStarts > 0 ? place.failedStarts : Math.max(0, place.earlyEnds - 1))
    if (waitMs === 0) place.starting = launch(place)
    else schedule(place, waitMs)
  }

  /** Orders a replacement of a worker that was ready. */
  function reorder(place: Place, reason: string): void {
    if (closing || place.next !== undefined || place.timer !== undefined) return
    place.earlyEnds = performance.now() - place.readyAtMs < stableMs ? place.earlyEnds + 1 : 0
    observe.workerReplaced({ id: place.id, token: token.name, role: place.role }, reason)
    order(place)
  }

  function schedule(place: Place, waitMs: number): void {
    place.timer = setTimeout(() => {
      place.timer = undefined
      place.starting = launch(place)
    }, waitMs)
  }

  /** Starts all places' next workers at once, whatever happened to them before. */
  function replaceAll(reason: string): void {
    probeFailures = 0
    for (const place of places) {
      clearTimeout(place.timer)
      place.timer = undefined
      place.failedStarts = 0
      place.unexplained = 0
      place.earlyEnds = 0
      if (place.next !== undefined) place.stale = true
      else if (place.current !== undefined) reorder(place, reason)
      else order(place)
    }
  }

  async function launch(place: Place): Promise<void> {
    const startedAtMs = performance.now()
    checkPin()
    const obstacle = findObstacle(token, latch)
    if (obstacle !== undefined) {
      startFailed(place, obstacle)
      return
    }
    const log: string[] = []
    const worker = spawn(place, log)
    place.next = worker
    try {
      const ready = await inTurn(() => configure(place, worker))
      place.next = undefined
      if (ready === undefined || closing) worker.kill('not needed')
      else promote(place, worker, ready, performance.now() - startedAtMs)
    } catch (error) {
      place.next = undefined
      worker.kill('start failed')
      if (error instanceof AskFailure && error.failure.code === 'Internal') place.unexplained++
      if (!closing) startFailed(place, describe(error, log.at(-1)))
    }
    if (place.stale) {
      place.stale = false
      reorder(place, 'files changed while it started')
    }
  }

  function spawn(place: Place, log: string[]): WorkerProcess {
    const { onAnswer, onIdle } = options.router()
    const worker = spawnWorker(
      {
        id: `${place.id}.${++generation}`,
        token: token.name,
        role: place.role,
        command: options.command,
        env: token.env ?? {},
      },
      {
        onAnswer,
        onIdle,
        onLog(from, line) {
          log[0] = line
          observe.workerLog(from, line)
        },
      },
    )
    observe.workerStarted(worker)
    worker.dead.then((reason) => onDeath(place, worker, reason))
    return worker
  }

  /** `undefined`: this place waits for something else now. */
  async function configure(place: Place, worker: WorkerProcess): Promise<WorkerReady | undefined> {
    if (closing || (place.role === 'serve' && !loginProven)) return undefined
    const obstacle = findObstacle(token, latch)
    if (obstacle !== undefined) throw new GatewayError('KeyUnavailable', undefined, { detail: obstacle })
    const pinBefore = pinFileIdentity(token.pinFile)
    try {
      const { allowImportThroughMemory } = options
      const configuration = { ...workerConfigurationOf(token, place.role, latch), allowImportThroughMemory }
      const { ready } = await worker.ask('configure', { configuration }, configureLimitMs)
      return ready as WorkerReady
    } catch (error) {
      if (error instanceof AskFailure && isPinRefusal(error.failure)) {
        latch.refuse(owner, [pinBefore, pinFileIdentityOr(pinBefore)], error.failure.rv)
        checkPin()
        observe.pinRefused(token.name, rvName(error.failure.rv))
      }
      throw error
    }
  }

  function pinFileIdentityOr(fallback: ReturnType<typeof pinFileIdentity>): ReturnType<typeof pinFileIdentity> {
    try {
      return pinFileIdentity(token.pinFile)
    } catch {
      return fallback
    }
  }

  function promote(place: Place, worker: WorkerProcess, ready: WorkerReady, startMs: number): void {
    if (worker.state === 'dead')
      throw new GatewayError('KeyUnavailable', undefined, { detail: 'died when it was ready' })
    const old = place.current
    place.current = worker
    place.readyAtMs = performance.now()
    place.failedStarts = 0
    place.unexplained = 0
    place.trouble = undefined
    worker.state = 'ready'
    // Two calls per session, so that the next is there when one ends; at least 8, so that fast modules' frames travel in batches.
    worker.window = worker.maxWindow = Math.max(8, ready.sessions * 2)
    worker.maxAdmin = ready.sessions > 4 ? 2 : 1
    lastReady = ready
    latch.clear(owner)
    observe.workerReady(worker, startMs, ready.objects)
    options.router().add(worker)
    if (old !== undefined) void retire(old)
    if (place.role === 'manage' && !loginProven) {
      loginProven = true
      for (const other of places) if (other.current === undefined) order(other)
    }
    if (place.role === 'serve') void learnCapabilities(worker, ready)
    reportTrouble()
  }

  function startFailed(place: Place, trouble: string): void {
    place.trouble = trouble
    place.failedStarts++
    reportTrouble()
    if (!isPinRefused && place.unexplained < 2) order(place)
  }

  function describe(error: unknown, lastLine: string | undefined): string {
    if (error instanceof AskFailure) {
      if (isPinRefusal(error.failure)) return `${pinRefusedText(token)} (${rvName(error.failure.rv)})`
      return `${error.failure.detail}: check tokens.${token.name} in the configuration, hsmgate doctor tells more`
    }
    const { message, detail } = error as GatewayError
    return lastLine === undefined ? (detail ?? message) : `${detail ?? message} (${lastLine.slice(0, 300)})`
  }

  // ---- what it can do

  async function learnCapabilities(worker: WorkerProcess, ready: WorkerReady): Promise<void> {
    const startedAtMs = performance.now()
    const cached = cache.find(token.name, token.module, ready)
    if (cached !== undefined) {
      know(cached, true, startedAtMs)
      return
    }
    if (probing || probeFailures >= maxProbeFailures) return
    probing = true
    try {
      const answer = await worker.ask('probe', {}, probeLimitMs)
      const proven = answer.capabilities as Capabilities
      cache.put(token.name, token.module, ready, proven)
      know(proven, false, startedAtMs)
    } catch (error) {
      probeFailures++
      probeTrouble = `the capability probe failed: ${describe(error, undefined)}`
      reportTrouble()
    }
    probing = false
    const another = places.find(({ role, current }) => role === 'serve' && current?.state === 'ready')?.current
    if (capabilities === undefined && another !== undefined && !closing) void learnCapabilities(another, ready)
  }

  function know(proven: Capabilities, isCached: boolean, startedAtMs: number): void {
    capabilities = proven
    probeFailures = 0
    probeTrouble = undefined
    observe.capabilitiesKnown(token.name, isCached, performance.now() - startedAtMs)
    reportTrouble()
    settled.resolve()
  }

  // ---- ending

  function onDeath(place: Place, worker: WorkerProcess, reason: string): void {
    const expected = closing || draining.has(worker)
    draining.delete(worker)
    observe.workerDied(worker, reason, expected)
    options.router().lost(worker, reason)
    if (place.current !== worker) return
    place.current = undefined
    reorder(place, reason)
  }

  async function retire(worker: WorkerProcess): Promise<void> {
    worker.state = 'draining'
    draining.add(worker)
    options.router().retire(worker)
    const graceEndsMs = performance.now() + sessionObjectGraceMs
    const isBusy = (): boolean =>
      worker.attempts.size > 0 ||
      worker.pinned.length > 0 ||
      (worker.sessionObjects > 0 && performance.now() < graceEndsMs)
    while (worker.state === 'draining' && isBusy() && !closing) await delay(10)
    await finish(worker)
  }

  async function finish(worker: WorkerProcess): Promise<void> {
    if (worker.state === 'starting') worker.kill('closing')
    else {
      const limit = setTimeout(() => worker.kill('did not end after drain'), drainLimitMs)
      void worker.dead.then(() => clearTimeout(limit))
      worker.ask('drain', {}, drainLimitMs).catch(() => worker.kill('did not drain'))
    }
    await worker.dead
  }

  // ---- state

  /** Whether the PIN file as it is now was refused. */
  function checkPin(): void {
    try {
      isPinRefused = latch.isRefused(owner, pinFileIdentity(token.pinFile))
    } catch {
      isPinRefused = false
    }
  }

  const trouble = (): string | undefined => places.find((place) => place.trouble !== undefined)?.trouble ?? probeTrouble

  function reportTrouble(): void {
    const now = trouble()
    if (now === reportedTrouble) return
    reportedTrouble = now
    observe.tokenTrouble(token.name, now)
    if (now === undefined) return
    settled.resolve()
    options.router().checkTrouble()
  }

  /** Module and PIN file by identity: a changed one asks for new workers. Two metadata reads a second don't disturb the event loop. */
  function watch(): void {
    const now = [markOf(token.module), markOf(token.pinFile)]
    // A file that is gone for a moment (rename, unmounted secret) is no change yet.
    const isChanged = now.some((mark, i) => mark !== '' && mark !== seen[i])
    if (isChanged) {
      seen = now
      replaceAll('the module or PIN file changed')
    }
    watching = setTimeout(watch, watchEveryMs).unref()
  }

  return {
    token,
    breaker: createBreaker(),
    settled: settled.promise,
    label: () => lastReady?.label ?? token.label ?? '',
    serial: () => lastReady?.serial ?? token.serial ?? '',
    trouble,
    pinRefused: () => isPinRefused,
    capabilities: () => capabilities,
    workers: () =>
      [...places.flatMap(({ current, next }) => [current, next]), ...draining]
        .filter((worker) => worker !== undefined)
        .map(({ id, token: of, role, state, pid, attempts }) => ({
          id,
          token: of,
          role,
          state,
          pid,
          inFlight: attempts.size,
        })),
    start() {
      seen = [markOf(token.module), markOf(token.pinFile)]
      watching = setTimeout(watch, watchEveryMs).unref()
      // All processes start together; their logins then queue up behind that of `manage`.
      for (const place of places) order(place)
    },
    replace(worker, reason) {
      const place = places.find(({ current }) => current === worker)
      if (place !== undefined) reorder(place, reason)
    },
    replaceAll,
    async retryLogin() {
      if (trouble() === undefined) return
      latch.clear(owner)
      isPinRefused = false
      replaceAll('login is tried again')
      for (const place of places) await place.starting
      if (trouble() !== undefined) throw new GatewayError('KeyUnavailable', undefined, { detail: trouble() })
    },
    async close() {
      closing = true
      clearTimeout(watching)
      for (const { timer } of places) clearTimeout(timer)
      const alive = [...places.flatMap(({ current, next }) => [current, next]), ...draining]
      await Promise.all(alive.map((worker) => worker && finish(worker)))
      settled.resolve()
    },
  }
}

/** Identity of a file's content as far as metadata tells; empty when it can't be examined. */
function markOf(path: string): string {
  try {
    const { ino, ctimeNs, size } = statSync(path, { bigint: true })
    return `${ino} ${ctimeNs} ${size}`
  } catch {
    return ''
  }
}

function createPlace(role: 'serve' | 'manage', id: string): Place {
  return {
    role,
    id,
    current: undefined,
    next: undefined,
    starting: undefined,
    timer: undefined,
    stale: false,
    failedStarts: 0,
    unexplained: 0,
    earlyEnds: 0,
    readyAtMs: 0,
    trouble: undefined,
  }
}
