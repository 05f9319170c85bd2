import { algorithmList } from '../metadata.ts'
import { structure } from '../schema.ts'
import { defineKeyOperation, findByKeyId, type KmsParts } from './key-operation.ts'
import { grantTokens, keyId } from './members.ts'

const input = structure({ KeyId: keyId.required(), GrantTokens: grantTokens })

export function getPublicKey({ keys }: KmsParts) {
  return defineKeyOperation({
    name: 'GetPublicKey',
    readOnly: true,
    input,
    isCrossAccount: true,
    find: findByKeyId(keys),
    conditions: () => ({ namesAlias: true }),
    async perform(_request, { entry, arn }) {
      const { spec, usage } = entry.key
      return {
        members: {
          KeyId: arn,
          PublicKey: keys.publicKey(entry),
          CustomerMasterKeySpec: spec,
          KeySpec: spec,
          KeyUsage: usage,
          ...algorithmList(entry, keys),
        },
      }
    },
  })
}
