/**
 * The service events of multi-Region keys, in the Region where they happen (AWS KMS Developer Guide, "ReplicateKey" and
 * "UpdatePrimaryRegion" under "CloudTrail log entries"): the caller's own record is of the Region that was called.
 */
import type { Journal } from './audit/audit.ts'
import type { KeyEntry, KeyName } from './catalog/catalog.ts'
import type { RelatedEvents } from './keys/keys.ts'

export function createRelatedEvents(
  journal: Pick<Journal, 'appendEvent'>,
  keyArn: (name: KeyName) => string,
): RelatedEvents {
  const append = async (name: string, { key }: KeyEntry, details: Readonly<Record<string, unknown>>) => {
    const { account, region } = key
    const resources = [{ account, type: 'AWS::KMS::Key', arn: keyArn(key) }]
    await journal.appendEvent({ name, account, region, details: { keyId: key.keyId, ...details }, resources })
  }
  return {
    replicaCreated: (replica) => append('CreateKey', replica, {}),
    primaryChanged: (primary) => append('UpdatePrimaryRegion', primary, { primaryRegion: primary.key.region }),
  }
}
