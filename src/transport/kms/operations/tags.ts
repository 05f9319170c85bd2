/** Rules of tags that the API model does not state (AWS KMS API Reference, "TagException"). */
import { GatewayError } from '../../../error.ts'

export const maxTags = 50

export function refuseReservedTagKey(key: string): void {
  if (key.toLowerCase().startsWith('aws:')) {
    throw new GatewayError('TagInvalid', { text: 'Tags beginning with aws: are reserved' })
  }
}

/** @throws GatewayError `TagInvalid` for duplicates, reserved keys and more than the limit. */
export function parseTags(
  tags: readonly { readonly TagKey: string; readonly TagValue: string }[] = [],
): Readonly<Record<string, string>> {
  const parsed: Record<string, string> = Object.create(null)
  for (const { TagKey, TagValue } of tags) {
    refuseReservedTagKey(TagKey)
    if (TagKey in parsed) throw new GatewayError('TagInvalid', { text: 'Duplicate tag keys' })
    parsed[TagKey] = TagValue
  }
  if (tags.length > maxTags) throw new GatewayError('TagInvalid', { text: 'Too many tags' })
  return parsed
}
