/**
 * What a command sees of the process that it runs in: where it writes, what it reads, and how values become text for people.
 * Texts that callers chose (descriptions, tags, names) are shown with control characters escaped, so that they can't drive a terminal.
 */

export interface Terminal {
  readonly environment: Readonly<Record<string, string | undefined>>
  out(text: string): void
  err(text: string): void
  /** All of standard input as UTF-8. @throws RangeError when it is longer than `maxBytes`. */
  readInput(maxBytes: number): Promise<string>
}

/** Options that every command has. */
export interface CommonOptions {
  readonly config?: string
  readonly json?: true
}

export const exitCodes = { ok: 0, failed: 1, usage: 2, noGateway: 3 } as const

/** One JSON document, or what `text` makes of it. */
export function show<T>(terminal: Terminal, options: CommonOptions, value: T, text: (value: T) => string): void {
  terminal.out(options.json ? `${JSON.stringify(value, null, 2)}\n` : text(value))
}

/** C0, DEL, C1 and the characters that reorder text (Unicode Standard Annex 9). */
// biome-ignore lint/suspicious/noControlCharactersInRegex: these are the characters to escape
const unprintable = /[\u0000-\u001f\u007f-\u009f\u200e\u200f\u2028-\u202e\u2066-\u2069]/g

export function printable(text: string): string {
  return text.replace(unprintable, (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`)
}

export type Row = readonly (string | number)[]

/** Columns aligned under their heads; numbers to the right. */
export function formatTable(heads: readonly string[], rows: readonly Row[]): string {
  const cells = [heads, ...rows].map((row) => row.map((cell) => printable(String(cell))))
  const widths = heads.map((_, column) => Math.max(...cells.map((row) => row[column]!.length)))
  const isNumber = heads.map((_, column) => rows.length > 0 && rows.every((row) => typeof row[column] === 'number'))
  return cells
    .map((row) =>
      row.map((cell, column) => (isNumber[column] ? cell.padStart(widths[column]!) : cell.padEnd(widths[column]!))),
    )
    .map((row) => `${row.join('  ').trimEnd()}\n`)
    .join('')
}

/** `name  value` lines with the values under each other. */
export function formatFields(fields: readonly (readonly [name: string, value: string | number])[]): string {
  const width = Math.max(...fields.map(([name]) => name.length))
  return fields
    .map(([name, value]) => `${name.padEnd(width)}  ${printable(String(value))}`.trimEnd())
    .join('\n')
    .concat('\n')
}

/** ISO 8601 in UTC to the second; `-` for what did not happen. */
export function formatTime(epochMs: number | null | undefined): string {
  return epochMs == null ? '-' : new Date(epochMs).toISOString().replace(/\.\d{3}Z$/, 'Z')
}
