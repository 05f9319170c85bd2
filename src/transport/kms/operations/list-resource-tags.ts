import { decodeMarker, pageEnd } from '../pagination.ts'
import { integer, structure } from '../schema.ts'
import { defineKeyOperation, findByBareKeyId, type KmsParts } from './key-operation.ts'
import { keyId, marker } from './members.ts'

const input = structure({
  KeyId: keyId.required(),
  Limit: integer({ min: 1, max: 50 }).default(50),
  Marker: marker,
})

export function listResourceTags({ keys }: KmsParts) {
  return defineKeyOperation({
    name: 'ListResourceTags',
    readOnly: true,
    input,
    isCrossAccount: false,
    find: findByBareKeyId(keys),
    async perform(request, { entry }) {
      const list = `ListResourceTags/${entry.key.keyId}`
      // Sorted, so that a page can go on after a tag that was removed meanwhile.
      const names = Object.keys(entry.tags).sort()
      const after = decodeMarker(list, request.Marker)
      const rest = after === undefined ? names : names.filter((name) => name > after)
      const page = rest.slice(0, request.Limit)
      return {
        members: {
          Tags: page.map((name) => ({ TagKey: name, TagValue: entry.tags[name] })),
          ...pageEnd(list, page.at(-1), rest.length > page.length),
        },
      }
    },
  })
}
