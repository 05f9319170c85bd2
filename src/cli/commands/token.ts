/** `hsmgate token …`: the tokens behind the gateway and their logins. */
import { closeSync } from 'node:fs'
import path from 'node:path'
import type { Command } from 'commander'
import type { Config } from '../../config/config.ts'
import type { GroupState } from '../../hsm/port.ts'
import { ProblemsError } from '../../problem.ts'
import { addAction } from '../action.ts'
import { loadEffectiveConfig } from '../effective-config.ts'
import { NoGatewayError } from '../failure.ts'
import { askGateway } from '../operator-client.ts'
import { type CommonOptions, formatTable, printable, type Row, show, type Terminal } from '../terminal.ts'

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
  addAction<CommonOptions, [string]>(retry, async (options, name) => {
    try {
      const answer = await askGateway<Groups>(options, terminal, 'token', 'retry-login', { token: name })
      show(terminal, options, answer, formatGroups)
    } catch (failure) {
      if (!(failure instanceof NoGatewayError)) throw failure
      await forgetRefusal(loadEffectiveConfig(options, terminal), name)
      const text = `The refusal of ${name} is forgotten: the next start of the gateway tries its PIN once.\n`
      show(terminal, options, { token: name, forgotten: true }, () => text)
    }
  })
}

/** A gateway whose PIN was refused does not start, so there may be nobody to ask: the state folder is then ours to change. */
async function forgetRefusal({ tokens, stateDirectory }: Config, name: string): Promise<void> {
  const token = tokens[name]
  if (token === undefined) {
    const remedy = `use one of: ${Object.keys(tokens).join(', ')}`
    throw new ProblemsError([{ at: `tokens.${name}`, cause: 'is not configured', remedy }])
  }
  const { loadAddon } = await import('../../hsm/worker/addon.ts')
  const lock = loadAddon().lockFile(path.join(stateDirectory, 'gateway.lock'))
  if (lock < 0) {
    const remedy = 'wait until its operator socket is open, then give the command again'
    throw new ProblemsError([{ at: stateDirectory, cause: 'a gateway is starting on this state', remedy }])
  }
  const { openPinLatch } = await import('../../hsm/pin-latch.ts')
  openPinLatch(stateDirectory).clear({ serial: token.serial, label: token.label, user: token.cryptoUser })
  closeSync(lock)
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
