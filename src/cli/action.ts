/** Binds what a command does to its words and options, global ones included. */
import type { Command } from 'commander'
import type { CommonOptions } from './terminal.ts'

/** `run` gets the options, then one argument for each word that the command declares. It throws when it fails. */
export function addAction<O, W extends readonly unknown[]>(
  command: Command,
  run: (options: O & CommonOptions, ...words: W) => Promise<void> | void,
): void {
  command.action(() => run(command.optsWithGlobals(), ...(command.processedArgs as unknown as W)))
}
