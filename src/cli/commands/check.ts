/** `hsmgate check`: the effective configuration, or all problems of the file and of the files that it names. Works offline. */
import type { Command } from 'commander'
import { formatConfig } from '../../config/config.ts'
import { addAction } from '../action.ts'
import { loadRunnableConfig } from '../effective-config.ts'
import type { Terminal } from '../terminal.ts'

export function addCheck(program: Command, terminal: Terminal): void {
  const command = program.command('check').description('print the effective configuration, or everything wrong with it')
  addAction(command, (options) => terminal.out(formatConfig(loadRunnableConfig(options, terminal))))
}
