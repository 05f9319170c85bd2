/** EnableKeyRotation and DisableKeyRotation: one switch; enabling again starts the period anew. */
import { integer, structure } from '../schema.ts'
import { changeTimeoutMs, defineKeyOperation, findByBareKeyId, type KmsParts } from './key-operation.ts'
import { keyId } from './members.ts'

const enabling = structure({
  KeyId: keyId.required(),
  RotationPeriodInDays: integer({ min: 90, max: 2560 }).default(365),
})

const disabling = structure({ KeyId: keyId.required() })

export function enableKeyRotation({ keys }: KmsParts) {
  return defineKeyOperation({
    name: 'EnableKeyRotation',
    readOnly: false,
    timeoutMs: changeTimeoutMs,
    input: enabling,
    isCrossAccount: false,
    find: findByBareKeyId(keys),
    conditions: (request) => ({ more: [['kms:rotationperiodindays', String(request.RotationPeriodInDays)]] }),
    async perform(request, { entry }) {
      await keys.enableRotation(entry, request.RotationPeriodInDays)
      return { members: null }
    },
  })
}

export function disableKeyRotation({ keys }: KmsParts) {
  return defineKeyOperation({
    name: 'DisableKeyRotation',
    readOnly: false,
    timeoutMs: changeTimeoutMs,
    input: disabling,
    isCrossAccount: false,
    find: findByBareKeyId(keys),
    async perform(_request, { entry }) {
      await keys.disableRotation(entry)
      return { members: null }
    },
  })
}
