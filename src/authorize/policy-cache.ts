/**
 * Compiled policies by their text. The text itself is the key: it can't go stale, equal policies of many keys share one compiled form,
 * and a policy that was put back is found again. Documents that can't be read are remembered too, as undefined.
 *
 * Bounded by characters held, in two generations: when the young one is full it becomes the old one, and what is still used moves
 * back. A hit writes nothing.
 */

import { type Policy, parsePolicy } from './policy.ts'
import { PolicyError } from './policy-error.ts'
import { indexPolicy, type PolicyIndex } from './policy-index.ts'
import type { PolicyKind } from './statement.ts'

export interface PolicyCache {
  /** The compiled policy, or undefined when the document can't be read. */
  find(kind: PolicyKind, text: string): PolicyIndex | undefined
}

type Generation = Map<string, PolicyIndex | undefined>

/** The largest document the service model lets in; the quotas are checked when a policy is put, not when it is used. */
const readLimits = Object.freeze({ maxBytes: 131_072 })

export function createPolicyCache(maxCharacters: number): PolicyCache {
  const caches = {
    identity: createGenerations('identity', maxCharacters),
    key: createGenerations('key', maxCharacters),
    trust: createGenerations('trust', maxCharacters),
  }
  return { find: (kind, text) => caches[kind](text) }
}

function createGenerations(kind: PolicyKind, maxCharacters: number): (text: string) => PolicyIndex | undefined {
  let young: Generation = new Map()
  let old: Generation = new Map()
  let youngCharacters = 0
  return (text) => {
    const hit = young.get(text)
    if (hit !== undefined) return hit
    if (young.has(text)) return undefined
    const index = old.get(text) ?? (old.has(text) ? undefined : compile(kind, text))
    if (youngCharacters + text.length > maxCharacters / 2) {
      old = young
      young = new Map()
      youngCharacters = 0
    }
    young.set(text, index)
    youngCharacters += text.length
    return index
  }
}

function compile(kind: PolicyKind, text: string): PolicyIndex | undefined {
  let policy: Policy
  try {
    policy = parsePolicy(kind, text, readLimits)
  } catch (error) {
    if (error instanceof PolicyError) return undefined
    throw error
  }
  return indexPolicy(policy)
}
