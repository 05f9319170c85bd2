/**
 * Hand-over: a new gateway process takes the place of the one that runs, without a lost connection. It inherits the listening sockets,
 * makes its HSM workers warm while the old one still serves, and says so; the old one accepts nothing more, answers what is under way,
 * closes journal and catalog and leaves. Whoever connects in between waits in the kernel's queue for as long as that takes.
 *
 * One process at a time has the state: the new one touches nothing of it before the old one let go or is gone.
 */
import { type ChildProcess, spawn } from 'node:child_process'

/** Listening sockets by the name of their door. */
export type Listeners = ReadonlyMap<string, number>

/** The process that this one takes over from. */
export interface Predecessor {
  readonly listeners: Listeners
  /** Says that this process is warm; resolves when the state is free. */
  takeOver(): Promise<void>
}

export interface Successor {
  readonly pid: number
  /** The state is free: to be called when everything is closed. */
  letGo(): void
}

const variable = 'HSMGATE_HAND_OVER'
const warm = 'warm'
const yours = 'yours'
/** Standard streams and the channel come first. */
const firstDescriptor = 4
/** A module that must answer its first calls, and what a slow machine adds. */
const warmUpLimitMs = 120_000

/** The predecessor of this process, if one started it; asked once, the environment forgets it. */
export function findPredecessor(env: NodeJS.ProcessEnv = process.env): Predecessor | undefined {
  const names = env[variable]
  if (names === undefined || process.send === undefined) return undefined
  delete env[variable]
  const listeners = new Map(names.split(',').map((name, index) => [name, firstDescriptor + index]))
  return {
    listeners,
    async takeOver() {
      // A predecessor that is gone has let go of everything too.
      const free = new Promise<void>((resolve) => {
        process.once('message', () => resolve())
        process.once('disconnect', resolve)
      })
      process.send?.(warm)
      await free
      if (process.connected) process.disconnect()
    },
  }
}

/**
 * Starts this program anew with the listening sockets; resolves when the new process is warm. What is started is the launcher by the path
 * that it was called by, so that a link that was moved to a newer checkout leads there, to its Node as well.
 * @throws Error when it ended or did not become warm in time; this process is as it was.
 */
export async function startSuccessor(listeners: Listeners): Promise<Successor> {
  const [program, words] = findProgram()
  const child = spawn(program, words, {
    stdio: ['inherit', 'inherit', 'inherit', 'ipc', ...listeners.values()],
    env: { ...process.env, [variable]: [...listeners.keys()].join(',') },
  })
  try {
    await becomesWarm(child)
  } catch (cause) {
    child.kill('SIGKILL')
    throw cause
  }
  return {
    pid: child.pid as number,
    letGo() {
      if (child.connected) child.send(yours, () => child.disconnect())
      child.unref()
    },
  }
}

function findProgram(): [program: string, words: readonly string[]] {
  const { HSMGATE_LAUNCHER: launcher } = process.env
  const words = process.argv.slice(2)
  if (launcher !== undefined) return [launcher, words]
  return [process.execPath, [...process.execArgv, process.argv[1] as string, ...words]]
}

function becomesWarm(child: ChildProcess): Promise<void> {
  return new Promise((resolve, reject) => {
    const limit = setTimeout(() => reject(new Error(`not warm within ${warmUpLimitMs / 1000} s`)), warmUpLimitMs)
    const settle = (act: () => void) => {
      clearTimeout(limit)
      child.removeAllListeners()
      act()
    }
    child.once('message', () => settle(resolve))
    child.once('error', (cause) => settle(() => reject(cause)))
    child.once('exit', (code, signal) => settle(() => reject(new Error(`it ended with ${signal ?? code}`))))
  })
}
