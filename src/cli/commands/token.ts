/** `hsmgate token …`: the tokens behind the gateway and their logins. */
import type { Command } from 'commander'
import type { GroupState } from '../../hsm/port.ts'
import { addAction } from '../action.ts'
import { askGateway } from '../operator-client.ts'
import { formatTable, printable, type Row, show, type Terminal } from '../terminal.ts'

interface Groups {
  readonly groups: readonly GroupState[]
}

export function addToken(program: Command, terminal: Terminal): void {
  const token = program.command('token').description('tokens behind the gateway')

  const list = token.command('list').description('list tokens, their workers and what is wrong with them')
  addAction(list, async (options) => {
    const answer = await askGateway<Groups>(options, terminal, 'token', 'list')
    show(terminal, options, answer, formatGroups)
  })

  const retry = token
    .command('retry-login')
    .description('try a PIN again that the token refused, once')
    .argument('<token>', 'name of the token in the configuration')
  addAction<object, [string]>(retry, async (options, name) => {
    const answer = await askGateway<Groups>(options, terminal, 'token', 'retry-login', { token: name })
    show(terminal, options, answer, formatGroups)
  })
}

function formatGroups({ groups }: Groups): string {
  const rows: Row[] = []
  const troubles: string[] = []
  for (const { name: group, tokens, workers } of groups) {
    for (const { name, label, serial, trouble, pinRefused } of tokens) {
      const own = workers.filter((worker) => worker.token === name)
      const ready = own.filter(({ state }) => state === 'ready').length
      const state = pinRefused ? 'PIN refused' : trouble === undefined ? 'ready' : 'in trouble'
      rows.push([group, name, label, serial, state, `${ready}/${own.length}`])
      if (trouble !== undefined) troubles.push(`${printable(`${name}: ${trouble}`)}\n`)
    }
  }
  const table = formatTable(['GROUP', 'TOKEN', 'LABEL', 'SERIAL', 'STATE', 'WORKERS READY'], rows)
  return troubles.length === 0 ? table : `${table}\n${troubles.join('')}`
}
