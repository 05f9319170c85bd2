import { renderKeyMetadata } from '../metadata.ts'
import { structure } from '../schema.ts'
import { defineKeyOperation, findByKeyId, type KmsParts } from './key-operation.ts'
import { grantTokens, keyId } from './members.ts'

const input = structure({ KeyId: keyId.required(), GrantTokens: grantTokens })

export function describeKey({ keys }: KmsParts) {
  return defineKeyOperation({
    name: 'DescribeKey',
    readOnly: true,
    input,
    isCrossAccount: true,
    find: findByKeyId(keys),
    conditions: () => ({ namesAlias: true }),
    async perform(_request, { entry }) {
      return { members: { KeyMetadata: renderKeyMetadata(entry, keys) } }
    },
  })
}
