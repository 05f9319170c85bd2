/** One line of JSON on stderr per event, for the supervisor to log: fixed words, numbers and names only, never input or secrets. */

export function log(level: 'info' | 'warn' | 'error', event: string, fields: Readonly<Record<string, unknown>> = {}) {
  process.stderr.write(`${JSON.stringify({ level, event, ...fields })}\n`)
}
