/**
 * The workers of one token: one `manage` and n `serve` places, each with a current worker and, while it is being replaced, the next one.
 *
 * Replacing a worker is the one recovery action, whatever happened: start the next, configure it, move traffic, drain the old. Logins of the
 * token run one after another, `manage` first; a refused PIN is latched on disk before anything else and nothing is started until its
 * file changes. Failed starts back off (250 ms doubling to 30 s). All state is in memory of this event loop; processes are its only resource.
 */
import { setTimeout as delay } from 'node:timers/promises'
import { GatewayError } from '../error.ts'
import { createTurns } from '../in-turn.ts'
import { type Breaker, createBreaker } from './breaker.ts'
import type { CapabilityCache } from './capability-cache.ts'
import type { HsmEvents } from './events.ts'
import { watchFiles } from './file-watch.ts'
import { loginBegins, type PinFileIdentity, type WorkerFailure, type WorkerReady } from './frames.ts'
import type { PinLatch } from './pin-latch.ts'
import { backOffMs, countEnd, createPlace, forgive, markReady, mayStart, type Place } from './place.ts'
import type { Capabilities, StartFailure, WorkerState } from './port.ts'
import { createProber } from './probing.ts'
import type { Router } from './router.ts'
import {
  findObstacle,
  isPinRefused,
  type PinSource,
  pinIdentityOf,
  pinOwnerOf,
  pinRefusedText,
  type TokenConfig,
  workerConfigurationOf,
} from './token-config.ts'
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
  /** What stopped the last start that failed, where a module or its token said so. */
  failure(): StartFailure | undefined
  pinRefused(): boolean
  capabilities(): Capabilities | undefined
  workers(): readonly WorkerState[]
  start(): void
  replace(worker: WorkerProcess, reason: string): void
  replaceAll(reason: string): void
  /** For workers that start from now on; the number of workers stays. */
  setToken(token: TokenConfig): void
  /** @throws GatewayError `KeyUnavailable` when the token still doesn't take the PIN. */
  retryLogin(): Promise<void>
  close(): Promise<void>
}

/** Initialisation of a module, login and the enumeration of a full token may take this long. */
const configureLimitMs = 120_000
const drainLimitMs = 2000
/** What a dead worker wrote to its standard error has arrived by then. */
const lastWordsMs = 20
const maxLostLogins = 2
/** Session objects of a drained worker are left this long to those who still use them. */
const sessionObjectGraceMs = 2000

const isRefusal = ({ rv }: WorkerFailure): boolean => rv >= 0xa0 && rv <= 0xa4 // CKR_PIN_INCORRECT .. CKR_PIN_LOCKED

export function createSupervisor(options: SupervisorOptions): TokenSupervisor {
  const { latch, cache, observe } = options
  let { token } = options
  let owner = pinOwnerOf(token)
  const settled = Promise.withResolvers<void>()
  const draining = new Set<WorkerProcess>()
  const places: readonly Place[] = [
    createPlace('manage', `${token.name}/manage`),
    ...Array.from({ length: token.workers }, (_, i) => createPlace('serve', `${token.name}/serve-${i + 1}`)),
  ]
  const prober = createProber({
    token: () => token,
    cache,
    observe,
    findWorker: () => places.find(({ role, current }) => role === 'serve' && current?.state === 'ready')?.current,
    onChange: reportTrouble,
  })
  let generation = 0
  let lastReady: WorkerReady | undefined
  let loginProven = false
  let pinRefused = false
  let failure: StartFailure | undefined
  let lostLogins = 0
  const atLogin = new WeakSet<WorkerProcess>()
  let closing = false
  let reportedTrouble: string | undefined
  let endWatch = (): void => {}
  /** Logins one after another. */
  const inTurn = createTurns()

  // ---- starting

  /** Starts a place's next worker now or after the back-off, unless one is on its way. */
  function order(place: Place): void {
    if (closing || place.next !== undefined || place.timer !== undefined) return
    const waitMs = backOffMs(place)
    if (waitMs === 0) place.starting = launch(place)
    else schedule(place, waitMs)
  }

  /** Orders a replacement of a worker that was ready. */
  function reorder(place: Place, reason: string): void {
    if (closing || place.next !== undefined || place.timer !== undefined) return
    countEnd(place)
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
    prober.forgive()
    for (const place of places) {
      forgive(place)
      if (place.next !== undefined) place.stale = true
      else if (place.current !== undefined) reorder(place, reason)
      else order(place)
    }
  }

  async function launch(place: Place): Promise<void> {
    const startedAtMs = performance.now()
    pinRefused = isPinRefused(token, latch)
    const obstacle = findObstacle(token, latch)
    if (obstacle !== undefined) {
      const rv = pinRefused ? (latch.rvOf(owner) ?? 0) : 0
      failure = { rv, call: pinRefused ? 'C_Login' : '', action: 'O', detail: obstacle }
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
      failure = error instanceof AskFailure ? error.failure : undefined
      if (error instanceof AskFailure && error.failure.code === 'Internal') place.unexplained++
      if (!closing) startFailed(place, describe(error, log.at(-1)))
    }
    if (place.stale) {
      place.stale = false
      if (place.current === undefined) order(place)
      else reorder(place, 'files changed while it started')
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
          if (line.includes(loginBegins)) atLogin.add(from)
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
    const pinBefore = pinIdentityOf(token)
    try {
      if (token.pin !== undefined) await givePin(worker, token.pin)
      const { allowImportThroughMemory } = options
      const configuration = { ...workerConfigurationOf(token, place.role, latch), allowImportThroughMemory }
      const { ready } = await worker.ask('configure', { configuration }, configureLimitMs)
      return ready as WorkerReady
    } catch (error) {
      if (!(error instanceof AskFailure)) await countLostLogin(worker, pinBefore)
      else if (isRefusal(error.failure)) latchPin(rvName(error.failure.rv), error.failure.rv, pinBefore)
      throw error
    }
  }

  async function givePin(worker: WorkerProcess, source: PinSource): Promise<void> {
    const pin = await source.load()
    try {
      // the writer has its own copy, which it wipes once sent
      const given = worker.ask('givePin', { pin }, configureLimitMs)
      pin.fill(0)
      await given
    } finally {
      pin.fill(0)
    }
  }

  /** A worker died, or was killed, over its login: a wrong PIN may be the reason, so this is tried once more only, by whomever. */
  async function countLostLogin(worker: WorkerProcess, pin: PinFileIdentity | undefined): Promise<void> {
    await delay(lastWordsMs)
    if (closing || !atLogin.has(worker)) return
    lostLogins++
    if (lostLogins < maxLostLogins) return
    lostLogins = 0
    latchPin('no answer', 0, pin)
  }

  /** The worker read the file as it was before, or as it is now: both are refused. */
  function latchPin(name: string, rv: number, before: PinFileIdentity | undefined): void {
    const pins = [before, pinIdentityOf(token)].filter((pin) => pin !== undefined)
    try {
      latch.refuse(owner, pins, rv)
    } finally {
      pinRefused = isPinRefused(token, latch)
      observe.pinRefused(token.name, name)
    }
  }

  function promote(place: Place, worker: WorkerProcess, ready: WorkerReady, startMs: number): void {
    if (worker.state === 'dead')
      throw new GatewayError('KeyUnavailable', undefined, { detail: 'died when it was ready' })
    const old = place.current
    markReady(place, worker)
    worker.state = 'ready'
    // Two calls per session, so that the next is there when one ends; at least 8, so that fast modules' frames travel in batches.
    worker.window = worker.maxWindow = Math.max(8, ready.sessions * 2)
    worker.maxAdmin = ready.sessions > 4 ? 2 : 1
    worker.sessions = ready.sessions
    lastReady = ready
    failure = undefined
    clearLatch()
    observe.workerReady(worker, startMs, ready.objects)
    options.router().add(worker)
    if (old !== undefined) void retire(old)
    if (place.role === 'manage' && !loginProven) {
      loginProven = true
      for (const other of places) if (other.current === undefined) order(other)
    }
    if (place.role === 'serve') void prober.learn(worker, ready)
    reportTrouble()
  }

  function clearLatch(): void {
    lostLogins = 0
    try {
      latch.clear(owner)
    } catch {} // a full disk: the record names a PIN file that is no more
  }

  function startFailed(place: Place, trouble: string): void {
    place.trouble = trouble
    place.failedStarts++
    reportTrouble()
    if (!pinRefused && mayStart(place)) order(place)
  }

  function describe(error: unknown, lastLine: string | undefined): string {
    if (error instanceof AskFailure) {
      if (isRefusal(error.failure)) return `${pinRefusedText(token)} (${rvName(error.failure.rv)})`
      return `${error.failure.detail}: check tokens.${token.name} in the configuration, hsmgate doctor tells more`
    }
    const { message, detail } = error as GatewayError
    return lastLine === undefined ? (detail ?? message) : `${detail ?? message} (${lastLine.slice(0, 300)})`
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

  const trouble = (): string | undefined =>
    places.find((place) => place.trouble !== undefined)?.trouble ?? prober.trouble()

  function reportTrouble(): void {
    const now = trouble()
    if (now !== undefined || prober.capabilities() !== undefined) settled.resolve()
    if (now === reportedTrouble) return
    reportedTrouble = now
    observe.tokenTrouble(token.name, now)
    if (now !== undefined) options.router().checkTrouble()
  }

  function watch(): void {
    endWatch()
    endWatch = watchFiles([token.module, ...(token.pin === undefined ? [token.pinFile] : [])], () =>
      replaceAll('the module or PIN file changed'),
    )
  }

  return {
    get token() {
      return token
    },
    breaker: createBreaker(),
    settled: settled.promise,
    label: () => lastReady?.label ?? token.label ?? '',
    serial: () => lastReady?.serial ?? token.serial ?? '',
    trouble,
    failure: () => failure,
    pinRefused: () => pinRefused,
    capabilities: prober.capabilities,
    workers: () =>
      [...places.flatMap(({ current, next }) => [current, next]), ...draining]
        .filter((worker) => worker !== undefined)
        .map(({ id, token: of, role, state, pid, attempts, sessions }) => ({
          id,
          token: of,
          role,
          state,
          pid,
          inFlight: attempts.size,
          sessions,
        })),
    start() {
      watch()
      // All processes start together; their logins then queue up behind that of `manage`.
      for (const place of places) order(place)
    },
    replace(worker, reason) {
      const place = places.find(({ current }) => current === worker)
      if (place !== undefined) reorder(place, reason)
    },
    replaceAll,
    setToken(next) {
      token = { ...next, name: token.name, workers: token.workers }
      owner = pinOwnerOf(token)
      if (!closing) watch()
    },
    async retryLogin() {
      if (trouble() === undefined) return
      clearLatch()
      replaceAll('login is tried again')
      for (const place of places) await place.starting
      if (trouble() !== undefined) throw new GatewayError('KeyUnavailable', undefined, { detail: trouble() })
    },
    async close() {
      closing = true
      endWatch()
      for (const { timer } of places) clearTimeout(timer)
      const alive = [...places.flatMap(({ current, next }) => [current, next]), ...draining]
      await Promise.all(alive.map((worker) => worker && finish(worker)))
      settled.resolve()
    },
  }
}
