import { recordOutput } from '../metadata.ts'
import { structure } from '../schema.ts'
import { changeTimeoutMs, defineKeyOperation, findByBareKeyId, type KmsParts } from './key-operation.ts'
import { keyId } from './members.ts'

const input = structure({ KeyId: keyId.required() })

export function rotateKeyOnDemand({ keys }: KmsParts) {
  return defineKeyOperation({
    name: 'RotateKeyOnDemand',
    readOnly: false,
    timeoutMs: changeTimeoutMs,
    input,
    isCrossAccount: false,
    find: findByBareKeyId(keys),
    async perform(_request, { entry, arn }, scope) {
      await keys.rotateOnDemand(entry, scope.deadline)
      return { members: { KeyId: arn } }
    },
    respond: ({ members }) => (members === null ? null : recordOutput(members)),
  })
}
