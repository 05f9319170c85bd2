/** `hsmgate init`: makes a development folder, or completes one. Works offline. */
import path from 'node:path'
import type { Command } from 'commander'
import { addAction } from '../action.ts'
import { completeDevelopmentFolder, placeDevelopment } from '../development-folder.ts'
import { show, type Terminal } from '../terminal.ts'

interface InitOptions {
  readonly directory?: string
}

export function addInit(program: Command, terminal: Terminal): void {
  const command = program
    .command('init')
    .description('make a folder for development: configuration, SoftHSM2 token, development CA')
    .option('--directory <folder>', 'the folder; what exists in it is kept (default: .hsmgate)')
  addAction<InitOptions, []>(command, async (options) => {
    const development = placeDevelopment(options, terminal.environment)
    const { made } = await completeDevelopmentFolder(development)
    show(terminal, options, { directory: development.directory, made }, () =>
      made.length === 0
        ? `${development.directory} is complete: nothing to do\n`
        : `made in ${development.directory}:\n${made.map((file) => `  ${path.relative(development.directory, file) || '.'}\n`).join('')}start it with: hsmgate dev${options.directory === undefined ? '' : ` --directory ${options.directory}`}\n`,
    )
  })
}
