/** The key of purpose `xks` that health checks use, so that they never touch a customer's: in account and Region `system`, in no store. */
import { deadlineIn } from '../call.ts'
import type { KeyEntry } from '../catalog/catalog.ts'
import { GatewayError } from '../error.ts'
import { createBackedKey } from './create-key.ts'
import type { SystemKeyParts } from './system-keys.ts'

const name = { account: 'system', region: 'system', keyId: 'xks-health' }
const creationMs = 60_000

/** Finds or makes it. @throws GatewayError */
export async function openProofKey(parts: SystemKeyParts): Promise<KeyEntry> {
  const found = await parts.catalog.findKey(name)
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
    group: parts.group,
  } as const
  return createBackedKey(parts, plan, deadlineIn(creationMs))
}
