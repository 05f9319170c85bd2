/** Keys of purpose `xks` that health checks use, so that they never touch a customer's: one for each group, in account and Region `system`, in no store. */
import { deadlineIn } from '../call.ts'
import type { KeyEntry } from '../catalog/catalog.ts'
import { GatewayError } from '../error.ts'
import { createBackedKey } from './create-key.ts'
import type { SystemKeyParts } from './system-keys.ts'

const place = { account: 'system', region: 'system' }
const first = { ...place, keyId: 'xks-health' }
const creationMs = 60_000

/** Finds or makes that of `parts.group`. The first one has the plain name, whatever group was the default when it was made. @throws GatewayError */
export async function openProofKey(parts: SystemKeyParts): Promise<KeyEntry> {
  const { catalog, group } = parts
  const plain = await catalog.findKey(first)
  const isPlain = plain === undefined || plain.key.group === group
  const name = isPlain ? first : { ...place, keyId: `xks-health-${group}` }
  const found = isPlain ? plain : await catalog.findKey(name)
  if (found?.key.state === 'Enabled') return found
  if (found !== undefined) {
    throw new GatewayError('KeyUnavailable', undefined, { detail: `the health key is ${found.key.state}` })
  }
  const plan = {
    name,
    spec: 'SYMMETRIC_DEFAULT',
    usage: 'ENCRYPT_DECRYPT',
    purpose: 'xks',
    origin: 'AWS_KMS',
    description: '',
    policy: '',
    tags: {},
    multiRegion: false,
    group,
  } as const
  return createBackedKey(parts, plan, deadlineIn(creationMs))
}
