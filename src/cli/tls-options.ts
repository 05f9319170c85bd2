/** What the commands on TLS keys have in common: options, and files that they write. */
import type { Command } from 'commander'
import { type Problem, ProblemsError } from '../problem.ts'
import { createFile, findText, publicFileMode, replaceFile } from './files.ts'
import { type CommonOptions, printable, show, type Terminal } from './terminal.ts'

export interface PlaceOptions {
  readonly account?: string
  readonly region?: string
}

export interface FileOptions {
  readonly out?: string
  readonly force?: true
}

export function withPlace(command: Command): Command {
  return command
    .option('--account <id>', 'account (default: the first one configured)')
    .option('--region <name>', 'Region (default: the first one configured)')
}

/** Options that take a list: with commas, repeated, or both. */
export function collectNames(value: string, values: readonly string[]): readonly string[] {
  return [...values, ...value.split(',').filter((name) => name !== '')]
}

/** @throws ProblemsError when the file is there and may not be replaced. */
export async function refuseExisting(file: string, force: boolean): Promise<void> {
  if (force) return
  const found = await findText(file).catch((cause) => {
    throw unwritable(file, cause)
  })
  if (found !== undefined) throw new ProblemsError([existing(file)])
}

/** Whole or not at all, mode 0600 unless told. @throws ProblemsError */
export async function writeNewFile(file: string, content: string, force: boolean, mode?: number): Promise<void> {
  const write = force ? replaceFile(file, content, mode).then(() => true) : createFile(file, content, mode)
  const written = await write.catch((cause) => {
    throw unwritable(file, cause)
  })
  if (!written) throw new ProblemsError([existing(file)])
}

/** To the file that --out names, else to standard output. */
export async function writeCertificate(
  terminal: Terminal,
  options: FileOptions & CommonOptions,
  name: string,
  pem: string,
): Promise<void> {
  const { out, force } = options
  if (out === undefined) {
    show(terminal, options, { [name]: pem }, () => pem)
    return
  }
  await writeNewFile(out, pem, force === true, publicFileMode)
  show(terminal, options, { file: out }, () => `written to ${printable(out)}\n`)
}

function existing(file: string): Problem {
  return { at: file, cause: 'is there already', remedy: 'choose another file, or replace it with --force' }
}

function unwritable(file: string, cause: unknown): ProblemsError {
  const { code } = cause as NodeJS.ErrnoException
  const remedy = 'choose a folder that you may write to'
  return new ProblemsError([{ at: file, cause: `cannot be written (${code})`, remedy }], { cause })
}
