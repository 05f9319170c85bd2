import { invalid } from '../kms-error.ts'
import { epochSeconds, recordOutput } from '../metadata.ts'
import { integer, structure } from '../schema.ts'
import { changeTimeoutMs, defineKeyOperation, findByBareKeyId, type KmsParts } from './key-operation.ts'
import { keyId } from './members.ts'

const input = structure({
  KeyId: keyId.required(),
  PendingWindowInDays: integer({ min: 1, max: 365 }).default(30),
})

export function scheduleKeyDeletion({ keys }: KmsParts) {
  return defineKeyOperation({
    name: 'ScheduleKeyDeletion',
    readOnly: false,
    timeoutMs: changeTimeoutMs,
    input,
    check({ PendingWindowInDays: days }) {
      // The service is stricter than its model.
      if (days < 7 || days > 30) throw invalid('PendingWindowInDays must be between 7 and 30 (inclusive).')
    },
    isCrossAccount: false,
    find: findByBareKeyId(keys),
    conditions: (request) => ({
      more: [['kms:schedulekeydeletionpendingwindowindays', String(request.PendingWindowInDays)]],
    }),
    async perform(request, { entry, arn }) {
      const { key } = await keys.scheduleDeletion(entry, request.PendingWindowInDays)
      return {
        members: {
          KeyId: arn,
          ...(key.deletionAt === null ? {} : { DeletionDate: epochSeconds(key.deletionAt) }),
          KeyState: key.state,
          PendingWindowInDays: request.PendingWindowInDays,
        },
      }
    },
    respond: ({ members }) => (members === null ? null : recordOutput(members)),
  })
}
