/**
 * ARNs and patterns over them. Each of the six parts is matched by itself: a wildcard never reaches across a colon, save in the
 * resource part, which may hold colons of its own (IAM User Guide, "ARN condition operators" and "IAM JSON policy elements: Resource").
 */

import type { Facts } from './facts.ts'
import { compileTokens, type Pattern } from './pattern.ts'
import { parseTokens, type Token } from './variables.ts'

const partCount = 6

/** The six parts of an ARN, or undefined when `text` is none. */
export function splitArn(text: string): readonly string[] | undefined {
  if (!text.startsWith('arn:')) return undefined
  const parts: string[] = []
  let from = 0
  while (parts.length < partCount - 1) {
    const colon = text.indexOf(':', from)
    if (colon === -1) return undefined
    parts.push(text.slice(from, colon))
    from = colon + 1
  }
  parts.push(text.slice(from))
  return parts
}

/** Compiles an ARN with wildcards, or answers undefined when the text does not have the six parts of an ARN. */
export function compileArnPattern(text: string, hasVariables: boolean): Pattern | undefined {
  const tokens = parseTokens(text, { hasVariables, hasWildcards: true })
  const whole = compileTokens(tokens, false)
  if (whole.literal !== undefined) return splitArn(whole.literal) && whole
  // A whole ARN taken from a variable, as in "aws:PrincipalArn": "${aws:PrincipalTag/owner}".
  if (tokens.length === 1 && tokens[0]?.kind === 'variable') return whole
  const parts = splitTokens(tokens)
  const isArn = parts.length === partCount && parts[0]?.length === 1 && parts[0][0]?.kind === 'text'
  if (!isArn || !text.startsWith('arn:')) return undefined
  const patterns = parts.map((part) => compileTokens(part, false))
  return Object.freeze({
    literal: undefined,
    matches(value: string, facts: Facts) {
      const valueParts = splitArn(value)
      return valueParts?.every((part, at) => (patterns[at] as Pattern).matches(part, facts)) ?? false
    },
    isResolved: (facts: Facts) => patterns.every((pattern) => pattern.isResolved(facts)),
  })
}

/** Cuts at the first five colons of the plain text; colons inside a variable are its own. */
function splitTokens(tokens: readonly Token[]): Token[][] {
  const parts: Token[][] = [[]]
  for (const token of tokens) {
    if (token.kind !== 'text') {
      parts.at(-1)?.push(token)
      continue
    }
    let rest = token.text
    while (parts.length < partCount && rest.includes(':')) {
      const colon = rest.indexOf(':')
      if (colon > 0) parts.at(-1)?.push({ kind: 'text', text: rest.slice(0, colon) })
      parts.push([])
      rest = rest.slice(colon + 1)
    }
    if (rest !== '') parts.at(-1)?.push({ kind: 'text', text: rest })
  }
  return parts
}
