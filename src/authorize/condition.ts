/**
 * One line of a Condition element: operator, key, values. Within a statement all conditions must hold; within a condition one value
 * is enough, or, for a negated operator, none may match (IAM User Guide, "Conditions with multiple context keys or values").
 *
 * Where a request is ambiguous the answer depends on the effect, and always falls on the side of refusal: such a condition holds in no
 * Allow and in every Deny.
 */

import {
  type ContextValue,
  encryptionContextKeys,
  encryptionContextPrefix,
  type Facts,
  resourceAliases,
  valueFinder,
} from './facts.ts'
import { getOperator, type Operand, parseBoolean } from './operators.ts'
import { syntaxError } from './policy-error.ts'

export type Effect = 'Allow' | 'Deny'

export interface Condition {
  readonly key: string
  holds(facts: Facts, effect: Effect): boolean
}

/** AWS denies a principal that depends on kms:ResourceAliases when the key has more aliases than this. */
export const maxComparableAliases = 50

type Quantifier = 'ForAnyValue' | 'ForAllValues' | undefined

const operatorForm = /^(?:(ForAnyValue|ForAllValues):)?([A-Za-z]+?)(IfExists)?$/

/** @throws PolicyError for an unknown operator or a value that the operator can't read. */
export function compileCondition(
  operatorText: string,
  key: string,
  values: readonly string[],
  hasVariables: boolean,
): Condition {
  const [, quantifier, name = '', ifExists] = operatorForm.exec(operatorText) ?? []
  const foldedKey = key.toLowerCase()
  if (name === 'Null') {
    if (quantifier !== undefined || ifExists !== undefined) throw syntaxError()
    return compileNull(foldedKey, values)
  }
  const { isNegated, compile } = getOperator(name)
  const operands = values.map((value) => compile(value, hasVariables))
  const test = comparison(operands, isNegated)
  const find = valueFinder(foldedKey)
  const isUntrustworthy = doubt(foldedKey)
  const whenAbsent = ifExists !== undefined || absentAnswer(quantifier as Quantifier, isNegated)
  return Object.freeze({
    key: foldedKey,
    holds(facts: Facts, effect: Effect) {
      const value = find(facts)
      if (isUntrustworthy(facts, value)) return effect === 'Deny'
      if (value === undefined || value.length === 0) {
        // An empty list is no value. An empty string is one, except to a set operator, which sees a null data set.
        if (typeof value !== 'string' || quantifier !== undefined) return whenAbsent
      }
      if (typeof value === 'string') return test(value, facts, effect)
      const needsAll = quantifier === undefined ? effect === 'Allow' : quantifier === 'ForAllValues'
      // Without a set operator several values have no defined meaning: an Allow then needs all, a Deny is content with one.
      return needsAll
        ? value.every((each) => test(each, facts, effect))
        : value.some((each) => test(each, facts, effect))
    },
  })
}

type Comparison = (value: string, facts: Facts, effect: Effect) => boolean

/**
 * An unresolved variable matches nothing. For a negated operator that would mean "differs", so in an Allow a negated condition with an
 * unresolved variable does not hold.
 */
function comparison(operands: readonly Operand[], isNegated: boolean): Comparison {
  const literals = new Set(operands.flatMap(({ literal }) => (literal === undefined ? [] : [literal])))
  const others = operands.filter(({ literal }) => literal === undefined)
  if (!isNegated) {
    return (value, facts) => literals.has(value) || others.some((operand) => operand.matches(value, facts))
  }
  return (value, facts, effect) =>
    !literals.has(value) &&
    others.every((operand) => (operand.isResolved(facts) ? !operand.matches(value, facts) : effect === 'Deny'))
}

function absentAnswer(quantifier: Quantifier, isNegated: boolean): boolean {
  if (quantifier === 'ForAllValues') return true
  return quantifier === undefined && isNegated
}

function compileNull(key: string, values: readonly string[]): Condition {
  const wanted = values.map(parseBoolean)
  if (wanted.includes(undefined)) throw syntaxError()
  const find = valueFinder(key)
  const isUntrustworthy = doubt(key)
  return Object.freeze({
    key,
    holds(facts: Facts, effect: Effect) {
      const value = find(facts)
      if (isUntrustworthy(facts, value)) return effect === 'Deny'
      return wanted.includes(value === undefined || (typeof value !== 'string' && value.length === 0))
    },
  })
}

/** For one key: whether what a request says of it can't be relied on. */
function doubt(key: string): (facts: Facts, value: ContextValue | undefined) => boolean {
  if (key === encryptionContextKeys || key.startsWith(encryptionContextPrefix))
    return (facts) => facts.isContextAmbiguous
  if (key !== resourceAliases) return () => false
  return (_, value) => typeof value === 'object' && value.length > maxComparableAliases
}
