import { GatewayError } from '../../../error.ts'
import { requestTags } from '../conditions.ts'
import { list, structure } from '../schema.ts'
import { changeTimeoutMs, defineKeyOperation, findByBareKeyId, type KmsParts } from './key-operation.ts'
import { keyId, tag } from './members.ts'
import { maxTags, parseTags } from './tags.ts'

const input = structure({ KeyId: keyId.required(), Tags: list(tag).required() })

export function tagResource({ keys }: KmsParts) {
  return defineKeyOperation({
    name: 'TagResource',
    readOnly: false,
    timeoutMs: changeTimeoutMs,
    input,
    check(request) {
      parseTags(request.Tags)
    },
    isCrossAccount: false,
    find: findByBareKeyId(keys),
    conditions: (request) => ({ more: requestTags(parseTags(request.Tags)) }),
    async perform(request, { entry }) {
      const tags = parseTags(request.Tags)
      const names = new Set([...Object.keys(entry.tags), ...Object.keys(tags)])
      if (names.size > maxTags) throw new GatewayError('TagInvalid', { text: 'Too many tags' })
      await keys.setTags(entry, tags, [])
      return { members: null }
    },
  })
}
