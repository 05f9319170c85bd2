/** `hsmgate clock …`: whether keys whose waiting period is over may be destroyed now, and what stands against it. */
import type { Command } from 'commander'
import { addAction } from '../action.ts'
import { askGateway } from '../operator-client.ts'
import { formatFields, formatTime, printable, show, type Terminal } from '../terminal.ts'

interface Clock {
  /** Epoch milliseconds, as the gateway reads them. */
  readonly wallTime: number
  readonly destruction: 'allowed' | 'paused'
  readonly pauses: readonly { readonly at: string; readonly cause: string; readonly remedy: string }[]
  /** ARNs of keys whose waiting period is over by that time. */
  readonly due: readonly string[]
}

export function addClock(program: Command, terminal: Terminal): void {
  const clock = program.command('clock').description('the time by which keys are destroyed')

  const shown = clock
    .command('show')
    .description('show the time, what stands against destroying keys, and which are due')
  addAction(shown, async (options) => {
    show(terminal, options, await askGateway<Clock>(options, terminal, 'clock', 'show'), formatClock)
  })

  const confirm = clock
    .command('confirm')
    .description('say that the time is right and that the keys that are due may be destroyed')
  addAction(confirm, async (options) => {
    show(terminal, options, await askGateway<Clock>(options, terminal, 'clock', 'confirm'), formatClock)
  })
}

function formatClock({ wallTime, destruction, pauses, due }: Clock): string {
  const fields = formatFields([
    ['time', formatTime(wallTime)],
    ['destruction', destruction],
  ])
  const reasons = pauses.map(({ at, cause, remedy }) => `${printable(`${at}: ${cause}`)}\n  remedy: ${remedy}\n`)
  const keys = due.map((arn) => `due: ${arn}\n`)
  return [fields, ...reasons, ...keys].join('')
}
