/**
 * Which operations a key's state allows. Source: AWS KMS Developer Guide, "Key states of AWS KMS keys".
 * Cryptographic calls ask by `requireUsable`; life-cycle calls name the states that stop them.
 */
import type { KeyEntry, KeyState } from '../catalog/catalog.ts'
import { GatewayError } from '../error.ts'
import { stateAt } from './key-life.ts'

/** How AWS words a state that forbids the call: `<key ARN> is <condition>.` */
const conditions: Readonly<Record<Exclude<KeyState, 'Enabled' | 'Disabled'>, string>> = {
  Creating: 'creating',
  PendingImport: 'pending import',
  PendingDeletion: 'pending deletion',
  PendingReplicaDeletion: 'pending deletion',
  Unavailable: 'unavailable',
  Updating: 'updating',
}

/** @throws GatewayError `KeyDisabled` or `KeyStateInvalid` when the key is in one of `forbidden`. */
export function refuseStates(keyArn: string, state: KeyState, forbidden: readonly KeyState[]): void {
  if (!forbidden.includes(state)) return
  if (state === 'Disabled') throw new GatewayError('KeyDisabled', { keyArn })
  if (state === 'Enabled') throw new TypeError('Enabled is never a forbidden state by itself')
  throw new GatewayError('KeyStateInvalid', { keyArn, condition: conditions[state] })
}

const unusable: readonly KeyState[] = [
  'Disabled',
  'PendingDeletion',
  'PendingReplicaDeletion',
  'PendingImport',
  'Unavailable',
  'Creating',
]

/** Every cryptographic call, GetPublicKey included. `now` is asked only for keys whose material may expire. */
export function requireUsable(keyArn: string, entry: KeyEntry, now: () => number): void {
  const state = stateAt(entry, now)
  if (state !== 'Enabled') refuseStates(keyArn, state, unusable)
}
