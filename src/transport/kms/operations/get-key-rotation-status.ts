import { epochSeconds } from '../metadata.ts'
import { structure } from '../schema.ts'
import { defineKeyOperation, findByBareKeyId, type KmsParts } from './key-operation.ts'
import { keyId } from './members.ts'

const input = structure({ KeyId: keyId.required() })

export function getKeyRotationStatus({ keys }: KmsParts) {
  return defineKeyOperation({
    name: 'GetKeyRotationStatus',
    readOnly: true,
    input,
    isCrossAccount: true,
    find: findByBareKeyId(keys),
    // Asymmetric and HMAC keys answer false: clients ask for keys of every kind.
    async perform(_request, { entry }) {
      const { schedule, startedAt } = keys.rotationStatus(entry)
      return {
        members: {
          KeyId: entry.key.keyId,
          KeyRotationEnabled: schedule !== undefined,
          ...(schedule === undefined
            ? {}
            : { RotationPeriodInDays: schedule.periodDays, NextRotationDate: epochSeconds(schedule.nextAt) }),
          ...(startedAt === undefined ? {} : { OnDemandRotationStartDate: epochSeconds(startedAt) }),
        },
      }
    },
  })
}
