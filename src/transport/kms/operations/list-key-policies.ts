import { integer, structure } from '../schema.ts'
import { defineKeyOperation, findByBareKeyId, type KmsParts } from './key-operation.ts'
import { keyId, marker } from './members.ts'

const input = structure({ KeyId: keyId.required(), Limit: integer({ min: 1, max: 1000 }), Marker: marker })

/** There is one policy, hence one page; the API model gives this operation no InvalidMarkerException. */
export function listKeyPolicies({ keys }: KmsParts) {
  return defineKeyOperation({
    name: 'ListKeyPolicies',
    readOnly: true,
    input,
    isCrossAccount: false,
    find: findByBareKeyId(keys),
    async perform() {
      return { members: { PolicyNames: ['default'], Truncated: false } }
    },
  })
}
