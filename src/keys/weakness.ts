/** What makes an object weaker than those that hsmgate makes, in an operator's words. Pure. */
import type { ObjectSummary } from '../hsm/port.ts'

export type Weakness = 'extractable' | 'not sensitive' | 'not private'

/** Of a key: its value can leave the token, be read in clear, or be used without a login. Public keys have none. */
export function weaknessesOf({ objectClass, extractable, sensitive, isPrivate }: ObjectSummary): readonly Weakness[] {
  if (objectClass === 'public') return []
  return [
    ...(extractable ? (['extractable'] as const) : []),
    ...(sensitive ? [] : (['not sensitive'] as const)),
    ...(isPrivate ? [] : (['not private'] as const)),
  ]
}
