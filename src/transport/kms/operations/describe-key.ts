import { renderKeyMetadata } from '../metadata.ts'
import { structure } from '../schema.ts'
import { checkGrantTokens, defineKeyOperation, findKey, type KmsParts } from './key-operation.ts'
import { grantTokens, keyId } from './members.ts'

const input = structure({ KeyId: keyId.required(), GrantTokens: grantTokens })

export function describeKey({ keys }: KmsParts) {
  return defineKeyOperation({
    name: 'DescribeKey',
    readOnly: true,
    input,
    isCrossAccount: true,
    async find(request, scope) {
      const key = await findKey(keys, request.KeyId, 'key-or-alias', scope)
      checkGrantTokens(request.GrantTokens)
      return { key }
    },
    conditions: () => ({ namesAlias: true }),
    async perform(_request, { entry }) {
      return { members: { KeyMetadata: renderKeyMetadata(entry, keys) } }
    },
  })
}
