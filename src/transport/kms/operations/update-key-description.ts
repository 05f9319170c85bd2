import { structure } from '../schema.ts'
import { changeTimeoutMs, defineKeyOperation, findByBareKeyId, type KmsParts } from './key-operation.ts'
import { description, keyId } from './members.ts'

const input = structure({ KeyId: keyId.required(), Description: description.required() })

export function updateKeyDescription({ keys }: KmsParts) {
  return defineKeyOperation({
    name: 'UpdateKeyDescription',
    readOnly: false,
    timeoutMs: changeTimeoutMs,
    input,
    isCrossAccount: false,
    find: findByBareKeyId(keys),
    async perform(request, { entry }) {
      await keys.setDescription(entry, request.Description)
      return { members: null }
    },
  })
}
