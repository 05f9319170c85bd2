/** A line between two network namespaces of its own (lossy-line.py): real packets, late and some of them lost, and TCP that has to live with it. */
import { spawn, spawnSync } from 'node:child_process'
import path from 'node:path'
import { createInterface } from 'node:readline'

const script = path.join(import.meta.dirname, 'lossy-line.py')

export interface LossyLine extends AsyncDisposable {
  /** What starts a program at this end: a program and its arguments, before its own. */
  readonly near: readonly string[]
  readonly far: readonly string[]
  /** Address of the near end. */
  readonly nearAddress: string
  /** Ends it. */
  end(): Promise<{ readonly carried: number; readonly lost: number }>
}

/** It takes root, and a kernel with namespaces and TUN devices. */
export function canStartLossyLine(): boolean {
  return process.getuid?.() === 0 && spawnSync('python3', [script, '0', '1'], { input: '' }).status === 0
}

export async function startLossyLine(delayMs: number, loseOneIn: number): Promise<LossyLine> {
  const child = spawn('python3', [script, String(delayMs), String(loseOneIn)], { stdio: ['pipe', 'pipe', 'inherit'] })
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  const nextLine = async () => String((await lines.next()).value)
  const [, near, far] = /^ready (\d+) (\d+)$/.exec(await nextLine()) ?? []
  const at = (fd: string | undefined) => ['nsenter', `--net=/proc/${child.pid}/fd/${fd}`]
  const end = async () => {
    child.stdin.end()
    const [, carried, lost] = /^carried (\d+) lost (\d+)$/.exec(await nextLine()) ?? []
    return { carried: Number(carried), lost: Number(lost) }
  }
  return {
    near: at(near),
    far: at(far),
    nearAddress: '10.118.0.1',
    end,
    async [Symbol.asyncDispose]() {
      await end()
    },
  }
}
