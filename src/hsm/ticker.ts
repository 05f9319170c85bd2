/**
 * One coarse timer instead of one per call: runs while it has work, notices when this process itself stood still (then the workers are not to
 * blame), and costs nothing when idle.
 */
export interface Ticker {
  /** Starts ticking unless it does. */
  start(): void
}

const tickMs = 5
const stallMs = 50

/** `onTick` gets the time and for how long this process stood still (mostly 0); it returns whether there is work left. */
export function createTicker(onTick: (nowMs: number, stalledMs: number) => boolean): Ticker {
  let isTicking = false
  let lastMs = 0

  function tick(): void {
    const nowMs = performance.now()
    const elapsedMs = nowMs - lastMs
    lastMs = nowMs
    isTicking = onTick(nowMs, elapsedMs > stallMs ? elapsedMs : 0)
    if (isTicking) setTimeout(tick, tickMs)
  }

  return {
    start() {
      if (isTicking) return
      isTicking = true
      lastMs = performance.now()
      setTimeout(tick, tickMs)
    },
  }
}
