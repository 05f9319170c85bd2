/** What `hsmgate tls doctor` finds, one line each: what was looked at, what is the matter, what helps. */
import type { Problem } from '../problem.ts'
import { printable } from './terminal.ts'

export interface Finding {
  /** What was looked at. */
  readonly at: string
  readonly status: 'good' | 'bad' | 'not tried'
  readonly text: string
  /** Of what is bad. */
  readonly remedy?: string
}

export function good(at: string, text: string): Finding {
  return { at, status: 'good', text }
}

export function bad(at: string, text: string, remedy: string): Finding {
  return { at, status: 'bad', text, remedy }
}

export function notTried(at: string, text: string): Finding {
  return { at, status: 'not tried', text }
}

export function problemsOf(findings: readonly Finding[]): readonly Problem[] {
  return findings.flatMap(({ at, status, text, remedy = '' }) =>
    status === 'bad' ? [{ at, cause: text, remedy }] : [],
  )
}

export function formatFindings(findings: readonly Finding[]): string {
  const mark = { good: 'ok', bad: 'BAD', 'not tried': '-' }
  return findings.map(({ at, status, text }) => `${mark[status].padEnd(4)} ${printable(`${at}: ${text}`)}\n`).join('')
}
