/**
 * Wildcard patterns, compiled once. `*` stands for any run of characters, `?` for one; a value that replaces a policy variable is
 * literal text, whatever it contains.
 *
 * Matching is linear in the value. A pattern is cut at its stars; the pieces are found from left to right and never looked for again,
 * pieces without `?` by Knuth-Morris-Pratt. Pieces with `?` between stars are compared in place and therefore bounded in length and
 * free of variables, so that neither a hostile policy nor a hostile value can hold the event loop.
 */

import type { Facts } from './facts.ts'
import { legacyParsingError } from './policy-error.ts'
import { parseTokens, resolveVariable, type Token, type TokenRules } from './variables.ts'

export interface Pattern {
  matches(value: string, facts: Facts): boolean
  /** False when a variable of the pattern has no value in this request; such a pattern matches nothing. */
  isResolved(facts: Facts): boolean
  /** The one value it matches, when there is neither wildcard nor variable in it and case counts. */
  readonly literal: string | undefined
}

export interface PatternRules extends TokenRules {
  readonly ignoresCase?: boolean
}

const maxPieceWithWildcard = 64
const anyChar = -1

/** @throws PolicyError for a malformed variable or an unreasonable wildcard. */
export function compilePattern(text: string, rules: PatternRules): Pattern {
  return compileTokens(parseTokens(text, rules), rules.ignoresCase === true)
}

export function compileTokens(tokens: readonly Token[], ignoresCase: boolean): Pattern {
  const fold = ignoresCase ? (text: string) => text.toLowerCase() : (text: string) => text
  const variables = tokens.filter((token) => token.kind === 'variable')
  refuseSlowPieces(tokens)
  if (variables.length === 0) {
    const glob = compileGlob(tokens, fold, undefined)
    return Object.freeze({
      literal: !ignoresCase && tokens.every(({ kind }) => kind === 'text') ? tokens.map(textOf).join('') : undefined,
      matches: (value: string) => glob(fold(value)),
      isResolved: () => true,
    })
  }
  const isResolved = (facts: Facts) => variables.every((token) => resolveVariable(token, facts) !== undefined)
  return Object.freeze({
    literal: undefined,
    matches: (value: string, facts: Facts) => isResolved(facts) && compileGlob(tokens, fold, facts)(fold(value)),
    isResolved,
  })
}

function refuseSlowPieces(tokens: readonly Token[]): void {
  const stars = tokens.flatMap((token, at) => (token.kind === 'many' ? [at] : []))
  for (const [nth, star] of stars.slice(0, -1).entries()) {
    const piece = tokens.slice(star + 1, stars[nth + 1])
    if (!piece.some((token) => token.kind === 'one')) continue
    const length = piece.reduce((sum, token) => sum + (token.kind === 'one' ? 1 : textOf(token).length), 0)
    if (length > maxPieceWithWildcard || piece.some((token) => token.kind === 'variable')) throw legacyParsingError()
  }
}

function textOf(token: Token): string {
  return token.kind === 'text' ? token.text : ''
}

/** One run between stars: char codes, `anyChar` for `?`. */
interface Piece {
  readonly units: readonly number[]
  /** Knuth-Morris-Pratt failure table; absent when the piece has a `?`. */
  readonly failure: readonly number[] | undefined
}

function compileGlob(
  tokens: readonly Token[],
  fold: (text: string) => string,
  facts: Facts | undefined,
): (value: string) => boolean {
  const runs: number[][] = [[]]
  for (const token of tokens) {
    const run = runs.at(-1) as number[]
    if (token.kind === 'many') runs.push([])
    else if (token.kind === 'one') run.push(anyChar)
    else {
      const text = token.kind === 'text' ? token.text : facts === undefined ? '' : (resolveVariable(token, facts) ?? '')
      const folded = fold(text)
      for (let at = 0; at < folded.length; at++) run.push(folded.charCodeAt(at))
    }
  }
  if (runs.length === 1) return exactly(runs[0] as number[])
  const head = runs[0] as number[]
  const tail = runs.at(-1) as number[]
  const middle = runs.slice(1, -1).map(compilePiece)
  return (value) => {
    if (value.length < head.length + tail.length || !fitsAt(head, value, 0)) return false
    const end = value.length - tail.length
    if (!fitsAt(tail, value, end)) return false
    let from = head.length
    for (const piece of middle) {
      from = findPiece(piece, value, from, end)
      if (from === -1) return false
    }
    return true
  }
}

function exactly(units: readonly number[]): (value: string) => boolean {
  if (!units.includes(anyChar)) {
    const text = units.map((unit) => String.fromCharCode(unit)).join('')
    return (value) => value === text
  }
  return (value) => value.length === units.length && fitsAt(units, value, 0)
}

function compilePiece(units: readonly number[]): Piece {
  return { units, failure: units.includes(anyChar) ? undefined : failureTable(units) }
}

function fitsAt(units: readonly number[], value: string, at: number): boolean {
  for (let i = 0; i < units.length; i++) {
    const unit = units[i]
    if (unit !== anyChar && unit !== value.charCodeAt(at + i)) return false
  }
  return true
}

/** The index after the leftmost occurrence of `piece` in `value` between `from` and `end`, or -1. */
function findPiece({ units, failure }: Piece, value: string, from: number, end: number): number {
  if (failure === undefined) {
    for (let at = from; at + units.length <= end; at++) {
      if (fitsAt(units, value, at)) return at + units.length
    }
    return -1
  }
  let matched = 0
  if (units.length === 0) return from
  for (let at = from; at < end; at++) {
    const code = value.charCodeAt(at)
    while (matched > 0 && units[matched] !== code) matched = failure[matched - 1] as number
    if (units[matched] === code) matched++
    if (matched === units.length) return at + 1
  }
  return -1
}

function failureTable(units: readonly number[]): readonly number[] {
  const table = new Array<number>(units.length).fill(0)
  let length = 0
  for (let at = 1; at < units.length; at++) {
    while (length > 0 && units[at] !== units[length]) length = table[length - 1] as number
    if (units[at] === units[length]) length++
    table[at] = length
  }
  return table
}
