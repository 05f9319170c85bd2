/**
 * The condition operators as a table: how a policy value of each is read, and how a value of the request is compared with it.
 * Rules: IAM User Guide, "IAM JSON policy elements: Condition operators". A negated operator is its positive twin with the answer
 * turned round by condition.ts. A policy value that its operator can't read makes the policy malformed: were it accepted, it would match nothing
 * and its negated twin everything.
 */

import { compileArnPattern } from './arn.ts'
import type { Facts } from './facts.ts'
import { isInRange, parseIp, parseIpRange } from './ip-range.ts'
import { compilePattern, type Pattern } from './pattern.ts'
import { legacyParsingError, syntaxError } from './policy-error.ts'

/** One policy value, ready to be compared with values of a request. */
export interface Operand {
  matches(value: string, facts: Facts): boolean
  isResolved(facts: Facts): boolean
  /** The one value it matches, where that can be said beforehand. */
  readonly literal?: string | undefined
}

export interface Operator {
  readonly isNegated: boolean
  /** @throws PolicyError when the operator can't read the value. */
  readonly compile: (value: string, hasVariables: boolean) => Operand
}

type Compile = Operator['compile']

const text =
  (hasWildcards: boolean, ignoresCase: boolean): Compile =>
  (value, hasVariables) =>
    compilePattern(value, { hasVariables, hasWildcards, ignoresCase })

const arn: Compile = (value, hasVariables) => {
  if (value === '*') return compilePattern(value, { hasVariables: false, hasWildcards: true })
  const pattern: Pattern | undefined = compileArnPattern(value, hasVariables)
  if (pattern === undefined) throw legacyParsingError()
  return pattern
}

/** An operand that takes no variables: `parse` reads both the policy's value and the request's. */
function parsed<T>(parse: (text: string) => T | undefined, compare: (value: T, operand: T) => boolean): Compile {
  return (text) => {
    const operand = parse(text)
    if (operand === undefined) throw legacyParsingError()
    return constant((value) => {
      const read = parse(value)
      return read !== undefined && compare(read, operand)
    })
  }
}

function constant(matches: (value: string) => boolean): Operand {
  return Object.freeze({ matches, isResolved: () => true })
}

const ip: Compile = (text) => {
  const range = parseIpRange(text)
  if (range === undefined) throw legacyParsingError()
  return constant((value) => {
    const words = parseIp(value)
    return words !== undefined && isInRange(words, range)
  })
}

function parseNumber(text: string): number | undefined {
  return /^[+-]?\d{1,32}(\.\d{1,32})?$/.test(text) ? Number(text) : undefined
}

const isoDate = /^\d{4}-\d\d(-\d\d(T\d\d:\d\d(:\d\d(\.\d{1,9})?)?(Z|[+-]\d\d:?\d\d)?)?)?$/i

/** Milliseconds of the epoch, from a W3C ISO 8601 date or from epoch seconds. A time without zone is UTC. */
function parseDate(text: string): number | undefined {
  if (/^\d{1,15}$/.test(text)) return Number(text) * 1000
  const match = isoDate.exec(text)
  if (match === null) return undefined
  const hasTime = match[2] !== undefined
  const atMs = Date.parse(hasTime && match[5] === undefined ? `${text}Z` : text)
  return Number.isNaN(atMs) ? undefined : atMs
}

export function parseBoolean(text: string): boolean | undefined {
  const folded = text.toLowerCase()
  return folded === 'true' ? true : folded === 'false' ? false : undefined
}

function parseBinary(text: string): string | undefined {
  return /^[A-Za-z0-9+/]*={0,2}$/.test(text) && text.length % 4 === 0
    ? Buffer.from(text, 'base64').toString('base64')
    : undefined
}

const same = <T>(value: T, operand: T) => value === operand
const less = (value: number, operand: number) => value < operand
const lessOrSame = (value: number, operand: number) => value <= operand
const more = (value: number, operand: number) => value > operand
const moreOrSame = (value: number, operand: number) => value >= operand

const is = (compile: Compile): Operator => ({ isNegated: false, compile })
const isNot = (compile: Compile): Operator => ({ isNegated: true, compile })

/** By the name a policy writes. Null is not here: it asks for presence, not for a value. */
export const operators: ReadonlyMap<string, Operator> = new Map(
  Object.entries({
    StringEquals: is(text(false, false)),
    StringNotEquals: isNot(text(false, false)),
    StringEqualsIgnoreCase: is(text(false, true)),
    StringNotEqualsIgnoreCase: isNot(text(false, true)),
    StringLike: is(text(true, false)),
    StringNotLike: isNot(text(true, false)),
    NumericEquals: is(parsed(parseNumber, same)),
    NumericNotEquals: isNot(parsed(parseNumber, same)),
    NumericLessThan: is(parsed(parseNumber, less)),
    NumericLessThanEquals: is(parsed(parseNumber, lessOrSame)),
    NumericGreaterThan: is(parsed(parseNumber, more)),
    NumericGreaterThanEquals: is(parsed(parseNumber, moreOrSame)),
    DateEquals: is(parsed(parseDate, same)),
    DateNotEquals: isNot(parsed(parseDate, same)),
    DateLessThan: is(parsed(parseDate, less)),
    DateLessThanEquals: is(parsed(parseDate, lessOrSame)),
    DateGreaterThan: is(parsed(parseDate, more)),
    DateGreaterThanEquals: is(parsed(parseDate, moreOrSame)),
    Bool: is(parsed(parseBoolean, same)),
    BinaryEquals: is(parsed(parseBinary, same)),
    IpAddress: is(ip),
    NotIpAddress: isNot(ip),
    ArnEquals: is(arn),
    ArnLike: is(arn),
    ArnNotEquals: isNot(arn),
    ArnNotLike: isNot(arn),
  }),
)

/** @throws PolicyError for a name that IAM does not have. */
export function getOperator(name: string): Operator {
  const operator = operators.get(name)
  if (operator === undefined) throw syntaxError()
  return operator
}
