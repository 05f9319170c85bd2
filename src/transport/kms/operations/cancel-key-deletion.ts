import { recordOutput } from '../metadata.ts'
import { structure } from '../schema.ts'
import { changeTimeoutMs, defineKeyOperation, findByBareKeyId, type KmsParts } from './key-operation.ts'
import { keyId } from './members.ts'

const input = structure({ KeyId: keyId.required() })

/** The key is Disabled afterwards, whatever it was before. */
export function cancelKeyDeletion({ keys }: KmsParts) {
  return defineKeyOperation({
    name: 'CancelKeyDeletion',
    readOnly: false,
    timeoutMs: changeTimeoutMs,
    input,
    isCrossAccount: false,
    find: findByBareKeyId(keys),
    async perform(_request, { entry, arn }) {
      await keys.cancelDeletion(entry)
      return { members: { KeyId: arn } }
    },
    respond: ({ members }) => (members === null ? null : recordOutput(members)),
  })
}
