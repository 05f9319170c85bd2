/**
 * Where a development gateway logs: every line into a file, and what a developer should see, worded for people, to standard error.
 * That begins when the gateway is ready: why a start failed is told by the command itself. One process writes; the file is renamed
 * aside at start when it has grown large.
 */
import { closeSync, openSync, renameSync, statSync, writeSync } from 'node:fs'
import { printable, type Terminal } from './terminal.ts'

const largeBytes = 16 * 1024 * 1024
const shown: ReadonlySet<unknown> = new Set(['warn', 'error', 'fatal'])
const unshownMembers: ReadonlySet<string> = new Set(['level', 'time', 'pid', 'msg'])

export interface DevelopmentLog extends Disposable {
  write(line: string): void
  /** Shows what was held back so far, and from now on each line that is worth it. */
  show(): void
}

export function openDevelopmentLog(file: string, terminal: Terminal): DevelopmentLog {
  if ((statSync(file, { throwIfNoEntry: false })?.size ?? 0) > largeBytes) renameSync(file, `${file}.old`)
  const fd = openSync(file, 'a', 0o600)
  const heldBack: string[] = []
  let put = (text: string): void => {
    heldBack.push(text)
  }
  let isOpen = true
  return {
    write(line) {
      if (!isOpen) return // a worker's last words may come after the gateway's
      writeSync(fd, line)
      const text = formatLogLine(line)
      if (text !== undefined) put(text)
    },
    show() {
      put = terminal.err
      for (const text of heldBack.splice(0)) put(text)
    },
    [Symbol.dispose]() {
      isOpen = false
      closeSync(fd)
    },
  }
}

/** A line of the log for people; undefined when it is below `warn`. */
export function formatLogLine(line: string): string | undefined {
  const members = parse(line)
  if (!shown.has(members.level)) return undefined
  const { msg, at, problem, remedy } = members
  if (problem !== undefined) return `${printable(`${at}: ${problem}`)}\n  remedy: ${printable(String(remedy))}\n`
  const fields = Object.entries(members)
    .filter(([name, value]) => !unshownMembers.has(name) && value !== null)
    .map(([name, value]) => `${name}=${describeValue(value)}`)
  return `${printable([`${members.level}: ${msg}`, ...fields].join('  '))}\n`
}

function describeValue(value: unknown): string {
  const { message } = value as { readonly message?: unknown }
  return typeof value === 'object' ? String(message ?? 'see the log') : String(value)
}

function parse(line: string): Readonly<Record<string, unknown>> {
  try {
    return JSON.parse(line) as Record<string, unknown>
  } catch {
    return { level: 'error', msg: line.trim() }
  }
}
