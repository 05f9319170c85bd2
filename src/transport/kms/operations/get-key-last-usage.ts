import { epochSeconds } from '../metadata.ts'
import { structure } from '../schema.ts'
import { defineKeyOperation, findByBareKeyId, type KmsParts } from './key-operation.ts'
import { keyId } from './members.ts'

const input = structure({ KeyId: keyId.required() })

export function getKeyLastUsage({ keys }: KmsParts) {
  return defineKeyOperation({
    name: 'GetKeyLastUsage',
    readOnly: true,
    input,
    isCrossAccount: false,
    find: findByBareKeyId(keys),
    async perform(_request, { entry }) {
      const usage = await keys.lastUsage(entry)
      const { keyId: id, createdAt } = entry.key
      return {
        members: {
          KeyId: id,
          KeyLastUsage:
            usage === undefined
              ? {}
              : {
                  Operation: usage.operation,
                  Timestamp: epochSeconds(usage.at),
                  CloudTrailEventId: usage.eventId,
                  KmsRequestId: usage.requestId,
                },
          // Every use of every key is tracked, from its first day on.
          TrackingStartDate: epochSeconds(createdAt),
          KeyCreationDate: epochSeconds(createdAt),
        },
      }
    },
  })
}
