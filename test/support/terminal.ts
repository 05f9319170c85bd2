/** A terminal for commands that run in the test's own process: remembers what was written. */
import { runCommandLine } from '../../src/cli/command-line.ts'
import type { Terminal } from '../../src/cli/terminal.ts'

export interface TestTerminal extends Terminal {
  readonly written: { out: string; err: string }
}

export function createTestTerminal(input = '', environment: Terminal['environment'] = {}): TestTerminal {
  const written = { out: '', err: '' }
  return {
    written,
    environment,
    out(text) {
      written.out += text
    },
    err(text) {
      written.err += text
    },
    async readInput(maxBytes) {
      if (Buffer.byteLength(input) > maxBytes) throw new RangeError('too long')
      return input
    },
  }
}

/** Runs `hsmgate <words>` in this process. */
export async function runHsmgate(words: readonly string[], input?: string, environment?: Terminal['environment']) {
  const terminal = createTestTerminal(input, environment)
  const code = await runCommandLine(words, terminal)
  return { code, ...terminal.written }
}
