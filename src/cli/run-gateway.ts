/**
 * The life of a gateway in this process: open, ready, drain on SIGINT or SIGTERM; SIGHUP is what the command makes of it. One gateway
 * for each process: the signals are the process's.
 */
import { isDeepStrictEqual } from 'node:util'
import type { Config } from '../config/config.ts'
import type { Gateway } from '../gateway.ts'
import { formatProblems, ProblemsError } from '../problem.ts'
import { createStopRule } from './stop-signals.ts'
import { exitCodes, type Terminal } from './terminal.ts'

export interface GatewayLife {
  /** Reads the configuration anew. @throws ProblemsError */
  readonly load: () => Config
  readonly open: (config: Config) => Promise<Gateway>
  /** Runs once the doors are open; when it fails the gateway is closed again. */
  readonly ready: (gateway: Gateway, config: Config) => Promise<void>
  /** What SIGHUP means: for a service, to read its configuration again; for a program in a terminal, that the terminal is gone. */
  readonly hangUp: 'reload' | 'stop'
}

/** Resolves when the gateway was asked to stop and has finished what was under way. @throws ProblemsError when it can't start. */
export async function runGateway(terminal: Terminal, { load, open, ready, hangUp }: GatewayLife): Promise<void> {
  using signals = listenForStop(terminal, hangUp === 'stop' ? ['SIGINT', 'SIGTERM', 'SIGHUP'] : ['SIGINT', 'SIGTERM'])
  const config = load()
  await using gateway = await open(config)
  if (signals.stopped) return
  await ready(gateway, config)

  const reload = () => reloadGateway(terminal, gateway, load, config)
  if (hangUp === 'reload') process.on('SIGHUP', reload)
  try {
    await signals.stop
  } finally {
    process.off('SIGHUP', reload)
    gateway.observer.flush()
  }
}

interface StopSignals extends Disposable {
  readonly stop: Promise<void>
  readonly stopped: boolean
}

function listenForStop(terminal: Terminal, names: readonly NodeJS.Signals[]): StopSignals {
  const { promise, resolve } = Promise.withResolvers<void>()
  const meaningAt = createStopRule()
  let stopped = false
  const onSignal = (signal: NodeJS.Signals): void => {
    const meaning = meaningAt(performance.now())
    if (meaning === 'same') return
    if (meaning === 'at once') {
      terminal.err(`${signal} again: ending at once\n`)
      process.exit(exitCodes.failed)
    }
    stopped = true
    terminal.err(`${signal}: finishing what is under way, then ending\n`)
    resolve()
  }
  for (const name of names) process.on(name, onSignal)
  return {
    stop: promise,
    get stopped() {
      return stopped
    },
    [Symbol.dispose]() {
      for (const name of names) process.off(name, onSignal)
    },
  }
}

function reloadGateway(terminal: Terminal, gateway: Gateway, load: () => Config, running: Config): void {
  let next: Config
  try {
    next = load()
  } catch (cause) {
    if (!(cause instanceof ProblemsError)) throw cause
    terminal.err(`configuration not reloaded; the gateway goes on with the old one\n${formatProblems(cause.problems)}`)
    return
  }
  const changed = changedSections(running, next)
  if (changed.length > 0) {
    terminal.err(`the configuration is right, but these changes need a restart: ${changed.join(', ')}\n`)
  }
  // Module and PIN files are read by workers: new ones see what is there now.
  gateway.replaceWorkers('reload')
  gateway.observer.reloaded()
}

/** Top-level keys whose values differ. */
export function changedSections(running: Config, next: Config): readonly string[] {
  const keys = new Set([...Object.keys(running), ...Object.keys(next)]) as ReadonlySet<keyof Config>
  return [...keys].filter((key) => !isDeepStrictEqual(running[key], next[key]))
}
