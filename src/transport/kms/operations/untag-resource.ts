import { list, string, structure } from '../schema.ts'
import { changeTimeoutMs, defineKeyOperation, findByBareKeyId, type KmsParts } from './key-operation.ts'
import { keyId } from './members.ts'
import { refuseReservedTagKey } from './tags.ts'

const input = structure({ KeyId: keyId.required(), TagKeys: list(string({ min: 1, max: 128 })).required() })

export function untagResource({ keys }: KmsParts) {
  return defineKeyOperation({
    name: 'UntagResource',
    readOnly: false,
    timeoutMs: changeTimeoutMs,
    input,
    check(request) {
      for (const key of request.TagKeys) refuseReservedTagKey(key)
    },
    isCrossAccount: false,
    find: findByBareKeyId(keys),
    conditions: (request) => ({ more: [['aws:tagkeys', request.TagKeys]] }),
    async perform(request, { entry }) {
      await keys.setTags(entry, {}, request.TagKeys)
      return { members: null }
    },
  })
}
