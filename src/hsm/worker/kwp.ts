/** The number that AES-KWP (RFC 5649) has in this module, as proven. */
import type { Facts } from './facts.ts'
import { refusal } from './failure.ts'

/** @throws CallFailure `Unsupported` */
export function kwpMechanism(facts: Facts): number {
  const { kwpMechanism: mechanism } = facts
  if (mechanism === undefined) throw refusal('Unsupported', 'AES-KWP is not proven for this token')
  return mechanism
}
