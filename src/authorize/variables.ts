/**
 * Text of a policy that may hold wildcards and policy variables, cut into tokens. Rules: IAM User Guide, "IAM policy elements:
 * Variables and tags": `${key}`, `${key, 'default'}`, and `${*}`, `${?}`, `${$}` for the characters themselves. Version 2008-10-17
 * knows no variables, there `${` is plain text.
 */

import { type Facts, findValue } from './facts.ts'
import { syntaxError } from './policy-error.ts'

export type Token =
  | { readonly kind: 'text'; readonly text: string }
  | { readonly kind: 'many' }
  | { readonly kind: 'one' }
  | { readonly kind: 'variable'; readonly key: string; readonly fallback: string | undefined }

export interface TokenRules {
  readonly hasVariables: boolean
  readonly hasWildcards: boolean
}

/** @throws PolicyError when a variable is not closed, empty, or not of the documented form. */
export function parseTokens(text: string, rules: TokenRules): readonly Token[] {
  const tokens: Token[] = []
  let plain = ''
  const flush = () => {
    if (plain !== '') tokens.push({ kind: 'text', text: plain })
    plain = ''
  }
  for (let at = 0; at < text.length; at++) {
    const char = text[at] as string
    if (rules.hasVariables && char === '$' && text[at + 1] === '{') {
      const end = text.indexOf('}', at)
      if (end === -1) throw syntaxError()
      const inner = text.slice(at + 2, end)
      if (inner === '*' || inner === '?' || inner === '$') plain += inner
      else {
        flush()
        tokens.push(parseVariable(inner))
      }
      at = end
    } else if (rules.hasWildcards && (char === '*' || char === '?')) {
      flush()
      const isRepeated = char === '*' && tokens.at(-1)?.kind === 'many'
      if (!isRepeated) tokens.push({ kind: char === '*' ? 'many' : 'one' })
    } else plain += char
  }
  flush()
  return tokens
}

const variableForm = /^([A-Za-z0-9-]+:[^\s,'{}$]+)(?:, ?'([^']*)')?$/

function parseVariable(inner: string): Token {
  const match = variableForm.exec(inner)
  if (match === null) throw syntaxError()
  return { kind: 'variable', key: (match[1] as string).toLowerCase(), fallback: match[2] }
}

/**
 * The value that stands for a variable, or undefined when the request has none and the policy names no default. A key with several
 * values can't be a variable.
 */
export function resolveVariable(token: Token & { kind: 'variable' }, facts: Facts): string | undefined {
  const value = findValue(facts, token.key)
  return typeof value === 'string' ? value : token.fallback
}
