/** `hsmgate xks …`: external key stores, by which AWS KMS uses keys of this gateway, asked of the running gateway. */
import { readFile } from 'node:fs/promises'
import type { Command } from 'commander'
import { addAction } from '../action.ts'
import { askGateway } from '../operator-client.ts'
import { show, type Terminal } from '../terminal.ts'
import { addXksKey } from './xks-key.ts'
import { addXksStore } from './xks-store.ts'

interface BlockOptions {
  readonly store: string
  readonly key?: string
}

interface FaultOptions {
  readonly store: string
  readonly kind: string
  readonly for: string
}

export function addXks(program: Command, terminal: Terminal): void {
  const xks = program.command('xks').description('external key stores of AWS KMS')
  addXksStore(xks, terminal, readSecret)
  addXksKey(xks, terminal)

  const verbs = {
    block: ['refuse all use of a store, or of one key of it, at once', 'blocked'],
    unblock: ['let a blocked store or key be used again', 'open again'],
  } as const
  for (const [verb, [description, done]] of Object.entries(verbs)) {
    const command = xks
      .command(verb)
      .description(description)
      .requiredOption('--store <name>', 'the store')
      .option('--key <id>', 'external key id (default: the whole store)')
    addAction<BlockOptions, []>(command, async (options) => {
      const { store, key } = options
      const answer = await askGateway<object>(options, terminal, 'xks', verb, { store, key })
      show(terminal, options, answer, () => `${key === undefined ? store : `${store} ${key}`}: ${done}\n`)
    })
  }

  const fault = xks
    .command('fault')
    .description('make a store answer wrong for a while, to see how its users cope (development only)')
    .requiredOption('--store <name>', 'the store')
    .requiredOption('--kind <kind>', 'latency:<duration>, deny, garbage, bad-cdiv, reset or 429')
    .option('--for <duration>', 'how long, such as 60s or 5m', '60s')
  addAction<FaultOptions, []>(fault, async (options) => {
    const { store, kind, for: duration } = options
    const answer = await askGateway<object>(options, terminal, 'xks', 'fault', { store, kind, duration })
    show(terminal, options, answer, () => `${store}: ${kind} for ${duration}\n`)
  })
}

/** From a file, so that no secret is seen among a command's arguments. */
async function readSecret(file: string): Promise<string> {
  return (await readFile(file, 'utf8')).trim()
}
