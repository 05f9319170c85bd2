/**
 * The life of a gateway in this process: open, ready, drain on SIGINT or SIGTERM; SIGHUP is what the command makes of it. One gateway
 * for each process: the signals are the process's.
 */
import type { Config } from '../config/config.ts'
import type { Gateway } from '../gateway.ts'
import type { Successor } from '../hand-over.ts'
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
  /** Whether SIGUSR2 hands over to a new process of this program. */
  readonly handsOver?: boolean
}

/** Resolves when the gateway was asked to stop and has finished what was under way. @throws ProblemsError when it can't start. */
export async function runGateway(terminal: Terminal, life: GatewayLife): Promise<void> {
  const successor = await runToItsEnd(terminal, life)
  successor?.letGo()
}

/** Resolves when everything is closed: with the process that takes the place of this one, if one does. */
async function runToItsEnd(
  terminal: Terminal,
  { load, open, ready, hangUp, handsOver = false }: GatewayLife,
): Promise<Successor | undefined> {
  using signals = listenForStop(terminal, hangUp === 'stop' ? ['SIGINT', 'SIGTERM', 'SIGHUP'] : ['SIGINT', 'SIGTERM'])
  // From here on: before, these signals would end the process.
  using handOver = listenForHandOver(terminal, handsOver)
  using reloads = listenForReload(hangUp === 'reload')
  const config = load()
  await using gateway = await open(config)
  if (signals.stopped) return undefined
  reloads.of(() => reloadGateway(terminal, gateway, load))
  await ready(gateway, config)
  gateway.tellServiceManager(`READY=1\nMAINPID=${process.pid}`)
  try {
    return (await Promise.race([signals.stop, handOver.from(gateway)])) ?? undefined
  } finally {
    gateway.observer.flush()
  }
}

interface Reloads extends Disposable {
  /** What SIGHUP does from now on; at once when one came already. */
  of(reload: () => void): void
}

function listenForReload(isOffered: boolean): Reloads {
  let isWanted = false
  let act = () => {
    isWanted = true
  }
  const onSignal = () => act()
  if (isOffered) process.on('SIGHUP', onSignal)
  return {
    of(reload) {
      act = reload
      if (isWanted) reload()
    },
    [Symbol.dispose]() {
      process.off('SIGHUP', onSignal)
    },
  }
}

interface HandOver extends Disposable {
  /** Resolves with the process that became warm to take the place of this one. */
  from(gateway: Gateway): Promise<Successor>
}

/** One attempt at a time; after a failed one this gateway serves on as if nothing had been. */
function listenForHandOver(terminal: Terminal, isOffered: boolean): HandOver {
  const { promise: warm, resolve } = Promise.withResolvers<Successor>()
  let gateway: Gateway | undefined
  let isWanted = false
  const attempt = async () => {
    if (gateway === undefined) return
    terminal.err('SIGUSR2: starting the process that takes over\n')
    try {
      const successor = await gateway.startSuccessor()
      // It must be known before this process ends.
      gateway.tellServiceManager(`MAINPID=${successor.pid}`)
      terminal.err(`process ${successor.pid} takes over: finishing what is under way, then ending\n`)
      resolve(successor)
    } catch (cause) {
      terminal.err(`no hand-over (${(cause as Error).message}); this gateway goes on\n`)
      isWanted = false
    }
  }
  const onSignal = () => {
    if (isWanted) return
    isWanted = true
    void attempt()
  }
  if (isOffered) process.on('SIGUSR2', onSignal)
  return {
    from(opened) {
      gateway = opened
      if (isWanted) void attempt()
      return warm
    },
    [Symbol.dispose]() {
      process.off('SIGUSR2', onSignal)
    },
  }
}

export interface StopSignals extends Disposable {
  readonly stop: Promise<void>
  readonly stopped: boolean
}

export function listenForStop(terminal: Terminal, names: readonly NodeJS.Signals[]): StopSignals {
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

function reloadGateway(terminal: Terminal, gateway: Gateway, load: () => Config): void {
  let next: Config
  try {
    next = load()
  } catch (cause) {
    if (!(cause instanceof ProblemsError)) throw cause
    terminal.err(`configuration not reloaded; the gateway goes on with the old one\n${formatProblems(cause.problems)}`)
    return
  }
  const { needsRestart, problems } = gateway.reload(next)
  terminal.err(formatProblems(problems))
  if (needsRestart.length === 0) return
  const names = needsRestart.join(', ')
  terminal.err(`the configuration is right, but these changes need a restart: ${names}\n`)
  terminal.err('  remedy: SIGUSR2 hands over to a new process without a lost request; or restart\n')
}
