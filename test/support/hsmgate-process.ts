/**
 * `./hsmgate` as a process of its own, as users run it: clean environment, output kept, killed with the test when it still runs.
 *
 *   await using dev = startHsmgate(['dev', '--directory', directory])
 *   await dev.output(/is ready/)
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import path from 'node:path'

const launcher = path.resolve(import.meta.dirname, '../../hsmgate')

export interface Ended {
  /** Exit code, or the signal that ended it. */
  readonly code: number | NodeJS.Signals
  readonly out: string
  readonly err: string
}

export interface HsmgateProcess extends AsyncDisposable {
  readonly pid: number
  readonly ended: Promise<Ended>
  /** Resolves with the match when standard output and error together match. @throws when the process ends without. */
  output(pattern: RegExp): Promise<RegExpExecArray>
  kill(signal: NodeJS.Signals): void
}

/** `through`: a program with arguments that starts the launcher, whose path and words are appended. */
export function startHsmgate(
  words: readonly string[],
  environment: NodeJS.ProcessEnv = {},
  through: readonly string[] = [],
): HsmgateProcess {
  const env = { PATH: '/usr/bin:/bin', HOME: '/nonexistent', ...environment }
  const [program, ...args] = [...through, launcher, ...words] as [string, ...string[]]
  const child = spawn(program, args, { env, cwd: '/', stdio: ['ignore', 'pipe', 'pipe'] })
  const written = { out: '', err: '' }
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    written.out += text
    child.emit('written')
  })
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    written.err += text
    child.emit('written')
  })
  const ended = once(child, 'close').then(
    ([code, signal]: (number | NodeJS.Signals | null)[]): Ended => ({ code: (code ?? signal)!, ...written }),
  )

  return {
    pid: child.pid!,
    ended,
    output(pattern) {
      const { promise, resolve, reject } = Promise.withResolvers<RegExpExecArray>()
      const look = () => {
        const found = pattern.exec(written.out + written.err)
        if (found) resolve(found)
      }
      child.on('written', look)
      ended.then(({ code, out, err }) =>
        reject(new Error(`hsmgate ended with ${code} and never said ${pattern}: ${out}${err}`)),
      )
      look()
      return promise.finally(() => child.off('written', look))
    },
    kill: (signal) => child.kill(signal),
    async [Symbol.asyncDispose]() {
      if (child.exitCode === null && child.signalCode === null) child.kill('SIGKILL')
      await ended
    },
  }
}

/** Runs a command to its end. */
export async function runHsmgateProcess(words: readonly string[], environment?: NodeJS.ProcessEnv): Promise<Ended> {
  await using running = startHsmgate(words, environment)
  return await running.ended
}
