/** Runs a real program for a test: its output, or an error that shows what it said. */
import { spawn } from 'node:child_process'
import { buffer } from 'node:stream/consumers'

export interface CommandOptions {
  readonly env?: Readonly<Record<string, string>>
  readonly input?: Uint8Array
  readonly cwd?: string
}

export interface CommandResult {
  readonly status: number | null
  readonly stdout: Buffer
  readonly stderr: string
}

export async function run(
  program: string,
  args: readonly string[],
  options: CommandOptions = {},
): Promise<CommandResult> {
  const child = spawn(program, args, {
    cwd: options.cwd,
    env: options.env ?? { PATH: process.env.PATH ?? '' },
    stdio: ['pipe', 'pipe', 'pipe'],
  })
  child.stdin.on('error', () => {}) // a program that reads nothing may end first
  child.stdin.end(options.input ?? '')
  const exit = new Promise<number | null>((resolve, reject) => {
    child.once('error', reject)
    child.once('close', resolve)
  })
  const [status, stdout, stderr] = await Promise.all([exit, buffer(child.stdout), buffer(child.stderr)])
  return { status, stdout, stderr: stderr.toString() }
}

/** As `run`, for programs that must succeed. */
export async function runOk(program: string, args: readonly string[], options: CommandOptions = {}): Promise<Buffer> {
  const { status, stdout, stderr } = await run(program, args, options)
  if (status !== 0) throw new Error(`${program} ${args.join(' ')} ended with ${status}: ${stderr}${stdout}`)
  return stdout
}
