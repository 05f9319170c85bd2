/**
 * Which worker takes the next call of a lane: the least loaded one that is ready, has room and whose token's breaker is closed; a doubtful one
 * only when there is no other. Pure reading.
 */
import type { Breaker } from './breaker.ts'
import type { Lane } from './events.ts'
import type { WorkerProcess } from './worker-process.ts'

export const lanes: readonly Lane[] = ['hot', 'admin', 'manage']

export function hasRoom(worker: WorkerProcess, lane: Lane): boolean {
  if (lane === 'hot') return worker.hotInFlight < worker.window
  if (lane === 'admin') return worker.adminInFlight < worker.maxAdmin
  return worker.hotInFlight + worker.adminInFlight < 1 // manage works synchronously: what waits here can still move
}

export function pickWorker(
  workers: readonly WorkerProcess[],
  lane: Lane,
  nowMs: number,
  breakerOf: (worker: WorkerProcess) => Breaker,
  isAllowed?: (worker: WorkerProcess) => boolean,
): WorkerProcess | undefined {
  let best: WorkerProcess | undefined
  for (const worker of workers) {
    if (!isReady(worker, lane) || !hasRoom(worker, lane) || !breakerOf(worker).allows(nowMs)) continue
    if (isAllowed !== undefined && !isAllowed(worker)) continue
    if (best === undefined || isBetter(worker, best, lane)) best = worker
  }
  return best
}

export function countReady(workers: readonly WorkerProcess[], lane: Lane): number {
  let count = 0
  for (const worker of workers) if (isReady(worker, lane)) count++
  return count
}

/** Calls that may be under way on the hot lane at once. */
export function windowOf(workers: readonly WorkerProcess[]): number {
  let calls = 0
  for (const worker of workers) if (isReady(worker, 'hot')) calls += worker.window
  return calls
}

/** When the first of the lane's tokens may be asked again: 0 when one may now, Infinity when no worker is ready. */
export function resumesAtMs(
  workers: readonly WorkerProcess[],
  lane: Lane,
  breakerOf: (worker: WorkerProcess) => Breaker,
): number {
  let first = Number.POSITIVE_INFINITY
  for (const worker of workers) if (isReady(worker, lane)) first = Math.min(first, breakerOf(worker).pausedUntilMs())
  return first
}

function isReady(worker: WorkerProcess, lane: Lane): boolean {
  return worker.state === 'ready' && worker.role === (lane === 'manage' ? 'manage' : 'serve')
}

function isBetter(worker: WorkerProcess, best: WorkerProcess, lane: Lane): boolean {
  const isDoubted = best.doubt !== undefined
  if ((worker.doubt !== undefined) !== isDoubted) return isDoubted
  return load(worker, lane) < load(best, lane)
}

function load(worker: WorkerProcess, lane: Lane): number {
  return lane === 'hot' ? worker.hotInFlight / worker.window : worker.adminInFlight
}
